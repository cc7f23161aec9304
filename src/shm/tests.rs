//! From one folder into another, by way of an image.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::fs::{FileType, Mode, mknodat};
use tempfile::{TempDir, tempdir};

use super::Limits;
use super::load::{self, Placed};
use super::save;
use super::tree::encoded;
use crate::runtime::Abort;

fn limits() -> Limits {
    Limits { until: Instant::now() + Duration::from_secs(60), abort: Abort::default() }
}

fn load(folder: &OwnedFd, image: &Path) -> io::Result<Placed> {
    load::tree(folder.try_clone()?, image, "shm", &limits())
}

fn opened(folder: &TempDir) -> OwnedFd {
    OwnedFd::from(File::open(folder.path()).unwrap())
}

fn saved(folder: &TempDir) -> TempDir {
    let image = tempdir().unwrap();
    assert!(save::tree(opened(folder), image.path(), "shm", &limits()).unwrap());
    image
}

#[test]
fn a_tree_comes_back_as_it_was() {
    let (old, new) = (tempdir().unwrap(), tempdir().unwrap());
    let at = |name: &str| old.path().join(name);
    fs::create_dir_all(at("deep/er")).unwrap();
    let odd = OsString::from_vec(b"deep/b\xffd %41".to_vec());
    fs::write(old.path().join(&odd), "odd").unwrap();
    let sparse = File::create(at("deep/sparse")).unwrap();
    sparse.set_len(1 << 20).unwrap();
    sparse.write_all_at(b"far", 500_000).unwrap();
    fs::hard_link(at("deep/sparse"), at("second")).unwrap();
    fs::set_permissions(at("deep"), fs::Permissions::from_mode(0o1770)).unwrap();
    symlink("/etc/passwd", at("link")).unwrap();
    mknodat(opened(&old), "pipe", FileType::Fifo, Mode::RUSR, 0).unwrap();

    load(&opened(&new), saved(&old).path()).unwrap();
    let at = |name: &str| new.path().join(name);
    assert_eq!(fs::read(new.path().join(&odd)).unwrap(), b"odd");
    let sparse = fs::metadata(at("deep/sparse")).unwrap();
    assert_eq!((sparse.len(), sparse.nlink()), (1 << 20, 2));
    assert!(sparse.blocks() * 512 < 1 << 19, "{} blocks", sparse.blocks());
    assert_eq!(&fs::read(at("second")).unwrap()[500_000..500_004], b"far\0");
    assert_eq!(fs::metadata(at("deep")).unwrap().mode() & 0o7777, 0o1770);
    assert_eq!(fs::read_link(at("link")).unwrap(), Path::new("/etc/passwd"));
    assert_eq!(FileType::from_raw_mode(fs::metadata(at("pipe")).unwrap().mode()), FileType::Fifo);
    assert!(at("deep/er").is_dir());
    assert_eq!(sparse.mtime_nsec(), fs::metadata(old.path().join("second")).unwrap().mtime_nsec());
}

#[test]
fn an_empty_folder_leaves_nothing() {
    let (empty, image) = (tempdir().unwrap(), tempdir().unwrap());
    assert!(!save::tree(opened(&empty), image.path(), "shm", &limits()).unwrap());
    assert_eq!(fs::read_dir(image.path()).unwrap().count(), 0);
}

#[test]
fn what_is_there_stays_and_what_fails_leaves_nothing() {
    let (old, new) = (tempdir().unwrap(), tempdir().unwrap());
    fs::create_dir(old.path().join("a")).unwrap();
    fs::write(old.path().join("a/file"), "ours").unwrap();
    fs::write(old.path().join("b"), "ours").unwrap();
    let image = saved(&old);
    fs::create_dir(new.path().join("a")).unwrap();
    fs::write(new.path().join("a/file"), "theirs").unwrap();
    load(&opened(&new), image.path()).unwrap();
    assert_eq!(fs::read(new.path().join("a/file")).unwrap(), b"theirs");
    assert_eq!(fs::read(new.path().join("b")).unwrap(), b"ours");

    let other = tempdir().unwrap();
    let list = fs::read_to_string(image.path().join("shm.json")).unwrap();
    let broken = list.replace("\"path\":\"b\"", "\"path\":\"none%2Fb\"");
    fs::write(image.path().join("shm.json"), broken).unwrap();
    assert!(load(&opened(&other), image.path()).is_err());
    assert_eq!(fs::read_dir(other.path()).unwrap().count(), 0);
}

