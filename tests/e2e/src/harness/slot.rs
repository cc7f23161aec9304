//! A slot is a small world for one trial at a time: a containerd with mount and
//! network namespaces, folders and cgroups of its own.
//!
//! Because nobody else acts in it, whatever a trial leaves behind there was left by
//! that trial. A slot that was found clean afterwards serves the next trial; any
//! other is thrown away.
//!
//! Inside, `/run` and `/tmp` are the slot's folders of the same name, so everything
//! in them can be reached from outside as well. Process ids are the same everywhere.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::cgroup;
use super::daemon::Daemon;
use super::docker::Dockerd;
use super::failure::{During, Failure, Outcome};
use super::image;
use super::kube;
use super::leaks::Traces;
use super::settings::settings;
use super::wait::eventually;

/// On a tmpfs: containerd syncs after each small write, and overlays can't lie on
/// the overlay that a test host's root is.
pub(crate) const BASE: &str = "/var/lib/cryo-e2e";

/// Prepares new namespaces. `$1` is the slot's folder, `$2` what must not be seen: crun
/// refuses to work beside a version 2 hierarchy, and leaks are looked for elsewhere.
const SET_UP: &str = r#"
    umount "$2" 2>/dev/null || true
    for name in systemd dbus; do
        [ -d "/run/$name" ] || continue
        mkdir "$1/run/$name"
        mount --rbind "/run/$name" "$1/run/$name"
    done
    mount --rbind "$1/run" /run
    mount --bind "$1/tmp" /tmp
    mkdir -p /etc/cryo
    mount --bind "$1/etc" /etc/cryo
    mkdir -p /var/lib/cryo
    mount --bind "$1/cryo" /var/lib/cryo
    mkdir -p /var/lib/cni
    mount --bind "$1/cni" /var/lib/cni
    ip link set lo up
    echo ready
    read -r _
"#;

/// The daemons of a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Daemons {
    Containerd,
    /// A dockerd beside containerd, and our shim in the stock one's place: Docker sends
    /// options of a checkpoint to no other name.
    Docker,
    /// A containerd as on a node of Kubernetes, with a network for pods.
    ForPods,
}

pub(crate) struct Slot {
    pub(crate) number: usize,
    daemons: Daemons,
    pub(crate) folder: PathBuf,
    mount_namespace: File,
    pub(crate) network_namespace: File,
    daemon: Option<Daemon>,
    dockerd: Option<Dockerd>,
    pub(crate) untouched: Traces,
}

impl Slot {
    fn new(number: usize, daemons: Daemons) -> Outcome<Self> {
        // Short, because a socket's path may have 107 characters.
        let folder = Path::new(BASE).join(number.to_string());
        for name in ["run", "tmp", "etc", "cryo", "cni", "bin", "work"] {
            fs::create_dir_all(folder.join(name))?;
        }
        let (mount_namespace, network_namespace) = namespaces(&folder)?;
        let untouched = Traces::default();
        let mut slot = Slot {
            number,
            daemons,
            folder,
            mount_namespace,
            network_namespace,
            daemon: None,
            dockerd: None,
            untouched,
        };
        slot.daemon = Some(Daemon::start(&slot)?);
        image::import(&slot, &slot.containerd_namespace())?;
        match daemons {
            Daemons::Containerd => {}
            Daemons::Docker => slot.dockerd = Some(Dockerd::start(&slot)?),
            Daemons::ForPods => kube::prepare(&slot)?,
        }
        slot.untouched = Traces::of(&slot);
        Ok(slot)
    }

    pub(crate) fn daemon(&self) -> &Daemon {
        self.daemon.as_ref().expect("a slot has its daemon once it is made")
    }

    pub(crate) fn dockerd(&self) -> Option<&Dockerd> {
        self.dockerd.as_ref()
    }

    pub(crate) fn daemons(&self) -> Daemons {
        self.daemons
    }

    pub(crate) fn is_for_pods(&self) -> bool {
        self.daemons == Daemons::ForPods
    }

