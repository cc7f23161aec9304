//! Settings that runc and crun have no flag for, as a configuration file of ours for
//! one operation. CRIU finds it by an environment variable, which every version of
//! both runtimes hands on; what the runtime tells CRIU itself comes after and wins.

use std::fmt::Write;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::policy::Policy;

pub const FILE_NAME: &str = "criu.conf";
/// What the owner of the machine says to CRIU, by itself or under a runtime.
const SITE: [&str; 3] = ["/etc/criu/default.conf", "/etc/criu/runc.conf", "/etc/criu/crun.conf"];

#[derive(Debug, Default, PartialEq, Eq)]
pub struct Config(String);

impl Config {
    /// What holds for a container whatever is done with it.
    pub fn new(policy: &Policy) -> Config {
        let config = Config::default().set("ghost-limit", policy.ghost_limit().to_string());
        match policy.plugins() {
            Some(folder) => config.set("libdir", folder),
            None => config,
        }
    }

    pub fn flag(mut self, name: &str) -> Config {
        self.0.push_str(name);
        self.0.push('\n');
        self
    }

    pub fn set(mut self, name: &str, value: impl AsRef<Path>) -> Config {
        let value = value.as_ref().display().to_string();
        // Paths may come from the client: none of them may add settings of its own.
        if value.contains(['"', '\n', '\\']) {
            tracing::warn!(name, value, "can't be said to CRIU and is left out");
            return self;
        }
        // Writing to a string can't fail.
        let _ = writeln!(self.0, "{name} \"{value}\"");
        self
    }

    pub fn write(&self, folder: &Path) -> io::Result<PathBuf> {
        let path = folder.join(FILE_NAME);
        let mut file =
            std::fs::File::options().write(true).create(true).truncate(true).mode(0o600).open(&path)?;
        io::Write::write_all(&mut file, self.0.as_bytes())?;
        Ok(path)
    }
}

/// Whether CRIU may find a setting without our doing.
pub fn may_be_set_here(name: &str) -> bool {
    let is_named = |text: String| text.lines().any(|line| line.split_whitespace().next() == Some(name));
    SITE.iter().any(|path| std::fs::read_to_string(path).is_ok_and(is_named))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_can_not_add_settings() {
        let config = Config::default().set("external", "mnt[x]\"\naction-script \"/bin/sh");
        assert_eq!(config, Config::default());
    }

    #[test]
    fn a_file_has_one_setting_per_line() {
        let folder = tempfile::tempdir().unwrap();
        let config = Config::default().flag("link-remap").set("external", "net[7]:extRootNetNS");
        let path = config.write(folder.path()).unwrap();
        assert_eq!(std::fs::read_to_string(path).unwrap(), "link-remap\nexternal \"net[7]:extRootNetNS\"\n");
    }
}
