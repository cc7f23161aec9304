//! What `cryo check` says of a container, and whether that comes true: a zoo of what
//! programs hold. Whoever is said to be ready comes back as it was; whoever isn't is
//! refused by CRIU too, when nobody asks the preflight.

mod bare;
mod cases;

use std::fmt;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::PathBuf;

use serde_json::Value;

use crate::harness::*;
use cases::{Case, Given, Predicted};

pub(crate) fn scenarios() -> Vec<Scenario> {
    let ours = "the stock shim predicts nothing";
    vec![
        scenario!(verdicts_on_descriptors_come_true).fifo_only().cryo_only(ours),
        scenario!(verdicts_on_files_come_true).fifo_only().cryo_only(ours),
        scenario!(verdicts_on_memory_come_true).fifo_only().cryo_only(ours),
        scenario!(verdicts_on_sockets_come_true).fifo_only().cryo_only(ours),
        scenario!(verdicts_on_connections_come_true).fifo_only().cryo_only(ours),
        scenario!(verdicts_on_processes_come_true).fifo_only().cryo_only(ours),
        scenario!(verdicts_on_worlds_come_true).fifo_only().cryo_only(ours),
    ]
}

fn verdicts_on_descriptors_come_true(bench: &Bench) -> Outcome {
    come_true(bench, cases::DESCRIPTORS)
}

fn verdicts_on_files_come_true(bench: &Bench) -> Outcome {
    come_true(bench, cases::FILES)
}

fn verdicts_on_memory_come_true(bench: &Bench) -> Outcome {
    come_true(bench, cases::MEMORY)
}

fn verdicts_on_sockets_come_true(bench: &Bench) -> Outcome {
    come_true(bench, cases::SOCKETS)
}

fn verdicts_on_connections_come_true(bench: &Bench) -> Outcome {
    come_true(bench, cases::CONNECTIONS)
}

fn verdicts_on_processes_come_true(bench: &Bench) -> Outcome {
    come_true(bench, cases::PROCESSES)
}

fn verdicts_on_worlds_come_true(bench: &Bench) -> Outcome {
    come_true(bench, cases::WORLDS)
}

/// What became of a case.
enum Happened {
    CameBack,
    /// In whose words.
    Failed(String),
    /// CRIU would have hung, and wasn't asked.
    Refused,
    /// This kernel doesn't have it.
    Absent,
}

impl fmt::Display for Happened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Happened::CameBack => f.write_str("came back"),
            Happened::Failed(words) => write!(f, "failed: {words}"),
            Happened::Refused => f.write_str("refused"),
            Happened::Absent => f.write_str("absent from this kernel"),
        }
    }
}

/// Goes through all of them and tells of each; one that is wrong doesn't hide the next.
fn come_true(bench: &Bench, cases: &[Case]) -> Outcome {
    let mut wrong = Vec::new();
    for case in cases {
        let (said, happened) = observe(bench, case)
            .unwrap_or_else(|failure| ("nothing".into(), Happened::Failed(failure.text().to_owned())));
        let runtime = bench.runtime().binary();
        println!("verdict | {runtime} | {} | {} | {said} | {happened}", case.name, case.predicted);
        let is_right = match (&case.predicted, &happened) {
            (_, Happened::Absent) => true,
            (Predicted::Ready(_), Happened::CameBack) => said == "ready",
            (Predicted::Unforeseen(_), Happened::Failed(_)) => said == "ready",
            (Predicted::OneNetwork, Happened::Failed(_)) => {
                bench.runtime() == Runtime::Runc && said == "nested-namespace"
            }
            (Predicted::OneNetwork, Happened::CameBack) => {
                bench.runtime() == Runtime::Crun && said == "ready"
            }
            (Predicted::Blocks(what), Happened::Failed(_)) => said.split(' ').any(|said| said == *what),
            (Predicted::Hangs(what), Happened::Refused) => said.split(' ').any(|said| said == *what),
            _ => false,
        };
        if !is_right {
            wrong.push(format!("{}: predicted {}, said {said}, {happened}", case.name, case.predicted));
        }
    }
    ensure!(wrong.is_empty(), "{} of {} are wrong:\n  {}", wrong.len(), cases.len(), wrong.join("\n  "));
    Ok(())
}

