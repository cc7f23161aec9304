//! Every message that containerd and the shim exchange, and nothing else.
//!
//! Most come from `containerd-shim-protos`; the option types it leaves out are
//! declared in `proto/`.

pub use containerd_shim_protos::{
    api, bootstrap_api as bootstrap, cgroups, cgroups_v2, events,
    shim::event::Envelope,
    shim::oci as runc,
    shim_async::{Client, Events, EventsClient, Task, TaskClient, create_events, create_task},
    topics,
    types::introspection,
};
pub use {protobuf, ttrpc};

mod generated {
    include!(concat!(env!("OUT_DIR"), "/generated/mod.rs"));
}
pub use generated::{linux_runc, runtimeoptions};

use events::task;
use protobuf::Message;
use protobuf::well_known_types::any::Any;

/// A message that travels inside an `Any`, under this name. The library knows the names
/// too, but builds a description of every message to tell them: a third of the shim's
/// memory.
pub trait Named: Message {
    const FULL_NAME: &'static str;
}

macro_rules! named {
    ($($message:ty => $name:literal,)*) => {
        $(impl Named for $message {
            const FULL_NAME: &'static str = $name;
        })*

        #[cfg(test)]
        mod tests {
            use super::*;
            use protobuf::MessageFull;

            #[test]
            fn names_are_what_the_library_calls_them() {
                $(assert_eq!(<$message>::FULL_NAME, <$message>::descriptor().full_name());)*
            }
        }
    };
}

named! {
    task::TaskCreate => "containerd.events.TaskCreate",
    task::TaskStart => "containerd.events.TaskStart",
    task::TaskDelete => "containerd.events.TaskDelete",
    task::TaskExit => "containerd.events.TaskExit",
    task::TaskOOM => "containerd.events.TaskOOM",
    task::TaskExecAdded => "containerd.events.TaskExecAdded",
    task::TaskExecStarted => "containerd.events.TaskExecStarted",
    task::TaskPaused => "containerd.events.TaskPaused",
    task::TaskResumed => "containerd.events.TaskResumed",
    task::TaskCheckpointed => "containerd.events.TaskCheckpointed",
    runc::Options => "containerd.runc.v1.Options",
    runc::CheckpointOptions => "containerd.runc.v1.CheckpointOptions",
    runc::ProcessDetails => "containerd.runc.v1.ProcessDetails",
    linux_runc::RuncOptions => "containerd.linux.runc.RuncOptions",
    linux_runc::CreateOptions => "containerd.linux.runc.CreateOptions",
    linux_runc::CheckpointOptions => "containerd.linux.runc.CheckpointOptions",
    runtimeoptions::Options => "runtimeoptions.v1.Options",
    cgroups::metrics::Metrics => "io.containerd.cgroups.v1.Metrics",
    cgroups_v2::metrics::Metrics => "io.containerd.cgroups.v2.Metrics",
}

/// Packs a message the way containerd does: the bare name as type URL, without a host.
pub fn pack<M: Named>(message: &M) -> protobuf::Result<Any> {
    Ok(Any { type_url: M::FULL_NAME.to_owned(), value: message.write_to_bytes()?, ..Any::default() })
}

/// Whether `any` names the message type `M`, with or without a host before its name.
pub fn is<M: Named>(any: &Any) -> bool {
    any.type_url.rsplit('/').next() == Some(M::FULL_NAME)
}
