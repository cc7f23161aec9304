//! A small world of its own for each test.
//!
//! The conductor starts this program again through unshare(1), in new namespaces for
//! mounts, processes, network, cgroups and, unless it is root, users. There it is the
//! first process, init: it makes everything read-only but a few fresh folders, starts
//! itself a third time as the test, collects the dead as every init does, and in the
//! end looks for what the test has left: processes, mounts, files, cgroups. When init
//! ends the kernel ends the rest.

use std::env;
use std::fs;
use std::io::{self, Read};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rustix::fs::{StatVfsMountFlags, statvfs};
use rustix::mount::{MountFlags, UnmountFlags, mount, mount_bind, mount_remount, unmount};
use rustix::process::{WaitOptions, wait};

use super::binaries::Binaries;
use super::test::SKIPPED;

const ROLE: &str = "CRYO_COMPONENT_ROLE";
const TEST: &str = "CRYO_COMPONENT_TEST";
const SHIM: &str = "CRYO_COMPONENT_SHIM";
const RUNTIME: &str = "CRYO_COMPONENT_RUNTIME";
/// Set if the cgroup namespace begins at a cgroup of ours.
const OWN_CGROUP: &str = "CRYO_COMPONENT_OWN_CGROUP";

/// The start of a cgroup's name; the end is the pid of the conductor.
const CGROUP: &str = "cryo-component-";

/// No test needs half of it.
const LONGEST: Duration = Duration::from_secs(90);
/// Until what is on its way out is gone.
const LEAVING: Duration = Duration::from_secs(3);
const BETWEEN_LOOKS: Duration = Duration::from_millis(3);

pub(crate) const BINARIES: &str = "/run/bin";
/// The test's own folder: what is in it when the test ends is nobody's business.
pub(crate) const FOLDER: &str = "/tmp/test";
pub(crate) const CGROUPS: &str = "/sys/fs/cgroup";
/// Where the shim may keep logs for ever.
const JOURNAL: &str = "/var/log/cryo";

pub(crate) enum Role {
    Conductor,
    Init,
    Test(String),
    /// Knocks at a socket, as somebody else.
    Stranger(PathBuf),
}

impl Role {
    pub(crate) fn of_this_process() -> Role {
        match env::var(ROLE).as_deref() {
            Ok("init") => Role::Init,
            Ok("test") => Role::Test(env::var(TEST).unwrap_or_default()),
            Ok(role) => {
                role.strip_prefix("stranger:").map_or(Role::Conductor, |socket| Role::Stranger(socket.into()))
            }
            Err(_) => Role::Conductor,
        }
    }

    pub(crate) fn stranger(socket: &Path) -> (&'static str, String) {
        (ROLE, format!("stranger:{}", socket.display()))
    }
}

pub(crate) enum Outcome {
    Passed,
    Skipped(String),
    Failed(String),
}

pub(crate) struct Isolation {
    binaries: Binaries,
    us: PathBuf,
    /// A cgroup of ours, if this machine lets us have one.
    cgroup: Option<PathBuf>,
}

impl Isolation {
    pub(crate) fn prepare() -> Result<Isolation, String> {
        let us = env::current_exe().map_err(|error| error.to_string())?;
        let isolation = Isolation { binaries: Binaries::find()?, us, cgroup: make_cgroup() };
        match isolation.unshare(None).args(["true"]).output() {
            Ok(output) if output.status.success() => Ok(isolation),
            Ok(output) => {
                let problem = String::from_utf8_lossy(&output.stderr).trim().to_owned();
                Err(format!("this machine gives no namespaces to its users: {problem}"))
            }
            Err(error) => Err(format!("unshare, of util-linux, can't be run: {error}")),
        }
    }

    pub(crate) fn run(&self, test: &str) -> Outcome {
        let cgroup = self.cgroup.as_ref().map(|ours| ours.join(format!("{}", next())));
        let report = self.report(test, cgroup.as_deref());
        cgroup.iter().for_each(|cgroup| remove_cgroup(cgroup));
        report.unwrap_or_else(|error| Outcome::Failed(format!("the test can't be run: {error}")))
    }

