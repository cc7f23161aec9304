//! What of containerd a shim talks to: the service that takes its events.

use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use cryo_protos::api::ForwardRequest;
use cryo_protos::events::task;
use cryo_protos::protobuf::Message;
use cryo_protos::protobuf::well_known_types::any::Any;
use cryo_protos::protobuf::well_known_types::empty::Empty;
use cryo_protos::ttrpc::r#async::{Server, TtrpcContext};
use cryo_protos::ttrpc::error::get_rpc_status;
use cryo_protos::ttrpc::{Code, Result};
use cryo_protos::{Envelope, Events, create_events};
use tokio::runtime::Handle;
use tokio::sync::watch;

use super::wait::until;

const SOCKET: &str = "/run/containerd/containerd.sock";

/// What it does with an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Accept,
    /// Refuses all events, or those of one topic.
    Refuse(Option<&'static str>, Code),
    /// Takes it in and doesn't answer until it is told otherwise.
    Stall,
}

pub(crate) struct Containerd {
    runtime: Handle,
    server: Mutex<Option<Server>>,
    ledger: Arc<Ledger>,
}

struct Ledger {
    told: Mutex<Vec<Told>>,
    refused: Mutex<usize>,
    answer: watch::Sender<Answer>,
}

/// An event in few words.
#[derive(Clone, Debug)]
struct Told {
    container: String,
    what: String,
    envelope: Envelope,
}

impl Containerd {
    pub(crate) fn start(runtime: Handle) -> Containerd {
        fs::create_dir_all("/run/containerd").unwrap();
        let ledger = Ledger {
            told: Mutex::default(),
            refused: Mutex::default(),
            answer: watch::Sender::new(Answer::Accept),
        };
        let containerd = Containerd { runtime, server: Mutex::default(), ledger: Arc::new(ledger) };
        containerd.come_back();
        containerd
    }

    pub(crate) fn address() -> &'static str {
        SOCKET
    }

    pub(crate) fn ttrpc_address() -> String {
        format!("{SOCKET}.ttrpc")
    }

    /// Closes every connection and the socket.
    pub(crate) fn go_away(&self) {
        if let Some(mut server) = self.server.lock().unwrap().take() {
            self.runtime.block_on(async { server.shutdown().await }).unwrap();
        }
        let _ = fs::remove_file(PathBuf::from(Containerd::ttrpc_address()));
    }

    pub(crate) fn come_back(&self) {
        let server = self.runtime.block_on(async {
            let mut server = Server::new()
                .bind(&format!("unix://{}", Containerd::ttrpc_address()))
                .unwrap()
                .register_service(create_events(Arc::new(Forward(self.ledger.clone()))));
            server.start().await.unwrap();
            server
        });
        *self.server.lock().unwrap() = Some(server);
    }

    pub(crate) fn answer_with(&self, answer: Answer) {
        self.ledger.answer.send_replace(answer);
    }

    pub(crate) fn refusals(&self) -> usize {
        *self.ledger.refused.lock().unwrap()
    }

    /// Everything told of a container, in order.
    pub(crate) fn events(&self, container: &str) -> Vec<String> {
        let told = self.ledger.told.lock().unwrap();
        told.iter().filter(|told| told.container == container).map(|told| told.what.clone()).collect()
    }

    pub(crate) fn envelopes(&self, container: &str) -> Vec<Envelope> {
        let told = self.ledger.told.lock().unwrap();
        told.iter().filter(|told| told.container == container).map(|told| told.envelope.clone()).collect()
    }

    #[track_caller]
    pub(crate) fn wait_for_event(&self, container: &str, what: &str) {
        let told = || self.events(container).iter().any(|event| event == what);
        until(&format!("{what:?} of {container} among {:?}", self.events(container)), told);
    }
}

struct Forward(Arc<Ledger>);

#[async_trait]
impl Events for Forward {
    async fn forward(&self, _: &TtrpcContext, request: ForwardRequest) -> Result<Empty> {
        let envelope = request.envelope.into_option().unwrap_or_default();
        let mut answers = self.0.answer.subscribe();
        let answer = *answers.wait_for(|answer| *answer != Answer::Stall).await.map_err(|_| away())?;
        if let Answer::Refuse(topic, code) = answer
            && topic.is_none_or(|topic| envelope.topic == topic)
        {
            *self.0.refused.lock().unwrap() += 1;
            return Err(get_rpc_status(code, "not today"));
        }
        let (container, what) = read(&envelope);
        self.0.told.lock().unwrap().push(Told { container, what, envelope });
        Ok(Empty::default())
    }
}

fn away() -> cryo_protos::ttrpc::Error {
    get_rpc_status(Code::UNAVAILABLE, "the test has ended")
}

/// Whose event it is, and in few words what happened.
fn read(envelope: &Envelope) -> (String, String) {
    let event = envelope.event.clone().into_option().unwrap_or_default();
    match envelope.topic.as_str() {
        "/tasks/create" => of::<task::TaskCreate>(&event, |e| (e.container_id, "create".into())),
        "/tasks/start" => of::<task::TaskStart>(&event, |e| (e.container_id, "start".into())),
        "/tasks/exit" => of::<task::TaskExit>(&event, |e| {
            let status = e.exit_status;
            let what = if e.id == e.container_id {
                format!("exit {status}")
            } else {
                format!("exit {} {status}", e.id)
            };
            (e.container_id, what)
        }),
        "/tasks/delete" => {
            of::<task::TaskDelete>(&event, |e| (e.container_id, format!("delete {}", e.exit_status)))
        }
        "/tasks/exec-added" => {
            of::<task::TaskExecAdded>(&event, |e| (e.container_id, format!("exec-added {}", e.exec_id)))
        }
        "/tasks/exec-started" => {
            of::<task::TaskExecStarted>(&event, |e| (e.container_id, format!("exec-started {}", e.exec_id)))
        }
        "/tasks/paused" => of::<task::TaskPaused>(&event, |e| (e.container_id, "paused".into())),
        "/tasks/resumed" => of::<task::TaskResumed>(&event, |e| (e.container_id, "resumed".into())),
        "/tasks/checkpointed" => {
            of::<task::TaskCheckpointed>(&event, |e| (e.container_id, "checkpointed".into()))
        }
        "/tasks/oom" => of::<task::TaskOOM>(&event, |e| (e.container_id, "oom".into())),
        topic => (String::new(), topic.to_owned()),
    }
}

fn of<M: Message>(event: &Any, read: impl FnOnce(M) -> (String, String)) -> (String, String) {
    read(M::parse_from_bytes(&event.value).unwrap())
}
