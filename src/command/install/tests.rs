//! Installs in root folders of their own.

mod kubernetes;
mod programs;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use super::*;
use crate::command::ForKubernetes;
use crate::command::root::STOCK_SHIM;

const DOCKER_CONF: &str = "/etc/systemd/system/docker.service.d/cryo.conf";
const CONTAINERD_CONF: &str = "/etc/systemd/system/containerd.service.d/cryo.conf";
const DAEMON_JSON: &str = "{\n    \"debug\" : true\n}";

struct Machine {
    _folder: tempfile::TempDir,
    root: Root,
}

impl Machine {
    /// With systemd, both daemons' units and the shim.
    fn new() -> Machine {
        let machine = Machine::without_systemd();
        for daemon in ["docker", "containerd"] {
            machine.write(&format!("/usr/lib/systemd/system/{daemon}.service"), "[Service]\n");
        }
        fs::create_dir_all(machine.root.at("/etc/systemd/system")).unwrap();
        machine
    }

    fn without_systemd() -> Machine {
        let folder = tempfile::tempdir().unwrap();
        let root = Root::new(Some(folder.path())).unwrap();
        let machine = Machine { _folder: folder, root };
        let shim = Path::new("/usr/local/bin").join(SHIM);
        machine.write(shim.to_str().unwrap(), "");
        fs::set_permissions(machine.root.at(shim), fs::Permissions::from_mode(0o755)).unwrap();
        for folder in ["/etc", "/var/lib", "/usr/local/lib"] {
            fs::create_dir_all(machine.root.at(folder)).unwrap();
        }
        machine
    }

    fn write(&self, path: &str, text: &str) {
        fs::create_dir_all(self.root.at(path).parent().unwrap()).unwrap();
        fs::write(self.root.at(path), text).unwrap();
    }

    fn read(&self, path: &str) -> String {
        fs::read_to_string(self.root.at(path)).unwrap()
    }

    fn has(&self, path: &str) -> bool {
        fs::symlink_metadata(self.root.at(path)).is_ok()
    }

    fn options(&self, daemon: Daemon) -> Install {
        let root = Some(self.root.folder().to_owned());
        Install {
            daemon,
            uninstall: false,
            dry_run: false,
            restart: false,
            shim: None,
            root,
            kubernetes: ForKubernetes::default(),
        }
    }

    fn call(&self, options: &Install) -> Result<String, Error> {
        let mut out = Vec::new();
        run(options, &mut out).map(|()| String::from_utf8(out).unwrap())
    }

    fn install(&self, daemon: Daemon) -> Result<String, Error> {
        self.call(&self.options(daemon))
    }

    fn uninstall(&self, daemon: Daemon) -> Result<String, Error> {
        self.call(&Install { uninstall: true, ..self.options(daemon) })
    }

    /// Everything there is, by path.
    fn all(&self) -> BTreeMap<PathBuf, String> {
        let (mut found, mut folders) = (BTreeMap::new(), vec![self.root.folder().to_owned()]);
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap().flatten() {
                let path = entry.path();
                let kind = entry.file_type().unwrap();
                let content = if kind.is_symlink() {
                    format!("-> {}", fs::read_link(&path).unwrap().display())
                } else if kind.is_dir() {
                    folders.push(path.clone());
                    "a folder".to_owned()
                } else {
                    fs::read_to_string(&path).unwrap()
                };
                found.insert(path, content);
            }
        }
        found
    }
}

#[test]
fn docker_and_its_containerd_find_cryo_first() {
    let machine = Machine::new();
    machine.write("/etc/docker/daemon.json", DAEMON_JSON);
    let said = machine.install(Daemon::Docker).unwrap();
    for name in [STOCK_SHIM, SHIM] {
        let link = fs::read_link(machine.root.at(BIN).join(name)).unwrap();
        assert_eq!(link, Path::new("/usr/local/bin").join(SHIM));
    }
    let shipped = include_str!("../../../deploy/docker/docker.service.d/cryo.conf");
    assert_eq!(machine.read(DOCKER_CONF), shipped);
    let shipped = include_str!("../../../deploy/containerd/containerd.service.d/cryo.conf");
    assert_eq!(machine.read(CONTAINERD_CONF), shipped);
    let expected = "{\n    \"debug\" : true,\n    \"experimental\": true,\n    \
        \"runtimes\": { \"cryo\": { \"runtimeType\": \"io.containerd.runc.cryo.v2\" } }\n}";
    assert_eq!(machine.read("/etc/docker/daemon.json"), expected);
    assert_eq!(said.matches("wrote ").count() + said.matches("linked ").count(), 5, "{said}");
    assert!(said.contains("systemctl daemon-reload && systemctl restart containerd docker"), "{said}");
}

