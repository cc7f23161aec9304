//! Containers to be: their bundle, the runtime's script, their streams and options.

use std::fs;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use cryo_protos::api::{self, CreateTaskRequest};
use cryo_protos::runc;
use serde_json::{Value, json};

use super::client::pack;
use super::container::Container;
use super::isolation::BINARIES;
use super::pipes::{Pipe, mkfifo};
use super::shim::{Call, Dialect};
use super::world::World;

const BUNDLES: &str = "/run/containerd/io.containerd.runtime.v2.task";
const FIFOS: &str = "/run/containerd/fifo";

/// Where a container's streams lead.
#[derive(Clone, Debug)]
pub(crate) enum Streams {
    Null,
    Fifos,
    /// Fifos that nobody reads until the test does.
    UnreadFifos,
    Terminal,
    /// For stdout; a logger or a file takes both.
    Uri(String),
}

/// A point of a call of the runtime, by verb and name, for each call or the n-th.
#[derive(Clone, Debug)]
pub(crate) struct Point {
    verb: &'static str,
    name: &'static str,
    call: usize,
}

impl Point {
    pub(crate) fn nth(self, call: usize) -> Point {
        Point { call, ..self }
    }
}

/// What the runtime does at which point.
#[derive(Clone, Debug, Default)]
pub(crate) struct Script(Vec<Value>);

impl Script {
    pub(crate) fn at(verb: &'static str, name: &'static str) -> Point {
        Point { verb, name, call: 0 }
    }

    /// `action` is as the fake runtime reads it: `"hang"`, `{"fail": "message"}` …
    pub(crate) fn rule(&mut self, point: Point, action: impl Into<Value>) {
        self.0.push(json!({
            "verb": point.verb, "point": point.name, "call": point.call, "do": action.into(),
        }));
    }
}

#[derive(Clone)]
pub(crate) struct Blueprint<'a> {
    world: &'a World,
    id: String,
    namespace: String,
    program: Vec<String>,
    runtime: &'static str,
    namespaces: Vec<Value>,
    annotations: serde_json::Map<String, Value>,
    streams: Streams,
    rootfs: Vec<api::Mount>,
    checkpoint: Option<PathBuf>,
    options: runc::Options,
    script: Script,
    debug: bool,
}

/// A bundle as containerd lays it out, and all that is needed to call the shim for it.
#[derive(Clone)]
pub(crate) struct Bundle {
    pub(crate) path: PathBuf,
    pub(crate) call: Call,
    pub(crate) request: CreateTaskRequest,
    pub(crate) stdin: Option<Pipe>,
    pub(crate) stdout: Option<Pipe>,
    pub(crate) stderr: Option<Pipe>,
    /// What the shim wrote into the log fifo.
    pub(crate) log: Arc<Mutex<Vec<u8>>>,
}

