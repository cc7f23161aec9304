//! From facts to findings, each with what to do about it; and from these to one answer.

use cryo::policy::NODE_FILE;
use serde::Serialize;

use super::daemons::{Shim, Starts};
use super::facts::{Facts, Kernel, NodeFileState};
use super::handlers;
use super::words::{self, Version};
use crate::command::Daemon;
use crate::command::root::SHIM;
use crate::command::run::Said;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum State {
    Ok,
    Warn,
    Missing,
}

use State::{Missing, Ok as Fine, Warn};

/// What a finding is about, as far as the answer depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// Without it nothing works.
    Needed,
    /// One of these is enough.
    Runtime,
    /// A name under which a daemon finds a shim; one that leads to Cryo is enough.
    Start,
    Other,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Finding {
    pub(super) what: String,
    pub(super) state: State,
    pub(super) found: String,
    pub(super) remedy: Option<String>,
    #[serde(skip)]
    part: Part,
}

/// Whether checkpoint and restore will work.
pub(super) fn ready(findings: &[Finding]) -> bool {
    let of = |part: Part| findings.iter().filter(move |finding| finding.part == part);
    let usable = |finding: &Finding| finding.state != Missing;
    of(Part::Needed).all(usable) && of(Part::Runtime).any(usable) && of(Part::Start).any(usable)
}

pub(super) fn judge(facts: &Facts) -> Vec<Finding> {
    let mut findings = vec![shim(facts), containerd(&facts.containerd), docker(facts)];
    let (runc, crun) = (runc(facts), crun(facts));
    // Who has one that works needn't have the other.
    findings.push(spared(runc.clone(), &crun, &facts.runc));
    findings.push(spared(crun, &runc, &facts.crun));
    findings.push(criu(&facts.criu, &facts.kernel));
    findings.push(criu_check(facts));
    findings.extend(kernel(facts));
    findings.push(node_file(&facts.node_file));
    if let Some(which) = &facts.dockers_containerd {
        findings.push(finding("Docker's containerd", Part::Other, Fine, which, ""));
    }
    findings.extend(facts.starts.iter().flat_map(|found| starts(found, facts.systemd)));
    findings.extend(facts.handlers.iter().flat_map(handlers::judge));
    findings
}

/// What lets a daemon find Cryo. Only systemd knows how to restart one.
fn install(daemon: Daemon, systemd: bool) -> String {
    let restart = if systemd { " --restart" } else { "" };
    format!("run `cryo install {}{restart}`", daemon.name())
}

pub(super) fn finding(
    what: impl Into<String>,
    part: Part,
    state: State,
    found: impl Into<String>,
    remedy: &str,
) -> Finding {
    let remedy = Some(remedy.to_owned()).filter(|remedy| !remedy.is_empty());
    Finding { what: what.into(), state, found: found.into(), remedy, part }
}

/// What nobody could see working isn't counted on, and Docker's command isn't needed.
fn silent(what: &str, part: Part) -> Finding {
    let state = if part == Part::Other { Warn } else { Missing };
    let remedy =
        "It may only be slow to start: run `cryo doctor` again, and find out why it hangs if it still does.";
    finding(what, part, state, "no answer within 5 s", remedy)
}

fn spared(runtime: Finding, other: &Finding, said: &Said) -> Finding {
    if runtime.state == Missing && other.state == Fine && *said == Said::NotThere {
        let remedy = Some(format!(
            "Only if you want it beside {}: {}",
            other.what,
            runtime.remedy.unwrap_or_default()
        ));
        return Finding { state: Warn, remedy, part: Part::Other, ..runtime };
    }
    runtime
}

fn shim(facts: &Facts) -> Finding {
    match &facts.shim {
        Some(path) => finding("Cryo's shim", Part::Needed, Fine, path.display().to_string(), ""),
        None => finding(
            "Cryo's shim",
            Part::Needed,
            Missing,
            "not found",
            "Run `make install` in Cryo's source folder.",
        ),
    }
}

