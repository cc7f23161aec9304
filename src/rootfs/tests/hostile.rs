//! Layers that nobody should trust.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt, symlink};
use std::path::PathBuf;

use tar::{Builder, EntryType, Header};
use tempfile::{TempDir, tempdir};

use super::put_back;
use crate::rootfs::apply::{Problem, apply};

fn refused(archive: &[u8], root: &TempDir) -> String {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), archive).unwrap();
    put_back(file.path(), root).unwrap_err().to_string()
}

fn header(name: &[u8], kind: EntryType, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.as_old_mut().name[..name.len()].copy_from_slice(name);
    header.set_entry_type(kind);
    header.set_mode(0o644);
    header.set_uid(rustix::process::geteuid().as_raw().into());
    header.set_gid(rustix::process::getegid().as_raw().into());
    header.set_mtime(1);
    header.set_size(size);
    header.set_cksum();
    header
}

struct Forged(Builder<Vec<u8>>);

impl Forged {
    fn new() -> Forged {
        Forged(Builder::new(Vec::new()))
    }

    fn file(mut self, name: &str, content: &[u8]) -> Forged {
        self.0.append(&header(name.as_bytes(), EntryType::Regular, content.len() as u64), content).unwrap();
        self
    }

    fn folder(mut self, name: &str) -> Forged {
        self.0.append(&header(name.as_bytes(), EntryType::Directory, 0), std::io::empty()).unwrap();
        self
    }

    fn link(mut self, kind: EntryType, name: &str, to: &str) -> Forged {
        let mut header = header(name.as_bytes(), kind, 0);
        header.set_link_name_literal(to).unwrap();
        header.set_cksum();
        self.0.append(&header, std::io::empty()).unwrap();
        self
    }

    fn pax(mut self, records: &[(&str, &[u8])]) -> Forged {
        self.0.append_pax_extensions(records.iter().copied()).unwrap();
        self
    }

    fn archive(self) -> Vec<u8> {
        self.0.into_inner().unwrap()
    }
}

/// A root in a folder that must stay as it is.
fn walled() -> (TempDir, PathBuf) {
    let outside = tempdir().unwrap();
    fs::write(outside.path().join("precious"), "precious").unwrap();
    let root = outside.path().join("root");
    fs::create_dir(&root).unwrap();
    symlink(outside.path(), root.join("out")).unwrap();
    symlink("..", root.join("up")).unwrap();
    symlink("/", root.join("top")).unwrap();
    (outside, root)
}

#[test]
fn nothing_is_written_or_removed_outside() {
    let (hard, soft) = (EntryType::Link, EntryType::Symlink);
    let new = Forged::new;
    let precious = "out/precious";
    for (what, forged) in [
        ("dots", new().file("../precious", b"x")),
        ("dots within", new().file("a/../../precious", b"x")),
        ("absolute", new().file("/tmp/x", b"x")),
        ("through a link of the image's", new().file(precious, b"x")),
        ("through a link upwards", new().file("up/precious", b"x")),
        ("through a link of its own", new().link(soft, "l", "..").file("l/precious", b"x")),
        ("a link that becomes a folder later", new().link(soft, "l", "..").link(soft, "l/x", "y")),
        ("a folder made outside", new().folder("out/made")),
        ("a hard link to outside", new().link(hard, "h", "../precious").file("h", b"x")),
        ("a hard link from the top", new().link(hard, "h", "/etc/passwd")),
        ("a hard link through a link", new().link(hard, "h", precious)),
        ("gone outside", new().file("out/.wh.precious", b"")),
        ("gone above", new().file("../.wh.precious", b"")),
        ("gone above all", new().file(".wh...", b"")),
        ("emptied outside", new().file("out/.wh..wh..opq", b"")),
        ("emptied above", new().file("../.wh..wh..opq", b"")),
    ] {
        let (outside, root) = walled();
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), forged.archive()).unwrap();
        let done = apply(&File::open(file.path()).unwrap(), File::open(&root).unwrap().into(), true);
        assert_eq!(fs::read(outside.path().join("precious")).unwrap(), b"precious", "{what}");
        let mut names: Vec<_> =
            fs::read_dir(outside.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["precious", "root"], "{what}");
        assert_eq!(fs::metadata(outside.path().join("precious")).unwrap().nlink(), 1, "{what}");
        // To be gone where nothing can be is fine; all else is an error.
        assert!(done.is_err() || what.starts_with("gone outside") || what == "emptied outside", "{what}");
    }
}