impl<'a> Blueprint<'a> {
    pub(crate) fn new(world: &'a World, id: &str) -> Blueprint<'a> {
        let namespaces = ["pid", "ipc", "mount"].map(|kind| json!({ "type": kind }));
        Blueprint {
            world,
            id: id.to_owned(),
            namespace: "default".to_owned(),
            program: vec!["sleep".to_owned()],
            runtime: "runc",
            namespaces: namespaces.to_vec(),
            annotations: serde_json::Map::new(),
            streams: Streams::Null,
            rootfs: Vec::new(),
            checkpoint: None,
            options: runc::Options::default(),
            script: Script::default(),
            debug: false,
        }
    }

    pub(crate) fn program<const N: usize>(mut self, steps: [&str; N]) -> Self {
        self.program = steps.map(str::to_owned).to_vec();
        self
    }

    pub(crate) fn namespace(mut self, name: &str) -> Self {
        name.clone_into(&mut self.namespace);
        self
    }

    pub(crate) fn crun(mut self) -> Self {
        self.runtime = "crun";
        self
    }

    /// With pids of the host's, the end of the first process isn't everybody's.
    pub(crate) fn shared_pids(mut self) -> Self {
        self.namespaces.retain(|namespace| namespace["type"] != "pid");
        self
    }

    /// With a network namespace of its own.
    pub(crate) fn networked(mut self) -> Self {
        self.namespaces.push(json!({ "type": "network" }));
        self
    }

    pub(crate) fn with_namespace(mut self, namespace: Value) -> Self {
        self.namespaces.push(namespace);
        self
    }

    pub(crate) fn annotation(mut self, name: &str, value: &str) -> Self {
        self.annotations.insert(name.to_owned(), value.into());
        self
    }

    pub(crate) fn streams(mut self, streams: Streams) -> Self {
        self.streams = streams;
        self
    }

    pub(crate) fn fifos(self) -> Self {
        self.streams(Streams::Fifos)
    }

    /// A root file system that is a folder of the test's, mounted as a snapshotter would.
    pub(crate) fn rootfs(mut self, source: &Path) -> Self {
        self.rootfs = vec![api::Mount {
            type_: "bind".to_owned(),
            source: source.to_str().unwrap().to_owned(),
            options: vec!["rbind".to_owned(), "rw".to_owned()],
            ..api::Mount::default()
        }];
        self
    }

    pub(crate) fn mounts(mut self, mounts: Vec<api::Mount>) -> Self {
        self.rootfs = mounts;
        self
    }

    #[expect(clippy::wrong_self_convention, reason = "it says what the container is made from")]
    pub(crate) fn from_checkpoint(mut self, image: impl Into<PathBuf>) -> Self {
        self.checkpoint = Some(image.into());
        self
    }

    pub(crate) fn options(mut self, change: impl FnOnce(&mut runc::Options)) -> Self {
        change(&mut self.options);
        self
    }

    pub(crate) fn rule(mut self, point: Point, action: impl Into<Value>) -> Self {
        self.script.rule(point, action);
        self
    }

    pub(crate) fn debug(mut self) -> Self {
        self.debug = true;
        self
    }

    /// Writes the bundle; no shim runs yet.
    #[track_caller]
    pub(crate) fn lay_out(&self) -> Bundle {
        let path = Path::new(BUNDLES).join(&self.namespace).join(&self.id);
        fs::create_dir_all(path.join("rootfs")).unwrap();
        fs::write(path.join("config.json"), self.config().to_string()).unwrap();
        write_script(&path, &self.script);
        let log = log_of(&path);
        let mut request = CreateTaskRequest {
            id: self.id.clone(),
            bundle: path.to_str().unwrap().to_owned(),
            rootfs: self.rootfs.clone(),
            terminal: matches!(self.streams, Streams::Terminal),
            checkpoint: self.checkpoint.iter().map(|path| path.to_str().unwrap()).collect(),
            options: Some(pack(&self.runtime_options())).into(),
            ..CreateTaskRequest::default()
        };
        let [stdin, stdout, stderr] = self.pipes();
        let name = |pipe: &Option<Pipe>| pipe.iter().map(|pipe| pipe.path().to_str().unwrap()).collect();
        (request.stdin, request.stdout, request.stderr) = (name(&stdin), name(&stdout), name(&stderr));
        if let Streams::Uri(uri) = &self.streams {
            (request.stdout, request.stderr) = (uri.clone(), uri.clone());
        }
        let call = Call {
            bundle: path.clone(),
            namespace: self.namespace.clone(),
            id: self.id.clone(),
            dialect: Dialect::Json,
            options: Some(pack(&self.runtime_options())),
            socket_folder: None,
            debug: self.debug,
            input: None,
            environment: Vec::new(),
        };
        self.world.note_bundle(&path);
        Bundle { path, call, request, stdin, stdout, stderr, log }
    }

    fn runtime_options(&self) -> runc::Options {
        let binary_name = Path::new(BINARIES).join(self.runtime).to_str().unwrap().to_owned();
        runc::Options { binary_name, ..self.options.clone() }
    }

    fn config(&self) -> Value {
        // The fake runtime's containers give none up.
        let names = rustix::thread::CapabilitySet::all().iter_names();
        let capabilities: Vec<String> = names.map(|(name, _)| format!("CAP_{name}")).collect();
        json!({
            "ociVersion": "1.2.0",
            "process": {
                "terminal": matches!(self.streams, Streams::Terminal),
                "args": self.program,
                "cwd": "/",
                "capabilities": { "bounding": capabilities },
            },
            "root": { "path": "rootfs" },
            "annotations": self.annotations,
            "linux": {
                "namespaces": self.namespaces,
                "cgroupsPath": self.world.cgroups_path(&self.namespace, &self.id),
            },
        })
    }

    fn pipes(&self) -> [Option<Pipe>; 3] {
        let folder = Path::new(FIFOS).join(&self.namespace);
        let path = |name| {
            fs::create_dir_all(&folder).unwrap();
            folder.join(format!("{}-{name}", self.id))
        };
        match self.streams {
            Streams::Null | Streams::Uri(_) => [None, None, None],
            Streams::Fifos => [
                Some(Pipe::unread(path("stdin"))),
                Some(Pipe::read(path("stdout"))),
                Some(Pipe::read(path("stderr"))),
            ],
            Streams::UnreadFifos => [
                Some(Pipe::unread(path("stdin"))),
                Some(Pipe::unread(path("stdout"))),
                Some(Pipe::unread(path("stderr"))),
            ],
            Streams::Terminal => [Some(Pipe::unread(path("stdin"))), Some(Pipe::read(path("stdout"))), None],
        }
    }

    /// Starts a shim for it.
    #[track_caller]
    pub(crate) fn boot(&self) -> Container {
        Container::boot(self.world, self.lay_out())
    }

    #[track_caller]
    pub(crate) fn created(&self) -> Container {
        let container = self.boot();
        container.create().unwrap();
        container
    }

    #[track_caller]
    pub(crate) fn started(&self) -> Container {
        let container = self.created();
        container.start().unwrap();
        container
    }
}

/// What the runtime does from its next call on.
pub(crate) fn write_script(bundle: &Path, script: &Script) {
    let new = bundle.join("script.new");
    fs::write(&new, Value::from(script.0.clone()).to_string()).unwrap();
    fs::rename(new, bundle.join("script.json")).unwrap();
}

/// Made and held open by containerd before it calls the shim.
fn log_of(bundle: &Path) -> Arc<Mutex<Vec<u8>>> {
    let path = bundle.join("log");
    mkfifo(&path);
    let mut fifo = fs::File::options().read(true).write(true).custom_flags(0).open(path).unwrap();
    let log: Arc<Mutex<Vec<u8>>> = Arc::default();
    let written = log.clone();
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(count @ 1..) = fifo.read(&mut buffer) {
            written.lock().unwrap().extend(&buffer[..count]);
        }
    });
    log
}
