//! Handlers in configurations of containerd, with nobody there who could be asked.

use clap::Parser;

use super::*;
use crate::command::{Arguments, Verb};

pub(super) const MAIN: &str = "/etc/containerd/config.toml";
pub(super) const DROP_IN: &str = "/etc/containerd/conf.d/cryo.toml";
pub(super) const SHIM_PATH: &str = "/usr/local/bin/containerd-shim-cryo-v2";

pub(super) const VERSION_2: &str = r#"# The owner's.
version = 2
root = '/data'

[plugins]
  [plugins."io.containerd.grpc.v1.cri"]
    enable_selinux = true
    [plugins."io.containerd.grpc.v1.cri".containerd]
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes]
        [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc] # one
          runtime_type = "io.containerd.runc.v2"
          [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
            SystemdCgroup = true
  [plugins."io.containerd.internal.v1.opt"]
    path = "/opt"
"#;

pub(super) const VERSION_3: &str = r#"version = 3
[plugins.'io.containerd.cri.v1.runtime'.containerd]
  default_runtime_name = 'usual'
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.usual]
  runtime_type = 'io.containerd.runc.v2'
  options = { SystemdCgroup = true }
"#;

pub(super) fn node(text: &str) -> Machine {
    let machine = Machine::without_systemd();
    machine.write(MAIN, text);
    machine.write("/proc/self/exe", "");
    machine
}

fn parsed(text: &str) -> toml::Table {
    toml::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn value<'a>(table: &'a toml::Table, keys: &[&str]) -> Option<&'a toml::Value> {
    let (first, rest) = keys.split_first().unwrap();
    rest.iter().try_fold(table.get(*first)?, |value, key| value.get(*key))
}

fn handler<'a>(table: &'a toml::Table, cri: &str, name: &str) -> Option<&'a toml::Value> {
    value(table, &["plugins", cri, "containerd", "runtimes", name])
}

const CRI_2: &str = "io.containerd.grpc.v1.cri";
const CRI_3: &str = "io.containerd.cri.v1.runtime";

#[test]
fn a_main_file_of_version_2_gets_the_handler_itself() {
    let machine = node(VERSION_2);
    machine.install(Daemon::Kubernetes).unwrap();
    let text = machine.read(MAIN);
    let (before, rest) = text.split_once("\n# By `cryo install").unwrap();
    let (_, after) = rest.split_once("[plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.cryo.options]\nSystemdCgroup = true\n").unwrap();
    assert_eq!(before.to_owned() + after, VERSION_2, "nothing else changed");
    let table = parsed(&text);
    let shipped = parsed(include_str!("../../../../deploy/containerd/runtime-v2.toml"));
    let mut ours = handler(&table, CRI_2, "cryo").unwrap().clone();
    let options = ours.as_table_mut().unwrap().remove("options").unwrap();
    assert_eq!(&ours, handler(&shipped, CRI_2, "cryo").unwrap());
    assert_eq!(options["SystemdCgroup"].as_bool(), Some(true), "as other pods are run");
    assert!(!machine.has(DROP_IN));
    machine.uninstall(Daemon::Kubernetes).unwrap();
    assert_eq!(machine.read(MAIN), VERSION_2);
}

#[test]
fn where_no_handler_was_described_the_usual_one_is_too() {
    let machine = node("version = 2\n");
    machine.install(Daemon::Kubernetes).unwrap();
    let table = parsed(&machine.read(MAIN));
    let runc = handler(&table, CRI_2, "runc").unwrap();
    assert_eq!(runc.as_table().unwrap().len(), 1);
    assert_eq!(runc["runtime_type"].as_str(), Some("io.containerd.runc.v2"));
    assert!(handler(&table, CRI_2, "cryo").unwrap().get("options").is_none());
    machine.uninstall(Daemon::Kubernetes).unwrap();
    assert_eq!(machine.read(MAIN), "version = 2\n");
}

#[test]
fn a_main_file_of_version_3_imports_the_handler() {
    let machine = node(VERSION_3);
    let before = machine.all();
    machine.install(Daemon::Kubernetes).unwrap();
    let text = machine.read(MAIN);
    assert_eq!(text.replace(&format!("imports = [\"{DROP_IN}\"]\n"), ""), VERSION_3);
    let drop_in = parsed(&machine.read(DROP_IN));
    assert_eq!(drop_in["version"].as_integer(), Some(3));
    let shipped = parsed(include_str!("../../../../deploy/containerd/runtime-v3.toml"));
    let mut ours = handler(&drop_in, CRI_3, "cryo").unwrap().clone();
    let options = ours.as_table_mut().unwrap().remove("options").unwrap();
    assert_eq!(&ours, handler(&shipped, CRI_3, "cryo").unwrap());
    assert_eq!(options["SystemdCgroup"].as_bool(), Some(true), "as the default handler");
    machine.uninstall(Daemon::Kubernetes).unwrap();
    assert_eq!(machine.all(), before);
}

