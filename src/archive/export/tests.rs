//! What is written is what other tools read, and comes back as it was.

use super::super::import::{Limits, import};
use super::super::layout::{CONFIG_FILE, ROOTFS_FILE, SPEC_FILE};
use super::super::sample::{attempt, exported, image, members, small_image, source};
use super::*;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::fs;
use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::checkpoint::image::Image as Folder;
use crate::checkpoint::manifest;

/// Numbers that look random and are the same in every run.
fn noise(seed: u64) -> impl FnMut() -> u64 {
    let mut state = seed;
    move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state >> 33
    }
}

fn contents(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    let pair =
        |entry: fs::DirEntry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap());
    entries.map(pair).collect()
}

#[test]
fn whatever_is_in_an_image_comes_back_the_same() {
    let mut next = noise(1);
    for round in 0..12 {
        let mut files = Vec::new();
        for number in 0..next() % 6 {
            let size = [0, 1, 511, 512, 513, 4096, 300_000][(next() % 7) as usize];
            let mut bytes: Vec<u8> = (0..size).map(|_| next() as u8).collect();
            if next() % 2 == 1 && bytes.len() > 4096 {
                let half = 4096 * (bytes.len() / 8192);
                bytes[..half].fill(0);
            }
            files.push((format!("pages-{number}.img"), bytes));
        }
        let files: Vec<_> = files.iter().map(|(name, bytes)| (&**name, &**bytes)).collect();
        let folder = image(&files);
        for compression in [Compression::None, Compression::Zstd] {
            let archive = exported(folder.path(), compression, &[]);
            let (copy, imported) = attempt(&archive[..]).unwrap();
            let mut found = contents(copy.path());
            assert!(found.remove(CONFIG_FILE).is_some());
            assert!(found == contents(folder.path()), "round {round}");
            assert_eq!(imported.files.len(), found.len());
            assert_eq!(imported.config.unwrap().id, "c1");
            assert!(imported.left_out.is_empty());
        }
    }
}

#[test]
fn holes_stay_holes_and_a_restore_opens_what_was_imported() {
    let pages = [vec![1; 4096], vec![0; 1 << 20]].concat();
    let folder = image(&[("pages-1.img", &pages)]);
    let archive = exported(folder.path(), Compression::Zstd, &[]);
    assert!(archive.len() < 20_000, "{}", archive.len());
    let (copy, _) = attempt(&archive[..]).unwrap();
    assert!(fs::metadata(copy.path().join("pages-1.img")).unwrap().blocks() <= 16);
    assert!(Folder::open(copy.path()).unwrap().manifest.unwrap().sealed);
}

#[test]
fn the_same_checkpoint_gives_the_same_bytes_wherever_it_lies() {
    for compression in [Compression::None, Compression::Zstd] {
        let folder = small_image();
        let first = exported(folder.path(), compression, &[]);
        let (copy, _) = attempt(&first[..]).unwrap();
        let beside = [(CONFIG_FILE, copy.path().join(CONFIG_FILE))];
        assert!(first == exported(folder.path(), compression, &[]));
        assert!(first == exported(copy.path(), compression, &beside));
    }
}

#[test]
fn what_lies_beside_an_image_travels_with_it() {
    let (folder, beside) = (small_image(), tempfile::tempdir().unwrap());
    let spec = r#"{"annotations":{"io.kubernetes.cri.container-name":"web",
        "io.kubernetes.cri.sandbox-name":"pod","io.kubernetes.cri.image-name":"nginx"}}"#;
    let mut files = Vec::new();
    for (name, text) in [(ROOTFS_FILE, "changes"), (SPEC_FILE, spec), ("dump.log", "log")] {
        fs::write(beside.path().join(name), text).unwrap();
        files.push((name, beside.path().join(name)));
    }
    let archive = exported(folder.path(), Compression::Zstd, &files);
    let (copy, imported) = attempt(&archive[..]).unwrap();
    assert_eq!(fs::read_to_string(copy.path().join(ROOTFS_FILE)).unwrap(), "changes");
    let names: Vec<_> = imported.beside.keys().map(String::as_str).collect();
    assert_eq!(names, [CONFIG_FILE, "dump.log", ROOTFS_FILE, SPEC_FILE]);
    assert_eq!(imported.annotations["org.criu.checkpoint.container.name"], "web");
    assert_eq!(imported.annotations["org.criu.checkpoint.pod.name"], "pod");
    let config = imported.config.unwrap();
    assert_eq!((&*config.name, &*config.rootfs_image_name), ("web", "nginx"));
}

