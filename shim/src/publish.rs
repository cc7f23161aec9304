//! Events to containerd: in order, each until it is taken.
//!
//! A containerd that is away gets them when it is back. Only an event that containerd
//! itself refuses, again and again, is given up, so that it doesn't stop all others.

use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use cryo::event::{Event, Notice};
use cryo::mount::Mount;
use cryo::stdio::Paths;
use cryo_protos::api::ForwardRequest;
use cryo_protos::events::task;
use cryo_protos::protobuf::well_known_types::any::Any;
use cryo_protos::protobuf::well_known_types::timestamp::Timestamp;
use cryo_protos::protobuf::{self, MessageField};
use cryo_protos::ttrpc::{self, context};
use cryo_protos::{Client, Envelope, EventsClient, api, pack, topics};
use tokio::sync::{mpsc, oneshot};

const PATIENCE: Duration = Duration::from_secs(5);
const SHORTEST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
const MOST_REFUSALS: u32 = 5;

pub(crate) struct Publisher {
    address: String,
    namespace: String,
    client: Option<EventsClient>,
}

impl Publisher {
    /// `address` is containerd's ttrpc socket.
    pub(crate) fn new(address: &str, namespace: &str) -> Publisher {
        let address = if address.contains("://") { address.to_owned() } else { format!("unix://{address}") };
        Publisher { address, namespace: namespace.to_owned(), client: None }
    }

    /// Publishes until it is told to end, and then whatever was to be told before.
    pub(crate) async fn run(
        mut self,
        mut notices: mpsc::UnboundedReceiver<Notice>,
        mut end: oneshot::Receiver<()>,
    ) {
        loop {
            let notice = tokio::select! {
                biased;
                notice = notices.recv() => notice,
                _ = &mut end, if !notices.is_closed() => {
                    // What was sent before is still received.
                    notices.close();
                    continue;
                }
            };
            let Some(notice) = notice else { return };
            match self.envelope(notice) {
                Ok(envelope) => self.deliver(envelope).await,
                Err(error) => tracing::error!(%error, "an event can't be written down"),
            }
        }
    }

    async fn deliver(&mut self, envelope: Envelope) {
        let mut pause = SHORTEST_PAUSE;
        let mut refusals = 0;
        loop {
            let error = match self.forward(envelope.clone()).await {
                Ok(()) => return,
                Err(error) => error,
            };
            self.client = None;
            if let ttrpc::Error::RpcStatus(status) = &error
                && !matches!(status.code(), ttrpc::Code::UNAVAILABLE | ttrpc::Code::DEADLINE_EXCEEDED)
            {
                refusals += 1;
                if refusals == MOST_REFUSALS {
                    tracing::error!(%error, topic = envelope.topic, "containerd refuses an event; it is given up");
                    return;
                }
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    async fn forward(&mut self, envelope: Envelope) -> ttrpc::Result<()> {
        let client = match &self.client {
            Some(client) => client,
            None => self.client.insert(EventsClient::new(Client::connect(&self.address).await?)),
        };
        let request = ForwardRequest { envelope: Some(envelope).into(), ..ForwardRequest::default() };
        client.forward(context::with_duration(PATIENCE), &request).await.map(drop)
    }

    fn envelope(&self, notice: Notice) -> protobuf::Result<Envelope> {
        let (topic, event) = message(&notice.container, notice.event)?;
        Ok(Envelope {
            timestamp: timestamp(notice.at),
            namespace: self.namespace.clone(),
            topic: topic.to_owned(),
            event: Some(event).into(),
            ..Envelope::default()
        })
    }
}

/// A topic and an event, packed.
macro_rules! tell {
    ($topic:ident, $message:ident { $($field:ident: $value:expr),* $(,)? }) => {
        (topics::$topic, pack(&task::$message { $($field: $value,)* ..Default::default() })?)
    };
}

fn message(id: &str, event: Event) -> protobuf::Result<(&'static str, Any)> {
    let container_id = id.to_owned();
    let text = |path: PathBuf| path.to_string_lossy().into_owned();
    Ok(match event {
        Event::Created { pid, bundle, rootfs, stdio, checkpoint } => {
            tell!(
                TASK_CREATE_EVENT_TOPIC,
                TaskCreate {
                    container_id: container_id,
                    bundle: text(bundle),
                    rootfs: rootfs.into_iter().map(mount).collect(),
                    io: Some(task_io(stdio)).into(),
                    checkpoint: checkpoint.map(text).unwrap_or_default(),
                    pid: pid,
                }
            )
        }
        Event::Started { pid } => {
            tell!(TASK_START_EVENT_TOPIC, TaskStart { container_id: container_id, pid: pid })
        }
        Event::ExecAdded { exec } => {
            tell!(TASK_EXEC_ADDED_EVENT_TOPIC, TaskExecAdded { container_id: container_id, exec_id: exec })
        }
        Event::ExecStarted { exec, pid } => {
            tell!(
                TASK_EXEC_STARTED_EVENT_TOPIC,
                TaskExecStarted { container_id: container_id, exec_id: exec, pid: pid }
            )
        }
        Event::Exited { process, pid, exit } => {
            tell!(
                TASK_EXIT_EVENT_TOPIC,
                TaskExit {
                    container_id: container_id,
                    id: process,
                    pid: pid,
                    exit_status: exit.status,
                    exited_at: timestamp(exit.at),
                }
            )
        }
        Event::OutOfMemory => tell!(TASK_OOM_EVENT_TOPIC, TaskOOM { container_id: container_id }),
        Event::Paused => tell!(TASK_PAUSED_EVENT_TOPIC, TaskPaused { container_id: container_id }),
        Event::Resumed => tell!(TASK_RESUMED_EVENT_TOPIC, TaskResumed { container_id: container_id }),
        Event::Checkpointed { image } => {
            tell!(
                TASK_CHECKPOINTED_EVENT_TOPIC,
                TaskCheckpointed { container_id: container_id, checkpoint: text(image) }
            )
        }
        Event::Deleted { pid, exit } => {
            tell!(
                TASK_DELETE_EVENT_TOPIC,
                TaskDelete {
                    container_id: container_id,
                    pid: pid,
                    exit_status: exit.status,
                    exited_at: timestamp(exit.at),
                }
            )
        }
    })
}

fn task_io(stdio: Paths) -> task::TaskIO {
    let Paths { stdin, stdout, stderr, terminal } = stdio;
    task::TaskIO { stdin, stdout, stderr, terminal, ..Default::default() }
}

fn mount(mount: Mount) -> api::Mount {
    api::Mount {
        type_: mount.kind,
        source: mount.source,
        target: mount.target,
        options: mount.options,
        ..Default::default()
    }
}

pub(crate) fn timestamp(time: SystemTime) -> MessageField<Timestamp> {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let seconds = i64::try_from(since.as_secs()).unwrap_or(i64::MAX);
    let nanos = since.subsec_nanos().cast_signed();
    Some(Timestamp { seconds, nanos, ..Timestamp::default() }).into()
}