#[test]
fn what_is_imported_already_is_not_named_again() {
    let text = "version = 3\nimports = ['/etc/containerd/conf.d/*.toml']\n";
    let machine = node(text);
    machine.install(Daemon::Kubernetes).unwrap();
    assert_eq!(machine.read(MAIN), text);
    assert!(machine.has(DROP_IN));
    let other = node("version = 3\nimports = [\n  '/etc/other/*.toml', # theirs\n]\n");
    other.install(Daemon::Kubernetes).unwrap();
    let imports = parsed(&other.read(MAIN))["imports"].clone();
    assert_eq!(imports, toml::Value::from(vec!["/etc/other/*.toml", DROP_IN]));
}

#[test]
fn twice_is_once_for_pods_too() {
    for text in [VERSION_2, VERSION_3, "version = 2\n", "version = 3\n"] {
        let machine = node(text);
        machine.install(Daemon::Kubernetes).unwrap();
        let before = machine.all();
        let said = machine.install(Daemon::Kubernetes).unwrap();
        assert_eq!(machine.all(), before);
        assert!(!said.contains("wrote"), "{said}");
    }
}

#[test]
fn what_the_owner_changes_later_survives() {
    for text in [VERSION_2, VERSION_3, "version = 2\n", "version = 3\n"] {
        let machine = node(text);
        machine.install(Daemon::Kubernetes).unwrap();
        let edited = machine.read(MAIN) + "\n[debug]\nlevel = 'debug' # for a while\n";
        machine.write(MAIN, &edited);
        machine.install(Daemon::Kubernetes).unwrap();
        assert_eq!(machine.read(MAIN), edited);
        machine.uninstall(Daemon::Kubernetes).unwrap();
        let left = machine.read(MAIN);
        let wanted = parsed(&format!("{text}\n[debug]\nlevel = 'debug'\n"));
        assert_eq!(parsed(&left), wanted, "{left}");
        assert!(left.contains("# for a while") && !left.contains("ryo"), "{left}");
        assert!(!machine.has(DROP_IN) && !machine.has(record::PATH));
    }
}

#[test]
fn a_handler_that_the_owner_described_is_left_alone() {
    for (shipped, version) in [
        (include_str!("../../../../deploy/containerd/runtime-v2.toml"), 2),
        (include_str!("../../../../deploy/containerd/runtime-v3.toml"), 3),
    ] {
        let machine = node(&format!("version = {version}\n{shipped}"));
        let before = machine.all();
        machine.install(Daemon::Kubernetes).unwrap();
        machine.uninstall(Daemon::Kubernetes).unwrap();
        assert_eq!(machine.all(), before);
    }
}

#[test]
fn a_node_goes_from_containerd_1_to_2() {
    let machine = node(VERSION_2);
    machine.install(Daemon::Kubernetes).unwrap();
    // As `containerd config migrate` does.
    let migrated = machine.read(MAIN).replace("version = 2", "version = 3").replace(CRI_2, CRI_3);
    machine.write(MAIN, &migrated);
    machine.install(Daemon::Kubernetes).unwrap();
    let main = machine.read(MAIN);
    assert!(main.contains(DROP_IN) && handler(&parsed(&main), CRI_3, "cryo").is_none(), "{main}");
    assert!(machine.has(DROP_IN));
    machine.uninstall(Daemon::Kubernetes).unwrap();
    let left = parsed(&machine.read(MAIN));
    assert_eq!(left, parsed(&VERSION_2.replace("version = 2", "version = 3").replace(CRI_2, CRI_3)));
}

#[test]
fn what_cannot_be_meant_is_refused_and_nothing_changes() {
    let foreign = VERSION_2.replace("runtimes.runc", "runtimes.cryo");
    let foreign_3 = VERSION_3.replace("runtimes.usual", "runtimes.cryo");
    let inline = "version = 2\nplugins = { 'io.containerd.grpc.v1.cri' = {} }\n";
    for (text, words) in [
        ("version = \n", "isn't TOML (line 1"),
        ("version = 2\n[plugins\n", "isn't TOML (line 2"),
        ("", "says no version"),
        ("disabled_plugins = ['cri']\n", "says no version"),
        ("version = 1\n", "is of version 1"),
        ("version = 4\n", "is of version 4"),
        ("version = '2'\n", "\"version\" in a form"),
        ("version = 3\nimports = 'x'\n", "\"imports\" in a form"),
        (inline, "\"plugins\" in a form"),
        ("{{ template \"base\" . }}\n", "isn't TOML"),
        (&foreign, "handler \"cryo\" that isn't this one"),
        (&foreign_3, "handler \"cryo\" that isn't this one"),
    ] {
        let machine = node(text);
        let before = machine.all();
        let error = machine.install(Daemon::Kubernetes).unwrap_err().to_string();
        assert!(error.contains(words) && error.contains(MAIN) && error.len() <= 300, "{text}: {error}");
        assert!(error.contains(": "), "what to do about it: {error}");
        assert_eq!(machine.all(), before);
    }
    let machine = node(VERSION_3);
    machine.write(DROP_IN, "version = 3\n");
    let error = machine.install(Daemon::Kubernetes).unwrap_err();
    assert!(matches!(error, Error::Foreign(_)), "{error}");
    assert_eq!(machine.read(MAIN), VERSION_3);
    let nothing = Machine::without_systemd();
    assert!(matches!(nothing.install(Daemon::Kubernetes).unwrap_err(), Error::NoConfiguration(_)));
}