fn containerd(said: &Said) -> Finding {
    let (what, part) = ("containerd", Part::Needed);
    let install = "Run `apt install containerd`.";
    match said {
        Said::Silent(_) => return silent(what, part),
        Said::NotThere => return finding(what, part, Missing, "not found", install),
        Said::Done { .. } => {}
    }
    let Some(version) = said.output().and_then(words::containerd) else {
        return finding(what, part, Warn, "tells no version", "See what `containerd --version` says.");
    };
    match Version::parse(version) {
        Some(old) if old < Version(1, 6) => finding(
            what,
            part,
            Missing,
            version,
            "Cryo needs containerd 1.6 or newer: run `apt install containerd`.",
        ),
        _ => finding(what, part, Fine, version, ""),
    }
}

fn docker(facts: &Facts) -> Finding {
    let what = "Docker";
    let part = Part::Other;
    let only = "Only needed for Docker's own commands: run `apt install docker.io`.";
    let known = match &facts.docker {
        Said::NotThere => return finding(what, part, Warn, "not found", only),
        Said::Silent(_) => return silent(what, part),
        Said::Done { output, .. } => words::docker(output),
    };
    let Some(docker) = known else {
        return finding(what, part, Warn, "tells no version", "See what `docker version` says.");
    };
    let client = docker.client.version;
    let Some(server) = docker.server else {
        let found = format!("client {client}; its daemon doesn't answer");
        let remedy = match (facts.root, facts.systemd) {
            (false, _) => "Run `cryo doctor` as root: others may not ask it.",
            (true, true) => "Run `systemctl start docker`.",
            (true, false) => "Start `dockerd`.",
        };
        return finding(what, part, Warn, found, remedy);
    };
    let experimental = if server.experimental { "on" } else { "off" };
    let found = format!("client {client}, daemon {}, experimental {experimental}", server.version);
    if Version::parse(&server.version).is_some_and(|version| version < Version(24, 0)) {
        return finding(what, part, Warn, found, "Only Docker 24 and newer can name Cryo as a runtime.");
    }
    let switch = format!("`docker checkpoint` needs it on: {}.", install(Daemon::Docker, facts.systemd));
    let (state, remedy) = if server.experimental { (Fine, "") } else { (Warn, switch.as_str()) };
    finding(what, part, state, found, remedy)
}

fn runc(facts: &Facts) -> Finding {
    let able = facts.runc_features.output();
    let able = able.and_then(|text| words::checkpoints(text, "org.opencontainers.runc.checkpoint.enabled"));
    runtime("runc", [&facts.runc, &facts.runc_features], able, "Run `apt install runc`.")
}

fn crun(facts: &Facts) -> Finding {
    let able = facts.crun_features.output();
    let able = able.and_then(|text| words::checkpoints(text, "run.oci.crun.checkpoint.enabled"));
    // Older ones than 1.9 tell no features, but what they were built with.
    let built = facts.crun.output().map(|text| text.split_whitespace().any(|word| word == "+CRIU"));
    let found = runtime(
        "crun",
        [&facts.crun, &facts.crun_features],
        able.or(built),
        "Run `apt install crun libcriu2`.",
    );
    if found.state != Missing && facts.libcriu.is_none() {
        let text = format!("{}, but no libcriu.so.2", found.found);
        return finding("crun", Part::Runtime, Missing, text, "Run `apt install libcriu2`.");
    }
    found
}

fn runtime(what: &str, [said, features]: [&Said; 2], able: Option<bool>, install: &str) -> Finding {
    let part = Part::Runtime;
    let version = match (said, features) {
        (Said::NotThere, _) => return finding(what, part, Missing, "not found", install),
        (Said::Silent(_), _) | (_, Said::Silent(_)) => return silent(what, part),
        (Said::Done { .. }, _) => said.output().and_then(words::runtime).unwrap_or("of no known version"),
    };
    match able {
        Some(true) => finding(what, part, Fine, format!("{version}, checkpoints"), ""),
        Some(false) => {
            let remedy = format!("It was built without checkpoints; Debian's has them. {install}");
            finding(what, part, Missing, format!("{version}, can't checkpoint"), &remedy)
        }
        None => {
            let remedy = format!("It is older than `{what} features`; a newer one tells: {}", lower(install));
            finding(what, part, Warn, format!("{version}, doesn't say whether it checkpoints"), &remedy)
        }
    }
}

