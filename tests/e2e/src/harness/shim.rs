//! A shim's own socket, without containerd between: ttrpc calls of the Task service.

use std::fs;
use std::time::Duration;

use cryo_protos::protobuf::Message;
use cryo_protos::ttrpc;
use ttrpc::asynchronous::Client;
use ttrpc::proto::{Code, Request};

use super::api::RUNTIME;
use super::failure::{During, Outcome};
use super::settings::{Version, settings};
use super::task::Task;
use super::wait::patient;

const DEADLINE: Duration = Duration::from_secs(20);

pub(crate) struct ShimSocket {
    client: Client,
    pub(crate) path: std::path::PathBuf,
}

/// The service's name under which a call is made: the messages are the same.
#[derive(Clone, Copy, Debug)]
pub(crate) enum TaskVersion {
    V2,
    V3,
}

impl TaskVersion {
    /// The one that the oldest shim for this containerd speaks.
    pub(crate) fn usual() -> Self {
        if settings().containerd < Version(2, 0) { TaskVersion::V2 } else { TaskVersion::V3 }
    }

    fn service(self) -> &'static str {
        match self {
            TaskVersion::V2 => "containerd.task.v2.Task",
            TaskVersion::V3 => "containerd.task.v3.Task",
        }
    }
}

impl ShimSocket {
    /// Connects to the shim of a task by the address it left in the bundle.
    #[track_caller]
    pub(crate) fn of(task: &Task<'_>) -> Outcome<Self> {
        let address = address_of(task)?;
        let inside = address.strip_prefix("unix://").unwrap_or(&address);
        let path = task.bench.slot.outside(inside);
        // The client starts its own tasks, so it must be made inside the runtime.
        let connected = RUNTIME.block_on(Client::connect(&format!("unix://{}", path.display())));
        let client = connected.during(|| format!("connecting to {}", path.display()))?;
        Ok(ShimSocket { client, path })
    }

    pub(crate) fn call<R: Message>(
        &self,
        version: TaskVersion,
        method: &str,
        message: &impl Message,
    ) -> Result<R, Refusal> {
        let mut request = Request::new();
        request.service = version.service().into();
        request.method = method.into();
        request.timeout_nano = patient(DEADLINE).as_nanos() as i64;
        message.write_to_vec(&mut request.payload).expect("a message without required fields can be encoded");
        let response = RUNTIME.block_on(self.client.request(request))?;
        R::parse_from_bytes(&response.payload)
            .map_err(|error| Refusal { code: Code::DATA_LOSS, text: format!("answer to {method}: {error}") })
    }
}

pub(crate) fn bundle_of(task: &Task<'_>) -> std::path::PathBuf {
    let inside = format!("/run/containerd/io.containerd.runtime.v2.task/{}/{}", task.namespace, task.id);
    task.bench.slot.outside(&inside)
}

fn address_of(task: &Task<'_>) -> Outcome<String> {
    let bundle = bundle_of(task);
    // containerd 2 keeps it with the version and protocol, older ones by itself.
    if let Ok(text) = fs::read_to_string(bundle.join("bootstrap.json")) {
        let parsed: serde_json::Value = serde_json::from_str(&text)?;
        if let Some(address) = parsed["address"].as_str() {
            return Ok(address.to_owned());
        }
    }
    let path = bundle.join("address");
    fs::read_to_string(&path).during(|| path.display().to_string())
}

/// What the shim answers instead of a reply.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) code: Code,
    pub(crate) text: String,
}

impl std::error::Error for Refusal {}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}: {}", self.code, self.text)
    }
}

impl From<ttrpc::Error> for Refusal {
    fn from(error: ttrpc::Error) -> Self {
        match error {
            ttrpc::Error::RpcStatus(status) => Refusal { code: status.code(), text: status.message },
            other => Refusal { code: Code::UNAVAILABLE, text: other.to_string() },
        }
    }
}
