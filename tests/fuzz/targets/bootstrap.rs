//! Whatever containerd, or somebody else, writes to the stdin of `start`.
#![no_main]

use cryo_shim::Args;
use cryo_shim::bootstrap::Call;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let args = Args { namespace: "ns".into(), id: "id".into(), ..Args::default() };
    for knows_versions in [false, true] {
        assert!(!Call::understand(input, &args, knows_versions).answer("unix:///s").is_empty());
    }
});