/// The sentence as the rest of another.
fn lower(sentence: &str) -> String {
    sentence.replacen("Run", "run", 1)
}

fn criu(said: &Said, kernel: &Kernel) -> Finding {
    let (what, part) = ("CRIU", Part::Needed);
    match said {
        Said::NotThere => return finding(what, part, Missing, "not found", "Run `apt install criu`."),
        Said::Silent(_) => return silent(what, part),
        Said::Done { .. } => {}
    }
    let Some(text) = said.output().and_then(words::criu) else {
        return finding(what, part, Warn, "tells no version", "See what `criu --version` says.");
    };
    let newer_kernel = Version::parse(&kernel.release) >= Some(Version(6, 16));
    let version = Version::parse(text);
    if version < Some(Version(3, 19)) {
        let remedy = "Cryo needs 3.19 or newer: run `apt install criu` on Debian 13 or newer.";
        return finding(what, part, Missing, text, remedy);
    }
    if newer_kernel && version < Some(Version(4, 2)) {
        let remedy = "Linux 6.16 and newer need CRIU 4.2: add Debian forky to APT's sources, pinned low, and run \
             `apt install -t forky criu libcriu2`.";
        return finding(what, part, Missing, format!("{text} on Linux {}", kernel.release), remedy);
    }
    finding(what, part, Fine, text, "")
}

fn criu_check(facts: &Facts) -> Finding {
    let (what, part) = ("criu check", Part::Needed);
    match &facts.criu_check {
        Said::NotThere => finding(what, Part::Other, Warn, "not run", "It comes with CRIU."),
        Said::Silent(_) => silent(what, part),
        _ if !facts.root => finding(what, part, Warn, "not run", "Run `cryo doctor` as root to have it run."),
        Said::Done { status: 0, .. } => finding(what, part, Fine, "looks good", ""),
        Said::Done { output, errors, .. } => {
            let why =
                words::complaint(errors).or_else(|| words::complaint(output)).unwrap_or("it doesn't say why");
            let remedy =
                "The kernel, or what confines this machine, lacks that; `criu check` as root tells more.";
            finding(what, part, Missing, why, remedy)
        }
    }
}

fn kernel(facts: &Facts) -> Vec<Finding> {
    let kernel = &facts.kernel;
    let (state, words, remedy) = match kernel.checkpoint_restore {
        Some(true) => (Fine, "has CHECKPOINT_RESTORE", ""),
        Some(false) => (
            Missing,
            "lacks CHECKPOINT_RESTORE",
            "Boot a kernel with CONFIG_CHECKPOINT_RESTORE; Debian's have it: run `apt install linux-image-amd64`.",
        ),
        None => (Warn, "doesn't show CHECKPOINT_RESTORE", "Believe `criu check`: it tries."),
    };
    let driver = facts.docker_cgroups.output().map(str::trim).filter(|driver| !driver.is_empty());
    let driver = driver.map(|driver| format!(", Docker's driver is {driver}")).unwrap_or_default();
    let cgroups = format!("version {}{driver}", if kernel.cgroup2 { 2 } else { 1 });
    let soft_dirty = match &facts.soft_dirty {
        Said::Done { status: 0, .. } => "yes",
        Said::Done { .. } if facts.root => "no, which costs nothing yet",
        _ => "not known",
    };
    let overlay = match kernel.overlay {
        true => finding("overlayfs", Part::Other, Fine, "yes", ""),
        false => finding("overlayfs", Part::Other, Warn, "not loaded", "Run `modprobe overlay`, as root."),
    };
    vec![
        finding("kernel", Part::Needed, state, format!("Linux {}, {words}", kernel.release), remedy),
        finding("cgroups", Part::Other, Fine, cgroups, ""),
        overlay,
        finding("soft-dirty", Part::Other, Fine, soft_dirty, ""),
        finding(
            "userfaultfd",
            Part::Other,
            Fine,
            if kernel.userfaultfd { "yes" } else { "no, which costs nothing yet" },
            "",
        ),
    ]
}