#[test]
fn a_handler_that_became_the_default_is_not_taken_away() {
    let machine = node(VERSION_2);
    machine.install(Daemon::Kubernetes).unwrap();
    let section = "[plugins.\"io.containerd.grpc.v1.cri\".containerd]\n";
    let text =
        machine.read(MAIN).replace(section, &format!("{section}      default_runtime_name = \"cryo\"\n"));
    machine.write(MAIN, &text);
    let error = machine.uninstall(Daemon::Kubernetes).unwrap_err().to_string();
    assert!(error.contains("default_runtime_name"), "{error}");
    assert_eq!(machine.read(MAIN), text);
}

#[test]
fn links_that_lead_out_of_the_root_are_not_followed() {
    let elsewhere = tempfile::tempdir().unwrap();
    fs::write(elsewhere.path().join("config.toml"), "version = 3\n").unwrap();
    for whole in [false, true] {
        let machine = Machine::without_systemd();
        if whole {
            symlink(elsewhere.path(), machine.root.at("/etc/containerd")).unwrap();
        } else {
            fs::create_dir(machine.root.at("/etc/containerd")).unwrap();
            symlink(elsewhere.path().join("config.toml"), machine.root.at(MAIN)).unwrap();
        }
        let error = machine.install(Daemon::Kubernetes).unwrap_err().to_string();
        assert!(error.contains("leads out of the root"), "{error}");
        assert_eq!(fs::read_dir(elsewhere.path()).unwrap().count(), 1);
        assert_eq!(fs::read_to_string(elsewhere.path().join("config.toml")).unwrap(), "version = 3\n");
    }
}

#[test]
fn options_for_pods_are_for_pods() {
    let machine = node(VERSION_3);
    let kubernetes = ForKubernetes { config: Some("/etc/other.toml".into()), ..Default::default() };
    let error = machine.call(&Install { kubernetes, ..machine.options(Daemon::Docker) }).unwrap_err();
    assert!(matches!(error, Error::OnlyKubernetes("config")), "{error}");
    let kubernetes =
        ForKubernetes { config: Some(DROP_IN.replace(".toml", "").into()), ..Default::default() };
    let error = machine.call(&Install { kubernetes, ..machine.options(Daemon::Kubernetes) }).unwrap_err();
    assert!(matches!(error, Error::NotToml(_)), "{error}");
}

/// Whoever was interrupted before the restart, or hadn't asked for it.
#[test]
fn that_containerd_has_to_be_restarted_is_remembered() {
    let machine = node(VERSION_3);
    let finish = "To finish: restart containerd";
    assert!(machine.install(Daemon::Kubernetes).unwrap().contains(finish));
    machine.install(Daemon::Containerd).unwrap();
    machine.uninstall(Daemon::Containerd).unwrap();
    assert!(Record::read(&machine.root).unwrap().restart_due);
    assert!(machine.install(Daemon::Kubernetes).unwrap().contains(finish));
    let mut record = Record::read(&machine.root).unwrap();
    record.restart_due = false;
    record.write(&machine.root).unwrap();
    assert!(!machine.install(Daemon::Kubernetes).unwrap().contains(finish));
}

/// What the DaemonSet calls, this binary understands.
#[test]
fn the_manifests_name_options_that_there_are() {
    let install = include_str!("../../../../deploy/kubernetes/base/daemonset.yaml");
    let uninstall = include_str!("../../../../deploy/kubernetes/uninstall/kustomization.yaml");
    for (text, back) in [(install, false), (uninstall, true)] {
        let lines = text.lines().filter_map(|line| line.trim().split_once(": "));
        let calls = lines.filter_map(|(_, value)| serde_json::from_str::<Vec<String>>(value).ok());
        let calls: Vec<_> =
            calls.filter(|words| words.first().is_some_and(|word| word == "install")).collect();
        assert_eq!(calls.len(), 1, "{calls:?}");
        let words = [&["cryo".to_owned()], &calls[0][..]].concat();
        let Verb::Install(options) = Arguments::try_parse_from(&words).unwrap().verb else {
            panic!("{words:?}")
        };
        assert_eq!((options.daemon, options.uninstall, options.restart), (Daemon::Kubernetes, back, true));
        assert_eq!(options.kubernetes.host.as_deref(), Some(Path::new("/host")));
        assert_eq!(options.kubernetes.labels.is_some(), !back);
    }
}
