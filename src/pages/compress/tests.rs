use super::*;
use crate::pages::file::names;
use crate::pages::follow::Follower;
use crate::pages::{Expected, PAGE, digest, is_pages, memory};
use std::collections::BTreeMap;
use std::io::Write as _;
use std::os::unix::fs::MetadataExt;

fn content(size: usize) -> Vec<u8> {
    let mut content = vec![0; size];
    for (number, page) in content.chunks_mut(PAGE).enumerate().filter(|(number, _)| number % 4 > 0) {
        let half = page.len() / 2;
        blake3::Hasher::new().update(&number.to_le_bytes()).finalize_xof().fill(&mut page[half..]);
    }
    // A chunk that is one hole.
    content.iter_mut().skip(1 << 20).take(1 << 20).for_each(|byte| *byte = 0);
    content
}

fn image(files: &[(&str, &[u8])]) -> (tempfile::TempDir, BTreeMap<String, Expected>) {
    let folder = tempfile::tempdir().unwrap();
    let mut expected = BTreeMap::new();
    for (name, content) in files {
        let path = folder.path().join(name);
        fs::write(&path, content).unwrap();
        let digest = digest::of_file(&path).unwrap();
        expected.insert((*name).to_owned(), Expected { size: content.len() as u64, digest });
    }
    (folder, expected)
}

/// Tells which were compressed.
fn decompress(
    folder: &Path,
    into: &Path,
    expected: &BTreeMap<String, Expected>,
) -> Result<Vec<String>, Error> {
    memory::put_together(folder, &folder.join("packs"), into, expected)?;
    names(into, |_| true)
}

/// As somebody does who has told how big the files have become. Tells which got smaller.
fn compress(folder: &Path) -> Vec<String> {
    let follower = Follower::<Shrinking>::start(folder, folder.to_owned()).unwrap();
    finish(folder, follower)
}

fn finish(folder: &Path, follower: Follower<Shrinking>) -> Vec<String> {
    let sizes = names(folder, is_pages).unwrap();
    let size = |name: &String| fs::metadata(folder.join(name)).unwrap().len();
    let sizes: BTreeMap<_, _> = sizes.into_iter().map(|name| (name.clone(), size(&name))).collect();
    let shrunk = follower.finish(&sizes).unwrap();
    for (name, shrunk) in &shrunk {
        assert_eq!(shrunk.size, sizes[name]);
        assert_eq!(shrunk.digest, digest::of_file(&folder.join(name)).unwrap());
    }
    let compressed: Vec<_> = shrunk.into_iter().filter(|(_, shrunk)| shrunk.is_compressed).collect();
    let remove = |name: &String| fs::remove_file(folder.join(name)).unwrap();
    compressed.into_iter().map(|(name, _)| name).inspect(remove).collect()
}

#[test]
fn what_grows_is_compressed_meanwhile() {
    let content = content((150 << 20) + 99);
    let folder = tempfile::tempdir().unwrap();
    let follower = Follower::<Shrinking>::start(folder.path(), folder.path().to_owned()).unwrap();
    let mut file = File::create(folder.path().join("pages-1.img")).unwrap();
    content.chunks(100_000).for_each(|piece| file.write_all(piece).unwrap());
    drop(file);
    let expected = Expected {
        size: content.len() as u64,
        digest: digest::of_file(&folder.path().join("pages-1.img")).unwrap(),
    };
    assert_eq!(finish(folder.path(), follower), ["pages-1.img"]);
    let into = tempfile::tempdir().unwrap();
    decompress(folder.path(), into.path(), &BTreeMap::from([("pages-1.img".to_owned(), expected)])).unwrap();
    assert!(fs::read(into.path().join("pages-1.img")).unwrap() == content);
}

#[test]
fn a_beginning_that_doesnt_get_smaller_isnt_all_there_is() {
    let folder = tempfile::tempdir().unwrap();
    let follower = Follower::<Shrinking>::start(folder.path(), folder.path().to_owned()).unwrap();
    let mut noise = vec![0; 70 << 20];
    blake3::Hasher::new().finalize_xof().fill(&mut noise);
    let mut file = File::create(folder.path().join("pages-1.img")).unwrap();
    while !folder.path().join("pages-1.img.zst.new").exists() {
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    file.write_all(&noise).unwrap();
    while folder.path().join("pages-1.img.zst.new").exists() {
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    file.write_all(&vec![7; 70 << 20]).unwrap();
    drop(file);
    assert_eq!(finish(folder.path(), follower), ["pages-1.img"]);
}

#[test]
fn without_room_for_it_nothing_is_compressed() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("pages-1.img"), content(3 << 20)).unwrap();
    fs::create_dir(folder.path().join("pages-1.img.zst.new")).unwrap();
    assert!(compress(folder.path()).is_empty());
    assert!(folder.path().join("pages-1.img").exists());
}