    /// A command inside the slot.
    pub(crate) fn command(&self, program: &str) -> Command {
        let file = |fd: &File| format!("/proc/{}/fd/{}", std::process::id(), fd.as_raw_fd());
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--mount={}", file(&self.mount_namespace)))
            .arg(format!("--net={}", file(&self.network_namespace)))
            .args(["--", program])
            .env_clear()
            .envs(self.environment())
            .stdin(Stdio::null());
        command
    }

    /// A daemon in the slot's own cgroup, with all that it starts.
    pub(crate) fn start_daemon(
        &self,
        program: &str,
        option: &str,
        config: &Path,
        log: File,
    ) -> Outcome<Child> {
        // It waits to be put into its cgroups, which aren't all visible inside.
        let mut process = self
            .command("sh")
            .args(["-c", "read -r _ && exec \"$@\" </dev/null", "sh", program, option])
            .arg(config)
            .stdin(Stdio::piped())
            .stdout(log.try_clone()?)
            .stderr(Stdio::from(log))
            .spawn()
            .during(|| program.into())?;
        cgroup::put(process.id(), &self.daemon_cgroup())?;
        if let Some(mut go) = process.stdin.take() {
            go.write_all(b"\n")?;
        }
        Ok(process)
    }

    fn environment(&self) -> BTreeMap<&'static str, String> {
        let system = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
        let in_place =
            if self.daemons == Daemons::Docker { format!("{BASE}/in-place:") } else { String::new() };
        let path = format!("{}/bin:{in_place}{BASE}/bin:{system}", self.folder.display());
        BTreeMap::from([("PATH", path), ("HOME", "/root".into()), ("LC_ALL", "C".into())])
    }

    /// The containerd namespace, and the parent cgroup of its containers, as with `ctr`.
    pub(crate) fn containerd_namespace(&self) -> String {
        if self.is_for_pods() { kube::NAMESPACE.into() } else { format!("e2e-{}", self.number) }
    }

    /// The cgroup of containerd and of the shims it starts.
    pub(crate) fn daemon_cgroup(&self) -> String {
        format!("/e2e-{}.daemon", self.number)
    }

    pub(crate) fn containers_cgroup(&self) -> String {
        if settings().systemd { format!("/{}", self.slice()) } else { format!("/e2e-{}", self.number) }
    }

    /// What a specification calls the cgroup of container `id`.
    pub(crate) fn cgroup_of(&self, id: &str) -> String {
        self.cgroup_by("cryo", id)
    }

    /// The same for whoever calls itself `maker` before systemd.
    pub(crate) fn cgroup_by(&self, maker: &str, id: &str) -> String {
        if settings().systemd {
            format!("{}:{maker}:{id}", self.slice())
        } else {
            format!("{}/{id}", self.containers_cgroup())
        }
    }

    fn slice(&self) -> String {
        format!("{}.slice", self.slice_name())
    }

    /// Without a dash, which would put it into another slice.
    pub(crate) fn slice_name(&self) -> String {
        format!("e2e{}", self.number)
    }

    /// Does something in the network of the slot; sockets keep belonging to it.
    pub(crate) fn in_network<T: Send>(&self, act: impl FnOnce() -> Outcome<T> + Send) -> Outcome<T> {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                move_into_link_name_space(self.network_namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
                act()
            });
            thread.join().map_err(|_| Failure::new("a thread in the slot's network panicked"))?
        })
    }

    /// Where a path that is named inside lies outside.
    pub(crate) fn outside(&self, inside: &str) -> PathBuf {
        if inside.starts_with("/run/") || inside.starts_with("/tmp/") {
            return PathBuf::from(format!("{}{inside}", self.folder.display()));
        }
        if let Some(inside) = inside.strip_prefix("/var/lib/cryo/") {
            return self.folder.join("cryo").join(inside);
        }
        inside.into()
    }

    /// Ends all that runs in the slot and removes it.
    pub(crate) fn destroy(mut self) {
        drop(self.dockerd.take());
        drop(self.daemon.take());
        let cgroups = [self.daemon_cgroup(), self.containers_cgroup()];
        let gone = || {
            cgroups.iter().for_each(|name| cgroup::destroy(name));
            cgroups.iter().all(|name| cgroup::processes(name).is_empty()).then_some(())
        };
        if let Err(failure) = eventually("the slot's processes are gone", gone) {
            eprintln!("{failure}");
        }
        // Mounts end with their namespace; what is left are plain files.
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn namespaces(folder: &Path) -> Outcome<(File, File)> {
    let mut holder = Command::new("unshare")
        .args(["--mount", "--net", "--propagation", "private", "sh", "-e", "-c", SET_UP, "slot"])
        .arg(folder)
        .arg(cgroup::hidden_hierarchy())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .during(|| "unshare".into())?;
    let mut said = [0; 6];
    let ready = holder.stdout.take().is_some_and(|mut stdout| stdout.read_exact(&mut said).is_ok());
    let open = |kind| File::open(format!("/proc/{}/ns/{kind}", holder.id()));
    let opened = (open("mnt"), open("net"));
    drop(holder.stdin.take());
    holder.wait()?;
    if !ready {
        return Err(Failure::new("a slot's namespaces could not be made"));
    }
    Ok((opened.0?, opened.1?))
}

static IDLE: Mutex<Vec<Slot>> = Mutex::new(Vec::new());
static MADE: AtomicUsize = AtomicUsize::new(0);

/// Mounts the base folder and fills what all slots share.
pub(crate) fn set_up() -> Outcome {
    tear_down();
    fs::create_dir_all(BASE)?;
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "mode=0755", "tmpfs", BASE]).status()?;
    if !mounted.success() {
        return Err(Failure::new(format!("no tmpfs could be mounted at {BASE}; is this root?")));
    }
    let bin = Path::new(BASE).join("bin");
    fs::create_dir(&bin)?;
    fs::copy(&settings().guest, bin.join("guest")).during(|| settings().guest.display().to_string())?;
    if let Some(folder) = &settings().cryo_bin {
        for name in ["containerd-shim-cryo-v2", "cryo"] {
            let ours = folder.join(name);
            fs::copy(&ours, bin.join(name)).during(|| ours.display().to_string())?;
        }
        let in_place = Path::new(BASE).join("in-place");
        fs::create_dir(&in_place)?;
        if settings().shim.is_cryo() {
            let link = in_place.join("containerd-shim-runc-v2");
            std::os::unix::fs::symlink("../bin/containerd-shim-cryo-v2", link)?;
        }
        if settings().shim == super::settings::Shim::DropIn {
            std::os::unix::fs::symlink("containerd-shim-cryo-v2", bin.join("containerd-shim-runc-v2"))?;
        }
    }
    cgroup::show_hidden_hierarchy()?;
    image::build(Path::new(BASE))
}

