//! Whether somebody outside the store still names an entry.
//!
//! What a client carries is a folder whose `cryo.json` names the entry (under `store`). The
//! entry notes that folder as its claim. Clients copy and move such folders, so those beside
//! it are looked at, too: for Docker, all checkpoints of all containers of that daemon. So is
//! everything below the folders that the node file allows restores from, since people copy
//! checkpoints there.
//!
//! What can't be read, or isn't understood, counts as a claim. So does a daemon's folder that
//! is gone as a whole, since it may have been moved, and a place on another file system than
//! the one that was noted, since the right one may just not be mounted.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Id;
use crate::checkpoint::manifest;
use crate::criu::images;

/// Docker's folder for a checkpoint: `<root>/containers/ID/checkpoints/NAME`.
const CONTAINERS: &str = "containers";
const CHECKPOINTS: &str = "checkpoints";

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Claim {
    Known(Place),
    /// Of a later version: it holds, and is kept as it is.
    Later(Value),
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Place {
    kind: Kind,
    folder: PathBuf,
    /// What statvfs calls it.
    file_system: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Kind {
    /// Below a daemon's root, or where `--checkpoint-dir` said.
    Docker,
    /// Any other client's.
    Folder,
    /// The bundle of a container that began there, and may begin there again.
    Container,
}

/// In a client's `cryo.json`, under `store`: where its pages are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reference {
    pub entry: Id,
    /// The store's folder, and the node that has it: for people.
    #[serde(default)]
    pub root: PathBuf,
    #[serde(default)]
    pub node: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Naming {
    Nobody,
    By(PathBuf),
    /// And why nobody can tell.
    Unknown(String),
}

/// One look at everything outside: folders are read once, however many entries claim them.
#[derive(Debug, Default)]
pub struct Survey {
    folders: BTreeMap<PathBuf, Named>,
    /// Where copies may lie, however deep.
    copies: Vec<PathBuf>,
    copied: Option<Named>,
}

/// What the checkpoints in a place name.
#[derive(Debug, Default)]
struct Named {
    entries: BTreeMap<String, PathBuf>,
    problem: Option<String>,
}

/// What a folder says.
enum Said {
    Names(String),
    /// It is there and holds no image yet.
    Nothing,
    /// It holds an image that needs no store.
    Other,
    Gone,
}

impl Claim {
    /// The folder that dockerd has made for a checkpoint.
    pub fn docker(folder: &Path) -> io::Result<Claim> {
        Claim::of(Kind::Docker, folder)
    }

    /// The folder that any other client named.
    pub fn folder(folder: &Path) -> io::Result<Claim> {
        Claim::of(Kind::Folder, folder)
    }

    /// The bundle of a container that starts from there.
    pub fn container(bundle: &Path) -> io::Result<Claim> {
        Claim::of(Kind::Container, bundle)
    }

    /// One that will never hold again.
    pub(super) fn is_over(&self) -> bool {
        matches!(self, Claim::Known(Place { kind: Kind::Container, folder, .. }) if matches!(exists(folder), Ok(false)))
    }

    /// What its client calls the checkpoint.
    pub fn name(&self) -> Option<String> {
        match self {
            Claim::Known(Place { kind: Kind::Container, .. }) => None,
            Claim::Known(place) => Some(place.folder.file_name()?.to_string_lossy().into_owned()),
            Claim::Later(_) => None,
        }
    }

    /// Whether its client's folder names an entry by now, or never will.
    pub(super) fn is_kept(&self, id: &Id) -> Option<bool> {
        let Claim::Known(place) = self else { return Some(true) };
        match said(&place.folder) {
            Ok(Said::Names(entry)) => Some(entry == id.as_str()),
            // It may be half written.
            Ok(Said::Nothing) | Err(_) => None,
            Ok(Said::Gone | Said::Other) => Some(false),
        }
    }

    fn of(kind: Kind, folder: &Path) -> io::Result<Claim> {
        if !folder.is_absolute() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "a claim's path isn't absolute"));
        }
        let file_system = rustix::fs::statvfs(folder)?.f_fsid;
        Ok(Claim::Known(Place { kind, folder: folder.to_owned(), file_system }))
    }
}

