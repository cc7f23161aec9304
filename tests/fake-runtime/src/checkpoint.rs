//! `checkpoint`, with the part of CRIU in it: image files, logs, and the call of a script
//! of the client's when everything is written and nothing killed yet.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::call::Call;
use crate::failure::{Failure, Outcome};
use crate::script::{Script, criu_error};
use crate::state::{State, Status};
use crate::verbs::config;

const COMMON: u32 = 0x5456_4319;
pub(crate) const INVENTORY: u32 = 0x5831_3116;
const PSTREE: u32 = 0x5027_3030;
const IDS: u32 = 0x5443_2030;
const NETNS: u32 = 0x5593_3752;
const CORE: u32 = 0x5505_3847;
const USERS: u32 = 0x5547_4906;
/// Field 8 of the message, a string of 12 bytes.
const EXTERNAL: &[u8] = b"\x42\x0cextRootNetNS";
pub(crate) const PAGES_BYTES: usize = 64 << 10;
/// So long that a file cut short can't pass for a whole one.
pub(crate) const CORE_BYTES: usize = 4096;

/// Points: `written`, one file is there; `dumped`, all are; `sealed`, the script has
/// run, and the stop may be skipped; `killed`, the container is gone.
pub(crate) fn checkpoint(call: &Call, script: &Script) -> Outcome {
    let state = State::load(call)?;
    if !matches!(state.status(), Status::Running | Status::Paused) {
        return Err(Failure::new("Container cannot be checkpointed in stopped state"));
    }
    let criu = Criu::of(call, "dump.log")?;
    let (image, log) = (criu.image.clone(), criu.log.clone());
    let reach = |point| script.reach_with(point, Some(state.pid), Some(&log));
    criu.call_scripts("pre-dump", state.pid)?;
    criu.write("inventory.img", &INVENTORY.to_le_bytes(), &[0; 64])?;
    reach("written")?;
    dump(&criu, &config()?, call.id(), state.pid)?;
    fs::write(criu.work.join("stats-dump"), b"stats")?;
    reach("dumped")?;
    criu.call_scripts("post-dump", state.pid)?;
    reach("sealed")?;
    if !call.has("--leave-running") && !script.skips("sealed") {
        state.kill_all();
        reach("killed")?;
        state.remove()?;
    }
    criu.note("Dumping finished successfully")?;
    // What a real one wrote is on the disk by now, more or less.
    File::open(image)?.sync_all()?;
    reach("after")
}

fn dump(criu: &Criu, config: &Value, id: &str, pid: u32) -> Outcome {
    let header = |magic: u32| [COMMON.to_le_bytes(), magic.to_le_bytes()].concat();
    let message = |magic, body: &[u8]| {
        let length = u32::try_from(body.len()).unwrap_or_default();
        [&header(magic)[..], &length.to_le_bytes(), body].concat()
    };
    criu.write("pstree.img", &message(PSTREE, &[0x08, 1]), &[])?;
    criu.write("ids-1.img", &message(IDS, &[0x30, 10, 0x50, 8]), &[])?;
    criu.write("userns-8.img", &message(USERS, &users(config)), &[])?;
    let namespaces = config["linux"]["namespaces"].as_array();
    let network = namespaces.into_iter().flatten().find(|namespace| namespace["type"] == "network");
    if let Some(network) = network {
        let external = if network["path"].is_string() { EXTERNAL } else { &[] };
        criu.write("netns-10.img", &message(NETNS, external), &[])?;
    }
    // So that a mixture of two images shows.
    criu.write("core-1.img", &message(CORE, &core(id)), &[])?;
    criu.write("mm-1.img", &header(CORE), &[2; 128])?;
    criu.write("pagemap-1.img", &header(CORE), &[3; 128])?;
    criu.write("pages-1.img", &[], &[4; PAGES_BYTES])?;
    let target = |fd| fs::read_link(format!("/proc/{pid}/fd/{fd}")).unwrap_or_default();
    let streams: Vec<_> = (0..3).map(|fd| target(fd).to_string_lossy().into_owned()).collect();
    criu.write("descriptors.json", &serde_json::to_vec(&streams)?, &[])
}

