//! The same container without containerd and shim: the runtime's own command line.

use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use super::clock;
use super::place::{Place, Side};
use crate::harness::*;

pub(super) struct ByHand<'p> {
    place: &'p Place,
    runtime: Runtime,
    id: String,
    bundle: PathBuf,
}

/// The container's stdout, read, and what keeps its other pipes open.
pub(super) struct Ends {
    pub(super) stdout: Output,
    _open: [OwnedFd; 3],
}

impl<'p> ByHand<'p> {
    pub(super) fn new(place: &'p Place, runtime: Runtime, args: &[&str]) -> Outcome<Self> {
        Self::from(place, runtime, place.guest(Side::Ours, runtime, args))
    }

    pub(super) fn new_program(place: &'p Place, runtime: Runtime, args: &[&str]) -> Outcome<Self> {
        Self::from(place, runtime, place.guest(Side::Ours, runtime, &[]).program(args))
    }

    fn from(place: &'p Place, runtime: Runtime, plan: Blueprint<'p>) -> Outcome<Self> {
        let bundle = place.bench.fresh_folder("bundle")?;
        fs::write(bundle.join("config.json"), plan.spec.to_string())?;
        let root = bundle.join("rootfs");
        fs::create_dir(&root)?;
        let mounts = place.bench.root_filesystem(&place.bench.api(), &plan.id, None)?;
        let mount = mounts.first().ok_or_else(|| Failure::new("a snapshot without a mount"))?;
        let script =
            format!("mount -t {} -o {} {} \"$1\"", mount.r#type, mount.options.join(","), mount.source);
        place.bench.shell(&script, &[&root])?;
        Ok(ByHand { place, runtime, id: plan.id, bundle })
    }

    pub(super) fn create(&self) -> Outcome<f64> {
        Ok(self.create_with_ends()?.0)
    }

    pub(super) fn create_with_ends(&self) -> Outcome<(f64, Ends)> {
        self.with_ends(&["create", "--bundle", &path(&self.bundle), &self.id])
    }

    pub(super) fn start(&self) -> Outcome<f64> {
        self.timed(&["start", &self.id])
    }

    /// Creates, starts, waits and deletes.
    pub(super) fn run(&self) -> Outcome<f64> {
        self.timed(&["run", "--bundle", &path(&self.bundle), &self.id])
    }

    pub(super) fn exec_true(&self) -> Outcome<f64> {
        self.timed(&["exec", &self.id, "/bin/true"])
    }

    /// With those of our shim's flags that both runtimes know.
    pub(super) fn checkpoint(&self, image: &Path, work: &Path, leave_running: bool) -> Outcome<f64> {
        let (image, work) = (path(image), path(work));
        let mut args = vec!["checkpoint", "--image-path", &image, "--work-path", &work, "--file-locks"];
        args.extend(leave_running.then_some("--leave-running"));
        args.push(&self.id);
        self.timed(&args)
    }

    pub(super) fn restore(&self, image: &Path, work: &Path) -> Outcome<(f64, Ends)> {
        let (image, work, bundle) = (path(image), path(work), path(&self.bundle));
        self.with_ends(&[
            "restore",
            "--image-path",
            &image,
            "--work-path",
            &work,
            "--file-locks",
            "--bundle",
            &bundle,
            "--detach",
            &self.id,
        ])
    }

    pub(super) fn signal(&self, name: &str) -> Outcome {
        self.timed(&["kill", &self.id, name]).map(drop)
    }

    /// However far it came.
    pub(super) fn end(&self) -> Outcome {
        // A container that has ended, or never was, has nothing to delete.
        let _ = self.timed(&["delete", "--force", &self.id]);
        self.place.bench.shell("umount \"$1\"", &[&self.bundle.join("rootfs")])?;
        Ok(())
    }

    fn timed(&self, args: &[&str]) -> Outcome<f64> {
        self.call(args, [Stdio::null(), Stdio::null(), Stdio::null()])
    }

    /// With pipes as the container's stdin, stdout and stderr.
    fn with_ends(&self, args: &[&str]) -> Outcome<(f64, Ends)> {
        let (stdin, stdin_open) = std::io::pipe()?;
        let (stdout_open, stdout) = std::io::pipe()?;
        let (stderr_open, stderr) = std::io::pipe()?;
        let output = Output::read(Path::new(&format!("/proc/self/fd/{}", stdout_open.as_raw_fd())), false)?;
        let took = self.call(args, [stdin.into(), stdout.into(), stderr.into()])?;
        let open = [stdin_open.into(), stdout_open.into(), stderr_open.into()];
        Ok((took, Ends { stdout: output, _open: open }))
    }

    fn call(&self, args: &[&str], [stdin, stdout, stderr]: [Stdio; 3]) -> Outcome<f64> {
        let (times, log) = (self.bundle.join("times"), self.bundle.join("log"));
        let mut command = clock::command(&self.place.bench.slot, &times);
        command.arg(self.runtime.binary()).arg("--log").arg(&log).args(args);
        command.stdin(stdin).stdout(stdout).stderr(stderr).status()?;
        match clock::read(&times)? {
            Some(took) => Ok(took),
            None => {
                let log = fs::read_to_string(&log).unwrap_or_default();
                let last = log.lines().last().unwrap_or_default();
                Err(Failure::new(format!("{} {} fails: {last}", self.runtime.binary(), args.join(" "))))
            }
        }
    }
}

fn path(path: &Path) -> String {
    path.display().to_string()
}
