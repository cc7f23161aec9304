//! containerd's events, collected from the start of a slot to its end.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Instant;

use containerd_client::events as wire;
use containerd_client::services::v1::events_client::EventsClient;
use containerd_client::services::v1::{PublishRequest, SubscribeRequest};
use containerd_client::types::Envelope;
use prost::Message;

use super::{Api, RUNTIME, call};
use crate::harness::failure::{Failure, Outcome};
use crate::harness::wait::{PATIENCE, deadline, eventually};

const PROBE: &str = "/cryo-e2e/probe";

/// One event of one task.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Event {
    Create { pid: u32, checkpoint: String },
    Start { pid: u32 },
    Exit { of: String, pid: u32, status: u32 },
    Delete { pid: u32, status: u32 },
    Oom,
    ExecAdded { exec: String },
    ExecStarted { exec: String, pid: u32 },
    Paused,
    Resumed,
    Checkpointed { path: String },
}

#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) container: String,
    pub(crate) event: Event,
}

#[derive(Default)]
pub(crate) struct Events {
    seen: Mutex<Heard>,
    more: Condvar,
}

#[derive(Default)]
struct Heard {
    tasks: Vec<Seen>,
    probes: usize,
}

impl Events {
    /// Subscribes, and returns when events do arrive.
    pub(crate) fn follow(self: &Arc<Self>, api: &Api) -> Outcome {
        let probes_before = self.lock().probes;
        let mut client = EventsClient::new(api.channel.clone());
        let request = api.request(SubscribeRequest { filters: Vec::new() });
        let events = Arc::clone(self);
        RUNTIME.spawn(async move {
            let Ok(stream) = client.subscribe(request).await else { return };
            let mut stream = stream.into_inner();
            // Ends when containerd does; then it is followed anew.
            while let Ok(Some(envelope)) = stream.message().await {
                events.add(envelope);
            }
        });
        eventually("events arrive from containerd", || {
            let mut client = EventsClient::new(api.channel.clone());
            let event =
                Some(prost_types::Any { type_url: "containerd.events.TaskOOM".into(), value: vec![] });
            let message = PublishRequest { topic: PROBE.into(), event };
            call(client.publish(api.request(message))).ok()?;
            (self.lock().probes > probes_before).then_some(())
        })
    }

    fn add(&self, envelope: Envelope) {
        let mut heard = self.lock();
        if envelope.topic == PROBE {
            heard.probes += 1;
        } else if let Some(seen) = decode(&envelope) {
            heard.tasks.push(seen);
        }
        drop(heard);
        self.more.notify_all();
    }

    /// What has been heard of a container so far, in order.
    pub(crate) fn of(&self, container: &str) -> Vec<Event> {
        let heard = self.lock();
        heard.tasks.iter().filter(|seen| seen.container == container).map(|seen| seen.event.clone()).collect()
    }

    /// Waits for an event of a container and returns its position among them.
    #[track_caller]
    pub(crate) fn wait_for(
        &self,
        container: &str,
        what: &str,
        wanted: impl Fn(&Event) -> bool,
    ) -> Outcome<usize> {
        let deadline = deadline(PATIENCE);
        let mut heard = self.lock();
        loop {
            let mut events = heard.tasks.iter().filter(|seen| seen.container == container);
            if let Some(at) = events.position(|seen| wanted(&seen.event)) {
                return Ok(at);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                drop(heard);
                return Err(Failure::new(format!("no event {what}; there were {:?}", self.of(container))));
            }
            heard = self.more.wait_timeout(heard, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Heard> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn decode(envelope: &Envelope) -> Option<Seen> {
    let value = envelope.event.as_ref()?.value.as_slice();
    let (container, event) = match envelope.topic.as_str() {
        "/tasks/create" => {
            let event = wire::TaskCreate::decode(value).ok()?;
            (event.container_id, Event::Create { pid: event.pid, checkpoint: event.checkpoint })
        }
        "/tasks/start" => {
            let event = wire::TaskStart::decode(value).ok()?;
            (event.container_id, Event::Start { pid: event.pid })
        }
        "/tasks/exit" => {
            let event = wire::TaskExit::decode(value).ok()?;
            (event.container_id, Event::Exit { of: event.id, pid: event.pid, status: event.exit_status })
        }
        "/tasks/delete" => {
            let event = wire::TaskDelete::decode(value).ok()?;
            (event.container_id, Event::Delete { pid: event.pid, status: event.exit_status })
        }
        "/tasks/oom" => (wire::TaskOom::decode(value).ok()?.container_id, Event::Oom),
        "/tasks/exec-added" => {
            let event = wire::TaskExecAdded::decode(value).ok()?;
            (event.container_id, Event::ExecAdded { exec: event.exec_id })
        }
        "/tasks/exec-started" => {
            let event = wire::TaskExecStarted::decode(value).ok()?;
            (event.container_id, Event::ExecStarted { exec: event.exec_id, pid: event.pid })
        }
        "/tasks/paused" => (wire::TaskPaused::decode(value).ok()?.container_id, Event::Paused),
        "/tasks/resumed" => (wire::TaskResumed::decode(value).ok()?.container_id, Event::Resumed),
        "/tasks/checkpointed" => {
            let event = wire::TaskCheckpointed::decode(value).ok()?;
            (event.container_id, Event::Checkpointed { path: event.checkpoint })
        }
        _ => return None,
    };
    Some(Seen { container, event })
}
