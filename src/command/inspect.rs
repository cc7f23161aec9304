//! `cryo inspect`: what a checkpoint holds.

mod files;
mod header;
mod limits;
mod memory;
mod mounts;
mod processes;
mod sockets;

use std::io;
use std::path::Path;
use std::process::ExitCode;

use clap::Args;
use cryo::checkpoint::manifest::Manifest;
use serde::Serialize;

use super::answer::{finish, has_colours, say};
use super::place;
use crate::contents::Contents;

#[derive(Args, Debug, Default)]
pub(crate) struct Options {
    /// Print JSON: all sections, whatever others are asked for.
    #[arg(long)]
    pub(crate) json: bool,
    /// Show the values of environment variables, not only their names.
    #[arg(long)]
    pub(crate) env: bool,
    /// Show only the processes, in detail.
    #[arg(long)]
    pub(crate) processes: bool,
    /// Show only the open files.
    #[arg(long)]
    pub(crate) files: bool,
    /// Show only the sockets.
    #[arg(long)]
    pub(crate) sockets: bool,
    /// Show only the mounts.
    #[arg(long)]
    pub(crate) mounts: bool,
    /// Show only the memory, by mapping.
    #[arg(long)]
    pub(crate) memory: bool,
}

/// What `--json` prints. Fields may be added, none is renamed.
#[derive(Debug, Serialize)]
struct Report {
    /// `cryo.json` as it stands there; null if somebody else took the checkpoint.
    manifest: Option<Manifest>,
    #[serde(flatten)]
    contents: Contents,
}

pub(crate) fn run(path: &Path, options: &Options) -> ExitCode {
    finish(inspect(path, options).map(|text| {
        say(&text);
        ExitCode::SUCCESS
    }))
}

fn inspect(path: &Path, options: &Options) -> Result<String, String> {
    let place = place::find(path)?;
    let folder = &place.folder;
    let (manifest, mut contents) = read(folder)?;
    if !options.env {
        redact(&mut contents);
    }
    if options.json {
        let report = Report { manifest, contents };
        let text = serde_json::to_string_pretty(&report).map_err(|error| error.to_string())?;
        return Ok(text + "\n");
    }
    Ok(in_words(folder, manifest.as_ref(), &contents, options, has_colours()))
}

/// An image and what `cryo.json` says about it, if there is one.
pub(super) fn read(folder: &Path) -> Result<(Option<Manifest>, Contents), String> {
    let manifest = match Manifest::read(folder) {
        Ok(manifest) => Some(manifest),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(format!("can't read cryo.json in {}: {error}", folder.display())),
    };
    let contents = Contents::read(folder)
        .map_err(|error| format!("can't read the checkpoint in {}: {error}", folder.display()))?;
    Ok((manifest, contents))
}

/// Passwords are handed over like this.
fn redact(contents: &mut Contents) {
    for process in &mut contents.processes {
        process.environment.iter_mut().flatten().for_each(|variable| variable.value = None);
    }
}

struct Section {
    chosen: bool,
    title: &'static str,
    /// For those who ask for it, and for those who ask for nothing.
    whole: fn(&Contents) -> String,
    short: fn(&Contents) -> String,
}

fn sections(options: &Options) -> [Section; 5] {
    let section = |chosen, title, whole, short| Section { chosen, title, whole, short };
    let processes = if options.env { processes::details } else { processes::tree };
    [
        section(options.processes, "Processes", processes::details, processes),
        section(options.files, "Open files", files::table, files::summary),
        section(options.sockets, "Sockets", sockets::table, sockets::table),
        section(options.mounts, "Mounts", mounts::table, mounts::table),
        section(options.memory, "Memory", memory::table, memory::summary),
    ]
}

fn in_words(
    folder: &Path,
    manifest: Option<&Manifest>,
    contents: &Contents,
    options: &Options,
    colours: bool,
) -> String {
    let sections = sections(options);
    let chosen: Vec<_> = sections.iter().filter(|section| section.chosen).collect();
    let titled = |title: &str, text: String| titled(title, &text, colours);
    match chosen.as_slice() {
        [] => {
            let parts = sections.iter().map(|section| (section.title, (section.short)(contents)));
            let parts = parts.filter(|(_, text)| !text.is_empty()).map(|(title, text)| titled(title, text));
            let header = header::text(folder, manifest, contents);
            std::iter::once(header).chain(parts).collect::<Vec<_>>().join("\n")
        }
        [only] => (only.whole)(contents),
        several => {
            let parts = several.iter().map(|section| titled(section.title, (section.whole)(contents)));
            parts.collect::<Vec<_>>().join("\n")
        }
    }
}

fn titled(title: &str, text: &str, colours: bool) -> String {
    let title = if colours { format!("\x1b[1m{title}\x1b[0m") } else { title.to_owned() };
    format!("{title}\n{text}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contents::tests::Sample;

    fn shown(options: &Options) -> String {
        let folder = tempfile::tempdir().unwrap();
        Sample::default().write(folder.path());
        inspect(folder.path(), options).unwrap()
    }

    #[test]
    fn values_of_the_environment_are_shown_to_those_who_ask() {
        for json in [false, true] {
            let hidden = shown(&Options { json, processes: true, ..Options::default() });
            assert!(hidden.contains("TOKEN") && !hidden.contains("secret"), "{hidden}");
            let open = shown(&Options { json, env: true, ..Options::default() });
            assert!(open.contains("secret"), "{open}");
        }
    }

    #[test]
    fn all_is_shown_to_those_who_ask_for_nothing() {
        let text = shown(&Options::default());
        for part in
            ["not by Cryo", "1   999  running", "└─ [ended]", "/var/log/x", "127.0.0.1:80", "/proc", "heap"]
        {
            assert!(text.contains(part), "{part}: {text}");
        }
        let sockets = shown(&Options { sockets: true, ..Options::default() });
        assert!(sockets.starts_with("  PROTOCOL") && !sockets.contains("heap"), "{sockets}");
    }

    #[test]
    fn a_manifest_that_cant_be_read_is_named() {
        let folder = tempfile::tempdir().unwrap();
        Sample::default().write(folder.path());
        std::fs::write(folder.path().join("cryo.json"), "{").unwrap();
        let error = inspect(folder.path(), &Options::default()).unwrap_err();
        assert!(error.starts_with("can't read cryo.json in "), "{error}");
    }
}
