//! Pods of a RuntimeClass run on Cryo: a handler in the configuration of the node's containerd.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::config_toml::{self, Handler};
use super::disk::{self, Content};
use super::dump::{self, Dump};
use super::record::Record;
use super::{Error, plan};
use crate::command::doctor::for_pods;
use crate::command::root::{Root, USUAL_PATH};
use crate::command::search;

const CONFIGURATION: &str = "/etc/containerd/config.toml";

/// A containerd and its main file.
pub(super) struct Node<'a> {
    root: &'a Root,
    main: PathBuf,
    /// Nothing in a root that is being put together, where nothing runs.
    asked: Option<Asked>,
}

struct Asked {
    program: PathBuf,
    dump: Dump,
}

/// What the main file is without us, and how pods are to be run.
struct Basis {
    text: Option<String>,
    handler: Handler,
}

impl<'a> Node<'a> {
    pub(super) fn look(root: &'a Root, config: Option<&Path>) -> Result<Node<'a>, Error> {
        let main = config.unwrap_or(Path::new(CONFIGURATION));
        let main = std::path::absolute(main).map_err(Error::at("find", main))?;
        if main.extension().is_none_or(|extension| extension != "toml") {
            return Err(Error::NotToml(main));
        }
        let asked = if root.is_the_machine() { Some(ask(&main, config.is_some())?) } else { None };
        Ok(Node { root, main, asked })
    }

    /// The files that there should be. One that is imported is there before the file that does.
    pub(super) fn wanted(&self, record: &Record, shim: &Path) -> Result<Vec<(PathBuf, Content)>, Error> {
        let basis = self.basis(record, shim)?;
        let drop_in = config_toml::drop_in_of(&self.main);
        let texts = config_toml::add(&self.main, &self.text(&basis)?, &drop_in, &basis.handler)?;
        let mut wanted = Vec::new();
        wanted.extend(texts.drop_in.map(|text| (drop_in, Content::Text(text))));
        if basis.text.as_ref() != Some(&texts.main) {
            let now = plan::text(self.root, &self.main)?.filter(|now| dump::say_the_same(now, &texts.main));
            wanted.push((self.main.clone(), Content::Text(now.unwrap_or(texts.main))));
        }
        Ok(wanted)
    }

    fn basis(&self, record: &Record, shim: &Path) -> Result<Basis, Error> {
        let text = plan::text_without_ours(self.root, record, &self.main)?;
        let systemd_cgroups = match &self.asked {
            Some(Asked { dump, .. }) => dump.systemd_cgroups(),
            None => text.as_deref().is_some_and(dump::file_says_systemd),
        };
        let dump = self.asked.as_ref().map(|asked| &asked.dump);
        let files = [&self.main, &config_toml::drop_in_of(&self.main)];
        let known = files.into_iter().any(|file| record.files.contains_key(file));
        // It may be in any file that is imported.
        if !known && dump.is_some_and(|dump| dump.has_handler() && dump.shim() != shim.to_str()) {
            return Err(config_toml::Error::Foreign(self.main.clone()).into());
        }
        Ok(Basis { text, handler: Handler { shim: shim.to_owned(), systemd_cgroups } })
    }

    fn text(&self, basis: &Basis) -> Result<String, Error> {
        match (&basis.text, &self.asked) {
            (Some(text), _) => Ok(text.clone()),
            (None, Some(Asked { dump, .. })) => Ok(config_toml::fresh(dump.version)),
            (None, None) => Err(Error::NoConfiguration(self.main.clone())),
        }
    }

    /// Shows containerd a copy with the handler in it, before it gets the handler itself.
    pub(super) fn try_out(&self, record: &Record, shim: &Path) -> Result<(), Error> {
        let Some(Asked { program, dump }) = &self.asked else { return Ok(()) };
        let basis = self.basis(record, shim)?;
        let copies = Copies::beside(&self.main)?;
        let texts = config_toml::add(&self.main, &self.text(&basis)?, &copies.drop_in, &basis.handler)?;
        if let Some(text) = texts.drop_in {
            copies.write(&copies.drop_in, &text)?;
        }
        copies.write(&copies.main, &texts.main)?;
        let then = dump::ask(program, Some(&copies.main))?;
        if then.shim() != shim.to_str() {
            return Err(Error::NotSeen(self.main.clone()));
        }
        if !then.is_like(dump) {
            return Err(Error::Loses(self.main.clone()));
        }
        Ok(())
    }
}

fn ask(main: &Path, named: bool) -> Result<Asked, Error> {
    if named && !main.exists() {
        return Err(Error::NoConfiguration(main.to_owned()));
    }
    let running = for_pods();
    if let Some(other) = running.iter().find(|one| !named && one.file != main) {
        return Err(Error::OtherConfiguration(other.file.clone()));
    }
    // One that was replaced since it was started can't be asked any more.
    let running = running.into_iter().map(|one| one.program).find(|program| program.exists());
    let there = || search::find("containerd", USUAL_PATH, Path::new("/")).map(|found| found.path);
    let program = running.or_else(there).ok_or(Error::NoContainerd)?;
    let file = main.try_exists().map_err(Error::at("read", main))?;
    // containerd 1 takes a file that it was told and that isn't there for a mistake.
    let dump = dump::ask(&program, (file || named).then_some(main))?;
    Ok(Asked { program, dump })
}

/// Beside the main file, from where it imports others by their names.
struct Copies {
    main: PathBuf,
    drop_in: PathBuf,
    made: Option<PathBuf>,
}

impl Copies {
    fn beside(main: &Path) -> Result<Copies, Error> {
        let folder = main.parent().unwrap_or(Path::new("/"));
        let made = (!folder.exists()).then(|| folder.to_owned());
        fs::create_dir_all(folder).map_err(Error::at("make", folder))?;
        Ok(Copies {
            main: disk::beside(main),
            drop_in: disk::beside(&main.with_file_name("cryo.toml")),
            made,
        })
    }

    fn write(&self, path: &Path, text: &str) -> Result<(), Error> {
        // The original may have passwords of registries in it.
        let file = File::options().write(true).create(true).truncate(true).mode(0o600).open(path);
        let written = file.and_then(|mut file| file.write_all(text.as_bytes()));
        written.map_err(Error::at("write", path))
    }
}

impl Drop for Copies {
    fn drop(&mut self) {
        // The next attempt, and every write, has the same names for them.
        let _ = fs::remove_file(&self.main);
        let _ = fs::remove_file(&self.drop_in);
        let _ = self.made.as_ref().map(fs::remove_dir);
    }
}