    fn report(&self, test: &str, cgroup: Option<&Path>) -> io::Result<Outcome> {
        cgroup.map_or(Ok(()), fs::create_dir)?;
        let (mut output, write) = io::pipe()?;
        let mut command = self.unshare(cgroup);
        command.arg(&self.us).env(ROLE, "init").env(TEST, test);
        command.env(SHIM, &self.binaries.shim).env(RUNTIME, &self.binaries.runtime);
        command.envs(cgroup.map(|_| (OWN_CGROUP, "yes")));
        command.stdin(Stdio::null()).stdout(write.try_clone()?).stderr(write);
        let mut child = command.spawn()?;
        drop(command);
        let reader = std::thread::spawn(move || {
            let mut text = Vec::new();
            // Ends when the last process of the test does.
            let _ = output.read_to_end(&mut text);
            String::from_utf8_lossy(&text).trim().to_owned()
        });
        let deadline = Instant::now() + LONGEST;
        let status = loop {
            match child.try_wait()? {
                Some(status) => break Some(status),
                None if Instant::now() > deadline => {
                    child.kill()?;
                    child.wait()?;
                    break None;
                }
                None => std::thread::sleep(BETWEEN_LOOKS),
            }
        };
        let text = reader.join().unwrap_or_default();
        Ok(match status {
            Some(status) if status.success() => Outcome::Passed,
            Some(status) if status.code() == Some(SKIPPED.into()) => Outcome::Skipped(text),
            Some(status) => Outcome::Failed(format!("{text}\n({status})")),
            None => Outcome::Failed(format!("{text}\n(killed after {LONGEST:?})")),
        })
    }

