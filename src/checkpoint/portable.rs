//! Memory on its way with a client, which carries it slowly: a helper compresses it while CRIU
//! writes it.
//!
//! dockerd takes what is in containerd's archive at some 70 MB/s, in pieces of 32 KiB, but it
//! unpacks that into a folder that was there before. What is compressed may as well go there
//! directly; the archive brings the rest.
//!
//! Nothing of this is needed for a checkpoint: if it fails, memory travels as it is.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use tokio::time::timeout;

use super::manifest::Manifest;
use super::transit::{KUBERNETES, is_temporary};
use super::{Figures, Request};
use crate::account::micros;
use crate::container::Subject;
use crate::docker;
use crate::helper::{Helper, Shrinkage, Sizes};
use crate::operation::aside;
use crate::pages::is_pages;
use crate::pages::memory::stands_for;
use crate::policy::Compress;
use crate::reaper::Reaper;

/// Where compressed memory goes.
#[derive(Clone, Debug)]
pub(super) enum Bound {
    /// Beside everything else.
    Along,
    /// To Docker's own folder for this checkpoint.
    Ahead(PathBuf),
}

impl Bound {
    /// None if memory stays as it is: others read the archives that the CRI makes, and folders
    /// that a client names.
    pub(super) fn of(request: &Request, subject: &Subject, asked: SystemTime) -> Option<Bound> {
        let compress = request.policy.store().compress;
        if compress == Compress::Never || subject.namespace == KUBERNETES {
            return None;
        }
        if !is_temporary(&request.image) {
            return (compress == Compress::Always).then_some(Bound::Along);
        }
        let ahead = docker::new_checkpoint(&subject.namespace, &subject.id, &subject.bundle, asked);
        Some(ahead.map_or(Bound::Along, Bound::Ahead))
    }
}

/// An image whose memory is being compressed, if it is.
#[derive(Debug)]
pub(super) struct Portable(Option<Shrinking>);

#[derive(Debug)]
struct Shrinking {
    helper: Helper,
    folder: PathBuf,
    into: PathBuf,
}

impl Portable {
    /// Begins before anything is written to the folder.
    pub(super) fn begin(reaper: Reaper, folder: &Path, bound: Option<Bound>) -> Portable {
        let Some(bound) = bound else { return Portable(None) };
        let into = match bound {
            Bound::Along => folder.to_owned(),
            Bound::Ahead(into) => into,
        };
        match Helper::to_shrink(reaper, folder, &into) {
            Ok(helper) => Portable(Some(Shrinking { helper, folder: folder.to_owned(), into })),
            Err(error) => {
                tracing::warn!(%error, "memory isn't compressed");
                Portable(None)
            }
        }
    }

    /// The image is sealed, and needs its memory as it is no longer. Tells how many microseconds
    /// that took.
    pub(super) async fn finish(self, patience: Duration) -> Option<u64> {
        let mut shrinking = self.0?;
        let done = timeout(patience, shrinking.finish()).await;
        match done.unwrap_or_else(|_| Err("it takes too long".to_owned())) {
            Ok(took) => Some(took),
            Err(problem) => {
                tracing::warn!(problem, "memory isn't compressed");
                shrinking.give_up().await;
                None
            }
        }
    }

    /// There won't be an image.
    pub(super) async fn give_up(self) {
        if let Some(shrinking) = self.0 {
            shrinking.give_up().await;
        }
    }
}

impl Shrinking {
    async fn finish(&mut self) -> Result<u64, String> {
        let begun = Instant::now();
        let (folder, into) = (self.folder.clone(), self.into.clone());
        let manifest = aside(move || Manifest::read(&folder)).await.map_err(|error| error.to_string())?;
        let memory = manifest.files.iter().filter(|(name, _)| is_pages(name));
        let sizes: Sizes = memory.map(|(name, size)| (name.clone(), *size)).collect();
        self.helper.tell(&sizes).await.map_err(|error| error.to_string())?;
        let shrunk: Shrinkage = self.helper.answer().await.map_err(|problem| problem.text)?;
        let took = micros(begun.elapsed());
        let figures = Figures { compress_us: Some(took), ..manifest.figures };
        let (folder, manifest) = (self.folder.clone(), Manifest { figures, ..manifest });
        let kept = aside(move || keep(&folder, &into, manifest, &shrunk)).await;
        kept.map(|()| took).map_err(|error| error.to_string())
    }

