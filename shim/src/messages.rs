//! The few messages of containerd's own API that are sent, with what is needed of them.

use std::collections::HashMap;

use cryo_protos::Named;
use cryo_protos::protobuf::well_known_types::any::Any;
use prost::Message;

pub(crate) const CHECKPOINT_TASK: &str = "containerd.services.tasks.v1.Tasks/Checkpoint";
pub(crate) const CREATE_TASK: &str = "containerd.services.tasks.v1.Tasks/Create";
pub(crate) const START_TASK: &str = "containerd.services.tasks.v1.Tasks/Start";
pub(crate) const GET_TASK: &str = "containerd.services.tasks.v1.Tasks/Get";
pub(crate) const DELETE_TASK: &str = "containerd.services.tasks.v1.Tasks/Delete";
pub(crate) const GET_CONTAINER: &str = "containerd.services.containers.v1.Containers/Get";
pub(crate) const CREATE_CONTAINER: &str = "containerd.services.containers.v1.Containers/Create";
pub(crate) const DELETE_CONTAINER: &str = "containerd.services.containers.v1.Containers/Delete";
pub(crate) const MOUNTS: &str = "containerd.services.snapshots.v1.Snapshots/Mounts";
pub(crate) const STAT_SNAPSHOT: &str = "containerd.services.snapshots.v1.Snapshots/Stat";
pub(crate) const PREPARE_SNAPSHOT: &str = "containerd.services.snapshots.v1.Snapshots/Prepare";
pub(crate) const CREATE_LEASE: &str = "containerd.services.leases.v1.Leases/Create";
pub(crate) const DELETE_LEASE: &str = "containerd.services.leases.v1.Leases/Delete";
pub(crate) const REMOVE_SNAPSHOT: &str = "containerd.services.snapshots.v1.Snapshots/Remove";

/// A task that has ended and wasn't deleted.
pub(crate) const STOPPED: i32 = 3;

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Nothing {}

/// A request about the thing of that id, or name, or digest; or nothing but that.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct ById {
    #[prost(string, tag = "1")]
    pub(crate) id: String,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Packed {
    #[prost(string, tag = "1")]
    pub(crate) type_url: String,
    #[prost(bytes = "vec", tag = "2")]
    pub(crate) value: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct CheckpointTask {
    #[prost(string, tag = "1")]
    pub(crate) container_id: String,
    #[prost(message, optional, tag = "3")]
    pub(crate) options: Option<Packed>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct CreateTask {
    #[prost(string, tag = "1")]
    pub(crate) container_id: String,
    #[prost(message, repeated, tag = "3")]
    pub(crate) rootfs: Vec<Mount>,
    #[prost(string, tag = "4")]
    pub(crate) stdin: String,
    #[prost(string, tag = "5")]
    pub(crate) stdout: String,
    #[prost(string, tag = "6")]
    pub(crate) stderr: String,
    #[prost(bool, tag = "7")]
    pub(crate) terminal: bool,
    #[prost(message, optional, tag = "9")]
    pub(crate) options: Option<Packed>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct GetTaskAnswer {
    #[prost(message, optional, tag = "1")]
    pub(crate) process: Option<Process>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Process {
    #[prost(int32, tag = "4")]
    pub(crate) status: i32,
    #[prost(string, tag = "5")]
    pub(crate) stdin: String,
    #[prost(string, tag = "6")]
    pub(crate) stdout: String,
    #[prost(string, tag = "7")]
    pub(crate) stderr: String,
    #[prost(bool, tag = "8")]
    pub(crate) terminal: bool,
}

/// A request to make one, and the answer when one is asked for.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct OfContainer {
    #[prost(message, optional, tag = "1")]
    pub(crate) container: Option<Container>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Container {
    #[prost(string, tag = "1")]
    pub(crate) id: String,
    #[prost(map = "string, string", tag = "2")]
    pub(crate) labels: HashMap<String, String>,
    #[prost(string, tag = "3")]
    pub(crate) image: String,
    #[prost(message, optional, tag = "4")]
    pub(crate) runtime: Option<Runtime>,
    #[prost(message, optional, tag = "5")]
    pub(crate) spec: Option<Packed>,
    #[prost(string, tag = "6")]
    pub(crate) snapshotter: String,
    #[prost(string, tag = "7")]
    pub(crate) snapshot_key: String,
    #[prost(map = "string, message", tag = "10")]
    pub(crate) extensions: HashMap<String, Packed>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Runtime {
    #[prost(string, tag = "1")]
    pub(crate) name: String,
    #[prost(message, optional, tag = "2")]
    pub(crate) options: Option<Packed>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Mount {
    #[prost(string, tag = "1")]
    pub(crate) kind: String,
    #[prost(string, tag = "2")]
    pub(crate) source: String,
    #[prost(string, tag = "3")]
    pub(crate) target: String,
    #[prost(string, repeated, tag = "4")]
    pub(crate) options: Vec<String>,
}

/// A request about a snapshot; its parent is only said to make it.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct OfSnapshot {
    #[prost(string, tag = "1")]
    pub(crate) snapshotter: String,
    #[prost(string, tag = "2")]
    pub(crate) key: String,
    #[prost(string, tag = "3")]
    pub(crate) parent: String,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Mounts {
    #[prost(message, repeated, tag = "1")]
    pub(crate) mounts: Vec<Mount>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct StatAnswer {
    #[prost(message, optional, tag = "1")]
    pub(crate) info: Option<Info>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Info {
    #[prost(string, tag = "2")]
    pub(crate) parent: String,
}

impl Packed {
    /// As shims and containerd exchange their options.
    pub(crate) fn of<M: Named>(message: &M) -> Result<Packed, cryo_protos::protobuf::Error> {
        let Any { type_url, value, .. } = cryo_protos::pack(message)?;
        Ok(Packed { type_url, value })
    }

    pub(crate) fn unpacked(&self) -> Any {
        Any { type_url: self.type_url.clone(), value: self.value.clone(), ..Any::default() }
    }
}
