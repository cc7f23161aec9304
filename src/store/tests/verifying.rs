//! Every damage is found, and named by its file.

use std::collections::BTreeMap;
use std::os::unix::fs::symlink;

use super::*;

fn verified(place: &Place, damage: impl FnOnce(&Path)) -> Vec<(String, Checked)> {
    let entry = place.entry(None);
    damage(&entry.folder);
    let report = entry.hold().unwrap().verify(|_, _| {}).unwrap();
    let damaged = !report.files.iter().all(|(_, checked)| *checked == Checked::Good);
    assert_eq!(report.is_good(), !damaged);
    report.files.into_iter().filter(|(_, checked)| *checked != Checked::Good).collect()
}

fn pages(checked: Checked) -> Vec<(String, Checked)> {
    vec![("pages-1.img".to_owned(), checked)]
}

#[test]
fn a_whole_entry_is_good_and_all_of_it_is_read() {
    let place = Place::new();
    let held = place.entry(None).hold().unwrap();
    let mut read = BTreeMap::<String, u64>::new();
    let report = held.verify(|name, bytes| *read.entry(name.to_owned()).or_default() += bytes).unwrap();
    assert!(report.is_good() && report.files.len() == 2);
    let sizes = held.record.files.iter().map(|(name, content)| (name.clone(), content.size));
    assert_eq!(read, sizes.collect());
}

#[test]
fn a_flipped_bit_is_found_wherever_it_is() {
    let place = Place::new();
    for at in [0, 4096, 131_071, 131_072, 299_999] {
        let found = verified(&place, |folder| {
            let mut bytes = fs::read(folder.join("pages-1.img")).unwrap();
            bytes[at] ^= 1;
            fs::write(folder.join("pages-1.img"), bytes).unwrap();
        });
        assert_eq!(found, pages(Checked::Changed), "byte {at}");
    }
}

#[test]
fn files_that_are_short_missing_or_too_many_are_found() {
    let place = Place::new();
    let short = verified(&place, |folder| {
        fs::File::options().write(true).open(folder.join("pages-1.img")).unwrap().set_len(7).unwrap();
    });
    assert_eq!(short, pages(Checked::Size { is: 7, was: 300_000 }));
    let missing = verified(&place, |folder| fs::remove_file(folder.join("pages-1.img")).unwrap());
    assert_eq!(missing, pages(Checked::Missing));
    let extra = verified(&place, |folder| fs::write(folder.join("core-9.img"), "").unwrap());
    assert_eq!(extra, [("core-9.img".to_owned(), Checked::Extra)]);
}

#[test]
fn nothing_but_plain_files_is_opened() {
    let place = Place::new();
    let replaced = |make: &dyn Fn(&Path)| {
        verified(&place, |folder| {
            let path = folder.join("pages-1.img");
            fs::rename(&path, place.folder.path().join("same")).unwrap();
            make(&path);
        })
    };
    let linked = replaced(&|path| symlink(place.folder.path().join("same"), path).unwrap());
    assert_eq!(linked, pages(Checked::NoPlainFile));
    let folder = replaced(&|path| fs::create_dir(path).unwrap());
    assert_eq!(folder, pages(Checked::NoPlainFile));
    let pipe = replaced(&|path| {
        nix::unistd::mkfifo(path, nix::sys::stat::Mode::S_IRUSR).unwrap();
    });
    assert_eq!(pipe, pages(Checked::NoPlainFile));
}

#[test]
fn digests_of_others_are_checked_by_their_kind() {
    let place = Place::new();
    let checked = |digest: String| {
        let digests = [("pages-1.img".to_owned(), digest)].into();
        let entry = place.described(None, Description { digests, ..Description::default() });
        let report = entry.hold().unwrap().verify(|_, _| {}).unwrap();
        report.files.into_iter().find(|(name, _)| name == "pages-1.img").unwrap().1
    };
    assert_eq!(checked(crate::checkpoint::manifest::digest(&vec![7; 300_000])), Checked::Good);
    assert_eq!(checked(crate::checkpoint::manifest::digest(b"")), Checked::Changed);
    assert_eq!(checked("blake4:0".to_owned()), Checked::UnknownDigest);
}
