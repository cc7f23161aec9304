//! What is found before anything is frozen: reasons why a dump would fail, in words that
//! name who is in the way and what helps.
//!
//! It reads /proc and changes nothing. A reason blocks only if CRIU is sure to refuse, or
//! to hang; what can't be read, or is only likely, is left for CRIU to find.

mod connections;
mod files;
mod finding;
mod memory;
mod mounts;
mod process;
mod processes;
mod sockets;
mod space;
mod spawning;
mod unix;
mod watches;

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};

use super::Error;
use crate::criu::{self, config};
use crate::policy::Policy;
use crate::rights::Granted;
use connections::Connection;
pub use connections::Connections;
pub use finding::{Blockers, Finding, What};
use sockets::Held;
pub use spawning::Spawning;

/// Where distributions put CRIU's plugins.
const PLUGINS: [&str; 3] = ["/usr/lib/criu", "/usr/local/lib/criu", "/usr/libexec/criu"];

/// A container, and what is going to be asked of CRIU.
#[derive(Clone, Debug)]
pub struct Look {
    pub init: u32,
    /// All processes of its cgroup.
    pub pids: Vec<u32>,
    pub options: criu::Options,
    /// CRIU may leave names in its file system, as it does if the container is to be stopped.
    pub link_remap: bool,
    pub refuses_execs: bool,
    /// CRIU leaves connections out that nobody has accepted yet.
    pub skips_in_flight: bool,
    /// The runtime tells CRIU to leave the network out, which then knows no second one.
    pub one_network: bool,
    /// The largest deleted file that CRIU takes along.
    pub ghost_limit: u64,
    /// Where plugins of CRIU's may be that know more files than we do.
    pub plugins: Option<PathBuf>,
    /// Mount points that the runtime sees to. If nobody knows them, no mount is judged.
    pub bound: Option<Vec<PathBuf>>,
    /// What processes may do, and where. If nobody knows it, none does too much.
    pub granted: Option<Granted>,
    /// What goes into the image besides the processes' memory, in bytes.
    pub besides: u64,
    /// Where the image will be; it may not exist yet.
    pub image: Option<PathBuf>,
}

impl Look {
    /// Of a checkpoint that lets the container run on, by the usual policy.
    pub fn new(init: u32, pids: Vec<u32>, options: criu::Options) -> Look {
        Look {
            init,
            pids,
            options,
            link_remap: config::may_be_set_here("link-remap"),
            refuses_execs: false,
            skips_in_flight: true,
            one_network: false,
            ghost_limit: Policy::default().ghost_limit(),
            plugins: None,
            bound: None,
            granted: None,
            besides: 0,
            image: None,
        }
    }

    /// The same as the shim and `cryo check` see it: by the container's own policy.
    #[must_use]
    pub fn under(mut self, policy: &Policy, exits: bool) -> Look {
        self.link_remap |= exits && policy.remaps_links();
        self.skips_in_flight = policy.skips_in_flight();
        self.ghost_limit = policy.ghost_limit();
        self.plugins = policy.plugins().map(Path::to_owned);
        self
    }

    /// What CRIU may manage after all, because of plugins or of what the machine's owner has
    /// told it behind our back, is its own to refuse.
    fn excuse(&self, found: &mut [Finding]) {
        let has_plugins =
            || self.plugins.as_deref().into_iter().chain(PLUGINS.map(Path::new)).any(has_library);
        for finding in found.iter_mut().filter(|finding| finding.blocks) {
            let excused = match finding.what {
                What::Device | What::Gpu | What::UnsupportedFile => has_plugins(),
                What::GhostFile => config::may_be_set_here("ghost-limit"),
                What::FileLock => config::may_be_set_here("file-locks"),
                What::ExternalUnixSocket => config::may_be_set_here("ext-unix-sk"),
                What::Watch => config::may_be_set_here("irmap-scan-path"),
                _ => false,
            };
            finding.blocks = !excused;
        }
    }
}

fn has_library(folder: &Path) -> bool {
    let mut entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.any(|entry| entry.path().extension().is_some_and(|extension| extension == "so"))
}

/// Everything that stands in the way, or may do so, each reason once.
pub fn look(container: &mut Look, pids: impl Fn() -> Vec<u32>) -> Vec<Finding> {
    container.pids = pids();
    let first = Survey::of(container).found;
    confirm(first, container, pids)
}

