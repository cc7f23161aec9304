//! containerd's gRPC API, called from ordinary threads: each call waits for its
//! answer, but never longer than a hang deserves.

mod events;
mod store;
mod tasks;

use std::future::Future;
use std::path::Path;
use std::sync::LazyLock;
use std::time::Duration;

use containerd_client::tonic::{Code, Request, Response, Status, transport::Channel};
use cryo_protos::protobuf::MessageFull;
use tokio::runtime::Runtime;

use crate::harness::wait::patient;

pub(crate) use events::{Event, Events};
pub(crate) use tasks::{CreateTask, Exit, Stdio};

/// No call of these tests may take longer, however slow the machine is.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

pub(crate) static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime can be made at start-up")
});

pub(crate) type Answer<T> = Result<T, Status>;

#[derive(Clone)]
pub(crate) struct Api {
    pub(crate) channel: Channel,
    pub(crate) namespace: String,
    /// What calls make belongs to this lease, and stays as long as it exists.
    lease: Option<String>,
}

impl Api {
    /// Fails while nobody answers at the socket.
    pub(crate) fn connect(socket: &Path, namespace: &str) -> Answer<Self> {
        let channel = RUNTIME.block_on(containerd_client::connect(socket));
        let channel = channel.map_err(|error| Status::unavailable(error.to_string()))?;
        let api = Api { channel, namespace: namespace.to_owned(), lease: None };
        api.version()?;
        Ok(api)
    }

    pub(crate) fn in_namespace(&self, namespace: &str) -> Self {
        Api { namespace: namespace.to_owned(), ..self.clone() }
    }

    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        let namespace = self.namespace.parse().expect("a namespace of letters, digits and dashes");
        request.metadata_mut().insert("containerd-namespace", namespace);
        if let Some(lease) = self.lease.as_ref().and_then(|lease| lease.parse().ok()) {
            request.metadata_mut().insert("containerd-lease", lease);
        }
        request
    }

    /// The least there is to ask.
    pub(crate) fn version(&self) -> Answer<()> {
        let mut client =
            containerd_client::services::v1::version_client::VersionClient::new(self.channel.clone());
        call(client.version(self.request(())))?;
        Ok(())
    }
}

pub(crate) fn call<T>(answer: impl Future<Output = Answer<Response<T>>>) -> Answer<T> {
    call_within(DEADLINE, answer)
}

pub(crate) fn call_within<T>(
    deadline: Duration,
    answer: impl Future<Output = Answer<Response<T>>>,
) -> Answer<T> {
    let deadline = patient(deadline);
    RUNTIME.block_on(async {
        match tokio::time::timeout(deadline, answer).await {
            Ok(answer) => answer.map(Response::into_inner),
            Err(_) => Err(Status::deadline_exceeded(format!("the test got no answer within {deadline:?}"))),
        }
    })
}

/// Packs a message the way clients of containerd do.
pub(crate) fn pack<M: MessageFull>(message: &M) -> prost_types::Any {
    prost_types::Any {
        type_url: M::descriptor().full_name().to_owned(),
        value: message.write_to_bytes().expect("a message without required fields can be encoded"),
    }
}

/// Packs one of the OCI runtime specification's types.
pub(crate) fn pack_json(kind: &str, value: &serde_json::Value) -> prost_types::Any {
    prost_types::Any {
        type_url: format!("types.containerd.io/opencontainers/runtime-spec/1/{kind}"),
        value: value.to_string().into_bytes(),
    }
}

/// The message of a refusal with one of `codes`.
#[track_caller]
pub(crate) fn refused<T>(answer: Answer<T>, codes: &[Code]) -> super::Outcome<String> {
    match answer {
        Ok(_) => Err(super::Failure::new("this was to be refused but was not")),
        Err(status) if codes.is_empty() || codes.contains(&status.code()) => Ok(status.message().to_owned()),
        Err(status) => {
            Err(super::Failure::new(format!("refused with {:?}: {}", status.code(), status.message())))
        }
    }
}
