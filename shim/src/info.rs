//! `-info`: what the shim and its runtime can do.
//!
//! Called before containers are made, so it is quick, and by clients of all kinds, so
//! options it doesn't know are no reason to fail.

use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use cryo::policy::{NODE_FILE, NodeFile};
use cryo::reaper::Reaper;
use cryo::runtime::{choice, features};
use cryo_protos::introspection::{RuntimeInfo, RuntimeVersion};
use cryo_protos::protobuf::Message;
use cryo_protos::protobuf::well_known_types::any::Any;

use crate::convert;
use crate::error::Error;

const NAME: &str = "io.containerd.runc.cryo.v2";
const FEATURES_TYPE: &str = "types.containerd.io/opencontainers/runtime-spec/1/features/Features";
const INPUT_BYTES: u64 = 10 << 20;

pub(crate) fn run() -> Result<(), Error> {
    let mut input = Vec::new();
    io::stdin().take(INPUT_BYTES).read_to_end(&mut input).map_err(Error::io("read the options"))?;
    let options = Any::parse_from_bytes(&input).unwrap_or_default();
    let info = info(&options);
    let bytes = info.write_to_bytes().map_err(Error::other)?;
    io::stdout().write_all(&bytes).map_err(Error::io("answer containerd"))
}

fn info(options: &Any) -> RuntimeInfo {
    let known = convert::create_options(options).unwrap_or_default();
    let core = convert::core_options(&known, "");
    let version =
        RuntimeVersion { version: version().to_owned(), revision: revision(), ..Default::default() };
    let given = Some(options.clone()).filter(|any| !any.type_url.is_empty());
    RuntimeInfo {
        name: NAME.to_owned(),
        version: Some(version).into(),
        options: given.into(),
        features: features_of(core.runtime).into(),
        ..Default::default()
    }
}

/// The runtime's own words. Without any it has no optional features, as far as
/// containerd is concerned.
fn features_of(runtime: Option<PathBuf>) -> Option<Any> {
    match ask(runtime) {
        Ok(features) => {
            Some(Any { type_url: FEATURES_TYPE.to_owned(), value: features.into(), ..Any::default() })
        }
        Err(error) => {
            eprintln!("{error}");
            None
        }
    }
}

fn ask(runtime: Option<PathBuf>) -> Result<String, Error> {
    let event_loop = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let event_loop = event_loop.map_err(Error::io("start the event loop"))?;
    event_loop.block_on(async {
        let reaper = Reaper::start().map_err(Error::io("become a subreaper"))?;
        let runtime = match runtime {
            Some(runtime) => runtime,
            None => {
                let node = NodeFile::read_or_default(Path::new(NODE_FILE), |error| eprintln!("{error}"));
                choice::binary(node.runtime(), reaper, None).await
            }
        };
        let told = features(reaper, &runtime).await;
        told.map_err(|error| Error::other(format!("'{} features' tells nothing: {error}", runtime.display())))
    })
}

pub(crate) fn version() -> &'static str {
    env!("CARGO_PKG_VERSION")
}

/// Set by a build that knows; releases do.
fn revision() -> String {
    option_env!("CRYO_REVISION").unwrap_or_default().to_owned()
}

pub(crate) fn print_version(name: &str) {
    println!("{name}:\n  Version:  {}\n  Revision: {}", version(), revision());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_of_another_shim_are_handed_back_and_do_no_harm() {
        let foreign = Any { type_url: "kata.v1.Options".into(), value: vec![0xff], ..Any::default() };
        let info = info(&foreign);
        assert_eq!(info.options.into_option(), Some(foreign));
        assert_eq!(info.name, NAME);
    }
}
