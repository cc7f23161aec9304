//! Layers, there and back, and what others read of them.

mod hostile;

use std::ffi::CString;
use std::fs::{self, File, Permissions};
use std::io::Write;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use rustix::fs::{CWD, FileType, Mode, XattrFlags, getxattr, makedev, mknodat, setxattr};
use tempfile::{TempDir, tempdir};

use super::apply::{Problem, apply};
use super::{FILE, Layer, Overlay, bytes, save};

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn whiteout(path: &Path) {
    mknodat(CWD, path, FileType::CharacterDevice, Mode::empty(), 0).unwrap();
}

fn overlay(upper: &TempDir) -> Overlay {
    Overlay::at(upper.path(), true).unwrap()
}

fn saved(upper: &TempDir) -> (TempDir, Layer) {
    let image = tempdir().unwrap();
    let layer = save(&overlay(upper), image.path()).unwrap();
    (image, layer)
}

fn put_back(layer: &Path, root: &TempDir) -> Result<(), Problem> {
    apply(&File::open(layer).unwrap(), File::open(root.path()).unwrap().into(), false)
}

fn attribute(path: &Path, name: &str) -> Vec<u8> {
    let mut value = vec![0; 1000];
    let length = getxattr(path, name, &mut value).unwrap();
    value.truncate(length);
    value
}

#[test]
fn changes_come_back_as_they_were() {
    let (upper, root) = (tempdir().unwrap(), tempdir().unwrap());
    let at = |name: &str| upper.path().join(name);
    fs::create_dir_all(at("deep/er")).unwrap();
    let long = "x".repeat(200);
    fs::write(at("deep").join(&long), "long").unwrap();
    let sparse = File::create(at("deep/sparse")).unwrap();
    sparse.set_len(1 << 30).unwrap();
    sparse.write_all_at(b"far", 500 << 20).unwrap();
    fs::hard_link(at("deep/sparse"), at("second")).unwrap();
    fs::write(at("secret"), "s").unwrap();
    fs::set_permissions(at("secret"), Permissions::from_mode(0o4750)).unwrap();
    let value = b"a\n=\0b";
    setxattr(at("secret"), "user.note", value, XattrFlags::empty()).unwrap();
    symlink(&long, at("link")).unwrap();
    mknodat(CWD, at("pipe"), FileType::Fifo, Mode::RUSR, 0).unwrap();
    let old = SystemTime::UNIX_EPOCH - Duration::from_millis(1500);
    File::open(at("secret")).unwrap().set_modified(old).unwrap();
    fs::set_permissions(at("deep/er"), Permissions::from_mode(0o1777)).unwrap();
    File::open(at("deep/er")).unwrap().set_modified(old).unwrap();
    File::open(at("deep")).unwrap().set_modified(old).unwrap();

    let (image, layer) = saved(&upper);
    assert_eq!((layer.files, layer.left_out.len()), (6, 0));
    let file = image.path().join(FILE);
    assert_eq!(layer.bytes, fs::metadata(&file).unwrap().len());
    assert!(layer.bytes < 1 << 20, "holes take no room");
    assert_eq!(layer.digest, crate::pages::digest::of_file(&file).unwrap());
    put_back(&file, &root).unwrap();
    let at = |name: &str| root.path().join(name);
    assert_eq!(fs::read(at("deep").join(&long)).unwrap(), b"long");
    let sparse = fs::metadata(at("second")).unwrap();
    assert!((sparse.len(), sparse.nlink()) == (1 << 30, 2) && sparse.blocks() < 1000);
    let mut word = [0; 4];
    File::open(at("deep/sparse")).unwrap().read_exact_at(&mut word, 500 << 20).unwrap();
    assert_eq!(&word, b"far\0");
    let secret = fs::metadata(at("secret")).unwrap();
    assert_eq!((secret.mode() & 0o7777, secret.modified().unwrap()), (0o4750, old));
    assert_eq!(attribute(&at("secret"), "user.note"), value);
    assert_eq!(fs::read_link(at("link")).unwrap(), Path::new(&long));
    assert!(fs::metadata(at("pipe")).unwrap().file_type().is_fifo());
    let folder = fs::metadata(at("deep/er")).unwrap();
    assert_eq!((folder.mode() & 0o7777, folder.modified().unwrap()), (0o1777, old));
    assert_eq!(fs::metadata(at("deep")).unwrap().modified().unwrap(), old, "what is in it came later");
}

