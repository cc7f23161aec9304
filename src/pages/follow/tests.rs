use super::*;
use crate::pages::digest;
use std::fs;
use std::io::Write;

fn sizes(folder: &Path) -> BTreeMap<String, u64> {
    let names = super::super::file::names(folder, is_pages).unwrap();
    names.into_iter().map(|name| (name.clone(), fs::metadata(folder.join(name)).unwrap().len())).collect()
}

/// Not a multiple of anything, with zero pages here and there.
fn content(size: usize) -> Vec<u8> {
    let page = |i: usize| if (i / PAGE).is_multiple_of(5) { 0 } else { ((i * 7) >> 5) as u8 | 1 };
    (0..size).map(page).collect()
}

#[test]
fn files_that_grow_have_their_digests_at_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let follower = Follower::<Summing>::start(folder.path(), ()).unwrap();
    let content = content(5 * STEP as usize + 1234);
    for name in ["pages-1.img", "pages-2.img", "core-1.img"] {
        let mut file = File::create(folder.path().join(name)).unwrap();
        content.chunks(100_000).for_each(|piece| file.write_all(piece).unwrap());
    }
    let found = follower.finish(&sizes(folder.path())).unwrap();
    assert_eq!(found.keys().collect::<Vec<_>>(), ["pages-1.img", "pages-2.img"]);
    for (name, followed) in found {
        assert_eq!(followed.digest, digest::of_file(&folder.path().join(name)).unwrap());
        assert_eq!(followed.size, content.len() as u64);
        assert_eq!(followed.zeros.len(), (content.len() / PAGE).div_ceil(5));
        assert_eq!(followed.zeros[1], 5 * PAGE as u64..6 * PAGE as u64);
    }
}

#[test]
fn what_was_there_before_is_read_as_well() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("pages-1.img"), content(70_000)).unwrap();
    fs::write(folder.path().join("pages-2.img"), "").unwrap();
    let follower = Follower::<Summing>::start(folder.path(), ()).unwrap();
    let found = follower.finish(&sizes(folder.path())).unwrap();
    assert_eq!(found["pages-1.img"].digest, digest::of_file(&folder.path().join("pages-1.img")).unwrap());
    assert_eq!(found["pages-2.img"].size, 0);
}

#[test]
fn a_file_of_another_size_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pages-1.img");
    fs::write(&path, content(70_000)).unwrap();
    for wrong in [69_999, 70_001] {
        let follower = Follower::<Summing>::start(folder.path(), ()).unwrap();
        let error = follower.finish(&BTreeMap::from([("pages-1.img".to_owned(), wrong)])).unwrap_err();
        assert!(matches!(error, Error::Changed { .. }), "{error}");
    }
    let missing = BTreeMap::from([("pages-2.img".to_owned(), 1)]);
    assert!(Follower::<Summing>::start(folder.path(), ()).unwrap().finish(&missing).is_err());
}

#[test]
fn a_file_that_shrank_or_was_replaced_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pages-1.img");
    let stop = eventfd(0, EventfdFlags::CLOEXEC).unwrap();
    let begin = || {
        fs::write(&path, content(3 * STEP as usize)).unwrap();
        let mut growing = Growing::<Summing>::begin(&(), &path);
        growing.catch_up(&path, false, &mut Vec::new(), &stop).unwrap();
        assert_eq!(growing.read, 3 * STEP);
        growing
    };
    let mut growing = begin();
    fs::write(&path, content(100)).unwrap();
    assert!(growing.catch_up(&path, true, &mut Vec::new(), &stop).is_err());
    fs::write(&path, content(4 * STEP as usize)).unwrap();
    assert!(matches!(growing.finish(&path, 4 * STEP), Err(Error::Changed { .. })));
    let growing = begin();
    fs::write(folder.path().join("other"), content(3 * STEP as usize)).unwrap();
    fs::rename(folder.path().join("other"), &path).unwrap();
    assert!(matches!(growing.finish(&path, 3 * STEP), Err(Error::Changed { .. })));
}

#[test]
fn a_follower_that_is_dropped_ends() {
    let folder = tempfile::tempdir().unwrap();
    drop(Follower::<Summing>::start(folder.path(), ()).unwrap());
    assert!(
        Follower::<Summing>::start(&folder.path().join("nowhere"), ())
            .unwrap()
            .finish(&BTreeMap::new())
            .is_ok()
    );
}