/// Processes come and go and talk to each other while they are looked at, one after the
/// other: only what is in the way twice is in the way.
fn confirm(first: Vec<Finding>, container: &mut Look, pids: impl Fn() -> Vec<u32>) -> Vec<Finding> {
    if !first.iter().any(|finding| finding.blocks) {
        return first;
    }
    container.pids = pids();
    let mut second = Survey::of(container).found;
    for finding in &mut second {
        finding.blocks &= first.contains(finding);
    }
    second
}

/// What one walk through /proc brings home.
struct Survey {
    held: Held,
    open: BTreeMap<u64, Connection>,
    found: Vec<Finding>,
    /// That the image will take at least.
    bytes: u64,
}

impl Survey {
    fn of(container: &Look) -> Survey {
        let init = container.init;
        let family = process::family(init, &container.pids);
        let mut found = processes::unstoppable(init, &family);
        found.extend(processes::elsewhere(init, &family, container.one_network));
        let mut held = Held::default();
        for process in &family {
            found.extend(files::of(process, container, &mut held));
            if process.inside {
                found.extend(memory::mapped(process, container.ghost_limit));
            }
        }
        let unix = if held.is_empty() { unix::Table::new() } else { unix::table(init) };
        // The kernel takes its time for these tables, and many a container has no use for them.
        let open = if held.has_others(&unix) { connections::open(init) } else { BTreeMap::new() };
        found.extend(sockets::judge(&held, container, &unix, &open));
        found.extend(unix::peers(container, &held, &unix));
        if let Some(granted) = &container.granted {
            found.extend(processes::mightier(&family, &granted.rights));
        }
        found.extend(processes::execs(&family, container.refuses_execs));
        if let Some(first) = family.iter().find(|process| process.pid == init) {
            if let Some(granted) = &container.granted {
                found.extend(processes::astray(first, &granted.hosts));
            }
            found.extend(mounts::look(first, container));
            found.extend(space::look(first, &family, container));
        }
        container.excuse(&mut found);
        let mut seen = HashSet::new();
        found.retain(|finding| seen.insert((finding.what, finding.pid, finding.place.clone())));
        Survey { held, open, found, bytes: space::needed(&family, container) }
    }
}

/// What would fail, or hang, is refused. Tells what the image will take at least.
pub(super) fn judge(container: &mut Look, pids: impl Fn() -> Vec<u32>) -> Result<u64, Error> {
    container.pids = pids();
    let survey = Survey::of(container);
    if !container.options.tcp_established
        && let Some(open) = Connections::of(&survey.open, &survey.held)
    {
        return Err(Error::Connections(open));
    }
    let found = confirm(survey.found, container, pids);
    Blockers::of(found).map_or(Ok(survey.bytes), |blockers| Err(Error::Preflight(blockers)))
}

#[cfg(test)]
mod tests {
    use std::ops::Deref;
    use std::process::{Child, Command};
    use std::time::Duration;

    use super::*;
    use crate::reaper;

    /// A process that is what it will be: right after the start it still has our files.
    pub(super) fn sleeper() -> Sleeper {
        let undisturbed = reaper::undisturbed();
        let child = Command::new("sleep").arg("100").spawn().unwrap();
        until(|| (process::program(child.id()) == "sleep").then_some(()));
        Sleeper { child, _undisturbed: undisturbed }
    }

    /// Sleeps until it is dropped.
    pub(super) struct Sleeper {
        child: Child,
        _undisturbed: reaper::Window,
    }

    impl Deref for Sleeper {
        type Target = Child;

        fn deref(&self) -> &Child {
            &self.child
        }
    }

    impl Drop for Sleeper {
        fn drop(&mut self) {
            self.child.kill().unwrap();
            self.child.wait().unwrap();
        }
    }

    pub(super) fn until<T>(mut look: impl FnMut() -> Option<T>) -> T {
        for _ in 0..500 {
            if let Some(found) = look() {
                return found;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("it never came");
    }

    #[test]
    fn an_ordinary_process_is_in_nobodys_way() {
        let child = sleeper();
        let options = criu::Options { file_locks: true, ..criu::Options::default() };
        let of = |pid: u32| look(&mut Look::new(pid, Vec::new(), options.clone()), || vec![pid]);
        // What whoever runs the tests has left open is inherited.
        let ours: Vec<String> = of(std::process::id()).into_iter().map(|finding| finding.place).collect();
        let mut found = of(child.id());
        found.retain(|finding| finding.blocks && !ours.contains(&finding.place));
        assert_eq!(found, []);
    }

    #[test]
    fn who_is_gone_leaves_nothing_to_find() {
        // Above the largest number the kernel gives out.
        let mut nobody = Look::new(5_000_000, Vec::new(), criu::Options::default());
        assert_eq!(look(&mut nobody, || vec![5_000_000]), []);
    }
}
