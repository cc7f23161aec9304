//! The image files that we read ourselves.
#![no_main]

use cryo::criu::images;

libfuzzer_sys::fuzz_target!(|input: (Vec<u8>, Vec<u8>, Vec<u8>)| {
    let folder = tempfile::tempdir().expect("a folder");
    let write = |name, bytes: &[u8]| std::fs::write(folder.path().join(name), bytes).expect("a file");
    write("pstree.img", &input.0);
    write("ids-1.img", &input.1);
    write("netns-1.img", &input.2);
    let _ = images::network_image(folder.path());
    let _ = images::check_inventory(folder.path());
});
