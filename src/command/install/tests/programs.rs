//! Programs that come with an image, and go with it.

use super::kubernetes::{MAIN, SHIM_PATH, VERSION_2, VERSION_3, node};
use super::*;

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

    /// Without programs.
    fn bare(text: &str) -> Machine {
        let machine = node(text);
        fs::remove_file(machine.root.at(SHIM_PATH)).unwrap();
        machine
    }

    fn run(&self, pid: &str, program: &str, words: &[&str]) {
        let process = self.root.at("/proc").join(pid);
        fs::create_dir_all(&process).unwrap();
        symlink(program, process.join("exe")).unwrap();
        fs::write(process.join("cmdline"), words.join("\0")).unwrap();
    }
}

/// By their owner, or by `make install`.
#[test]
fn the_handler_stays_as_long_as_pods_need_it() {
    let machine = Machine::bare(VERSION_3);
    machine.write(SHIM_PATH, "by hand");
    fs::set_permissions(machine.root.at(SHIM_PATH), fs::Permissions::from_mode(0o755)).unwrap();
    let before = machine.all();
    machine.install(Daemon::Kubernetes).unwrap();
    let stock = "/usr/local/lib/cryo/bin/containerd-shim-runc-v2";
    machine.run("5", SHIM_PATH, &[SHIM_PATH, "-namespace", "k8s.io", "-id", "x"]);
    assert!(matches!(machine.uninstall(Daemon::Kubernetes).unwrap_err(), Error::InUse(1)));
    fs::remove_dir_all(machine.root.at("/proc/5")).unwrap();
    // Neither other clients' containers nor pods on the stock shim's name need it.
    machine.run("6", SHIM_PATH, &[SHIM_PATH, "-namespace", "moby"]);
    machine.run("7", SHIM_PATH, &[stock, "-namespace", "k8s.io"]);
    machine.uninstall(Daemon::Kubernetes).unwrap();
    ["6", "7"].iter().for_each(|pid| fs::remove_dir_all(machine.root.at("/proc").join(pid)).unwrap());
    assert_eq!(machine.all(), before);
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
    machine.run("7", &format!("{SHIM_PATH} (deleted)"), &[SHIM_PATH, "-namespace", "moby"]);
    machine.run("8", "/usr/bin/containerd-shim-runc-v2", &[]);
    let installed = machine.all();
    for _ in 0..2 {
        let error = machine.bring(&two, true).unwrap_err();
        assert!(matches!(error, Error::InUse(1)), "{error}");
        assert_eq!(machine.all(), installed);
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
    machine.run("5", SHIM_PATH, &["containerd-shim-runc-v2", "-namespace", "default"]);
    assert!(matches!(machine.bring(&programs, true).unwrap_err(), Error::InUse(1)));
    fs::remove_dir_all(machine.root.at("/proc/5")).unwrap();
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