#[test]
fn a_dry_run_says_the_same_and_changes_nothing() {
    let machine = Machine::new();
    let before = machine.all();
    let would = machine.call(&Install { dry_run: true, ..machine.options(Daemon::Docker) }).unwrap();
    assert_eq!(machine.all(), before);
    let said = machine.install(Daemon::Docker).unwrap();
    assert_eq!(would.replace("would write", "wrote").replace("would link", "linked"), said);
    let installed = machine.all();
    machine.call(&Install { uninstall: true, dry_run: true, ..machine.options(Daemon::Docker) }).unwrap();
    assert_eq!(machine.all(), installed);
}

#[test]
fn twice_is_once() {
    let machine = Machine::new();
    machine.install(Daemon::Docker).unwrap();
    let before = machine.all();
    let said = machine.install(Daemon::Docker).unwrap();
    assert_eq!(machine.all(), before);
    assert_eq!(said.matches("unchanged ").count(), 5, "{said}");
}

#[test]
fn an_uninstall_leaves_no_trace() {
    for daemon_json in [None, Some(DAEMON_JSON), Some("")] {
        for machine in [Machine::new(), Machine::without_systemd()] {
            if let Some(text) = daemon_json {
                machine.write("/etc/docker/daemon.json", text);
            }
            let before = machine.all();
            machine.install(Daemon::Docker).unwrap();
            machine.uninstall(Daemon::Docker).unwrap();
            assert_eq!(machine.all(), before);
            let said = machine.uninstall(Daemon::Docker).unwrap();
            assert!(said.starts_with("nothing to undo"), "{said}");
        }
    }
}

#[test]
fn what_two_daemons_share_goes_with_the_last() {
    let machine = Machine::new();
    let clean = machine.all();
    machine.install(Daemon::Containerd).unwrap();
    let containerd_alone = machine.all();
    machine.install(Daemon::Docker).unwrap();
    let said = machine.uninstall(Daemon::Docker).unwrap();
    assert_eq!(machine.all(), containerd_alone, "{said}");
    machine.install(Daemon::Docker).unwrap();
    machine.uninstall(Daemon::Containerd).unwrap();
    assert!(machine.has(CONTAINERD_CONF) && machine.has(DOCKER_CONF));
    machine.uninstall(Daemon::Docker).unwrap();
    assert_eq!(machine.all(), clean);
}

#[test]
fn what_the_user_changes_later_survives() {
    let machine = Machine::new();
    machine.install(Daemon::Docker).unwrap();
    let text = machine.read("/etc/docker/daemon.json").replacen('{', "{\n  \"debug\": true,", 1);
    machine.write("/etc/docker/daemon.json", &text);
    let edited = machine.read(DOCKER_CONF) + "LimitNOFILE=9\n";
    machine.write(DOCKER_CONF, &edited);
    machine.install(Daemon::Docker).unwrap();
    assert_eq!(machine.read("/etc/docker/daemon.json"), text);
    let said = machine.uninstall(Daemon::Docker).unwrap();
    assert_eq!(machine.read("/etc/docker/daemon.json"), "{\n  \"debug\": true\n}\n");
    assert_eq!(machine.read(DOCKER_CONF), edited, "{said}");
    assert!(said.contains("(it was changed since)"), "{said}");
    assert!(!machine.has("/var/lib/cryo") && !machine.has("/usr/local/lib/cryo"));
}

#[test]
fn what_the_user_took_out_comes_back_and_goes_again() {
    let machine = Machine::new();
    machine.write("/etc/docker/daemon.json", DAEMON_JSON);
    machine.install(Daemon::Docker).unwrap();
    let other = "{\"experimental\": true, \"bip\": \"10.0.0.1/24\"}";
    machine.write("/etc/docker/daemon.json", other);
    machine.install(Daemon::Docker).unwrap();
    assert!(machine.read("/etc/docker/daemon.json").contains("runc.cryo.v2"));
    machine.uninstall(Daemon::Docker).unwrap();
    assert_eq!(machine.read("/etc/docker/daemon.json"), "{\"bip\": \"10.0.0.1/24\"}");
}

#[test]
fn a_refusal_changes_nothing() {
    for text in ["{", "[]", "{\"runtimes\": {\"cryo\": {\"path\": \"x\"}}}", "{\"experimental\": 1}"] {
        let machine = Machine::new();
        machine.write("/etc/docker/daemon.json", text);
        let before = machine.all();
        let error = machine.install(Daemon::Docker).unwrap_err().to_string();
        assert!(error.contains("/etc/docker/daemon.json") && error.contains(": "), "{error}");
        assert_eq!(machine.all(), before);
    }
    let machine = Machine::new();
    machine.write(DOCKER_CONF, "[Service]\nExecStart=\n");
    let before = machine.all();
    assert!(matches!(machine.install(Daemon::Docker).unwrap_err(), Error::Foreign(_)));
    assert_eq!(machine.all(), before);
    let here = Install { shim: Some("/etc".into()), ..machine.options(Daemon::Containerd) };
    assert!(matches!(machine.call(&here).unwrap_err(), Error::NotAShim(_)));
}

