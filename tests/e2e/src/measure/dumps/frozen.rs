//! CRIU's own figures about a dump.

use std::fs;
use std::path::Path;

use prost::Message;

use crate::harness::*;

/// Two magic numbers and a length come before the message.
const HEAD_BYTES: usize = 12;

#[derive(Clone, PartialEq, Message)]
struct Statistics {
    #[prost(message, optional, tag = "1")]
    dump: Option<Dump>,
}

#[derive(Clone, Copy, PartialEq, Message)]
struct Dump {
    #[prost(uint32, tag = "2")]
    frozen_time_us: u32,
}

/// For how long the processes stood still, in milliseconds.
pub(super) fn by_criu(file: &Path) -> Outcome<f64> {
    let bytes = fs::read(file).during(|| file.display().to_string())?;
    let message = bytes.get(HEAD_BYTES..).unwrap_or_default();
    let dump = Statistics::decode(message)?.dump;
    let dump = dump.ok_or_else(|| Failure::new(format!("{} tells of no dump", file.display())))?;
    Ok(f64::from(dump.frozen_time_us) / 1000.0)
}