#[test]
fn compressed_memory_comes_back_with_holes() {
    let content = content((5 << 20) + 99);
    let (folder, expected) = image(&[("pages-1.img", &content), ("core-1.img", &[0; 9000])]);
    assert_eq!(compress(folder.path()), ["pages-1.img"]);
    assert_eq!(names(folder.path(), |_| true).unwrap(), ["core-1.img", "pages-1.img.zst"]);
    let stored = fs::metadata(folder.path().join("pages-1.img.zst")).unwrap().len();
    assert!(stored < content.len() as u64 / 2);
    let into = tempfile::tempdir().unwrap();
    assert_eq!(decompress(folder.path(), into.path(), &expected).unwrap(), ["pages-1.img"]);
    let path = into.path().join("pages-1.img");
    assert_eq!(fs::read(&path).unwrap(), content);
    assert!(fs::metadata(path).unwrap().blocks() * 512 < (content.len() - (1 << 20)) as u64);
}

#[test]
fn other_programs_can_read_it() {
    let content = content(3 << 20);
    let (folder, _) = image(&[("pages-1.img", &content)]);
    compress(folder.path());
    let bytes = fs::read(folder.path().join("pages-1.img.zst")).unwrap();
    assert_eq!(zstd::stream::decode_all(&bytes[..]).unwrap(), content);
}

#[test]
fn noise_and_nothing_stay_as_they_are() {
    let mut noise = vec![0; 2 << 20];
    blake3::Hasher::new().finalize_xof().fill(&mut noise);
    let (folder, expected) = image(&[("pages-1.img", &noise), ("pages-2.img", &[])]);
    assert!(compress(folder.path()).is_empty());
    assert_eq!(names(folder.path(), |_| true).unwrap(), ["pages-1.img", "pages-2.img"]);
    let into = tempfile::tempdir().unwrap();
    assert!(decompress(folder.path(), into.path(), &expected).unwrap().is_empty());
}

#[test]
fn a_bomb_stops_at_the_expected_size() {
    let (folder, mut expected) = image(&[("pages-1.img", &vec![0; 16 << 20])]);
    compress(folder.path());
    assert!(fs::metadata(folder.path().join("pages-1.img.zst")).unwrap().len() < 8192);
    for size in [0, 1 << 20, (16 << 20) - 1, (16 << 20) + 1, 1 << 50, u64::MAX] {
        expected.get_mut("pages-1.img").unwrap().size = size;
        let into = tempfile::tempdir().unwrap();
        let error = decompress(folder.path(), into.path(), &expected).unwrap_err();
        assert!(matches!(error, Error::Damaged { .. } | Error::Write { .. }), "{size}: {error}");
        assert!(names(into.path(), |_| true).unwrap().is_empty());
    }
    // A table that promises less than its frames hold.
    let path = folder.path().join("pages-1.img.zst");
    let mut bytes = fs::read(&path).unwrap();
    let mut small = Table::default();
    let end = bytes.len() - 8 - 9 - 16 * 8;
    small.add(end as u32, 100);
    bytes.truncate(end);
    bytes.extend(small.to_bytes());
    fs::write(&path, bytes).unwrap();
    expected.get_mut("pages-1.img").unwrap().size = 100;
    let into = tempfile::tempdir().unwrap();
    assert!(matches!(decompress(folder.path(), into.path(), &expected), Err(Error::Damaged { .. })));
}

#[test]
fn truncation_and_flipped_bits_are_found() {
    let (folder, expected) = image(&[("pages-1.img", &content(3 << 20))]);
    compress(folder.path());
    let path = folder.path().join("pages-1.img.zst");
    let good = fs::read(&path).unwrap();
    let into = tempfile::tempdir().unwrap();
    let table = good.len() - 8 - 9 - 3 * 8;
    for at in (0..table).step_by(good.len() / 20).chain(table..good.len()) {
        fs::write(&path, &good[..at]).unwrap();
        assert!(decompress(folder.path(), into.path(), &expected).is_err(), "cut at {at}");
        let mut bytes = good.clone();
        bytes[at] ^= 1;
        fs::write(&path, &bytes).unwrap();
        if decompress(folder.path(), into.path(), &expected).is_ok() {
            // A bit that nobody reads may be anything, as long as the memory is right.
            let path = into.path().join("pages-1.img");
            assert_eq!(digest::of_file(&path).unwrap(), expected["pages-1.img"].digest);
        }
    }
}

#[test]
fn what_an_earlier_attempt_has_left_is_replaced() {
    let content = content(2 << 20);
    let (folder, expected) = image(&[("pages-1.img", &content)]);
    fs::write(folder.path().join("pages-1.img.zst"), "half").unwrap();
    fs::write(folder.path().join("pages-1.img.zst.new"), "half").unwrap();
    compress(folder.path());
    let into = tempfile::tempdir().unwrap();
    decompress(folder.path(), into.path(), &expected).unwrap();
    assert_eq!(fs::read(into.path().join("pages-1.img")).unwrap(), content);
}
