//! A client that doesn't stay for its answer.

use std::time::Duration;

use cryo_protos::api::Empty;
use cryo_protos::protobuf::Message;
use cryo_protos::ttrpc::Code;

use super::client::Client;
use super::container::Container;
use super::gate::Gate;

#[derive(Clone, Copy)]
pub(crate) enum Leaves {
    HangsUp,
    StopsWaiting,
}

impl std::fmt::Display for Leaves {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Leaves::HangsUp => "hangs_up",
            Leaves::StopsWaiting => "stops_waiting",
        })
    }
}

impl Leaves {
    /// Asks, leaves while the runtime stands at the gate, and opens that.
    #[track_caller]
    pub(crate) fn during<Q: Message>(self, container: &Container, method: &str, request: &Q, gate: &Gate) {
        match self {
            Leaves::HangsUp => {
                let client = Client::connect(container.runtime(), &container.address).unwrap();
                client.send_and_hang_up(method, request, || {
                    gate.wait_until_reached();
                });
            }
            Leaves::StopsWaiting => {
                let impatient = container.with_patience(Duration::from_millis(300));
                let answer = impatient.client().call::<_, Empty>(method, request);
                // Whoever counts first says it: the shim, or we ourselves.
                let code = answer.unwrap_err().code;
                assert!(matches!(code, Code::DEADLINE_EXCEEDED | Code::UNAVAILABLE), "{code:?}");
                gate.wait_until_reached();
            }
        }
        gate.open();
    }
}