fn users(config: &Value) -> Vec<u8> {
    let mut message = Vec::new();
    for (tag, kind) in [(0x0a, "uidMappings"), (0x12, "gidMappings")] {
        for mapping in config["linux"][kind].as_array().into_iter().flatten() {
            let mut extent = Vec::new();
            for (tag, key) in [(0x08, "containerID"), (0x10, "hostID"), (0x18, "size")] {
                extent.push(tag);
                extent.extend(varint(mapping[key].as_u64().unwrap_or_default()));
            }
            message.push(tag);
            message.extend(varint(extent.len() as u64));
            message.extend(extent);
        }
    }
    message
}

fn varint(mut number: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while number > 0x7f {
        bytes.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
    bytes
}

/// A process without any rights, called like its container.
fn core(id: &str) -> Vec<u8> {
    let length = |text: &[u8]| u8::try_from(text.len()).unwrap_or_default();
    let name = [&[0x32, length(id.as_bytes())], id.as_bytes()].concat();
    let task = [&[0x1a, length(&name)], &name[..]].concat();
    let thread_with_credentials = [0x2a, 2, 0x52, 0];
    // A field of the future that is 4096 bytes long.
    let rest = [&[0x7a, 0x80, 0x20], &[1; CORE_BYTES][..]].concat();
    [&task[..], &thread_with_credentials, &rest].concat()
}

/// One run of CRIU inside a call of the runtime.
pub(crate) struct Criu {
    pub(crate) image: PathBuf,
    pub(crate) work: PathBuf,
    pub(crate) log: PathBuf,
    /// What the configuration file names as `action-script`.
    scripts: Vec<String>,
}

impl Criu {
    pub(crate) fn of(call: &Call, log: &str) -> Outcome<Criu> {
        let folder = |name| call.option(name).map(PathBuf::from);
        let image = folder("--image-path").ok_or_else(|| Failure::new("--image-path is missing"))?;
        let work = folder("--work-path").unwrap_or_else(|| image.clone());
        let log = work.join(log);
        fs::write(&log, "(00.000001) Version: 4.2.1 (gitid 0)\n")?;
        Ok(Criu { image, work, log, scripts: scripts()? })
    }

    pub(crate) fn note(&self, text: &str) -> Outcome {
        let mut log = OpenOptions::new().append(true).open(&self.log)?;
        writeln!(log, "(00.080000) {text}")?;
        Ok(())
    }

    /// Fails as CRIU does.
    pub(crate) fn fail<T>(&self, message: &str) -> Outcome<T> {
        criu_error(&self.log, message)?;
        Err(Failure::new("criu failed: type NOTIFY errno 0"))
    }

    fn write(&self, name: &str, head: &[u8], body: &[u8]) -> Outcome {
        let write = || -> io::Result<()> {
            let mut file = File::create(self.image.join(name))?;
            file.write_all(head)?;
            file.write_all(body)
        };
        match write() {
            Ok(()) => Ok(()),
            Err(error) => self.fail(&format!("Can't write {name}: {error}")),
        }
    }

    /// As CRIU runs them: no stdin, everything they print goes raw into the log.
    pub(crate) fn call_scripts(&self, action: &str, pid: u32) -> Outcome {
        let folder = File::open(&self.image)?;
        let place = format!("/proc/{}/fd/{}", std::process::id(), folder.as_raw_fd());
        for script in &self.scripts {
            let log = OpenOptions::new().append(true).open(&self.log)?;
            let status = Command::new(script)
                .env("CRTOOLS_SCRIPT_ACTION", action)
                .env("CRTOOLS_IMAGE_DIR", &place)
                .env("CRTOOLS_INIT_PID", pid.to_string())
                .stdin(Stdio::null())
                .stdout(log.try_clone()?)
                .stderr(log)
                .status()?;
            if !status.success() {
                let code = status.code().unwrap_or(255);
                criu_error(&self.log, &format!("Script {script} exited with {code}"))?;
                return self.fail("One of more action scripts failed");
            }
        }
        Ok(())
    }
}

/// From the file that the environment names: `action-script "PATH"`.
fn scripts() -> Outcome<Vec<String>> {
    let Some(path) = std::env::var_os("CRIU_CONFIG_FILE") else { return Ok(Vec::new()) };
    let text = fs::read_to_string(Path::new(&path))?;
    let script = |line: &str| Some(line.strip_prefix("action-script ")?.trim().trim_matches('"').to_owned());
    Ok(text.lines().filter_map(script).collect())
}
