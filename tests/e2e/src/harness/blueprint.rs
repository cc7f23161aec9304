//! A container as it is going to be: changed step by step, then created.

use std::collections::HashMap;
use std::path::Path;

use containerd_client::services::v1 as wire;
use containerd_client::types::{Descriptor, Mount};
use cryo_protos::runc::Options;
use serde_json::{Value, json};

use super::api::{CreateTask, pack, pack_json};
use super::bench::Bench;
use super::failure::{During, Outcome};
use super::image;
use super::pipes::{Kind, Pipes};
use super::settings::settings;
use super::spec;
use super::task::Task;

#[derive(Clone)]
pub(crate) struct Blueprint<'b> {
    pub(crate) bench: &'b Bench,
    pub(crate) id: String,
    pub(crate) spec: Value,
    pub(crate) options: Options,
    pub(crate) stdio: Kind,
    runtime_name: String,
    namespace: String,
    checkpoint: Option<Descriptor>,
    no_options: bool,
    owner: Option<u32>,
    root: Option<Mount>,
}

impl<'b> Blueprint<'b> {
    pub(crate) fn new(bench: &'b Bench, id: String, args: &[&str]) -> Self {
        let mut guest = vec!["/bin/guest"];
        guest.extend(args);
        let cgroup = bench.slot.cgroup_of(&id);
        let spec = spec::default_spec(&guest, &cgroup);
        let options = Options {
            binary_name: bench.runtime().binary().into(),
            systemd_cgroup: settings().systemd,
            ..Options::default()
        };
        let blueprint = Blueprint {
            bench,
            id,
            spec,
            options,
            stdio: Kind::Null,
            runtime_name: settings().shim.runtime_name().into(),
            namespace: bench.slot.containerd_namespace(),
            checkpoint: None,
            no_options: false,
            owner: None,
            root: None,
        };
        blueprint.stdio(bench.stdio())
    }

    /// Another root file system than its snapshot.
    pub(crate) fn root(mut self, kind: &str, source: &Path, options: &[&str]) -> Self {
        self.root = Some(Mount {
            r#type: kind.into(),
            source: source.display().to_string(),
            options: options.iter().map(|&word| word.to_owned()).collect(),
            ..Mount::default()
        });
        self
    }

    pub(crate) fn change(mut self, change: impl FnOnce(&mut Value)) -> Self {
        change(&mut self.spec);
        self
    }

    /// Runs another program than the guest.
    pub(crate) fn program(self, args: &[&str]) -> Self {
        self.change(|spec| spec["process"]["args"] = json!(args))
    }

    pub(crate) fn stdio(mut self, kind: Kind) -> Self {
        self.spec["process"]["terminal"] = json!(kind.is_terminal());
        self.stdio = kind;
        self
    }

    pub(crate) fn annotation(self, name: &str, value: &str) -> Self {
        self.change(|spec| spec["annotations"][name] = json!(value))
    }

    /// Shares the shim of another task, as the containers of a pod do.
    pub(crate) fn beside(self, first: &Task<'_>) -> Self {
        self.annotation("io.containerd.runc.v2.group", &first.id)
    }

    pub(crate) fn cgroup(self, path: &str) -> Self {
        self.change(|spec| spec["linux"]["cgroupsPath"] = json!(path))
    }

    pub(crate) fn memory_limit(self, bytes: u64) -> Self {
        self.change(|spec| spec["linux"]["resources"]["memory"] = json!({ "limit": bytes, "swap": bytes }))
    }

    pub(crate) fn pids_limit(self, limit: u64) -> Self {
        self.change(|spec| spec["linux"]["resources"]["pids"] = json!({ "limit": limit }))
    }

    /// In thousandths of one processor.
    pub(crate) fn cpu_limit(self, thousandths: u64) -> Self {
        self.change(|spec| {
            spec["linux"]["resources"]["cpu"] = json!({ "quota": thousandths * 100, "period": 100_000 });
        })
    }

    /// Shows a folder of the host inside.
    pub(crate) fn bind(self, outside: &Path, inside: &str) -> Self {
        self.change(|spec| {
            if let Some(mounts) = spec["mounts"].as_array_mut() {
                mounts.retain(|mount| mount["destination"] != inside);
                mounts.push(json!({
                    "destination": inside, "type": "bind", "source": outside, "options": ["rbind", "rw"],
                }));
            }
        })
    }

    pub(crate) fn host_network(self) -> Self {
        self.change(|spec| spec::set_namespace(spec, "network", None))
    }

    pub(crate) fn network_namespace(self, path: &Path) -> Self {
        self.change(|spec| spec::set_namespace(spec, "network", path.to_str()))
    }

    pub(crate) fn host_pids(self) -> Self {
        self.hosts("pid")
    }

    /// Shares the host's namespace of a kind.
    pub(crate) fn hosts(self, kind: &str) -> Self {
        self.change(|spec| {
            spec::set_namespace(spec, kind, None);
            if kind == "uts" {
                spec["hostname"].take();
            }
        })
    }

