//! Handlers in configurations of containerd, with nobody there who could be asked.

use super::*;

const MAIN: &str = "/etc/containerd/config.toml";
const DROP_IN: &str = "/etc/containerd/conf.d/cryo.toml";
const SHIM_PATH: &str = "/usr/local/bin/containerd-shim-cryo-v2";

const VERSION_2: &str = r#"# The owner's.
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

const VERSION_3: &str = r#"version = 3
[plugins.'io.containerd.cri.v1.runtime'.containerd]
  default_runtime_name = 'usual'
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.usual]
  runtime_type = 'io.containerd.runc.v2'
  options = { SystemdCgroup = true }
"#;

fn node(text: &str) -> Machine {
    let machine = Machine::without_systemd();
    machine.write(MAIN, text);
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

/// An image with both programs; each version of it says another word.
fn image(word: &str) -> (tempfile::TempDir, Programs) {
    let folder = tempfile::tempdir().unwrap();
    for name in ["cryo", SHIM] {
        fs::write(folder.path().join(name), format!("{name} {word}")).unwrap();
    }
    let programs = Programs::from(folder.path()).unwrap();
    (folder, programs)
}

impl Machine {
    fn bring(&self, programs: &Programs, uninstall: bool) -> Result<String, Error> {
        let options = Install { uninstall, ..self.options(Daemon::Kubernetes) };
        let (job, mut out) = (Job { root: &self.root, options: &options, programs }, Vec::new());
        let record = Record::read(&self.root).unwrap();
        if uninstall {
            job.uninstall(record, &mut out)?
        } else {
            job.install(record, &mut out)?
        }
        Ok(String::from_utf8(out).unwrap())
    }

    /// Without programs, and with somebody who runs.
    fn bare(text: &str) -> Machine {
        let machine = node(text);
        fs::remove_file(machine.root.at(SHIM_PATH)).unwrap();
        fs::create_dir_all(machine.root.at("/proc/self")).unwrap();
        fs::write(machine.root.at("/proc/self/exe"), "").unwrap();
        machine
    }

    fn run(&self, pid: &str, program: &str) {
        fs::create_dir_all(self.root.at("/proc").join(pid)).unwrap();
        symlink(program, self.root.at("/proc").join(pid).join("exe")).unwrap();
    }
}

#[test]
fn programs_of_an_image_come_are_replaced_and_go_last() {
    let machine = Machine::bare(VERSION_3);
    let before = machine.all();
    let ((_one, one), (_two, two)) = (image("one"), image("two"));
    let said = machine.bring(&one, false).unwrap();
    assert_eq!(said.matches("copied ").count(), 2, "{said}");
    assert_eq!(machine.read(SHIM_PATH), format!("{SHIM} one"));
    let mode = fs::metadata(machine.root.at(SHIM_PATH)).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o755);
    machine.bring(&two, false).unwrap();
    assert_eq!(machine.read("/usr/local/bin/cryo"), "cryo two");
    // Who installs by hand on that node changes nothing about them.
    machine.install(Daemon::Kubernetes).unwrap();
    assert_eq!(machine.read("/usr/local/bin/cryo"), "cryo two");
    machine.run("7", &format!("{SHIM_PATH} (deleted)"));
    machine.run("8", "/usr/bin/containerd-shim-runc-v2");
    for _ in 0..2 {
        let error = machine.bring(&two, true).unwrap_err();
        assert!(matches!(error, Error::InUse(1)), "{error}");
        assert_eq!(machine.read(MAIN), VERSION_3);
        assert!(machine.has(SHIM_PATH) && !machine.has(DROP_IN));
    }
    fs::remove_dir_all(machine.root.at("/proc/7")).unwrap();
    machine.bring(&two, true).unwrap();
    fs::remove_dir_all(machine.root.at("/proc/8")).unwrap();
    assert_eq!(machine.all(), before);
}

