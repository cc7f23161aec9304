//! What containerd writes to the stdin of `start`, and what it wants to hear back:
//! three generations of both.

use cryo_protos::bootstrap::{BootstrapParams, BootstrapResult};
use cryo_protos::protobuf::Message;
use cryo_protos::protobuf::well_known_types::any::Any;

use crate::args::Args;

/// Set by containerd 1.7 and newer. Its value says nothing: it is 2 ever since.
pub const MAX_VERSION_VARIABLE: &str = "MAX_SHIM_VERSION";
/// containerd shares the shim of a pod's sandbox with its containers if the version is
/// 3 or more. With 2, every container has a shim of its own.
const VERSION: i32 = 2;
const PROTOCOL: &str = "ttrpc";

/// How `start` was called.
#[derive(Debug)]
pub struct Call {
    pub options: Option<Any>,
    pub socket_folder: Option<String>,
    dialect: Dialect,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Dialect {
    /// containerd 1.6: the address and nothing else.
    Plain,
    /// 1.7 to 2.2.
    Json,
    /// 2.3 and newer.
    Protobuf,
}

impl Call {
    pub fn understand(input: &[u8], args: &Args, knows_versions: bool) -> Call {
        // Options alone may well parse as parameters, so these must name us.
        let parameters = BootstrapParams::parse_from_bytes(input)
            .ok()
            .filter(|params| params.instance_id == args.id && params.namespace == args.namespace);
        if let Some(parameters) = parameters {
            let options =
                parameters.extensions.into_iter().find_map(|extension| extension.value.into_option());
            let socket_folder = parameters.socket_dir.filter(|folder| !folder.is_empty());
            return Call { options, socket_folder, dialect: Dialect::Protobuf };
        }
        // Nothing of it decides whether the shim can start, so garbage is no options.
        let options = Any::parse_from_bytes(input).ok().filter(|_| !input.is_empty());
        let dialect = if knows_versions { Dialect::Json } else { Dialect::Plain };
        Call { options, socket_folder: None, dialect }
    }

    pub fn answer(&self, address: &str) -> Vec<u8> {
        match self.dialect {
            Dialect::Plain => address.as_bytes().to_vec(),
            Dialect::Json => {
                serde_json::json!({ "version": VERSION, "address": address, "protocol": PROTOCOL })
                    .to_string()
                    .into_bytes()
            }
            Dialect::Protobuf => {
                let result = BootstrapResult {
                    version: VERSION,
                    address: address.to_owned(),
                    protocol: PROTOCOL.to_owned(),
                    ..BootstrapResult::default()
                };
                // Writing a complete message to memory can't fail.
                result.write_to_bytes().unwrap_or_default()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cryo_protos::bootstrap::Extension;
    use cryo_protos::pack;
    use cryo_protos::runc::Options;

    fn args() -> Args {
        Args { namespace: "ns".into(), id: "c1".into(), ..Args::default() }
    }

    fn options() -> Any {
        pack(&Options { binary_name: "crun".into(), ..Options::default() }).unwrap()
    }

    #[test]
    fn the_oldest_containerd_gets_the_bare_address() {
        let call = Call::understand(&[], &args(), false);
        assert_eq!(call.answer("unix:///s"), b"unix:///s");
        assert!(call.options.is_none());
    }

    #[test]
    fn the_next_gets_json_and_its_options_are_read() {
        let call = Call::understand(&options().write_to_bytes().unwrap(), &args(), true);
        assert_eq!(call.options, Some(options()));
        let answer: serde_json::Value = serde_json::from_slice(&call.answer("unix:///s")).unwrap();
        assert_eq!(answer["version"], 2);
        assert_eq!(answer["address"], "unix:///s");
    }

    #[test]
    fn the_newest_gets_a_message() {
        let parameters = BootstrapParams {
            instance_id: "c1".into(),
            namespace: "ns".into(),
            socket_dir: Some("/run/x".into()),
            extensions: vec![Extension { value: Some(options()).into(), ..Extension::default() }],
            ..BootstrapParams::default()
        };
        let call = Call::understand(&parameters.write_to_bytes().unwrap(), &args(), true);
        assert_eq!(call.options, Some(options()));
        assert_eq!(call.socket_folder.as_deref(), Some("/run/x"));
        let answer = BootstrapResult::parse_from_bytes(&call.answer("unix:///s")).unwrap();
        assert_eq!((answer.version, answer.address.as_str()), (2, "unix:///s"));
    }

    #[test]
    fn parameters_of_somebody_else_are_no_parameters() {
        let parameters =
            BootstrapParams { instance_id: "other".into(), namespace: "ns".into(), ..Default::default() };
        let call = Call::understand(&parameters.write_to_bytes().unwrap(), &args(), true);
        assert_eq!(call.dialect, Dialect::Json);
    }

    #[test]
    fn garbage_is_survived() {
        for input in [&[0xff; 40][..], b"{}", &[0x0a, 0xff]] {
            Call::understand(input, &args(), true);
        }
    }
}