#[test]
fn what_was_removed_or_replaced_is_gone() {
    let (upper, root) = (tempdir().unwrap(), tempdir().unwrap());
    let at = |name: &str| root.path().join(name);
    for folder in ["whole/a/b", "replaced/old", "becomes-file/x"] {
        fs::create_dir_all(at(folder)).unwrap();
        fs::write(at(folder).join("f"), "old").unwrap();
    }
    fs::write(at("becomes-folder"), "old").unwrap();
    fs::write(at("removed"), "old").unwrap();
    fs::write(at("stays"), "old").unwrap();
    symlink("stays", at("becomes-plain")).unwrap();
    let at = |name: &str| upper.path().join(name);
    whiteout(&at("whole"));
    whiteout(&at("removed"));
    whiteout(&at("never-was"));
    fs::create_dir(at("replaced")).unwrap();
    fs::write(at("replaced/new"), "new").unwrap();
    setxattr(at("replaced"), "user.overlay.opaque", b"y", XattrFlags::empty()).unwrap();
    fs::write(at("becomes-file"), "new").unwrap();
    fs::write(at("becomes-plain"), "new").unwrap();
    fs::create_dir(at("becomes-folder")).unwrap();

    let (image, layer) = saved(&upper);
    assert_eq!(layer.files, 6);
    put_back(&image.path().join(FILE), &root).unwrap();
    let mut names: Vec<_> =
        fs::read_dir(root.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["becomes-file", "becomes-folder", "becomes-plain", "replaced", "stays"]);
    let at = |name: &str| root.path().join(name);
    let left: Vec<_> =
        fs::read_dir(at("replaced")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["new"]);
    assert_eq!(fs::read(at("becomes-plain")).unwrap(), b"new");
    assert_eq!(fs::read(at("stays")).unwrap(), b"old", "nothing was written through the link");
    assert!(at("becomes-folder").is_dir() && at("becomes-file").is_file());
    // Once more: nothing of it is in the way.
    put_back(&image.path().join(FILE), &root).unwrap();
}

#[test]
fn what_layers_cant_say_is_named() {
    let upper = tempdir().unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(upper.path().join("socket")).unwrap();
    fs::write(upper.path().join(".wh.odd"), "").unwrap();
    let (_image, layer) = saved(&upper);
    assert_eq!((layer.files, layer.left_out.len()), (0, 2));
    assert!(layer.left_out.iter().any(|left| left.starts_with("socket: layers have no sockets")));
}

#[test]
fn what_an_overlay_keeps_elsewhere_is_refused_by_name() {
    for name in ["user.overlay.metacopy", "user.overlay.redirect"] {
        let upper = tempdir().unwrap();
        fs::create_dir(upper.path().join("moved")).unwrap();
        setxattr(upper.path().join("moved"), name, b"x", XattrFlags::empty()).unwrap();
        let error = save(&overlay(&upper), upper.path()).unwrap_err().to_string();
        assert!(error.starts_with("/moved: ") && error.contains(name), "{error}");
    }
}

#[test]
fn the_room_that_changes_take_is_measured_within_bounds() {
    let upper = tempdir().unwrap();
    fs::create_dir(upper.path().join("a")).unwrap();
    fs::write(upper.path().join("a/file"), vec![1; 100_000]).unwrap();
    fs::hard_link(upper.path().join("a/file"), upper.path().join("second")).unwrap();
    let later = Instant::now() + Duration::from_secs(60);
    assert!((100_000..200_000).contains(&bytes(&overlay(&upper), later)));
    assert_eq!(bytes(&overlay(&upper), Instant::now() - Duration::from_secs(1)), 0);
}