    async fn give_up(self) {
        let Shrinking { helper, folder, into } = self;
        // It could write something else otherwise.
        helper.end().await;
        aside(move || forget(&folder, &into)).await;
    }
}

/// Notes the digests, by which others know it; then what it was can go.
fn keep(folder: &Path, into: &Path, manifest: Manifest, shrunk: &Shrinkage) -> io::Result<()> {
    let digests = shrunk.iter().map(|(name, shrunk)| (name.clone(), shrunk.digest.clone()));
    let digests: BTreeMap<_, _> = manifest.digests.clone().into_iter().chain(digests).collect();
    let memory = (folder != into).then(|| into.to_owned());
    Manifest { digests, memory, ..manifest }.write(folder, true)?;
    for (name, _) in shrunk.iter().filter(|(_, shrunk)| shrunk.is_compressed || folder != into) {
        if let Err(error) = fs::remove_file(folder.join(name)) {
            tracing::warn!(%error, name, "travels although it needn't");
        }
    }
    Ok(())
}

/// Removes what there is of it.
fn forget(folder: &Path, into: &Path) {
    let written = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        stands_for(&name).is_some() || (folder != into && is_pages(name.trim_end_matches(".new")))
    };
    let all = fs::read_dir(into).into_iter().flatten().flatten().map(|entry| entry.path());
    for path in all.filter(written) {
        if let Err(error) = fs::remove_file(&path) {
            tracing::warn!(%error, path = %path.display(), "a part of an attempt stays behind");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pages::compress::Shrunk;

    fn folders(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        files.iter().for_each(|(name, text)| fs::write(folder.path().join(name), text).unwrap());
        folder
    }

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().to_str().unwrap().to_owned())
            .collect();
        names.sort();
        names
    }

    fn manifest() -> Manifest {
        serde_json::from_value(serde_json::json!({
            "version": 1, "sealed": true, "container": "c", "namespace": "n", "taken_at": 0,
            "left_running": false, "runtime": {"name": "runc", "version": ""}, "criu": null,
            "kernel": "", "architecture": "", "options": {}, "terminal": false,
            "stdio": {"stdin": "", "stdout": "", "stderr": "", "pipes": []}, "network": "private",
            "own_users": false, "cgroup": "", "mounts": [], "spec_digest": "", "files": {},
            "digests": {"core-1.img": "sha256:0"}, "took": 0,
        }))
        .unwrap()
    }

    #[test]
    fn what_is_compressed_goes_once_its_digest_is_noted() {
        let files =
            [("pages-1.img", "a"), ("pages-1.img.zst", "a"), ("pages-2.img", "b"), ("core-1.img", "c")];
        let shrunk =
            |digest: &str, is_compressed| Shrunk { size: 1, digest: digest.to_owned(), is_compressed };
        let all: Shrinkage = [
            ("pages-1.img".to_owned(), shrunk("one", true)),
            ("pages-2.img".to_owned(), shrunk("two", false)),
        ]
        .into();
        let folder = folders(&files);
        keep(folder.path(), folder.path(), manifest(), &all).unwrap();
        assert_eq!(names(folder.path()), ["core-1.img", "cryo.json", "pages-1.img.zst", "pages-2.img"]);
        let digests = Manifest::read(folder.path()).unwrap().digests;
        assert_eq!(digests.values().collect::<Vec<_>>(), ["sha256:0", "one", "two"]);
        // All of it is where its client will look for it.
        let (folder, ahead) = (folders(&files), tempfile::tempdir().unwrap());
        keep(folder.path(), ahead.path(), manifest(), &all).unwrap();
        assert_eq!(names(folder.path()), ["core-1.img", "cryo.json", "pages-1.img.zst"]);
        assert_eq!(Manifest::read(folder.path()).unwrap().memory.as_deref(), Some(ahead.path()));
    }

    #[test]
    fn nothing_of_an_attempt_stays() {
        let files =
            [("pages-1.img", ""), ("pages-1.img.zst", ""), ("pages-2.img.zst.new", ""), ("core-1.img", "")];
        let folder = folders(&files);
        forget(folder.path(), folder.path());
        assert_eq!(names(folder.path()), ["core-1.img", "pages-1.img"]);
        let (folder, ahead) = (folders(&files), folders(&files));
        fs::write(ahead.path().join("pages-3.img.new"), "").unwrap();
        forget(folder.path(), ahead.path());
        assert_eq!(names(ahead.path()), ["core-1.img"]);
        assert_eq!(names(folder.path()).len(), 4);
    }
}
