//! `cryo check`: whether a container can be checkpointed as it is now, and why not.

use std::path::Path;
use std::process::ExitCode;

use clap::Args;
use cryo::bundle::{self, Spec};
use cryo::cgroup::Cgroup;
use cryo::checkpoint::injected;
use cryo::checkpoint::preflight::{Finding, Look, look};
use cryo::criu;
use cryo::policy::{DOCKER, NODE_FILE, Policy};
use cryo::rights::Granted;
use cryo::shm;
use serde::Serialize;

use super::answer::{finish, node_file, say};
use super::find::{Found, Place};
use super::search;
use super::table::known_as;

/// Where containerd unpacks a checkpoint of Docker's to.
const UNPACKED: &str = "/tmp";

#[derive(Args)]
pub(crate) struct Options {
    /// Its id, the beginning of it, or Docker's or nerdctl's name for it.
    #[arg(required_unless_present = "pod", conflicts_with = "pod")]
    container: Option<String>,
    #[command(flatten)]
    place: Place,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Serialize)]
struct Verdict {
    container: String,
    /// As it was asked for, unless that was an id.
    called: Option<String>,
    namespace: String,
    pid: u32,
    processes: usize,
    ready: bool,
    /// Whether there is a CRIU, where this command looks for it.
    criu: bool,
    findings: Vec<Finding>,
}

pub(crate) fn run(options: &Options) -> ExitCode {
    finish(check(options).map(|verdict| {
        say(&if options.json { in_json(&verdict) } else { in_words(&verdict) });
        // It tells the same to those who don't read.
        if verdict.ready { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }))
}

fn check(options: &Options) -> Result<Verdict, String> {
    let asked = options.place.pod.as_ref().or(options.container.as_ref()).map_or("", String::as_str);
    let found = options.place.find(options.container.as_deref())?;
    let pid = found.pid()?;
    let Found { id, namespace, bundle } = found;
    let spec = Spec::read(&bundle).map_err(|error| error.to_string())?;
    let policy = policy(&spec)?;
    let cgroup = Cgroup::of_container(pid, &spec.linux.cgroups_path).map_err(|error| error.to_string())?;
    let container = Look::new(pid, Vec::new(), criu::Options::default().for_dump(&policy));
    let mut container = container.under(&policy, policy.exits_after_checkpoint(&namespace));
    container.refuses_execs = policy.refuses_execs();
    container.bound = Some(injected::points(&spec, &injected::of_container(pid, &spec)));
    container.granted = Some(Granted::of(&spec));
    container.besides = if policy.keeps_shm() { shm::bytes(&spec) } else { 0 };
    container.one_network = !bundle::has_crun(&bundle);
    // Others are told a folder, which nobody knows yet.
    container.image = (namespace == DOCKER).then(|| UNPACKED.into());
    let findings = look(&mut container, || cgroup.processes().unwrap_or_default());
    let processes = container.pids.len();
    let criu = search::find("criu", &search::path(), Path::new("/")).is_some();
    let ready = criu && !findings.iter().any(|finding| finding.blocks);
    let called = (!id.starts_with(asked)).then(|| asked.to_owned());
    Ok(Verdict { container: id, called, namespace, pid, processes, ready, criu, findings })
}

/// As the shim would read it.
fn policy(spec: &Spec) -> Result<Policy, String> {
    Policy::of(&spec.annotations, &node_file(), Path::new(NODE_FILE)).map_err(|error| error.to_string())
}

fn in_json(verdict: &Verdict) -> String {
    // Plain numbers and texts.
    let mut text = serde_json::to_string_pretty(verdict).unwrap_or_default();
    text.push('\n');
    text
}

fn in_words(verdict: &Verdict) -> String {
    let Verdict { container, called, pid, processes, ready, criu, findings, .. } = verdict;
    let short = known_as(called.as_deref(), container);
    let answer = if *ready { "can be checkpointed" } else { "can't be checkpointed" };
    let plural = if *processes == 1 { "" } else { "es" };
    let mut text = format!("{short} (pid {pid}, {processes} process{plural}) {answer}\n");
    if !criu {
        text.push_str("  in the way  CRIU isn't in PATH\n              `cryo doctor` says how to get it\n");
    }
    for finding in findings {
        let kind = if finding.blocks { "in the way" } else { "note" };
        text.push_str(&format!("  {kind:<10}  {finding}\n              {}\n", finding.remedy));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use cryo::checkpoint::preflight::What;

    fn verdict(blocks: Option<bool>) -> Verdict {
        let finding = |blocks| Finding {
            what: What::IoUring,
            pid: 12,
            program: "redis-server".into(),
            place: "fd 7".into(),
            blocks,
            remedy: "switch it off",
        };
        Verdict {
            container: "0123456789abcdef0123456789abcdef".into(),
            called: None,
            namespace: "moby".into(),
            pid: 12,
            processes: 1,
            ready: blocks != Some(true),
            criu: true,
            findings: blocks.into_iter().map(finding).collect(),
        }
    }

    #[test]
    fn the_answer_comes_first_and_then_the_reasons() {
        assert_eq!(
            in_words(&verdict(None)),
            "0123456789abcdef01234567 (pid 12, 1 process) can be checkpointed\n"
        );
        assert_eq!(
            in_words(&verdict(Some(true))),
            "0123456789abcdef01234567 (pid 12, 1 process) can't be checkpointed\n  in the way  \
             redis-server (pid 12) uses io_uring (fd 7)\n              switch it off\n"
        );
        assert!(in_words(&verdict(Some(false))).contains("\n  note        redis-server"));
        let without = Verdict { called: Some("web".into()), ready: false, criu: false, ..verdict(None) };
        let said = in_words(&without);
        assert!(
            said.starts_with("web (pid 12") && said.contains("in the way  CRIU isn't in PATH\n"),
            "{said}"
        );
    }

    #[test]
    fn programs_read_the_same() {
        let json: serde_json::Value = serde_json::from_str(&in_json(&verdict(Some(true)))).unwrap();
        assert_eq!((&json["ready"], &json["findings"][0]["what"]), (&false.into(), &"io-uring".into()));
    }
}