#[test]
fn depth_is_no_danger() {
    let _undisturbed = crate::reaper::undisturbed();
    let (upper, root) = (tempdir().unwrap(), tempdir().unwrap());
    let deep = vec!["d"; 700].join("/");
    fs::create_dir_all(upper.path().join(&deep)).unwrap();
    fs::create_dir_all(root.path().join("gone").join(&deep)).unwrap();
    whiteout(&upper.path().join("gone"));
    let (image, _) = saved(&upper);
    put_back(&image.path().join(FILE), &root).unwrap();
    assert!(root.path().join(&deep).is_dir() && !root.path().join("gone").exists());
    for folder in [upper, root] {
        // What the folders' own end would do opens all of them at once.
        assert!(std::process::Command::new("rm").arg("-rf").arg(folder.path()).status().unwrap().success());
    }
}

#[test]
fn devices_and_owners_come_back_where_they_may() {
    if !is_root() {
        return;
    }
    let (upper, root) = (tempdir().unwrap(), tempdir().unwrap());
    let at = |name: &str| upper.path().join(name);
    mknodat(CWD, at("null"), FileType::CharacterDevice, Mode::RUSR, makedev(1, 3)).unwrap();
    fs::write(at("theirs"), "x").unwrap();
    std::os::unix::fs::chown(at("theirs"), Some(4_000_000_000), Some(7)).unwrap();
    let capability = CString::new("security.capability").unwrap();
    let value = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    setxattr(at("theirs"), &*capability, &value, XattrFlags::empty()).unwrap();
    let (image, _) = saved(&upper);
    let layer = File::open(image.path().join(FILE)).unwrap();
    apply(&layer, File::open(root.path()).unwrap().into(), true).unwrap();
    let theirs = fs::metadata(root.path().join("theirs")).unwrap();
    assert_eq!((theirs.uid(), theirs.gid()), (4_000_000_000, 7));
    assert_eq!(attribute(&root.path().join("theirs"), "security.capability"), value);
    assert_eq!(fs::metadata(root.path().join("null")).unwrap().rdev(), makedev(1, 3));
    assert!(apply(&layer, File::open(root.path()).unwrap().into(), false).is_err());
}

/// Others read it, too.
#[test]
fn gnu_tar_and_python_understand_a_layer() {
    let _undisturbed = crate::reaper::undisturbed();
    let upper = tempdir().unwrap();
    let at = |name: &str| upper.path().join(name);
    let long = format!("{}/{}", "d".repeat(120), "f".repeat(120));
    fs::create_dir(at(&"d".repeat(120))).unwrap();
    fs::write(at(&long), "text").unwrap();
    fs::hard_link(at(&long), at("second")).unwrap();
    let mut sparse = File::create(at("sparse")).unwrap();
    sparse.write_all(b"begin").unwrap();
    sparse.set_len(1 << 20).unwrap();
    symlink("to/somewhere", at("link")).unwrap();
    let (image, _) = saved(&upper);
    let layer = image.path().join(FILE);
    let out = tempdir().unwrap();
    let tar =
        std::process::Command::new("tar").arg("-xf").arg(&layer).arg("-C").arg(out.path()).output().unwrap();
    assert!(tar.status.success(), "{}", String::from_utf8_lossy(&tar.stderr));
    assert_eq!(fs::read(out.path().join("second")).unwrap(), b"text");
    let sparse = fs::read(out.path().join("sparse")).unwrap();
    assert!(sparse.len() == 1 << 20 && sparse.starts_with(b"begin\0"));
    assert_eq!(fs::read_link(out.path().join("link")).unwrap(), Path::new("to/somewhere"));
    let script = "import sys, tarfile; print(*sorted((m.name, m.size) for m in tarfile.open(sys.argv[1])))";
    let python = std::process::Command::new("python3").args(["-c", script]).arg(&layer).output().unwrap();
    let said = String::from_utf8_lossy(&python.stdout).into_owned();
    // Either of two names may be the first.
    let text = ["second", &long].map(|name| format!("('{name}', 4)"));
    assert!(said.contains("('sparse', 1048576)") && text.iter().any(|name| said.contains(name)), "{said}");
}