#[test]
fn nothing_is_made_outside() {
    let (folder, outside, image) = (tempdir().unwrap(), tempdir().unwrap(), tempdir().unwrap());
    symlink(outside.path(), folder.path().join("out")).unwrap();
    let absolute = outside.path().join("file");
    for path in ["out/file", "../file", "..", absolute.to_str().unwrap(), ""] {
        let path = encoded(path.as_bytes());
        let list = format!(
            r#"{{"path":"{path}","mode":420,"uid":0,"gid":0,"modified":[0,0],"kind":"file","size":1,"pieces":[]}}"#
        );
        fs::write(image.path().join("shm.json"), list).unwrap();
        // What lies elsewhere is refused, or left out.
        let placed = load(&opened(&folder), image.path());
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0, "{path}");
        placed.into_iter().for_each(Placed::remove);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "{path}");
    }
}

#[test]
fn what_was_put_back_goes_again_and_nothing_else() {
    let (old, new) = (tempdir().unwrap(), tempdir().unwrap());
    fs::create_dir(old.path().join("a")).unwrap();
    fs::write(old.path().join("a/file"), "ours").unwrap();
    fs::write(old.path().join("b"), "ours").unwrap();
    let image = saved(&old);
    let placed = load(&opened(&new), image.path()).unwrap();
    // Whoever shares it has replaced one meanwhile, while the first still has its number.
    let _first = File::open(new.path().join("b")).unwrap();
    fs::write(new.path().join("c"), "theirs").unwrap();
    fs::rename(new.path().join("c"), new.path().join("b")).unwrap();
    placed.remove();
    assert!(!new.path().join("a").exists());
    assert_eq!(fs::read(new.path().join("b")).unwrap(), b"theirs");
}

#[test]
fn a_copy_ends_when_its_time_is_over_or_nobody_wants_it() {
    let (folder, image) = (tempdir().unwrap(), tempdir().unwrap());
    fs::write(folder.path().join("file"), "text").unwrap();
    let over = Limits { until: Instant::now() - Duration::from_secs(1), ..limits() };
    let unwanted = limits();
    unwanted.abort.abort();
    for limits in [over, unwanted] {
        let error = save::tree(opened(&folder), image.path(), "shm", &limits).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }
}

#[test]
fn depth_is_no_danger_and_what_is_too_deep_stays_behind() {
    let _undisturbed = crate::reaper::undisturbed();
    let folder = tempdir().unwrap();
    let mut here = opened(&folder);
    for _ in 0..3000 {
        rustix::fs::mkdirat(&here, "d", Mode::RWXU).unwrap();
        let flags = rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::CLOEXEC;
        here = rustix::fs::openat(&here, "d", flags, Mode::empty()).unwrap();
    }
    let (image, new) = (saved(&folder), tempdir().unwrap());
    load(&opened(&new), image.path()).unwrap();
    assert!(new.path().join("d/d/d/d").is_dir());
    for folder in [folder, new] {
        // What the folders' own end would do opens all of them at once.
        let removed = Command::new("rm").arg("-rf").arg(folder.path()).status().unwrap();
        assert!(removed.success());
    }
}

#[test]
fn devices_are_never_opened() {
    let (folder, image) = (tempdir().unwrap(), tempdir().unwrap());
    let device = rustix::fs::makedev(1, 5);
    // Only root may make one.
    if mknodat(opened(&folder), "zero", FileType::CharacterDevice, Mode::RUSR, device).is_ok() {
        assert!(!save::tree(opened(&folder), image.path(), "shm", &limits()).unwrap());
    }
}
