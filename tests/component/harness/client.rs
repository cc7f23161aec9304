//! A client of a shim's Task service, in either version of its name.

use std::fmt;
use std::future::Future;
use std::time::Duration;

use cryo_protos::protobuf::Message;
use cryo_protos::protobuf::well_known_types::any::Any;
use cryo_protos::ttrpc::{self, Code, Request};
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use super::wait::PATIENCE;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Version {
    V2,
    V3,
}

#[derive(Clone)]
pub(crate) struct Client {
    runtime: Handle,
    connection: cryo_protos::Client,
    version: Version,
    /// How long it waits for an answer, and tells the shim that it will.
    patience: Duration,
}

/// What the shim said instead of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) code: Code,
    pub(crate) message: String,
}

impl Client {
    pub(crate) fn connect(runtime: &Handle, address: &str) -> ttrpc::Result<Client> {
        let connection = runtime.block_on(cryo_protos::Client::connect(address))?;
        Ok(Client { runtime: runtime.clone(), connection, version: Version::V3, patience: PATIENCE })
    }

    pub(crate) fn speaking(self, version: Version) -> Client {
        Client { version, ..self }
    }

    pub(crate) fn with_patience(self, patience: Duration) -> Client {
        Client { patience, ..self }
    }

    pub(crate) fn call<Q: Message, A: Message>(&self, method: &str, request: &Q) -> Result<A, Refusal> {
        let answer = self.runtime.block_on(self.send(method, request))?;
        Ok(A::parse_from_bytes(&answer).expect("the shim answers with a message of the right type"))
    }

    fn send<Q: Message>(
        &self,
        method: &str,
        request: &Q,
    ) -> impl Future<Output = Result<Vec<u8>, Refusal>> + Send + 'static {
        let service = match self.version {
            Version::V2 => "containerd.task.v2.Task",
            Version::V3 => "containerd.task.v3.Task",
        };
        let request = Request {
            service: service.to_owned(),
            method: method.to_owned(),
            payload: request.write_to_bytes().expect("a request can be written down"),
            timeout_nano: i64::try_from(self.patience.as_nanos()).unwrap_or(i64::MAX),
            ..Request::default()
        };
        let connection = self.connection.clone();
        async move { Ok(connection.request(request).await.map_err(Refusal::from)?.payload) }
    }

    /// Sends a request, waits for something else to happen, and closes the connection.
    pub(crate) fn send_and_hang_up<Q: Message>(self, method: &str, request: &Q, meanwhile: impl FnOnce()) {
        let pending: JoinHandle<_> = self.runtime.spawn(self.send(method, request));
        meanwhile();
        assert!(!pending.is_finished(), "{method} was answered before the client could leave");
        pending.abort();
        let runtime = self.runtime.clone();
        // The last holder of the connection.
        runtime.block_on(async move {
            let _ = pending.await;
            drop(self);
        });
    }
}

impl From<ttrpc::Error> for Refusal {
    fn from(error: ttrpc::Error) -> Refusal {
        match error {
            ttrpc::Error::RpcStatus(status) => {
                Refusal { code: status.code.enum_value_or(Code::UNKNOWN), message: status.message }
            }
            // Nothing the shim said: it is gone, or too slow.
            other => Refusal { code: Code::UNAVAILABLE, message: other.to_string() },
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.code, self.message)
    }
}

/// Checks that something was refused with this code and with all of these words.
#[track_caller]
pub(crate) fn refused<T: fmt::Debug>(result: Result<T, Refusal>, code: Code, words: &[&str]) -> String {
    let refusal = result.expect_err("this should have been refused");
    let said = words.iter().all(|word| refusal.message.contains(word));
    assert!(refusal.code == code && said, "expected {code:?} with {words:?}, got {refusal}");
    refusal.message
}

pub(crate) fn pack<M: cryo_protos::Named>(message: &M) -> Any {
    cryo_protos::pack(message).unwrap()
}

pub(crate) fn any(type_url: &str, value: &[u8]) -> Any {
    Any { type_url: type_url.to_owned(), value: value.to_vec(), ..Any::default() }
}
