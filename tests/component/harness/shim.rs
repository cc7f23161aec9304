//! The shim's command line, called as containerd calls it.

use std::ffi::OsString;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use cryo_protos::api::DeleteResponse;
use cryo_protos::bootstrap::{BootstrapParams, BootstrapResult, Extension};
use cryo_protos::protobuf::Message;
use cryo_protos::protobuf::well_known_types::any::Any;

use super::containerd::Containerd;
use super::isolation::BINARIES;
use super::wait::PATIENCE;

/// How a generation of containerd calls `start`, and what it wants to hear.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// 1.6
    Plain,
    /// 1.7 to 2.2
    Json,
    /// 2.3
    Protobuf,
}

/// A call of the shim for one bundle.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) bundle: PathBuf,
    pub(crate) namespace: String,
    pub(crate) id: String,
    pub(crate) dialect: Dialect,
    pub(crate) options: Option<Any>,
    pub(crate) socket_folder: Option<String>,
    pub(crate) debug: bool,
    /// In place of what the dialect would write.
    pub(crate) input: Option<Vec<u8>>,
    pub(crate) environment: Vec<(&'static str, OsString)>,
}

/// What came of it.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
    /// Until the last holder of its output had closed it.
    pub(crate) took: Duration,
}

impl Call {
    #[track_caller]
    pub(crate) fn start(&self) -> Said {
        let (mut command, input) = self.start_command();
        said(&mut command, &input)
    }

    /// Called by a shell that prepares something before: `"$@"` in the script is the call.
    #[track_caller]
    pub(crate) fn start_in_shell(&self, script: &str) -> Said {
        let (command, input) = self.start_command();
        let mut shell = Command::new("sh");
        shell.args(["-c", script, "sh"]).arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => shell.env(name, value),
                None => shell.env_remove(name),
            };
        }
        said(shell.current_dir(&self.bundle), &input)
    }

    fn start_command(&self) -> (Command, Vec<u8>) {
        let mut command = self.command();
        command.arg("start").current_dir(&self.bundle);
        let options = self.options.as_ref().map(|any| any.write_to_bytes().unwrap()).unwrap_or_default();
        let mut input = options;
        match self.dialect {
            Dialect::Plain => {}
            Dialect::Json => drop(command.env("MAX_SHIM_VERSION", "2")),
            Dialect::Protobuf => {
                command.env("MAX_SHIM_VERSION", "2");
                input = self.parameters().write_to_bytes().unwrap();
            }
        }
        (command, self.input.clone().unwrap_or(input))
    }

    pub(crate) fn parameters(&self) -> BootstrapParams {
        let extension = |any: &Any| Extension { value: Some(any.clone()).into(), ..Extension::default() };
        BootstrapParams {
            instance_id: self.id.clone(),
            namespace: self.namespace.clone(),
            containerd_ttrpc_address: Containerd::ttrpc_address(),
            containerd_grpc_address: Containerd::address().to_owned(),
            extensions: self.options.iter().map(extension).collect(),
            socket_dir: self.socket_folder.clone(),
            ..BootstrapParams::default()
        }
    }

    /// From the bundle's own folder, as containerd does, with the bundle named or not.
    pub(crate) fn delete(&self) -> Said {
        let mut command = self.command();
        command.arg("-bundle").arg(&self.bundle).arg("delete").current_dir(&self.bundle);
        said(&mut command, &[])
    }

    /// From the bundle's folder, so that the runtime finds its script.
    #[track_caller]
    pub(crate) fn info(&self, options: &[u8]) -> Said {
        let mut command = Command::new(shim());
        said(command.arg("-info").current_dir(&self.bundle), options)
    }

    fn command(&self) -> Command {
        let mut command = Command::new(shim());
        command.args(["-namespace", &self.namespace, "-id", &self.id, "-address", Containerd::address()]);
        command.args(["-publish-binary", "/usr/bin/containerd"]);
        if self.debug {
            command.arg("-debug");
        }
        command.env_remove("MAX_SHIM_VERSION").env("TTRPC_ADDRESS", Containerd::ttrpc_address());
        command.env("GRPC_ADDRESS", Containerd::address()).env("NAMESPACE", &self.namespace);
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }
}

pub(crate) fn shim() -> PathBuf {
    Path::new(BINARIES).join("containerd-shim-cryo-v2")
}

/// Runs it and listens until nobody can say any more.
#[track_caller]
pub(crate) fn said(command: &mut Command, input: &[u8]) -> Said {
    let begun = Instant::now();
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // One that doesn't read its input may have ended.
    let _ = child.stdin.take().map(|mut stdin| stdin.write_all(input));
    let stdout = listen(child.stdout.take().unwrap());
    let stderr = listen(child.stderr.take().unwrap());
    let heard = |what, end: mpsc::Receiver<Vec<u8>>| {
        end.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("somebody holds {what} of {command:?} open"))
    };
    let (stdout, stderr) = (heard("stdout", stdout), heard("stderr", stderr));
    let took = begun.elapsed();
    let stderr = String::from_utf8_lossy(&stderr).into_owned();
    Said { status: child.wait().unwrap(), stdout, stderr, took }
}

fn listen(mut output: impl Read + Send + 'static) -> mpsc::Receiver<Vec<u8>> {
    let (told, heard) = mpsc::channel();
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = output.read_to_end(&mut bytes);
        let _ = told.send(bytes);
    });
    heard
}

impl Said {
    /// The address in the answer to `start`, read as that generation of containerd does.
    #[track_caller]
    pub(crate) fn address(&self, dialect: Dialect) -> String {
        assert!(self.status.success(), "start failed: {}", self.stderr);
        assert_eq!(self.stderr, "", "containerd takes stderr for a part of the answer");
        match dialect {
            Dialect::Plain => String::from_utf8(self.stdout.clone()).unwrap(),
            Dialect::Json => {
                let answer: serde_json::Value = serde_json::from_slice(&self.stdout).unwrap();
                assert_eq!((&answer["version"], &answer["protocol"]), (&2.into(), &"ttrpc".into()));
                answer["address"].as_str().unwrap().to_owned()
            }
            Dialect::Protobuf => {
                let answer = BootstrapResult::parse_from_bytes(&self.stdout).unwrap();
                assert_eq!((answer.version, answer.protocol.as_str()), (2, "ttrpc"));
                answer.address
            }
        }
    }

    /// The answer to `delete`.
    #[track_caller]
    pub(crate) fn deleted(&self) -> DeleteResponse {
        assert!(self.status.success(), "delete failed: {}", self.stderr);
        DeleteResponse::parse_from_bytes(&self.stdout).unwrap()
    }
}