#[test]
fn a_path_that_is_set_already_is_kept() {
    let machine = Machine::new();
    machine.write("/usr/lib/systemd/system/docker.service", "[Service]\nEnvironment=PATH=/opt/bin:/bin\n");
    machine.install(Daemon::Docker).unwrap();
    assert!(machine.read(DOCKER_CONF).contains("\nEnvironment=PATH=/usr/local/lib/cryo/bin:/opt/bin:/bin\n"));
    // A drop-in that comes later would win: ours takes another name, and the old one goes.
    machine.write("/etc/systemd/system/docker.service.d/override.conf", "[Service]\nEnvironment=PATH=/o\n");
    machine.install(Daemon::Docker).unwrap();
    let later = "/etc/systemd/system/docker.service.d/zz-cryo.conf";
    assert!(machine.read(later).contains("\nEnvironment=PATH=/usr/local/lib/cryo/bin:/o\n"));
    assert!(!machine.has(DOCKER_CONF));
    machine.uninstall(Daemon::Docker).unwrap();
    assert!(!machine.has(later) && machine.has("/etc/systemd/system/docker.service.d/override.conf"));
}

#[test]
fn a_flag_of_docker_is_not_repeated_in_its_file() {
    let machine = Machine::new();
    let unit = "[Service]\nExecStart=/usr/sbin/dockerd --experimental\n";
    machine.write("/usr/lib/systemd/system/docker.service", unit);
    machine.install(Daemon::Docker).unwrap();
    assert!(!machine.read("/etc/docker/daemon.json").contains("experimental"));
}

/// After every number of steps, in either direction, the same command gets to the end.
#[test]
fn what_was_interrupted_is_completed() {
    let fresh = || {
        let machine = Machine::new();
        machine.write("/etc/docker/daemon.json", DAEMON_JSON);
        machine
    };
    let relative = |machine: &Machine| -> Vec<_> {
        let all = machine.all().into_iter();
        all.map(|(path, text)| (path.strip_prefix(machine.root.folder()).unwrap().to_owned(), text)).collect()
    };
    let reference = fresh();
    let clean = relative(&reference);
    reference.install(Daemon::Docker).unwrap();
    let installed = relative(&reference);
    for done in 0..=5 {
        let machine = fresh();
        let mut record = Record::default();
        let shim = Path::new("/usr/local/bin").join(SHIM);
        let wanted = plan::in_path(&machine.root, Daemon::Docker, &shim, false).unwrap();
        let steps = plan::install(&machine.root, &mut record, Daemon::Docker, wanted).unwrap();
        record.write(&machine.root).unwrap();
        for step in &steps[..done] {
            step.carry_out(&machine.root, &Programs::default()).unwrap();
        }
        // The link that was about to be made.
        fs::create_dir_all(machine.root.at(BIN)).unwrap();
        symlink("/nowhere", machine.root.at(BIN).join(format!(".{SHIM}.cryo-new"))).unwrap();
        machine.install(Daemon::Docker).unwrap();
        fs::remove_file(machine.root.at(BIN).join(format!(".{SHIM}.cryo-new"))).ok();
        assert_eq!(relative(&machine), installed, "after {done} steps");
        let steps = plan::uninstall(&machine.root, &mut record, Daemon::Docker).unwrap();
        for step in &steps[..done] {
            step.carry_out(&machine.root, &Programs::default()).unwrap();
        }
        machine.uninstall(Daemon::Docker).unwrap();
        assert_eq!(relative(&machine), clean, "after {done} steps back");
    }
}

#[test]
fn modes_and_links_of_configuration_stay() {
    let machine = Machine::new();
    machine.write("/etc/docker/real.json", DAEMON_JSON);
    fs::set_permissions(machine.root.at("/etc/docker/real.json"), fs::Permissions::from_mode(0o640)).unwrap();
    symlink("real.json", machine.root.at("/etc/docker/daemon.json")).unwrap();
    machine.install(Daemon::Docker).unwrap();
    assert_eq!(fs::read_link(machine.root.at("/etc/docker/daemon.json")).unwrap(), Path::new("real.json"));
    assert!(machine.read("/etc/docker/real.json").contains("cryo"));
    let mode = fs::metadata(machine.root.at("/etc/docker/real.json")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o640);
    let record = fs::metadata(machine.root.at(record::PATH)).unwrap().permissions().mode();
    assert_eq!(record & 0o777, 0o600);
    machine.uninstall(Daemon::Docker).unwrap();
    assert_eq!(machine.read("/etc/docker/real.json"), DAEMON_JSON);
}

#[test]
fn without_systemd_it_says_how_to_start_the_daemon() {
    let machine = Machine::without_systemd();
    let said = machine.install(Daemon::Containerd).unwrap();
    assert!(said.contains("PATH=/usr/local/lib/cryo/bin:$PATH containerd"), "{said}");
    assert!(!machine.has("/etc/systemd"));
}