impl Survey {
    pub fn new(copies: &[PathBuf]) -> Survey {
        Survey { copies: copies.to_owned(), ..Survey::default() }
    }

    /// Who names an entry with these claims. What no client was ever told of isn't searched.
    pub fn of(&mut self, id: &Id, claims: &[Claim]) -> Naming {
        let mut unknown = None;
        for claim in claims {
            let naming = match claim {
                Claim::Known(place) => self.look(id, place),
                Claim::Later(_) => {
                    Naming::Unknown("who named it is only known to a later version of Cryo".to_owned())
                }
            };
            match naming {
                Naming::Nobody => {}
                Naming::By(folder) => return Naming::By(folder),
                naming @ Naming::Unknown(_) => unknown = unknown.or(Some(naming)),
            }
        }
        match unknown {
            Some(unknown) => unknown,
            None if claims.is_empty() => Naming::Nobody,
            None => self.copied.get_or_insert_with(|| named_below(&self.copies)).naming(id),
        }
    }

    fn look(&mut self, id: &Id, place: &Place) -> Naming {
        let folder = &place.folder;
        if place.kind == Kind::Container {
            // Without its bundle there is no container, whatever else changed on the node.
            return match exists(folder) {
                Ok(false) => Naming::Nobody,
                _ => Naming::By(folder.clone()),
            };
        }
        let unreadable =
            |error: io::Error| Naming::Unknown(format!("cannot read {}: {error}", folder.display()));
        match said(folder) {
            Ok(Said::Names(entry)) if entry == id.as_str() => return Naming::By(folder.clone()),
            Ok(Said::Nothing) => return Naming::By(folder.clone()),
            Ok(Said::Names(_) | Said::Other) => {}
            Ok(Said::Gone) => match is_elsewhere(place) {
                Ok(None) => {}
                Ok(Some(problem)) => return Naming::Unknown(problem),
                Err(error) => return unreadable(error),
            },
            Err(error) => return unreadable(error),
        }
        let around = containers(folder).filter(|_| place.kind == Kind::Docker);
        let beside = folder.parent().unwrap_or(folder);
        let key = around.unwrap_or(beside).to_owned();
        let named = self.folders.entry(key.clone()).or_insert_with(|| match around {
            Some(containers) => named_in_containers(containers),
            None => named_beside(beside),
        });
        named.naming(id)
    }
}

/// In words, who has what the folder names, and what gives up what Docker has.
pub(super) fn told(folder: &Path) -> String {
    let hint = if containers(folder).is_some() { " (docker checkpoint rm)" } else { "" };
    format!("{} names it{hint}", folder.display())
}

/// The folder of all containers, if the path is one of Docker's own.
fn containers(folder: &Path) -> Option<&Path> {
    let checkpoints = folder.parent().filter(|parent| parent.file_name() == Some(OsStr::new(CHECKPOINTS)))?;
    let containers = checkpoints.parent()?.parent()?;
    (containers.file_name() == Some(OsStr::new(CONTAINERS))).then_some(containers)
}

/// Why a folder that is gone may be somewhere else.
fn is_elsewhere(place: &Place) -> io::Result<Option<String>> {
    let folder = &place.folder;
    if let Some(containers) = containers(folder).filter(|_| place.kind == Kind::Docker)
        && !exists(containers)?
    {
        return Ok(Some(format!("{} is gone as a whole and may have been moved", containers.display())));
    }
    for above in folder.ancestors().skip(1) {
        if exists(above)? {
            let same = rustix::fs::statvfs(above)?.f_fsid == place.file_system;
            let problem = || format!("the disk that {} was on isn't mounted there", folder.display());
            return Ok((!same).then(problem));
        }
    }
    Ok(None)
}

