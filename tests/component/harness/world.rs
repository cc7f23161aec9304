//! Where a test takes place.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use rustix::mount::{MountFlags, UnmountFlags, mount, mount_remount, unmount};
use tokio::runtime::{Handle, Runtime};

use super::blueprint::Blueprint;
use super::container::Container;
use super::containerd::Containerd;
use super::isolation::{CGROUPS, FOLDER, has_own_cgroup};

pub(crate) struct World {
    runtime: Runtime,
    pub(crate) containerd: Arc<Containerd>,
    containers: Mutex<Vec<Container>>,
    bundles: Mutex<Vec<PathBuf>>,
    has_cgroups: bool,
}

impl World {
    pub(crate) fn new() -> World {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let containerd = Arc::new(Containerd::start(runtime.handle().clone()));
        World {
            runtime,
            containerd,
            containers: Mutex::default(),
            bundles: Mutex::default(),
            has_cgroups: has_own_cgroup() && can_make_cgroups(),
        }
    }

    pub(crate) fn runtime(&self) -> &Handle {
        self.runtime.handle()
    }

    pub(crate) fn container(&self, id: &str) -> Blueprint<'_> {
        Blueprint::new(self, id)
    }

    /// A path in the test's own folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        Path::new(FOLDER).join(name)
    }

    #[track_caller]
    pub(crate) fn folder(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(&path).unwrap();
        path
    }

    /// Whether files can belong to others than us, and processes be theirs.
    pub(crate) fn can_be_others(&self) -> bool {
        let map = fs::read_to_string("/proc/self/uid_map").unwrap();
        map.split_whitespace()
            .nth(2)
            .and_then(|count| count.parse().ok())
            .is_some_and(|count: u64| count > 1000)
    }

    /// A small file system of its own at a path in the test's folder.
    #[track_caller]
    pub(crate) fn tmpfs(&self, name: &str, options: &str) -> PathBuf {
        let path = self.folder(name);
        self.mount_tmpfs(&path, options);
        path
    }

    #[track_caller]
    pub(crate) fn mount_tmpfs(&self, path: &Path, options: &str) {
        let options = std::ffi::CString::new(options).unwrap();
        mount("tmpfs", path, "tmpfs", MountFlags::empty(), Some(&*options)).unwrap();
    }

    /// Forbids writing to what is mounted there.
    #[track_caller]
    pub(crate) fn make_read_only(&self, path: &Path) {
        mount_remount(path, MountFlags::BIND | MountFlags::RDONLY, "").unwrap();
    }

    #[track_caller]
    pub(crate) fn unmount(&self, path: &Path) {
        unmount(path, UnmountFlags::empty()).unwrap();
    }

    /// Unless somebody still uses it.
    pub(crate) fn try_unmount(&self, path: &Path) -> bool {
        unmount(path, UnmountFlags::empty()).is_ok()
    }

    /// Whether containers have cgroups here; as an ordinary user they haven't.
    pub(crate) fn has_cgroups(&self) -> bool {
        self.has_cgroups
    }

    /// Whether this container has one now.
    pub(crate) fn has_cgroup(&self, id: &str) -> bool {
        self.has_cgroups && self.cgroup(id).exists()
    }

    pub(crate) fn cgroup(&self, id: &str) -> PathBuf {
        Path::new(CGROUPS).join("default").join(id)
    }

    /// Empty where containers can't have one.
    pub(crate) fn cgroups_path(&self, namespace: &str, id: &str) -> String {
        if self.has_cgroups { format!("/{namespace}/{id}") } else { String::new() }
    }

    pub(crate) fn note_container(&self, container: &Container) {
        self.containers.lock().unwrap().push(container.clone());
    }

    pub(crate) fn note_bundle(&self, path: &Path) {
        self.bundles.lock().unwrap().push(path.to_owned());
    }

    /// Runs a test, and shows what the shims had to say if it fails.
    pub(crate) fn host(&self, test: impl FnOnce(&World)) -> bool {
        let ended = catch_unwind(AssertUnwindSafe(|| {
            test(self);
            self.finish();
        }));
        if ended.is_err() {
            for container in self.containers.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).iter() {
                eprintln!(
                    "--- log of {}, events {:?}\n{}",
                    container.id(),
                    container.events(),
                    container.log()
                );
            }
        }
        ended.is_ok()
    }

    /// Everything that was made can be removed, and the shims end.
    fn finish(&self) {
        let containers = std::mem::take(&mut *self.containers.lock().unwrap());
        containers.iter().for_each(Container::clean_up);
        containers.iter().for_each(Container::expect_shim_gone);
        for bundle in self.bundles.lock().unwrap().iter().filter(|bundle| bundle.exists()) {
            fs::remove_dir_all(bundle).unwrap();
        }
        self.containerd.go_away();
        let _ = fs::remove_dir_all("/run/containerd/fifo");
    }
}

fn can_make_cgroups() -> bool {
    let probe = Path::new(CGROUPS).join("probe");
    fs::create_dir(&probe).and_then(|()| fs::remove_dir(&probe)).is_ok()
}
