//! CRIU's log quotes whatever the container's processes are called.
#![no_main]

use cryo::criu::log;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let text = String::from_utf8_lossy(input);
    log::diagnose(&text);
    log::version(&text);
});
