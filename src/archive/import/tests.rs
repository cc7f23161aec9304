//! Archives from anybody: one sentence, nothing left, nothing written elsewhere.

use super::super::export::Compression;
use super::super::layout::{CONFIG_FILE, SPEC_FILE};
use super::super::oci::{self, Platform};
use super::super::sample::{
    INVENTORY, attempt, exported, header, image, members, small_image, tape, unsealed,
};
use super::super::summed::Sum;
use super::*;
use serde_json::{Value, json};
use std::fs;
use std::io::Write;
use std::process::Command;
use tar::{Builder, EntryType};

fn refused(archive: impl Read) -> String {
    attempt(archive).unwrap_err().to_string()
}

/// A member's name and its content.
type File = (String, Vec<u8>);

fn blob(bytes: &[u8]) -> File {
    let digest = Sum::of(bytes).digest;
    (format!("{}{}", oci::BLOBS, &digest[7..]), bytes.to_vec())
}

fn descriptor(bytes: &[u8]) -> Value {
    let Sum { digest, size } = Sum::of(bytes);
    json!({"mediaType": "application/octet-stream", "digest": digest, "size": size})
}

/// An OCI layout as other tools write it: layers first.
fn layout(layers: &[Vec<u8>]) -> Vec<File> {
    let config = serde_json::to_vec(&Platform::of("x86_64")).unwrap();
    let layers_named: Vec<_> = layers.iter().map(|layer| descriptor(layer)).collect();
    let image = json!({"schemaVersion": 2, "config": descriptor(&config), "layers": layers_named});
    let image = serde_json::to_vec(&image).unwrap();
    let index = json!({"schemaVersion": 2, "manifests": [descriptor(&image)]}).to_string();
    let mut all: Vec<_> = layers.iter().map(|layer| blob(layer)).collect();
    all.extend([blob(&config), blob(&image), ("index.json".into(), index.into())]);
    all.push(("oci-layout".into(), br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec()));
    all
}

fn joined(members: &[File]) -> Vec<u8> {
    let members: Vec<_> = members.iter().map(|(name, bytes)| (&**name, &**bytes)).collect();
    tape(&members)
}