fn observe(bench: &Bench, case: &Case) -> Outcome<(String, Happened)> {
    if case.given.contains(&Given::RightOverLimits) && !may_raise_limits()? {
        return Ok(("nothing".into(), Happened::Absent));
    }
    let outside = Outside::new(bench)?;
    bench.set_node_file("allow = [\"cryo.external-unix-sockets\"]")?;
    let plan = case.given.iter().fold(bench.guest(case.guest), |plan, given| given.to(plan, &outside));
    // `cryo check` is to know what this test is going to ask for.
    let task = plan.annotation(cryo::EXIT_ANNOTATION, "true").start()?;
    task.stdout().wait_for_text("\n")?;
    let said = task.stdout().lines().into_iter().next().unwrap_or_default();
    if said == "absent" {
        task.wait()?;
        task.delete()?;
        return Ok(("nothing".into(), Happened::Absent));
    }
    ensure_eq!(said, "ready", "what the guest says; on stderr {}", task.stderr().text());
    let _connection = outside.accepted();
    let said = verdict(bench, &task)?;
    let happened = if said == "ready" { comes_back(&task, case) } else { is_refused(&task, case)? };
    Ok((said, happened))
}

/// Sockets of the host's that containers may be shown.
struct Outside {
    folder: PathBuf,
    listener: UnixListener,
    _log: UnixDatagram,
}

impl Outside {
    fn new(bench: &Bench) -> Outcome<Self> {
        let folder = bench.fresh_folder("outside")?;
        let listener = UnixListener::bind(folder.join("stream"))?;
        listener.set_nonblocking(true)?;
        let log = UnixDatagram::bind(folder.join("datagram"))?;
        Ok(Outside { folder, listener, _log: log })
    }

    /// Whoever has connected, to be kept.
    fn accepted(&self) -> Option<UnixStream> {
        Some(self.listener.accept().ok()?.0)
    }
}

fn may_raise_limits() -> Outcome<bool> {
    const SYS_RESOURCE: u64 = 1 << 24;
    let status = std::fs::read_to_string("/proc/self/status")?;
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:")).unwrap_or_default();
    Ok(u64::from_str_radix(effective.trim(), 16)? & SYS_RESOURCE != 0)
}

/// Kinds of all that blocks; or that it is ready.
fn verdict(bench: &Bench, task: &Task<'_>) -> Outcome<String> {
    let output = bench.slot.command("cryo").args(["check", "--json", &task.id]).output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let verdict: Value =
        serde_json::from_str(&text).during(|| String::from_utf8_lossy(&output.stderr).into_owned())?;
    let findings = verdict["findings"].as_array().into_iter().flatten();
    let kinds: Vec<&str> = findings
        .filter(|finding| finding["blocks"] == true)
        .filter_map(|finding| finding["what"].as_str())
        .collect();
    ensure_eq!(verdict["ready"], Value::from(kinds.is_empty()), "whether it is ready; {text}");
    Ok(if kinds.is_empty() { "ready".into() } else { kinds.join(" ") })
}

fn comes_back(task: &Task<'_>, case: &Case) -> Happened {
    let answer = if let Predicted::Ready(answer) = case.predicted { answer } else { "same" };
    match there_and_back(task, answer) {
        Ok(()) => Happened::CameBack,
        Err(failure) => Happened::Failed(failure.text().to_owned()),
    }
}

fn there_and_back(task: &Task<'_>, answer: &str) -> Outcome {
    let image = task.end_as_image()?;
    answers(&task.again_from(&image).start()?, answer)
}

fn answers(task: &Task<'_>, answer: &str) -> Outcome {
    task.kill(USR1)?;
    task.stdout().wait_for_text("\n")?;
    ensure_eq!(task.stdout().lines().first().map(String::as_str), Some(answer), "its answer");
    task.end()
}

/// First by us, and then by CRIU.
fn is_refused(task: &Task<'_>, case: &Case) -> Outcome<Happened> {
    let image = task.bench.fresh_folder("image")?;
    refused(task.checkpoint(&Checkpoint::into_folder(&image).exit()), &[])?;
    if let Predicted::Hangs(_) = case.predicted {
        return Ok(Happened::Refused);
    }
    let dumped = bare::checkpoint(task, &image)?;
    if let Some(words) = dumped {
        task.end()?;
        return Ok(Happened::Failed(words));
    }
    task.end()?;
    let restored = task.again_from(&image).start().and_then(|again| answers(&again, "same"));
    Ok(restored.map_or_else(|failure| Happened::Failed(failure.text().to_owned()), |()| Happened::CameBack))
}

impl Given {
    fn to<'b>(&self, plan: Blueprint<'b>, outside: &Outside) -> Blueprint<'b> {
        match self {
            Given::Outside => plan.bind(&outside.folder, "/host"),
            Given::Annotation(name, value) => plan.annotation(name, value),
            Given::Privileges => plan.change(cases::privileged),
            Given::Pings => plan.change(|spec| {
                spec["linux"]["sysctl"]["net.ipv4.ping_group_range"] = Value::from("0 2147483647");
            }),
            Given::HostsName => plan.hosts("uts"),
            Given::RightOverLimits => plan,
        }
    }
}
