//! The program that containerd starts.

fn main() -> std::process::ExitCode {
    cryo_shim::run()
}
