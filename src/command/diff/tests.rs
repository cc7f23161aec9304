use super::*;
use crate::contents::tests::Sample;
use crate::contents::{Contents, PAGE};

fn between(old: &Sample, new: &Sample) -> Difference {
    let folders = [old, new].map(|sample| {
        let folder = tempfile::tempdir().unwrap();
        sample.write(folder.path());
        folder
    });
    let [old, new] =
        folders.each_ref().map(|folder| (folder.path(), (None, Contents::read(folder.path()).unwrap())));
    difference(old, new).unwrap()
}

#[test]
fn two_that_are_the_same_have_no_difference() {
    let found = between(&Sample::default(), &Sample::default());
    assert!(found.same, "{found:?}");
    assert_eq!(words::text(&found, false), "Both are the same.\n");
}

#[test]
fn memory_is_compared_by_its_content() {
    let new = Sample { pages: vec![1, 9, 3, 4], ..Sample::default() };
    let found = between(&Sample::default(), &new).memory;
    assert_eq!((found.total.changed, found.total.new, found.total.gone), (PAGE, PAGE, 0));
    assert_eq!(found.processes[0].mappings[0].place, "10000-20000");
    let found = between(&new, &Sample { pages: Vec::new(), ..Sample::default() }).memory;
    assert_eq!((found.total.changed, found.total.new, found.total.gone), (0, 0, 4 * PAGE));
}

#[test]
fn memory_that_is_open_and_not_mapped_is_compared_too() {
    let found = between(&Sample::default(), &Sample { buffer: 8, ..Sample::default() }).memory;
    assert_eq!((found.total.changed, found.total.new, found.total.gone), (PAGE, 0, 0));
    let mapping = &found.processes[0].mappings[0];
    assert_eq!((mapping.place.as_str(), mapping.what.as_str()), ("fd 9", "memfd:buffer"));
}

#[test]
fn what_cant_be_compared_is_counted() {
    let folders = [0, 1].map(|_| tempfile::tempdir().unwrap());
    folders.iter().for_each(|folder| Sample::default().write(folder.path()));
    std::fs::remove_file(folders[0].path().join("pages-1.img")).unwrap();
    let [old, new] = folders.each_ref().map(|folder| folder.path());
    let found = compare(old, new).unwrap();
    assert_eq!((found.memory.total.unknown, found.same), (4 * PAGE, false));
    assert!(words::text(&found, false).contains("16 KiB can't be compared"));
}

#[test]
fn what_is_gone_new_and_changed_is_told_apart() {
    let descriptors = vec![(0, 1), (4, 2), (5, 3), (6, 4), (8, 5), (9, 6)];
    let mounts = vec!["/", "/sys"];
    let new = Sample { position: 20, port: 81, descriptors, mounts, ..Sample::default() };
    let found = between(&Sample::default(), &new);
    assert_eq!(found.files.gone, ["pid 1 fd 3: /var/log/x", "pid 1 fd 7: [eventfd]"]);
    assert_eq!(found.files.new, ["pid 1 fd 8: [eventfd]"]);
    let position = &found.files.changed[0].changes[0];
    assert_eq!(
        (position.what.as_str(), position.before.as_u64(), position.after.as_u64()),
        ("position", Some(10), Some(20))
    );
    assert_eq!(found.sockets.gone, ["pid:fd 1:4: [tcp 127.0.0.1:80] listen"]);
    assert_eq!(found.sockets.new, ["pid:fd 1:4: [tcp 127.0.0.1:81] listen"]);
    assert_eq!(
        (&*found.mounts.gone, &*found.mounts.new),
        (&["/proc (proc)".to_owned()][..], &["/sys (proc)".to_owned()][..])
    );
    assert!(!found.same);
}

#[test]
fn values_of_the_environment_are_secret() {
    let environment = "TOKEN=hunter2\0LANG=C\0MORE=hunter3\0".to_owned();
    let found = between(&Sample::default(), &Sample { environment, state: 3, ..Sample::default() });
    let text = words::text(&found, false);
    assert!(
        text.contains("environment.TOKEN  … → …") && text.contains("environment.MORE   none → …"),
        "{text}"
    );
    assert!(text.contains("running → stopped"), "{text}");
    assert!(!text.contains("hunter") && !in_json(&found).contains("hunter"), "{text}");
}

#[test]
fn one_that_cant_be_read_is_trouble() {
    let folder = tempfile::tempdir().unwrap();
    Sample::default().write(folder.path());
    let error = compare(folder.path(), &folder.path().join("none")).unwrap_err();
    assert!(error.contains("none"), "{error}");
}
