//! Generates Rust from the messages in `proto/` with a parser in Rust: no protoc.

fn main() {
    protobuf_codegen::Codegen::new()
        .pure()
        .include("proto")
        .inputs(["proto/linux_runc.proto", "proto/runtimeoptions.proto"])
        .cargo_out_dir("generated")
        .run_from_script();
    println!("cargo:rerun-if-changed=proto");
}
