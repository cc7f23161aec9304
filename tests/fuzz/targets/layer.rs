//! A layer of changed files, which anybody may have written. Nothing is made or removed outside
//! of the root that it is for.
#![no_main]

use std::fs::{self, File};
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::fs::symlink;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let outside = tempfile::tempdir().expect("a folder");
    let root = outside.path().join("root");
    fs::create_dir_all(root.join("folder/in")).expect("a root");
    fs::write(root.join("folder/file"), "old").expect("a file");
    fs::write(outside.path().join("precious"), "precious").expect("a file");
    for (link, to) in [("out", ".."), ("folder/up", "../.."), ("top", "/")] {
        symlink(to, root.join(link)).expect("a link");
    }
    let mut layer = tempfile::tempfile().expect("a file");
    layer.write_all(&signed(input)).expect("a layer");
    let folder: OwnedFd = File::open(&root).expect("a root").into();
    let _ = cryo::rootfs::apply(&layer, folder, false);
    assert_eq!(fs::read(outside.path().join("precious")).expect("it is there"), b"precious");
    assert_eq!(fs::read_dir(outside.path()).expect("the folder").count(), 2);
});

/// With headers' checksums set right, so that more than those is looked at.
fn signed(input: &[u8]) -> Vec<u8> {
    let mut archive = input.to_vec();
    for block in archive.chunks_exact_mut(512).filter(|block| block[0] != 0) {
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }
    archive
}