#[test]
fn an_archive_is_an_oci_layout_whose_digests_are_right() {
    let folder = small_image();
    let opened = Folder::open(folder.path()).unwrap();
    let open = files_of(&opened);
    for (compression, kind) in [(Compression::None, oci::LAYER), (Compression::Zstd, oci::LAYER_ZSTD)] {
        let named = Source {
            reference: Some("localhost/checkpoint/web:before"),
            ..source(opened.manifest.as_ref().unwrap(), &open, &[])
        };
        let mut archive = Vec::new();
        let image = export(&named, &mut archive, compression, |_| {}).unwrap();
        let members = members(&archive);
        let names: Vec<_> = members.iter().map(|(name, _)| &**name).collect();
        assert_eq!(names[..2], [oci::LAYOUT_FILE, oci::INDEX_FILE]);
        for (name, bytes) in &members[2..] {
            assert_eq!(*name, blob(&manifest::digest(bytes)));
        }
        let blobs: BTreeMap<_, _> = members.iter().map(|(name, bytes)| (&**name, bytes)).collect();
        let index: Value = serde_json::from_slice(blobs[oci::INDEX_FILE]).unwrap();
        let only = &index["manifests"][0];
        assert_eq!(only["digest"], image.digest);
        assert_eq!(only["platform"]["architecture"], "amd64");
        assert_eq!(only["annotations"]["org.opencontainers.image.ref.name"], "before");
        assert_eq!(only["annotations"]["io.containerd.image.name"], "localhost/checkpoint/web:before");
        let image: Value = serde_json::from_slice(blobs[&*blob(&image.digest)]).unwrap();
        assert_eq!(image["annotations"]["org.criu.checkpoint.container.name"], "c1");
        assert_eq!(image["layers"][0]["mediaType"], kind);
        let layer = blobs[&*blob(image["layers"][0]["digest"].as_str().unwrap())];
        assert_eq!(image["layers"][0]["size"], layer.len());
        let config: Value =
            serde_json::from_slice(blobs[&*blob(image["config"]["digest"].as_str().unwrap())]).unwrap();
        let tar = if kind == oci::LAYER { layer.clone() } else { zstd::decode_all(&layer[..]).unwrap() };
        assert_eq!(config["rootfs"]["diff_ids"][0], manifest::digest(&tar));
    }
}

#[test]
fn tar_lists_both_kinds_of_archive() {
    let _undisturbed = crate::reaper::undisturbed();
    let folder = small_image();
    let opened = Folder::open(folder.path()).unwrap();
    let open = files_of(&opened);
    let out = tempfile::NamedTempFile::new().unwrap();
    let source = source(opened.manifest.as_ref().unwrap(), &open, &[]);
    let list = || {
        let listed = Command::new("tar").arg("tf").arg(out.path()).output().unwrap();
        assert!(listed.status.success() && listed.stderr.is_empty(), "{listed:?}");
        String::from_utf8(listed.stdout).unwrap()
    };
    export(&source, out.as_file(), Compression::Zstd, |_| {}).unwrap();
    assert!(list().starts_with("oci-layout\nindex.json\nblobs/sha256/"));
    out.as_file().set_len(0).unwrap();
    io::Seek::rewind(&mut out.as_file()).unwrap();
    export_plain(&source, out.as_file(), |_| {}).unwrap();
    let expected = ["config.dump", "checkpoint/", "checkpoint/cryo.json", "checkpoint/core-1.img"];
    let rest = ["checkpoint/inventory.img", "checkpoint/pages-1.img", ""];
    assert_eq!(list(), [&expected[..], &rest[..]].concat().join("\n"));
    let (copy, imported) = attempt(File::open(out.path()).unwrap()).unwrap();
    assert!(contents(copy.path())["pages-1.img"] == contents(folder.path())["pages-1.img"]);
    assert_eq!(imported.digest, None);
}