/// Also what an earlier run left that was killed.
pub(crate) fn tear_down() {
    for slot in IDLE.lock().expect("no thread panics with idle slots in hand").drain(..) {
        slot.destroy();
    }
    for root in cgroup::roots() {
        let Ok(entries) = fs::read_dir(root) else { continue };
        for name in entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()) {
            if name.starts_with("e2e-") || (settings().systemd && name.starts_with("e2e")) {
                cgroup::destroy(&name);
            }
        }
    }
    cgroup::clean_hidden_hierarchy("");
    // The slots' node files were mounted there; one of the machine's own stays.
    let _ = fs::remove_dir("/etc/cryo");
    let _ = fs::remove_dir("/var/lib/cryo");
    let _ = fs::remove_dir("/var/lib/cni");
    while Command::new("umount").args(["-l", BASE]).stderr(Stdio::null()).status().is_ok_and(|s| s.success())
    {
    }
}

pub(crate) fn borrow(daemons: Daemons) -> Outcome<Slot> {
    let idle = {
        let mut all = IDLE.lock().expect("no thread panics with idle slots in hand");
        all.iter().position(|slot| slot.daemons == daemons).map(|at| all.swap_remove(at))
    };
    match idle {
        Some(slot) => Ok(slot),
        None => Slot::new(MADE.fetch_add(1, Ordering::Relaxed), daemons),
    }
}

pub(crate) fn give_back(slot: Slot) {
    IDLE.lock().expect("no thread panics with idle slots in hand").push(slot);
}