fn foreign_layer() -> Vec<u8> {
    tape(&[("config.dump", br#"{"name":"web"}"#), ("checkpoint/inventory.img", &INVENTORY)])
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn members_may_come_in_any_order_and_compressed_in_any_way() {
    let folder = small_image();
    let mut ours = members(&exported(folder.path(), Compression::Zstd, &[]));
    ours.reverse();
    assert!(attempt(&joined(&ours)[..]).unwrap().1.manifest.is_some());
    let layer = foreign_layer();
    for layer in [layer.clone(), gzip(&layer), zstd::encode_all(&layer[..], 1).unwrap()] {
        let archive = joined(&layout(&[layer]));
        for archive in [archive.clone(), gzip(&archive), zstd::encode_all(&archive[..], 1).unwrap()] {
            let (copy, imported) = attempt(&archive[..]).unwrap();
            assert_eq!(fs::read(copy.path().join("inventory.img")).unwrap(), INVENTORY);
            assert_eq!(imported.config.unwrap().name, "web");
            assert!(imported.digest.unwrap().starts_with("sha256:"));
        }
    }
}

#[test]
fn an_archive_of_podmans_is_a_checkpoint_without_our_manifest() {
    let _undisturbed = crate::reaper::undisturbed();
    let folder = tempfile::tempdir().unwrap();
    let place = |name: &str| folder.path().join(name);
    fs::create_dir(place("checkpoint")).unwrap();
    fs::create_dir(place("artifacts")).unwrap();
    fs::write(place("checkpoint/inventory.img"), INVENTORY).unwrap();
    for (name, text) in
        [(CONFIG_FILE, r#"{"id":"i"}"#), (SPEC_FILE, "{}"), ("ctr.log", ""), ("artifacts/a", "")]
    {
        fs::write(place(name), text).unwrap();
    }
    for format in ["gnu", "pax", "ustar", "v7"] {
        let format = format!("--format={format}");
        let packed =
            Command::new("tar").args(["cf", "-", &format, "-C"]).arg(folder.path()).arg(".").output();
        let (copy, imported) = attempt(&packed.unwrap().stdout[..]).unwrap();
        assert!(imported.manifest.is_none() && imported.files.contains_key("inventory.img"));
        assert_eq!(imported.left_out.len(), 2, "{:?}", imported.left_out);
        assert_eq!(fs::read_dir(copy.path()).unwrap().count(), 3);
    }
}

#[test]
fn an_archive_that_is_cut_short_anywhere_leaves_nothing() {
    let folder = small_image();
    for compression in [Compression::None, Compression::Zstd] {
        let archive = exported(folder.path(), compression, &[]);
        // Without its last block of zeroes it is still whole.
        for length in (0..archive.len() - 1024).step_by(97) {
            assert!(attempt(&archive[..length]).is_err(), "{length} of {}", archive.len());
        }
    }
}

#[test]
fn no_changed_byte_changes_a_checkpoint() {
    let folder = small_image();
    for compression in [Compression::None, Compression::Zstd] {
        let mut archive = exported(folder.path(), compression, &[]);
        let before = attempt(&archive[..]).unwrap().1.files;
        for at in (0..archive.len()).step_by(53) {
            archive[at] ^= 0x15;
            // Padding may be anything.
            if let Ok((_, imported)) = attempt(&archive[..]) {
                assert_eq!(imported.files, before, "byte {at}");
            }
            archive[at] ^= 0x15;
        }
    }
}

#[test]
fn names_that_lead_elsewhere_are_refused() {
    let names = ["/etc/cryo-was-here", "../cryo-was-here", "checkpoint/../../x", "checkpoint/a/b"];
    for name in names.into_iter().chain(["checkpoint/.hidden", "checkpoint/entry.json", "a\u{1b}[2J", ""]) {
        for archive in [tape(&[(name, b"x")]), joined(&layout(&[tape(&[(name, b"x")])]))] {
            assert!(attempt(&archive[..]).is_err(), "{name}");
        }
    }
    assert!(!Path::new("/etc/cryo-was-here").exists());
    assert!(refused(&tape(&[("checkpoint/../../x", b"")])[..]).contains("leads out"));
}

#[test]
fn nothing_but_files_and_folders_is_unpacked() {
    for (kind, word) in [
        (EntryType::Symlink, "link"),
        (EntryType::Link, "link"),
        (EntryType::Char, "device"),
        (EntryType::Block, "device"),
        (EntryType::Fifo, "pipe"),
        (EntryType::GNUSparse, "sparse"),
        (EntryType::new(b'Z'), "plain file"),
    ] {
        for name in ["checkpoint/pages-1.img", "elsewhere"] {
            let mut builder = Builder::new(Vec::new());
            builder.append(&header(name, kind, 0), io::empty()).unwrap();
            let text = refused(&builder.into_inner().unwrap()[..]);
            assert!(text.contains(word), "{text}");
        }
    }
}

#[test]
fn what_claims_too_much_is_refused_before_it_is_read() {
    let claims = |name: &str, size| header(name, EntryType::Regular, size).as_bytes().to_vec();
    let zeroes = || io::repeat(0);
    for name in ["checkpoint/pages-1.img", "elsewhere", "blobs/sha256/0", "dump.log"] {
        let text = refused(io::Cursor::new(claims(name, 10 << 40)).chain(zeroes()));
        assert!(text.contains("has 10995116277760 bytes"), "{text}");
    }
    for name in ["index.json", "oci-layout", "checkpoint/cryo.json", "config.dump", "spec.dump"] {
        let text = refused(io::Cursor::new(claims(name, 60 << 20)).chain(zeroes()));
        assert!(text.contains("there is room for 4194304"), "{text}");
    }
    let json = claims(&blob(b"").0, 60 << 20);
    let text = refused(io::Cursor::new(json).chain(&b"{"[..]).chain(io::repeat(b' ')));
    assert!(text.contains("there is room for 4194304"), "{text}");
}

#[test]
fn members_without_end_are_refused() {
    let one = header("elsewhere", EntryType::Regular, 0);
    let text = refused(&one.as_bytes().repeat(10_001)[..]);
    assert!(text.contains("more members"), "{text}");
    let blobs: Vec<_> = (0..100_u8).map(|number| blob(&[b'{', number])).collect();
    assert!(refused(&joined(&blobs)[..]).contains("more members"));
}

#[test]
fn small_archives_that_unpack_to_much_are_refused() {
    let bomb = |name: &str, size: u64| {
        let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
        encoder.write_all(header(name, EntryType::Regular, size).as_bytes()).unwrap();
        io::copy(&mut io::repeat(0).take(size / 25), &mut encoder).unwrap();
        encoder.finish().unwrap()
    };
    for name in ["checkpoint/pages-1.img", "elsewhere"] {
        let packed = bomb(name, 200 << 20);
        assert!(packed.len() < 1 << 20);
        for archive in [joined(&layout(std::slice::from_ref(&packed))), packed] {
            assert!(matches!(attempt(&archive[..]), Err(Error::TooBig { .. })), "{name}");
        }
    }
}

#[test]
fn json_that_is_no_manifest_is_refused() {
    for json in ["", "[", "{}", "\u{0}", &"[".repeat(100_000), r#"{"schemaVersion":2,"manifests":[]}"#] {
        for name in ["index.json", "oci-layout", "checkpoint/cryo.json"] {
            assert!(attempt(&tape(&[(name, json.as_bytes())])[..]).is_err(), "{name}: {json:.20}");
        }
    }
    let two = json!({"schemaVersion": 2, "manifests": [descriptor(b"a"), descriptor(b"b")]}).to_string();
    assert!(refused(&tape(&[("index.json", two.as_bytes())])[..]).contains("2 images"));
}

#[test]
fn every_blob_is_what_its_name_says_and_named_by_the_manifest() {
    let good = layout(&[foreign_layer()]);
    assert!(attempt(&joined(&good)[..]).is_ok());
    for missing in 0..good.len() {
        let mut members = good.clone();
        members.remove(missing);
        assert!(attempt(&joined(&members)[..]).is_err(), "without {}", good[missing].0);
    }
    for changed in 0..3 {
        let mut members = good.clone();
        members[changed].1.push(b' ');
        assert!(refused(&joined(&members)[..]).contains("isn't what its name says"));
    }
    for extra in [blob(b"{}"), blob(&tape(&[("elsewhere", b"")])), good[0].clone()] {
        for at in [0, good.len()] {
            let mut members = good.clone();
            members.insert(at, extra.clone());
            assert!(matches!(attempt(&joined(&members)[..]), Err(Error::Hostile { .. })), "{}", extra.0);
        }
    }
    for name in ["blobs/sha512/00", "blobs/sha256/../x", "blobs/sha256/ABC"] {
        assert!(matches!(attempt(&tape(&[(name, b"x")])[..]), Err(Error::Hostile { .. })), "{name}");
    }
}

#[test]
fn an_archive_is_of_one_kind() {
    let mut members = layout(&[foreign_layer()]);
    for at in [0, members.len()] {
        members.insert(at, ("checkpoint/core-1.img".into(), b"core".to_vec()));
        assert!(attempt(&joined(&members)[..]).is_err());
        members.remove(at);
    }
    assert!(refused(&tape(&[("notes", b"mine")])[..]).contains("neither"));
    assert!(refused(&tape(&[])[..]).contains("neither"));
    assert!(matches!(attempt(&b"text"[..]), Err(Error::Cut)));
    assert!(matches!(attempt(&[b'x'; 2000][..]), Err(Error::NoTar(_))));
}

/// A plain archive of an image, its files changed before.
fn changed(change: impl Fn(&mut Vec<File>)) -> Vec<u8> {
    let folder = image(&[("core-1.img", b"core"), ("pages-1.img", &[1; 5000])]);
    let mut files = Vec::new();
    for entry in fs::read_dir(folder.path()).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        files.push((format!("checkpoint/{name}"), fs::read(&path).unwrap()));
    }
    files.sort();
    change(&mut files);
    joined(&files)
}

#[test]
fn an_image_is_what_its_manifest_lists_in_any_order() {
    for reversed in [false, true] {
        let attempt = |change: &dyn Fn(&mut Vec<File>)| {
            attempt(
                &changed(|files| {
                    change(files);
                    if reversed {
                        files.reverse();
                    }
                })[..],
            )
        };
        let find = |files: &mut Vec<File>, name: &str| {
            files.iter().position(|(other, _)| other.ends_with(name)).unwrap()
        };
        assert!(attempt(&|_| {}).unwrap().1.manifest.is_some());
        for name in ["core-1.img", "pages-1.img"] {
            let shorter = |files: &mut Vec<_>| {
                let at = find(files, name);
                files[at].1.pop();
            };
            assert!(matches!(attempt(&shorter), Err(Error::Damaged(_))));
            let missing = |files: &mut Vec<_>| {
                let at = find(files, name);
                files.remove(at);
            };
            assert!(matches!(attempt(&missing), Err(Error::Damaged(_))));
            let twice = |files: &mut Vec<_>| {
                let at = find(files, name);
                files.push(files[at].clone());
            };
            assert!(matches!(attempt(&twice), Err(Error::Hostile { .. })));
        }
        let other = |files: &mut Vec<File>| {
            let at = find(files, "core-1.img");
            files[at].1 = b"c0re".to_vec();
        };
        assert!(matches!(attempt(&other), Err(Error::Damaged(_))));
        let more = |files: &mut Vec<_>| files.push(("checkpoint/more.img".into(), b"".to_vec()));
        assert!(matches!(attempt(&more), Err(Error::Hostile { .. })));
        let unsealed = |files: &mut Vec<File>| {
            let at = find(files, "cryo.json");
            files[at].1 = serde_json::to_vec(&unsealed()).unwrap();
        };
        assert!(attempt(&unsealed).is_err());
    }
}

#[test]
fn digests_of_memory_are_checked_and_unknown_ones_refused() {
    let with = |digest: &str| {
        attempt(
            &changed(|files| {
                let (_, text) = files.iter_mut().find(|(name, _)| name.ends_with("cryo.json")).unwrap();
                let mut manifest: Value = serde_json::from_slice(text).unwrap();
                manifest["digests"]["pages-1.img"] = digest.into();
                *text = manifest.to_string().into_bytes();
            })[..],
        )
    };
    let right = format!("blake3:{}", blake3::hash(&[1; 5000]).to_hex());
    assert!(with(&right).is_ok());
    assert!(with(&right.replace("blake3", "sha256")).is_err());
    assert!(with("blake3:00").is_err());
    assert!(with("md5:00").is_err());
}

#[test]
fn limits_are_what_the_disk_has_room_for() {
    let folder = tempfile::tempdir().unwrap();
    assert!(Limits::of(folder.path()).unwrap().bytes > 0);
    assert!(matches!(Limits::of(&folder.path().join("none")), Err(Error::Folder { .. })));
}