fn node_file(state: &NodeFileState) -> Finding {
    let what = "node file";
    match state {
        NodeFileState::NotThere => finding(what, Part::Other, Fine, "none: the built-in defaults hold", ""),
        NodeFileState::Good => finding(what, Part::Other, Fine, NODE_FILE, ""),
        NodeFileState::Bad(problem) => finding(
            what,
            Part::Other,
            Warn,
            problem,
            "Mend it: until then the built-in defaults hold and nothing is restored by annotation.",
        ),
    }
}

fn starts(starts: &Starts, systemd: bool) -> Vec<Finding> {
    let Starts { who, daemon, .. } = starts;
    let install = install(*daemon, systemd);
    let when = if starts.runs { "" } else { " (when it runs)" };
    let for_all =
        format!("Docker's checkpoints, nerdctl's and those of ctr 1 need Cryo under this name: {install}.");
    let own = format!("Put {SHIM} into its PATH: {install}.");
    let line = |name: &str, shim: &Shim, otherwise: State, remedy: &str| {
        let what = format!("{name} by {who}");
        let (state, found, remedy) = match shim {
            Shim::Cryo(path) => (Fine, format!("cryo: {}{when}", path.display()), ""),
            Shim::Other(path) => (otherwise, format!("stock: {}{when}", path.display()), remedy),
            Shim::None => (otherwise, format!("none{when}"), remedy),
            Shim::Hidden => (Warn, "hidden from you".to_owned(), "Run `cryo doctor` as root to see it."),
        };
        // The stock shim is no harm, but it isn't Cryo either.
        let part = if state == Warn && *shim != Shim::Hidden { Part::Other } else { Part::Start };
        finding(what, part, state, found, remedy)
    };
    let mut lines = vec![
        line("runc.v2", &starts.stock_name, Warn, &for_all),
        line("runc.cryo.v2", &starts.own_name, Missing, &own),
    ];
    if !starts.criu {
        let remedy = "Start it with CRIU's folder (usually /usr/sbin) in its PATH.";
        lines.push(finding(format!("criu for {who}"), Part::Needed, Missing, "not in its PATH", remedy));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::super::labels;
    use super::*;

    fn said(output: &str) -> Said {
        Said::Done { status: 0, output: output.to_owned(), errors: String::new() }
    }

    fn features(name: &str) -> Said {
        said(&format!("{{\"annotations\": {{\"{name}\": \"true\"}}}}"))
    }

    /// A machine on which everything works.
    fn healthy() -> Facts {
        Facts {
            root: true,
            systemd: true,
            shim: Some("/usr/local/bin/containerd-shim-cryo-v2".into()),
            containerd: said("containerd github.com/containerd/containerd/v2 2.1.9+unknown \n"),
            docker: said(
                r#"{"Client":{"Version":"28.5.2"},"Server":{"Version":"28.5.2","Experimental":true}}"#,
            ),
            docker_cgroups: said("systemd\n"),
            runc: said("runc version 1.3.6+ds1\n"),
            runc_features: features("org.opencontainers.runc.checkpoint.enabled"),
            crun: said("crun version 1.28\n+SYSTEMD +CRIU\n"),
            crun_features: features("run.oci.crun.checkpoint.enabled"),
            libcriu: Some("/usr/lib/libcriu.so.2".into()),
            criu: said("Version: 4.2.1\n"),
            criu_check: said("Looks good.\n"),
            soft_dirty: said(""),
            kernel: Kernel {
                release: "6.18.44".into(),
                checkpoint_restore: Some(true),
                cgroup2: true,
                overlay: true,
                userfaultfd: true,
            },
            node_file: NodeFileState::Good,
            dockers_containerd: Some("its own (pid 7)".into()),
            starts: vec![Starts {
                who: "containerd".into(),
                daemon: Daemon::Containerd,
                stock_name: Shim::Cryo("/usr/local/lib/cryo/bin/containerd-shim-runc-v2".into()),
                own_name: Shim::Cryo("/usr/local/bin/containerd-shim-cryo-v2".into()),
                runs: true,
                criu: true,
                config: None,
            }],
            handlers: Vec::new(),
        }
    }

    /// Whether that machine is ready after a change, and what is said about one part of it.
    fn changed(what: &str, change: impl FnOnce(&mut Facts)) -> (bool, State) {
        let mut facts = healthy();
        change(&mut facts);
        let findings = judge(&facts);
        for finding in &findings {
            assert_eq!(finding.state == Fine, finding.remedy.is_none(), "{finding:?}");
        }
        let finding = findings.iter().find(|finding| finding.what.starts_with(what));
        (ready(&findings), finding.unwrap_or_else(|| panic!("nothing about {what}")).state)
    }

    #[test]
    fn a_healthy_machine_is_ready() {
        assert!(judge(&healthy()).iter().all(|finding| finding.state == Fine));
        assert!(ready(&judge(&healthy())));
    }

    #[test]
    fn one_runtime_is_enough() {
        assert_eq!(changed("runc", |facts| facts.runc = Said::NotThere), (true, Warn));
        assert_eq!(changed("crun", |facts| facts.crun = Said::NotThere), (true, Warn));
        assert_eq!(changed("crun", |facts| facts.libcriu = None), (true, Missing));
        assert_eq!(changed("runc", |facts| facts.runc_features = said("no such command")), (true, Warn));
        let neither = |facts: &mut Facts| (facts.runc, facts.libcriu) = (Said::NotThere, None);
        assert_eq!(changed("runc", neither), (false, Missing));
    }

    #[test]
    fn criu_has_to_fit_the_kernel() {
        assert_eq!(changed("CRIU", |facts| facts.criu = Said::NotThere), (false, Missing));
        assert_eq!(changed("CRIU", |facts| facts.criu = said("Version: 4.1\n")), (false, Missing));
        let older = |criu: &'static str| {
            move |facts: &mut Facts| {
                facts.criu = said(criu);
                facts.kernel.release = "6.12.1-amd64".into();
            }
        };
        assert_eq!(changed("CRIU", older("Version: 4.1\n")), (true, Fine));
        assert_eq!(changed("CRIU", older("Version: 3.17.1\n")), (false, Missing));
        let errors = "Error (criu/cr-check.c:1): no kcmp\n".to_owned();
        let complains = Said::Done { status: 1, output: String::new(), errors };
        assert_eq!(changed("criu check", |facts| facts.criu_check = complains), (false, Missing));
        assert_eq!(
            changed("kernel", |facts| facts.kernel.checkpoint_restore = Some(false)),
            (false, Missing)
        );
    }

    #[test]
    fn a_broken_node_file_is_told_and_in_nobodys_way() {
        let bad = NodeFileState::Bad("cannot read it".into());
        assert_eq!(changed("node file", |facts| facts.node_file = bad), (true, Warn));
        assert_eq!(changed("node file", |facts| facts.node_file = NodeFileState::NotThere), (true, Fine));
    }

    #[test]
    fn docker_is_no_condition() {
        assert_eq!(changed("Docker", |facts| facts.docker = Said::NotThere), (true, Warn));
        let off = r#"{"Client":{"Version":"28.5.2"},"Server":{"Version":"28.5.2","Experimental":false}}"#;
        assert_eq!(changed("Docker", |facts| facts.docker = said(off)), (true, Warn));
        let hung = Said::Silent(std::time::Duration::from_secs(5));
        assert_eq!(changed("Docker", |facts| facts.docker = hung), (true, Warn));
    }

    #[test]
    fn what_does_not_answer_is_not_counted_on() {
        let hung = || Said::Silent(std::time::Duration::from_secs(5));
        assert_eq!(changed("criu check", |facts| facts.criu_check = hung()), (false, Missing));
        assert_eq!(changed("containerd", |facts| facts.containerd = hung()), (false, Missing));
        assert_eq!(changed("runc", |facts| facts.runc = hung()), (true, Missing));
        assert_eq!(changed("runc", |facts| facts.runc_features = hung()), (true, Missing));
    }

    #[test]
    fn cryo_has_to_be_found_under_one_of_its_names() {
        let stock = || Shim::Other("/usr/bin/containerd-shim-runc-v2".into());
        assert_eq!(changed("runc.v2", |facts| facts.starts[0].stock_name = stock()), (true, Warn));
        assert_eq!(changed("runc.cryo.v2", |facts| facts.starts[0].own_name = Shim::None), (true, Missing));
        let neither = |facts: &mut Facts| {
            (facts.starts[0].stock_name, facts.starts[0].own_name) = (stock(), Shim::None);
        };
        assert_eq!(changed("runc.cryo.v2", neither), (false, Missing));
        assert_eq!(changed("criu for", |facts| facts.starts[0].criu = false), (false, Missing));
        assert_eq!(changed("Cryo's shim", |facts| facts.shim = None), (false, Missing));
    }

    #[test]
    fn a_handler_of_kubernetes_is_a_way_to_start_cryo() {
        let handler = words::Handler {
            name: "cryo".into(),
            kind: words::STOCK_NAME.into(),
            path: "/opt/bin/containerd-shim-cryo-v2".into(),
            pod_annotations: vec!["cryo.*".into()],
        };
        let program = handler.path.clone().into();
        let handlers = handlers::Handlers {
            file: "/c.toml".into(),
            cryo: vec![(handler, program)],
            missing: None,
            outdated: false,
        };
        let alone = |facts: &mut Facts| {
            (facts.starts[0].stock_name, facts.starts[0].own_name) = (Shim::None, Shim::None);
            facts.handlers = vec![handlers];
        };
        assert_eq!(changed("handler cryo", alone), (true, Fine));
    }

    #[test]
    fn a_node_is_labelled_with_what_was_found() {
        let labels = |facts: &Facts| -> serde_json::Value {
            let patch: serde_json::Value = serde_json::from_str(&labels::patch(facts, true)).unwrap();
            patch["metadata"]["labels"].clone()
        };
        let mut facts = healthy();
        facts.handlers = vec![handlers::Handlers::default()];
        let told = labels(&facts);
        let version = env!("CARGO_PKG_VERSION");
        let wanted = serde_json::json!({
            "cryo/cgroups": "2", "cryo/checkpoint": "false", "cryo/criu": "4.2.1", "cryo/crun": "1.28",
            "cryo/kernel": "6.18.44", "cryo/runc": "1.3.6-ds1", "cryo/soft-dirty": "true", "cryo/version": version,
        });
        assert_eq!(told, wanted, "no handler leads to Cryo");
        (facts.libcriu, facts.runc_features, facts.criu) = (None, said("{}"), Said::NotThere);
        let told = labels(&facts);
        assert!(["criu", "crun", "runc"].iter().all(|name| told[format!("cryo/{name}")].is_null()), "{told}");
        // An uninstall takes away each that there may be.
        let uninstall = include_str!("../../../deploy/kubernetes/uninstall/kustomization.yaml");
        let (_, gone) = uninstall.split_once("'{\"metadata\"").unwrap();
        let gone = gone.split_once("}}}'").unwrap().0.matches(":null").count();
        let names = told.as_object().unwrap().keys();
        assert!(names.clone().all(|name| uninstall.contains(&format!("\"{name}\":null"))), "{told}");
        assert_eq!(names.count(), gone);
    }

    #[test]
    fn what_only_root_may_see_is_no_failure() {
        let hidden = |facts: &mut Facts| {
            facts.root = false;
            (facts.starts[0].stock_name, facts.starts[0].own_name) = (Shim::Hidden, Shim::Hidden);
            facts.criu_check = Said::Done { status: 1, output: String::new(), errors: "root".into() };
        };
        assert_eq!(changed("runc.v2", hidden), (true, Warn));
    }
}
