//! A checkpoint's archive comes from anywhere. What is refused leaves nothing.
#![no_main]

use cryo::archive::{Limits, import};

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let folder = tempfile::tempdir().expect("a folder");
    let limits = Limits { bytes: 1 << 20, members: 100 };
    if import(input, folder.path(), &limits, |_| {}).is_err() {
        assert_eq!(std::fs::read_dir(folder.path()).expect("the folder").count(), 0);
    }
});