fn said(folder: &Path) -> io::Result<Said> {
    #[derive(Deserialize)]
    struct Manifest {
        version: u32,
        store: Option<Store>,
    }
    /// No more of [`Reference`] than is needed here.
    #[derive(Deserialize)]
    struct Store {
        entry: String,
    }
    match images::read_small(&folder.join(manifest::FILE_NAME)) {
        Ok(bytes) => {
            let manifest: Manifest = serde_json::from_slice(&bytes)?;
            if manifest.version > manifest::VERSION {
                return Err(io::Error::other("it was written by a later version of Cryo"));
            }
            Ok(manifest.store.map_or(Said::Other, |store| Said::Names(store.entry)))
        }
        Err(error) if is_missing(&error) => {
            if exists(&folder.join(images::INVENTORY_FILE))? {
                return Ok(Said::Other);
            }
            Ok(if exists(folder)? { Said::Nothing } else { Said::Gone })
        }
        Err(error) => Err(error),
    }
}

fn named_in_containers(containers: &Path) -> Named {
    let mut named = Named::default();
    for container in named.folders_in(containers) {
        let checkpoints = container.join(CHECKPOINTS);
        named.add(&checkpoints);
    }
    named
}

fn named_beside(folder: &Path) -> Named {
    let mut named = Named::default();
    named.add(folder);
    named
}

/// An image is flat: there is nothing below one. Links lead to what is found elsewhere.
fn named_below(folders: &[PathBuf]) -> Named {
    let mut named = Named::default();
    let mut left = folders.to_owned();
    while let Some(folder) = left.pop() {
        named.note(&folder);
        let is_folder = |path: &PathBuf| fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_dir());
        if !folder.join(manifest::FILE_NAME).exists() {
            left.extend(named.folders_in(&folder).into_iter().filter(is_folder));
        }
    }
    named
}

impl Named {
    fn naming(&self, id: &Id) -> Naming {
        match (self.entries.get(id.as_str()), &self.problem) {
            (Some(folder), _) => Naming::By(folder.clone()),
            (None, Some(problem)) => Naming::Unknown(problem.clone()),
            (None, None) => Naming::Nobody,
        }
    }

    fn add(&mut self, checkpoints: &Path) {
        for folder in self.folders_in(checkpoints) {
            self.note(&folder);
        }
    }

    fn note(&mut self, folder: &Path) {
        match said(folder) {
            Ok(Said::Names(entry)) => drop(self.entries.insert(entry, folder.to_owned())),
            Ok(_) => {}
            Err(error) => self.complain(folder, &error),
        }
    }

    /// What is in a folder, be it folders or not: whoever looks into them will see.
    fn folders_in(&mut self, folder: &Path) -> BTreeSet<PathBuf> {
        let read = || fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect();
        let read: io::Result<BTreeSet<PathBuf>> = read();
        read.unwrap_or_else(|error| {
            if !is_missing(&error) {
                self.complain(folder, &error);
            }
            BTreeSet::new()
        })
    }

    fn complain(&mut self, place: &Path, error: &io::Error) {
        let problem = || format!("cannot read {}: {error}", place.display());
        self.problem.get_or_insert_with(problem);
    }
}

fn exists(path: &Path) -> io::Result<bool> {
    match fs::metadata(path) {
        Ok(_) => Ok(true),
        Err(error) if is_missing(&error) => Ok(false),
        Err(error) => Err(error),
    }
}

