//! `cryo.json` comes with an image from anywhere.
#![no_main]

use cryo::checkpoint::image::Image;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("cryo.json"), input).expect("a manifest");
    std::fs::write(folder.path().join("inventory.img"), [0x16, 0x31, 0x31, 0x58]).expect("an inventory");
    let _ = Image::open(folder.path());
});
