//! Options of every type, with any content: read or refused, never a panic.
#![no_main]

use cryo_protos::protobuf::well_known_types::any::Any;
use cryo_shim::convert::{checkpoint_options, core_options, create_options};

const TYPES: [&str; 7] = [
    "containerd.runc.v1.Options",
    "containerd.runc.v1.CheckpointOptions",
    "containerd.linux.runc.RuncOptions",
    "containerd.linux.runc.CreateOptions",
    "containerd.linux.runc.CheckpointOptions",
    "runtimeoptions.v1.Options",
    "",
];

libfuzzer_sys::fuzz_target!(|input: (u8, Vec<u8>)| {
    let (kind, value) = input;
    let type_url = TYPES[usize::from(kind) % TYPES.len()].to_owned();
    let any = Any { type_url, value, ..Any::default() };
    if let Ok(options) = create_options(&any) {
        core_options(&options, "ns");
    }
    let _ = checkpoint_options(Some(&any));
});