fn is_missing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    struct Docker {
        root: tempfile::TempDir,
        id: Id,
    }

    impl Docker {
        fn new() -> Docker {
            Docker { root: tempfile::tempdir().unwrap(), id: Id::random().unwrap() }
        }

        fn checkpoint(&self, container: &str, name: &str) -> PathBuf {
            let containers = self.root.path().join("docker").join(CONTAINERS);
            let folder = containers.join(container).join(CHECKPOINTS).join(name);
            fs::create_dir_all(&folder).unwrap();
            folder
        }

        fn write(folder: &Path, id: &Id) {
            let manifest = serde_json::json!({"version": 1, "store": {"entry": id}});
            fs::write(folder.join(manifest::FILE_NAME), manifest.to_string()).unwrap();
        }

        fn naming(&self, claims: &[Claim]) -> Naming {
            Survey::default().of(&self.id, claims)
        }
    }

    #[test]
    fn a_checkpoint_is_claimed_until_docker_removes_it() {
        let docker = Docker::new();
        let folder = docker.checkpoint("c", "one");
        let claims = [Claim::docker(&folder).unwrap()];
        assert_eq!(docker.naming(&claims), Naming::By(folder.clone()), "dockerd has just made it");
        assert!(Claim::docker(Path::new(".")).is_err());
        Docker::write(&folder, &docker.id);
        assert_eq!(docker.naming(&claims), Naming::By(folder.clone()));
        fs::remove_dir_all(&folder).unwrap();
        assert_eq!(docker.naming(&claims), Naming::Nobody);
        fs::remove_dir_all(folder.parent().unwrap().parent().unwrap()).unwrap();
        assert_eq!(docker.naming(&claims), Naming::Nobody);
    }

    #[test]
    fn a_name_that_was_used_again_claims_the_new_one_alone() {
        let docker = Docker::new();
        let folder = docker.checkpoint("c", "one");
        let claims = [Claim::docker(&folder).unwrap()];
        Docker::write(&folder, &Id::random().unwrap());
        assert_eq!(docker.naming(&claims), Naming::Nobody);
        fs::write(folder.join(manifest::FILE_NAME), r#"{"version": 1, "sealed": true}"#).unwrap();
        assert_eq!(docker.naming(&claims), Naming::Nobody, "one that needs no store");
        fs::remove_file(folder.join(manifest::FILE_NAME)).unwrap();
        fs::write(folder.join(images::INVENTORY_FILE), "").unwrap();
        assert_eq!(docker.naming(&claims), Naming::Nobody, "one that another shim took");
    }

    #[test]
    fn copies_and_moves_within_docker_are_found() {
        let docker = Docker::new();
        let folder = docker.checkpoint("c", "one");
        let claims = [Claim::docker(&folder).unwrap()];
        let copy = docker.checkpoint("other", "copy");
        Docker::write(&copy, &docker.id);
        fs::remove_dir_all(folder.parent().unwrap().parent().unwrap()).unwrap();
        assert_eq!(docker.naming(&claims), Naming::By(copy));
    }

    #[test]
    fn copies_through_a_link_are_found() {
        let docker = Docker::new();
        let folder = docker.checkpoint("c", "one");
        let claims = [Claim::docker(&folder).unwrap()];
        let elsewhere = tempfile::tempdir().unwrap();
        Docker::write(elsewhere.path(), &docker.id);
        let link = folder.with_file_name("link");
        symlink(elsewhere.path(), &link).unwrap();
        fs::remove_dir_all(&folder).unwrap();
        assert_eq!(docker.naming(&claims), Naming::By(link));
    }

    #[test]
    fn what_was_renamed_beside_its_old_place_is_found() {
        let docker = Docker::new();
        let folder = docker.root.path().join("exported/one");
        fs::create_dir_all(&folder).unwrap();
        let moved = folder.with_file_name("two");
        for claim in [Claim::docker(&folder).unwrap(), Claim::folder(&folder).unwrap()] {
            Docker::write(&folder, &docker.id);
            fs::rename(&folder, &moved).unwrap();
            assert_eq!(docker.naming(&[claim]), Naming::By(moved.clone()));
            fs::rename(&moved, &folder).unwrap();
        }
    }

    #[test]
    fn what_can_not_be_read_counts_as_a_claim() {
        let docker = Docker::new();
        let folder = docker.checkpoint("c", "one");
        let claims = [Claim::docker(&folder).unwrap()];
        fs::remove_dir_all(&folder).unwrap();
        // As a loss of power leaves it; and one that nobody can follow.
        let broken = docker.checkpoint("other", "broken");
        for text in ["", r#"{"version": 2}"#] {
            fs::write(broken.join(manifest::FILE_NAME), text).unwrap();
            assert!(matches!(docker.naming(&claims), Naming::Unknown(_)), "{text:?}");
        }
        fs::remove_dir_all(&broken).unwrap();
        symlink("loop", broken.with_file_name("loop")).unwrap();
        assert!(matches!(docker.naming(&claims), Naming::Unknown(_)));
    }

    #[test]
    fn a_daemons_folder_that_is_gone_as_a_whole_may_have_been_moved() {
        let docker = Docker::new();
        let claims = [Claim::docker(&docker.checkpoint("c", "one")).unwrap()];
        fs::rename(docker.root.path().join("docker"), docker.root.path().join("moved")).unwrap();
        let Naming::Unknown(why) = docker.naming(&claims) else { panic!("it is still there") };
        assert!(why.contains("may have been moved"), "{why}");
    }

    #[test]
    fn a_disk_that_is_not_mounted_may_hold_it() {
        let docker = Docker::new();
        let folder = docker.checkpoint("c", "one");
        let Claim::Known(place) = Claim::docker(&folder).unwrap() else { panic!("it is known") };
        let other = Place { file_system: !place.file_system, ..place };
        fs::remove_dir_all(&folder).unwrap();
        let Naming::Unknown(why) = docker.naming(&[Claim::Known(other)]) else { panic!("it is kept") };
        assert!(why.contains("isn't mounted"), "{why}");
    }

    #[test]
    fn claims_of_later_versions_hold() {
        let docker = Docker::new();
        for text in
            [r#"{"kind":"registry"}"#, r#"{"kind":"docker","folder":"/x","file_system":1,"more":2}"#, "7"]
        {
            let claim: Claim = serde_json::from_str(text).unwrap();
            assert!(matches!(docker.naming(std::slice::from_ref(&claim)), Naming::Unknown(_)), "{text}");
            let same: Value = serde_json::from_str(text).unwrap();
            assert_eq!(serde_json::to_value(claim).unwrap(), same);
        }
    }

    #[test]
    fn copies_that_containers_may_be_restored_from_are_found_however_deep() {
        let docker = Docker::new();
        let folder = docker.checkpoint("c", "one");
        let claims = [Claim::docker(&folder).unwrap()];
        fs::remove_dir_all(&folder).unwrap();
        let allowed = tempfile::tempdir().unwrap();
        let survey =
            || Survey::new(&[allowed.path().to_owned(), "/no/such/place".into()]).of(&docker.id, &claims);
        assert_eq!(survey(), Naming::Nobody);
        symlink(allowed.path(), allowed.path().join("loop")).unwrap();
        let copy = allowed.path().join("a/b/c/copy");
        fs::create_dir_all(&copy).unwrap();
        Docker::write(&copy, &docker.id);
        assert_eq!(survey(), Naming::By(copy.clone()));
        fs::write(copy.join(manifest::FILE_NAME), "{").unwrap();
        assert!(matches!(survey(), Naming::Unknown(_)));
        fs::remove_dir_all(&copy).unwrap();
        assert_eq!(survey(), Naming::Nobody);
    }

    #[test]
    fn one_claim_that_holds_is_enough() {
        let docker = Docker::new();
        let (one, two) = (docker.checkpoint("c", "one"), docker.checkpoint("c", "two"));
        let claims = [Claim::docker(&one).unwrap(), Claim::docker(&two).unwrap()];
        fs::remove_dir_all(&one).unwrap();
        assert_eq!(docker.naming(&claims), Naming::By(two.clone()));
        fs::remove_dir_all(&two).unwrap();
        assert_eq!(docker.naming(&claims), Naming::Nobody);
        assert_eq!(docker.naming(&[]), Naming::Nobody);
    }
}
