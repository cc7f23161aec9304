//! Cryo's two programs, copied out of an image to a machine that has nothing but containerd.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use cryo::checkpoint::manifest::digest;

use super::Error;
use super::disk::Content;
use crate::command::root::{Root, SHIM};

const FOLDER: &str = "/usr/local/bin";
/// containerd's namespace for what the kubelet asks for.
const OF_PODS: &str = "k8s.io";
/// What the kernel says of a program whose file was replaced or removed.
const DELETED: &str = " (deleted)";

/// In memory: the image is out of sight once the machine's root directory is entered.
#[derive(Default)]
pub(super) struct Programs(Vec<Program>);

struct Program {
    path: PathBuf,
    bytes: Vec<u8>,
    digest: String,
}

impl Programs {
    pub(super) fn beside_this() -> Result<Programs, Error> {
        let this = std::env::current_exe().map_err(Error::at("find", "/proc/self/exe"))?;
        Programs::from(this.parent().unwrap_or(Path::new("/")))
    }

    pub(super) fn from(folder: &Path) -> Result<Programs, Error> {
        let program = |name: &str| {
            let bytes = fs::read(folder.join(name)).map_err(|_| Error::NoProgram(name.to_owned()))?;
            let digest = digest(&bytes);
            Ok(Program { path: Path::new(FOLDER).join(name), bytes, digest })
        };
        Ok(Programs([SHIM, "cryo"].into_iter().map(program).collect::<Result<_, Error>>()?))
    }

    /// The shim's place, if the programs are to be copied.
    pub(super) fn shim(&self) -> Option<PathBuf> {
        self.0.first().map(|program| program.path.clone())
    }

    pub(super) fn wanted(&self) -> impl Iterator<Item = (PathBuf, Content)> {
        self.0.iter().map(|program| (program.path.clone(), Content::Program(program.digest.clone())))
    }

    pub(super) fn have(&self, path: &Path) -> bool {
        self.0.iter().any(|program| program.path == path)
    }

    pub(super) fn bytes(&self, digest: &str) -> io::Result<&[u8]> {
        let program = self.0.iter().find(|program| program.digest == digest);
        program.map(|program| &*program.bytes).ok_or_else(|| io::Error::other("its content isn't here"))
    }
}

/// How many processes run from a program's file, or from one that was there before.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Users {
    pub(super) all: usize,
    /// Shims that containerd started for the kubelet.
    pub(super) of_pods: usize,
}

pub(super) fn users(root: &Root, program: &Path) -> Result<Users, Error> {
    let processes = root.at("/proc");
    let mut users = Users::default();
    if !processes.join("self").exists() {
        // In a root that is being put together nothing runs.
        return Ok(users);
    }
    for entry in fs::read_dir(&processes).map_err(Error::at("read", &processes))?.flatten() {
        let process = entry.path();
        if !entry.file_name().to_string_lossy().bytes().all(|byte| byte.is_ascii_digit()) {
            continue;
        }
        match fs::read_link(process.join("exe")) {
            Ok(file) if is(&file, program) => {
                users.all += 1;
                users.of_pods += usize::from(is_of_pod(&process, program));
            }
            Ok(_) => {}
            // It has ended, or is the kernel's own.
            Err(error) if is_gone(&error) => {}
            Err(error) => return Err(Error::at("read", process.join("exe"))(error)),
        }
    }
    Ok(users)
}

fn is(file: &Path, program: &Path) -> bool {
    let file = file.to_string_lossy();
    Path::new(file.strip_suffix(DELETED).unwrap_or(&file)) == program
}

/// Started by that path: what has the stock shim's name needs no handler.
fn is_of_pod(process: &Path, program: &Path) -> bool {
    let line = fs::read(process.join("cmdline")).unwrap_or_default();
    let words: Vec<_> = line.split(|byte| *byte == 0).map(String::from_utf8_lossy).collect();
    let namespace = words.iter().skip_while(|word| word.trim_start_matches('-') != "namespace").nth(1);
    words.first().is_some_and(|first| Path::new(&**first) == program)
        && namespace.is_some_and(|name| name == OF_PODS)
}

fn is_gone(error: &io::Error) -> bool {
    let ended = Some(rustix::io::Errno::SRCH.raw_os_error());
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == ended
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_found_by_the_file_that_it_was_started_from() {
        let this = std::env::current_exe().unwrap();
        let root = Root::new(None).unwrap();
        match users(&root, &this) {
            Ok(users) => assert!(users.all >= 1 && users.of_pods == 0),
            Err(error) => assert!(matches!(error, Error::NotRoot), "{error}"),
        }
        assert!(is(Path::new("/usr/local/bin/x (deleted)"), Path::new("/usr/local/bin/x")));
        assert!(!is(Path::new("/usr/local/bin/xy"), Path::new("/usr/local/bin/x")));
    }
}
