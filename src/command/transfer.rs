//! `cryo export` and `cryo import`: checkpoints on their way to other machines.

use std::fs::{self, File};
use std::io::{self, BufWriter, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use cryo::archive::{self, Compression, Limits, Source};
use cryo::checkpoint::image::Image;
use cryo::checkpoint::manifest::Manifest;
use cryo::store::{Durable, Held, Wish};

use super::answer::{finish, say};
use super::place::{self, Shelf};
use super::progress::Bar;

/// What stands for standard input and output.
const STREAM: &str = "-";

#[derive(Args)]
pub(crate) struct Export {
    /// A checkpoint in the store, or the folder of one.
    checkpoint: PathBuf,
    /// The archive; without it, or as "-", it goes to standard output.
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// What kind of archive.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// Leave it as it is: larger, and faster for fast networks.
    #[arg(long)]
    uncompressed: bool,
}

#[derive(Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum Format {
    /// An OCI image layout, for containerd, registries and Kubernetes.
    #[default]
    Oci,
    /// A plain archive as Kubernetes and Podman make it, for checkpointctl; never compressed.
    Plain,
}

#[derive(Args)]
pub(crate) struct Import {
    /// The archive, as cryo export, Kubernetes or Podman make it; "-" is standard input.
    archive: PathBuf,
    /// What the checkpoint is to be called; the archive's own name if it isn't given.
    #[arg(long)]
    name: Option<String>,
}

pub(crate) fn export(options: &Export) -> ExitCode {
    finish(exported(options).map(|()| ExitCode::SUCCESS))
}

pub(crate) fn import(options: &Import) -> ExitCode {
    finish(imported(options).map(|text| {
        say(&text);
        ExitCode::SUCCESS
    }))
}

fn exported(options: &Export) -> Result<(), String> {
    let place = place::find(&options.checkpoint)?;
    let folder = fs::canonicalize(&place.folder).map_err(|error| error.to_string())?;
    let image = Image::open(&folder).map_err(|error| error.to_string())?;
    let image = Image { held: place.held, ..image };
    let manifest = image.manifest.as_ref().ok_or_else(|| {
        format!("the checkpoint in {} wasn't taken by Cryo, which exports its own only", folder.display())
    })?;
    let open = archive::export::files_of(&image);
    let name = image.held.as_ref().and_then(|held| held.record.name.clone());
    let beside = image.held.as_ref().map(|held| beside(held, manifest)).unwrap_or_default();
    let beside: Vec<_> = beside.iter().map(|(name, path)| (name.as_str(), path.clone())).collect();
    let reference = name.map(|name| format!("localhost/checkpoint:{name}"));
    let source = Source {
        manifest,
        open: &open,
        container: None,
        reference: reference.as_deref(),
        rootfs_image: None,
        beside: &beside,
    };
    let write = |out: &mut dyn Write| {
        let mut bar = Bar::new(None);
        let report = |progress: archive::Progress| bar.show(progress.done, progress.total);
        match options.format {
            Format::Plain => archive::export_plain(&source, out, report),
            Format::Oci => {
                let compression = if options.uncompressed { Compression::None } else { Compression::Zstd };
                archive::export(&source, out, compression, report).map(drop)
            }
        }
        .map_err(|error| error.to_string())
    };
    match options.output.as_deref().filter(|path| *path != Path::new(STREAM)) {
        Some(path) => into_file(path, write),
        None if io::stdout().is_terminal() => {
            Err("an archive is nothing for a terminal: give a file with -o".to_owned())
        }
        None => write(&mut io::stdout().lock()),
    }
}

/// What an archive brought that isn't part of the image itself.
fn beside(held: &Held, manifest: &Manifest) -> Vec<(String, PathBuf)> {
    let names = held.record.files.keys();
    let names = names.filter(|name| archive::is_beside(name) && !manifest.files.contains_key(*name));
    names.map(|name| (name.clone(), held.folder.join(name))).collect()
}

/// Complete, or not there at all.
fn into_file(path: &Path, write: impl FnOnce(&mut dyn Write) -> Result<(), String>) -> Result<(), String> {
    use std::os::unix::fs::OpenOptionsExt;
    let mut partial = path.to_owned();
    partial.as_mut_os_string().push(".partial");
    let failed = |error: io::Error| format!("cannot write {}: {error}", path.display());
    // The memory of a container is in it.
    let file = File::options().write(true).create(true).truncate(true).mode(0o600).open(&partial);
    let mut out = BufWriter::new(file.map_err(failed)?);
    let written = write(&mut out)
        .and_then(|()| out.flush().map_err(failed))
        .and_then(|()| out.get_ref().sync_all().map_err(failed))
        .and_then(|()| fs::rename(&partial, path).map_err(failed));
    if written.is_err() {
        let _ = fs::remove_file(&partial);
    }
    written
}

fn imported(options: &Import) -> Result<String, String> {
    let path = &options.archive;
    let is_stream = path == Path::new(STREAM);
    let name = match (&options.name, is_stream) {
        (Some(name), _) => name.clone(),
        (None, true) => {
            return Err("what comes by standard input has no name: give one with --name".to_owned());
        }
        (None, false) => own_name(path),
    };
    let failed = |error: io::Error| format!("cannot read {}: {error}", path.display());
    let (input, bytes): (Box<dyn Read>, u64) = if is_stream {
        (Box::new(io::stdin().lock()), 0)
    } else {
        let file = File::open(path).map_err(failed)?;
        let bytes = file.metadata().map_err(failed)?.len();
        (Box::new(file), bytes)
    };
    let shelf = Shelf::open()?;
    let wish = Wish { name: Some(&name), bytes, claim: None, of_living: false };
    let draft = shelf.store.begin(&wish, &shelf.node.store().limits).map_err(|error| error.to_string())?;
    let limits = Limits::of(draft.folder()).map_err(|error| error.to_string())?;
    let mut bar = Bar::new(None);
    let report = |progress: archive::Progress| bar.show(progress.done, progress.total);
    let imported =
        archive::import(input, draft.folder(), &limits, report).map_err(|error| error.to_string())?;
    drop(bar);
    let left_out = imported.left_out.clone();
    let entry = draft.commit(imported.described(), Durable::Now).map_err(|error| error.to_string())?;
    shelf.note_size();
    let mut text = format!("{name} ({})\n", entry.id());
    if !left_out.is_empty() {
        text += &format!("not kept, because no restore reads it: {}\n", left_out.join(", "));
    }
    Ok(text)
}

/// `web` for `/tmp/web.tar.zst`.
fn own_name(archive: &Path) -> String {
    let name = archive.file_name().unwrap_or_default().to_string_lossy();
    name.split('.').next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_gives_its_checkpoint_a_name() {
        for (path, name) in [("/tmp/web.tar.zst", "web"), ("web", "web"), ("./a.b", "a"), ("/", "")] {
            assert_eq!(own_name(Path::new(path)), name);
        }
    }

    #[test]
    fn a_file_is_complete_or_not_there() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("archive");
        into_file(&path, |_| Err("no".to_owned())).unwrap_err();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        into_file(&path, |out| out.write_all(b"all").map_err(|error| error.to_string())).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"all");
    }
}