#[test]
fn programs_that_somebody_else_put_there_are_not_touched() {
    let (_image, programs) = image("one");
    for path in [SHIM_PATH, "/usr/local/bin/cryo"] {
        let machine = Machine::bare(VERSION_3);
        machine.write(path, "by hand");
        let before = machine.all();
        let error = machine.bring(&programs, false).unwrap_err();
        assert!(matches!(error, Error::Foreign(_)), "{error}");
        assert_eq!(machine.all(), before);
    }
    // The same ones are used, and stay.
    let machine = Machine::bare(VERSION_3);
    machine.write(SHIM_PATH, &format!("{SHIM} one"));
    let before = machine.all();
    machine.bring(&programs, false).unwrap();
    machine.bring(&programs, true).unwrap();
    assert_eq!(machine.all(), before);
    // Changed since by hand: neither replaced nor removed.
    machine.bring(&programs, false).unwrap();
    machine.write("/usr/local/bin/cryo", "by hand");
    assert!(matches!(machine.bring(&image("two").1, false).unwrap_err(), Error::Foreign(_)));
    let said = machine.bring(&programs, true).unwrap();
    assert!(said.contains("kept /usr/local/bin/cryo (it was changed since)"), "{said}");
}

#[test]
fn programs_that_another_daemon_starts_stay() {
    let machine = Machine::bare(VERSION_3);
    let before = machine.all();
    let (_image, programs) = image("one");
    machine.bring(&programs, false).unwrap();
    fs::set_permissions(machine.root.at(SHIM_PATH), fs::Permissions::from_mode(0o755)).unwrap();
    machine.install(Daemon::Containerd).unwrap();
    let said = machine.bring(&programs, true).unwrap();
    assert!(said.contains(&format!("kept {SHIM_PATH} (containerd was installed with it)")), "{said}");
    assert!(machine.has(SHIM_PATH) && machine.read(MAIN) == VERSION_3);
    machine.uninstall(Daemon::Containerd).unwrap();
    machine.bring(&programs, true).unwrap();
    assert_eq!(machine.all(), before);
}

/// After every number of steps, in either direction and during an upgrade, the same command
/// gets to the end.
#[test]
fn what_was_interrupted_is_completed_for_pods_too() {
    let relative = |machine: &Machine| -> Vec<_> {
        let all = machine.all().into_iter();
        all.map(|(path, text)| (path.strip_prefix(machine.root.folder()).unwrap().to_owned(), text)).collect()
    };
    for text in [VERSION_2, VERSION_3] {
        let ((_one, one), (_two, two)) = (image("one"), image("two"));
        let reference = Machine::bare(text);
        let clean = relative(&reference);
        reference.bring(&two, false).unwrap();
        let installed = relative(&reference);
        for (done, upgrade) in (0..=4).flat_map(|done| [(done, false), (done, true)]) {
            let machine = Machine::bare(text);
            if upgrade {
                machine.bring(&one, false).unwrap();
            }
            let before = Record::read(&machine.root).unwrap();
            let mut record = before.clone();
            let node = Node::look(&machine.root, None).unwrap();
            let mut wanted: Vec<_> = two.wanted().collect();
            wanted.extend(node.wanted(&record, Path::new(SHIM_PATH)).unwrap());
            let steps = plan::install(&machine.root, &mut record, Daemon::Kubernetes, wanted).unwrap();
            record.with_all_of(&before).write(&machine.root).unwrap();
            for step in steps.iter().take(done) {
                step.carry_out(&machine.root, &two).unwrap();
            }
            machine.bring(&two, false).unwrap();
            assert_eq!(without_history(relative(&machine)), without_history(installed.clone()), "{done}");
            let mut record = Record::read(&machine.root).unwrap();
            for step in
                plan::uninstall(&machine.root, &mut record, Daemon::Kubernetes).unwrap().iter().take(done)
            {
                step.carry_out(&machine.root, &two).unwrap();
            }
            machine.bring(&two, true).unwrap();
            assert_eq!(relative(&machine), clean, "after {done} steps back");
        }
    }
}

/// The record tells what an upgrade replaced, and that containerd has to be restarted.
fn without_history(files: Vec<(PathBuf, String)>) -> Vec<(PathBuf, String)> {
    files.into_iter().filter(|(path, _)| !path.ends_with("install.json")).collect()
}