    /// Root inside is `first` outside.
    pub(crate) fn user_namespace(mut self, first: u32) -> Self {
        let mapping = json!([{ "containerID": 0, "hostID": first, "size": 65536 }]);
        self.spec["linux"]["uidMappings"] = mapping.clone();
        self.spec["linux"]["gidMappings"] = mapping;
        if let Some(namespaces) = self.spec["linux"]["namespaces"].as_array_mut() {
            namespaces.push(json!({ "type": "user" }));
        }
        self.options.io_uid = first;
        self.options.io_gid = first;
        self.owner = Some(first);
        self
    }

    pub(crate) fn options(mut self, change: impl FnOnce(&mut Options)) -> Self {
        change(&mut self.options);
        self
    }

    /// Sends no options at all, as many clients do for a runtime they don't know.
    pub(crate) fn without_options(mut self) -> Self {
        self.no_options = true;
        self
    }

    pub(crate) fn runtime_name(mut self, name: &str) -> Self {
        self.runtime_name = name.into();
        self
    }

    /// In another containerd namespace than the slot's.
    pub(crate) fn namespace(mut self, name: &str) -> Self {
        self.namespace = name.into();
        self
    }

    pub(crate) fn id(mut self, id: String) -> Self {
        self.spec["linux"]["cgroupsPath"] = json!(self.bench.slot.cgroup_of(&id));
        self.id = id;
        self
    }

    /// Comes back from an image in a folder.
    pub(crate) fn restoring_folder(mut self, folder: &Path) -> Self {
        self.options.criu_image_path = folder.display().to_string();
        self.checkpoint = None;
        self
    }

    /// Comes back from an image in containerd's content store.
    pub(crate) fn restoring_content(mut self, checkpoint: Descriptor) -> Self {
        self.options.criu_image_path.clear();
        self.checkpoint = Some(checkpoint);
        self
    }

    fn options_on_the_wire(&self) -> Option<prost_types::Any> {
        (!self.no_options).then(|| pack(&self.options))
    }

    /// Makes container and task; the process waits for `start`.
    #[track_caller]
    pub(crate) fn create(self) -> Outcome<Task<'b>> {
        let (task, answer) = self.try_create()?;
        let id = task.id.clone();
        task.created(answer.during(|| format!("creating {id}"))?);
        Ok(task)
    }

    #[track_caller]
    pub(crate) fn start(self) -> Outcome<Task<'b>> {
        let task = self.create()?;
        let id = task.id.clone();
        task.start().during(|| format!("starting {id}"))?;
        Ok(task)
    }

    /// Everything up to the Create call, and what that answered.
    #[track_caller]
    pub(crate) fn try_create(self) -> Outcome<(Task<'b>, super::api::Answer<u32>)> {
        let pipes = self.pipes()?;
        let prepared = self.prepare(pipes)?;
        let answer = prepared.task.api().create_task(prepared.request);
        Ok((prepared.task, answer))
    }

    pub(crate) fn pipes(&self) -> Outcome<Pipes> {
        Pipes::new(&self.bench.fresh_folder("stdio")?, &self.stdio, &self.bench.guest_outside())
    }

    /// All that a Create call needs, for those who look at the call alone.
    #[track_caller]
    pub(crate) fn prepare(self, pipes: Pipes) -> Outcome<Prepared<'b>> {
        let api = self.bench.api().in_namespace(&self.namespace);
        let rootfs = match self.root.clone() {
            Some(root) => vec![root],
            None => self.bench.root_filesystem(&api, &self.id, self.owner)?,
        };
        let record = wire::Container {
            id: self.id.clone(),
            image: image::NAME.into(),
            runtime: Some(wire::container::Runtime {
                name: self.runtime_name.clone(),
                options: self.options_on_the_wire(),
            }),
            spec: Some(pack_json("Spec", &self.spec)),
            snapshotter: "overlayfs".into(),
            snapshot_key: self.id.clone(),
            labels: HashMap::new(),
            ..wire::Container::default()
        };
        // A container that comes back under its own id has its record already.
        if api.create_container(record.clone()).is_err() {
            api.update_container(record).during(|| format!("the record of {}", self.id))?;
        }
        let request = CreateTask {
            id: self.id.clone(),
            rootfs,
            stdio: pipes.stdio.clone(),
            checkpoint: self.checkpoint.clone(),
            options: self.options_on_the_wire(),
        };
        let namespace = self.namespace.clone();
        Ok(Prepared { task: Task::new(self, namespace, pipes), request })
    }
}

/// A task that lacks nothing but to be created.
pub(crate) struct Prepared<'b> {
    task: Task<'b>,
    request: CreateTask,
}

impl<'b> Prepared<'b> {
    #[track_caller]
    pub(crate) fn create(self) -> Outcome<Task<'b>> {
        let answer = self.task.api().create_task(self.request);
        self.task.created(answer?);
        Ok(self.task)
    }
}