#[test]
fn a_link_in_the_way_is_replaced_and_not_followed() {
    let (outside, root) = walled();
    let archive = Forged::new().file("out", b"plain").folder("up").file("up/new", b"x").archive();
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), archive).unwrap();
    apply(&File::open(file.path()).unwrap(), File::open(&root).unwrap().into(), false).unwrap();
    assert!(root.join("out").is_file() && root.join("up/new").is_file());
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 2);
}

#[test]
fn what_is_no_file_of_a_container_is_refused_before_anything_changes() {
    let device = |kind, major: u32| {
        let mut header = header(b"sda", kind, 0);
        header.set_device_major(major).unwrap();
        header.set_device_minor(0).unwrap();
        header.set_cksum();
        let mut builder = Builder::new(Vec::new());
        builder.append(&header, std::io::empty()).unwrap();
        builder.into_inner().unwrap()
    };
    let overlays = [("SCHILY.xattr.trusted.overlay.redirect", &b"/etc"[..])];
    let new = || Forged::new().file("first", b"x");
    let sized = |kind| {
        let mut archive = Forged::new().file("first", b"x").0;
        archive.append(&header(b"bad", kind, 512), &[b'x'; 512][..]).unwrap();
        archive.into_inner().unwrap()
    };
    for (archive, word) in [
        (device(EntryType::Block, 8), "'sda' in it is a device, and the container may make none"),
        (device(EntryType::Char, 1), "is a device"),
        (device(EntryType::Char, 0), "is no device"),
        (new().pax(&overlays).file("f", b"x").archive(), "belongs to overlays"),
        (new().file(".wh.", b"").archive(), "nothing that could be gone"),
        (new().file(".wh.a", b"content").archive(), "has content"),
        (new().link(EntryType::Link, "h", "").archive(), "is a link to nothing"),
        (new().pax(&[("GNU.sparse.major", b"9")]).file("s", b"x").archive(), "sparse"),
        (sized(EntryType::Directory), "has content"),
        (sized(EntryType::GNUSparse), "is no file of a kind"),
        (new().pax(&[("uid", b"99999999999")]).file("f", b"x").archive(), "has an owner that is none"),
        (new().pax(&[("mtime", b"soon")]).file("f", b"x").archive(), "has a time that is none"),
        (b"no archive at all".repeat(100), "damaged"),
        (new().archive()[..700].to_vec(), "cut short"),
        (Vec::new(), "cut short"),
    ] {
        let root = tempdir().unwrap();
        let error = refused(&archive, &root);
        assert!(error.contains(word) && error.len() <= 130, "{word}: {error}");
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0, "{word}");
    }
}

#[test]
fn a_root_is_a_folder_and_stays_one() {
    for archive in [Forged::new().file("./", b""), Forged::new().link(EntryType::Symlink, ".", "/tmp")] {
        let root = tempdir().unwrap();
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), archive.archive()).unwrap();
        let _ = put_back(file.path(), &root);
        assert!(root.path().symlink_metadata().unwrap().is_dir());
    }
}

#[test]
fn a_file_of_ten_terabytes_takes_what_its_data_takes() {
    let size = (10u64 << 40).to_string();
    let map = [&b"1\n0\n3\n"[..], &[0; 506], b"abc"].concat();
    let records = [
        ("GNU.sparse.major", &b"1"[..]),
        ("GNU.sparse.minor", b"0"),
        ("GNU.sparse.name", b"huge"),
        ("GNU.sparse.realsize", size.as_bytes()),
    ];
    let archive = Forged::new().pax(&records).file("GNUSparseFile.0/huge", &map).archive();
    let root = tempdir().unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), archive).unwrap();
    put_back(file.path(), &root).unwrap();
    let huge = fs::metadata(root.path().join("huge")).unwrap();
    assert!((huge.len(), true) == (10 << 40, huge.blocks() < 100), "{} blocks", huge.blocks());
}

#[test]
fn more_than_there_is_room_for_is_refused_before_anything_changes() {
    let mut huge = header(b"huge", EntryType::Regular, 0);
    huge.set_size(1 << 60);
    huge.set_cksum();
    let archive =
        [Forged::new().file("first", b"x").archive()[..1024].to_vec(), huge.as_bytes().to_vec()].concat();
    let root = tempdir().unwrap();
    assert!(refused(&archive, &root).contains("are needed at least"));
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), &archive).unwrap();
    file.as_file().set_len((1 << 42) + 2048).unwrap();
    let mut big = header(b"huge", EntryType::Regular, 0);
    big.set_size(1 << 42);
    big.set_cksum();
    file.as_file().write_all_at(big.as_bytes(), 1024).unwrap();
    let error = put_back(file.path(), &root).unwrap_err();
    assert!(matches!(error, Problem::Full { needed: 4_194_305, .. }), "{error}");
    assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0);
}