#[test]
fn a_file_that_changes_between_the_passes_is_noticed() {
    let folder = small_image();
    let opened = Folder::open(folder.path()).unwrap();
    let manifest = opened.manifest.as_ref().unwrap();
    let honest = files_of(&opened);
    for other in [&b"cor"[..], b"c0re", b"core+"] {
        let opens = Cell::new(0);
        let open = |name: &str| -> io::Result<Box<dyn Read>> {
            if name != "core-1.img" {
                return honest(name);
            }
            opens.set(opens.get() + 1);
            Ok(if opens.get() == 1 { Box::new(&b"core"[..]) } else { Box::new(other) })
        };
        for compression in [Compression::None, Compression::Zstd] {
            opens.set(0);
            let result = export(&source(manifest, &open, &[]), io::sink(), compression, |_| {});
            assert!(matches!(result, Err(Error::Changed)), "{result:?}");
        }
    }
}

#[test]
fn what_cannot_be_exported_is_said_in_a_sentence() {
    let folder = small_image();
    let opened = Folder::open(folder.path()).unwrap();
    let (manifest, open) = (opened.manifest.clone().unwrap(), files_of(&opened));
    let full = File::options().write(true).open("/dev/full").unwrap();
    let result = export(&source(&manifest, &open, &[]), full, Compression::Zstd, |_| {});
    assert!(matches!(result, Err(Error::Write(_))), "{result:?}");
    let unsealed = Manifest { sealed: false, ..manifest.clone() };
    let result = export(&source(&unsealed, &open, &[]), io::sink(), Compression::None, |_| {});
    assert!(matches!(result, Err(Error::Unsealed)), "{result:?}");
    let elsewhere = [("passwd", PathBuf::from("/etc/passwd"))];
    let result = export(&source(&manifest, &open, &elsewhere), io::sink(), Compression::None, |_| {});
    assert!(matches!(result, Err(Error::Misplaced(_))), "{result:?}");
    fs::remove_file(folder.path().join("core-1.img")).unwrap();
    let error = export(&source(&manifest, &open, &[]), io::sink(), Compression::None, |_| {}).unwrap_err();
    assert!(error.to_string().contains("core-1.img' can't be read"), "{error}");
}

#[test]
fn bars_start_empty_grow_and_end_full() {
    let folder = image(&[("pages-1.img", &vec![3; 5 << 20])]);
    let opened = Folder::open(folder.path()).unwrap();
    let open = files_of(&opened);
    let (mut archive, mut seen) = (Vec::new(), Vec::new());
    let source = source(opened.manifest.as_ref().unwrap(), &open, &[]);
    export(&source, &mut archive, Compression::None, |progress| seen.push(progress)).unwrap();
    let copy = tempfile::tempdir().unwrap();
    let mut also = Vec::new();
    import(&archive[..], copy.path(), &Limits::of(copy.path()).unwrap(), |p| also.push(p)).unwrap();
    for seen in [seen, also] {
        assert!(seen.len() > 4, "{seen:?}");
        assert!(seen.is_sorted_by_key(|progress| progress.done), "{seen:?}");
        let last = seen.last().unwrap();
        assert_eq!(Some(last.done), last.total);
    }
}