    /// A command that runs its last arguments in new namespaces.
    fn unshare(&self, cgroup: Option<&Path>) -> Command {
        // The cgroup has to be entered first: it becomes the root of the namespace.
        let mut command = Command::new("sh");
        command.args(["-c", r#"[ -z "$0" ] || echo $$ > "$0/cgroup.procs"; exec "$@""#]);
        command.arg(cgroup.unwrap_or(Path::new(""))).arg("unshare");
        if !rustix::process::geteuid().is_root() {
            command.args(["--user", "--map-root-user"]);
        }
        command.args(["--mount", "--pid", "--net", "--cgroup", "--fork", "--kill-child", "--"]);
        command
    }
}

impl Drop for Isolation {
    fn drop(&mut self) {
        self.cgroup.iter().for_each(|cgroup| remove_cgroup(cgroup));
    }
}

fn next() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// Below the one we are in, so that nothing of the machine's is touched. Of version 2:
/// freezing needs no controller there, and a namespace can show it alone.
fn make_cgroup() -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    let mounted = mounts.lines().find(|line| line.contains(" - cgroup2 "))?.split(' ').nth(4)?;
    let memberships = fs::read_to_string("/proc/self/cgroup").ok()?;
    let ours = memberships.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let above = Path::new(mounted).join(ours);
    let left = folders(&above).into_iter().filter(|folder| is_of_a_dead_run(folder));
    left.for_each(|folder| remove_cgroup(&folder));
    let cgroup = above.join(format!("{CGROUP}{}", std::process::id()));
    fs::create_dir(&cgroup).ok()?;
    Some(cgroup)
}

/// A run that was killed couldn't remove its own.
fn is_of_a_dead_run(folder: &Path) -> bool {
    let name = folder.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let pid = name.strip_prefix(CGROUP).and_then(|pid| pid.parse::<u32>().ok());
    pid.is_some_and(|pid| !super::process::is_alive(pid))
}

fn remove_cgroup(cgroup: &Path) {
    folders(cgroup).iter().for_each(|below| remove_cgroup(below));
    let _ = fs::remove_dir(cgroup);
}

/// The whole life of a test's first process.
pub(crate) fn init() -> ExitCode {
    let ran = set_up().and_then(|()| {
        let before = mounts()?;
        let status = run_test()?;
        Ok((status, before))
    });
    match ran {
        Ok((Some(0), before)) => match leaks(&before) {
            leaks if leaks.is_empty() => ExitCode::SUCCESS,
            leaks => {
                eprintln!("the test passed and left:\n  {}", leaks.join("\n  "));
                ExitCode::FAILURE
            }
        },
        Ok((code, _)) => ExitCode::from(code.unwrap_or(1)),
        Err(error) => {
            eprintln!("the test's surroundings can't be made: {error}");
            ExitCode::FAILURE
        }
    }
}

fn set_up() -> io::Result<()> {
    mount("proc", "/proc", "proc", MountFlags::empty(), None)?;
    tmpfs("/run", "mode=755")?;
    let programs = [("containerd-shim-cryo-v2", SHIM), ("runc", RUNTIME), ("crun", RUNTIME)];
    fs::create_dir(BINARIES)?;
    for (name, variable) in programs {
        let place = Path::new(BINARIES).join(name);
        fs::write(&place, "")?;
        mount_bind(env::var_os(variable).unwrap_or_default(), &place)?;
    }
    // All the shim wants to know of CRIU is that it is there.
    fs::write(Path::new(BINARIES).join("criu"), "")?;
    tmpfs("/tmp", "mode=1777")?;
    tmpfs("/var/log", "mode=755")?;
    tmpfs("/var/lib", "mode=755")?;
    fs::create_dir(FOLDER)?;
    // As root, what is mounted here shows all of the machine's cgroups.
    if rustix::process::geteuid().is_root() {
        while unmount(CGROUPS, UnmountFlags::DETACH).is_ok() {}
    }
    // Without it the shim finds no cgroups, and has to do without.
    let _ = mount("cgroup2", CGROUPS, "cgroup2", MountFlags::empty(), None);
    make_read_only("/")
}

fn tmpfs(place: &str, options: &str) -> io::Result<()> {
    let options = std::ffi::CString::new(options)?;
    Ok(mount("tmpfs", place, "tmpfs", MountFlags::NOSUID | MountFlags::NODEV, Some(&*options))?)
}

/// Flags that are set have to be set again, or the kernel refuses to others than root.
fn make_read_only(place: &str) -> io::Result<()> {
    let now = statvfs(place)?.f_flag;
    let kept = [
        (StatVfsMountFlags::NOSUID, MountFlags::NOSUID),
        (StatVfsMountFlags::NODEV, MountFlags::NODEV),
        (StatVfsMountFlags::NOEXEC, MountFlags::NOEXEC),
        (StatVfsMountFlags::NOATIME, MountFlags::NOATIME),
        (StatVfsMountFlags::NODIRATIME, MountFlags::NODIRATIME),
        (StatVfsMountFlags::RELATIME, MountFlags::RELATIME),
    ];
    let kept = kept.into_iter().filter(|(is, _)| now.contains(*is)).map(|(_, flag)| flag);
    let flags = kept.fold(MountFlags::BIND | MountFlags::RDONLY, |flags, flag| flags | flag);
    Ok(mount_remount(place, flags, "")?)
}

/// Its exit status; nothing if a signal ended it.
fn run_test() -> io::Result<Option<u8>> {
    let path = format!("{BINARIES}:{}", env::var("PATH").unwrap_or_default());
    let test = Command::new("/proc/self/exe")
        .env(ROLE, "test")
        .env("PATH", path)
        .env_remove("XDG_RUNTIME_DIR")
        .env_remove("TMPDIR")
        .current_dir("/")
        .spawn()?;
    loop {
        // Whatever lost its parent is our child, too.
        if let Some((pid, status)) = wait(WaitOptions::empty())?
            && pid.as_raw_pid().cast_unsigned() == test.id()
        {
            let status = std::process::ExitStatus::from_raw(status.as_raw());
            return Ok(status.code().and_then(|code| u8::try_from(code).ok()));
        }
    }
}

fn leaks(before: &[String]) -> Vec<String> {
    let mut found = processes();
    for mount in mounts().unwrap_or_default().into_iter().filter(|mount| !before.contains(mount)) {
        found.push(format!("mount {mount}"));
    }
    let mut files = Vec::new();
    ["/run", "/tmp", "/var/log"].into_iter().for_each(|folder| list(Path::new(folder), &mut files));
    // What runtimes have said of themselves, for all containers.
    let notes = ["file /run/cryo/runc", "file /run/cryo/crun"];
    found.extend(files.into_iter().filter(|file| !notes.contains(&file.as_str())));
    if has_own_cgroup() {
        // The folder above a container's own is made by the runtime for many.
        let cgroups = folders(Path::new(CGROUPS)).iter().flat_map(|above| folders(above)).collect::<Vec<_>>();
        found.extend(cgroups.iter().map(|cgroup| format!("cgroup {}", cgroup.display())));
    }
    found
}

pub(crate) fn has_own_cgroup() -> bool {
    env::var_os(OWN_CGROUP).is_some()
}

fn folders(place: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(place).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect()
}

/// Everything but us, once the dying are dead.
fn processes() -> Vec<String> {
    let deadline = Instant::now() + LEAVING;
    loop {
        while let Ok(Some(_)) = wait(WaitOptions::NOHANG) {}
        let left: Vec<_> = super::process::all().into_iter().filter(|pid| *pid != 1).collect();
        if left.is_empty() || Instant::now() > deadline {
            let named = |pid: u32| format!("process {pid} ({})", super::process::command_line(pid));
            return left.into_iter().map(named).collect();
        }
        std::thread::sleep(BETWEEN_LOOKS);
    }
}

fn mounts() -> io::Result<Vec<String>> {
    let table = fs::read_to_string("/proc/self/mountinfo")?;
    Ok(table.lines().filter_map(|line| line.split(' ').nth(4)).map(str::to_owned).collect())
}

/// Folders alone are nothing: who made them will want them again.
fn list(folder: &Path, found: &mut Vec<String>) {
    let kept = [BINARIES, FOLDER, JOURNAL].map(Path::new);
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        match entry.file_type() {
            _ if kept.contains(&&*path) => {}
            Ok(kind) if kind.is_dir() => list(&path, found),
            _ => found.push(format!("file {}", path.display())),
        }
    }
}
