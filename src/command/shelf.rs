//! `cryo ls`, `cryo rm` and `cryo store`: what is kept on this node.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use clap::Subcommand;
use cryo::checkpoint::Figures;
use cryo::checkpoint::manifest::{Manifest, now};
use cryo::store::claims::Claim;
use cryo::store::{Checked, Damaged, Entry, Error, Id, Packed, Pruned, Record, Store, Which};
use serde::Serialize;

use super::answer::{complain, finish, say, time};
use super::place::Shelf;
use super::progress::Bar;
use super::table::{Table, count, duration, known_as, plain, size};

#[derive(Subcommand)]
pub(crate) enum StoreVerb {
    /// Read every file of checkpoints, and tell which aren't as they were written.
    ///
    /// The exit status is 0 if all are good, 1 if one is damaged, and 2 if that can't be told.
    Verify {
        /// Names or ids; all if none is given.
        checkpoints: Vec<String>,
    },
    /// Remove what nobody needs any longer, and what the node file's limits say.
    ///
    /// Checkpoints that a client still names, that are pinned or that have a name stay, unless
    /// the node file lets named ones expire.
    Prune,
    /// Store what older checkpoints have in common once, and compressed.
    ///
    /// That is done by itself with what is older than the node file's pack-after. Each container's
    /// newest checkpoint stays as it is, unless it is named here: what is packed has to be
    /// unpacked for a restore.
    Pack {
        /// Names or ids; all but the newest of each container if none is given.
        checkpoints: Vec<String>,
    },
    /// Keep a checkpoint whatever happens, until it is unpinned.
    Pin {
        /// Its name, its id, or the beginning of its id.
        checkpoint: String,
    },
    /// Let a checkpoint go as others do.
    Unpin {
        /// Its name, its id, or the beginning of its id.
        checkpoint: String,
    },
    /// Give a checkpoint a name, or another one.
    Name {
        /// Its name, its id, or the beginning of its id.
        checkpoint: String,
        /// What it is to be called.
        name: String,
    },
}

/// What `--json` prints of each. Fields may be added, none is renamed.
#[derive(Debug, Serialize)]
struct Row<'a> {
    id: &'a str,
    name: Option<&'a str>,
    container: &'a str,
    /// By people, if that is known.
    called: Option<String>,
    namespace: &'a str,
    /// Milliseconds since 1970.
    taken_at: Option<u64>,
    pinned: bool,
    /// Of its files; and on the disk, with its share of what checkpoints have in common.
    size: Option<u64>,
    stored: u64,
    /// Some of it is in packs.
    packed: bool,
    /// Milliseconds from before it was frozen to the finished image, and what else was measured.
    took: Option<u64>,
    figures: Option<Figures>,
    /// What is wrong with it.
    damage: Option<&'a str>,
}

pub(crate) fn ls(json: bool) -> ExitCode {
    finish(Shelf::if_there().and_then(|shelf| {
        let store = shelf.map(|shelf| shelf.store);
        let listed = store.as_ref().map_or_else(|| Ok(Default::default()), Store::entries);
        let (entries, damaged) = listed.map_err(|error| error.to_string())?;
        let shares = store.map(|store| store.shares(&entries)).unwrap_or_default();
        let text =
            if json { in_json(&entries, &shares, &damaged)? } else { in_words(&entries, &shares, &damaged) };
        say(&text);
        Ok(ExitCode::SUCCESS)
    }))
}

pub(crate) fn rm(checkpoints: &[String], force: bool) -> ExitCode {
    finish(Shelf::open().map(|shelf| {
        let store = &shelf.store;
        let mut status = ExitCode::SUCCESS;
        for text in checkpoints {
            // One that is damaged has nothing but its id.
            let id = match Id::parse(text) {
                Some(id) if force => Ok(id),
                _ => store.find(text).map(|entry| entry.id().clone()),
            };
            if let Err(error) = id.and_then(|id| store.remove(&id, force)) {
                complain(&error.to_string());
                status = ExitCode::FAILURE;
            }
        }
        shelf.note_size();
        status
    }))
}

pub(crate) fn store(verb: &StoreVerb) -> ExitCode {
    finish(Shelf::open().and_then(|shelf| match verb {
        StoreVerb::Verify { checkpoints } => verify(&shelf.store, checkpoints),
        StoreVerb::Prune => prune(&shelf),
        StoreVerb::Pack { checkpoints } => pack(&shelf, checkpoints),
        StoreVerb::Pin { checkpoint } => {
            change(&shelf.store, checkpoint, |id| shelf.store.set_pinned(id, true))
        }
        StoreVerb::Unpin { checkpoint } => {
            change(&shelf.store, checkpoint, |id| shelf.store.set_pinned(id, false))
        }
        StoreVerb::Name { checkpoint, name } => {
            change(&shelf.store, checkpoint, |id| shelf.store.set_name(id, Some(name)))
        }
    }))
}

fn change(
    store: &Store,
    checkpoint: &str,
    change: impl FnOnce(&Id) -> Result<Entry, Error>,
) -> Result<ExitCode, String> {
    let changed = store.find(checkpoint).and_then(|entry| change(entry.id()));
    changed.map(|_| ExitCode::SUCCESS).map_err(|error| error.to_string())
}

fn verify(store: &Store, checkpoints: &[String]) -> Result<ExitCode, String> {
    let (mut chosen, mut damaged) = (Vec::new(), Vec::new());
    if checkpoints.is_empty() {
        (chosen, damaged) = store.entries().map_err(|error| error.to_string())?;
    }
    for text in checkpoints {
        chosen.push(store.find(text).map_err(|error| error.to_string())?);
    }
    let is_all = checkpoints.is_empty();
    let mut bar = Bar::new(Some(chosen.iter().map(|entry| bytes(&entry.record)).sum()));
    let mut text = String::new();
    let mut is_good = damaged.is_empty();
    for entry in chosen {
        let name = called(&entry.record).to_owned();
        let held = match entry.hold() {
            // Removed meanwhile.
            Err(Error::Unknown(_)) if is_all => continue,
            held => held.map_err(|error| error.to_string())?,
        };
        let report = held.verify(|_, read| bar.advance(read)).map_err(|error| error.to_string())?;
        is_good &= report.is_good();
        // Writing to a string can't fail.
        let _ = writeln!(text, "{name}: {}", if report.is_good() { "good" } else { "damaged" });
        for (file, checked) in report.files.iter().filter(|(_, checked)| checked.is_damage()) {
            let _ = writeln!(text, "  {}: {}", plain(file), words(checked));
        }
    }
    for entry in &damaged {
        let _ = writeln!(text, "{}: damaged\n  entry.json: {}", entry.id, plain(&entry.problem));
    }
    if is_all {
        // What is in them and in no checkpoint may be in a later one.
        for (pack, problem) in store.damaged_packs().map_err(|error| error.to_string())? {
            is_good = false;
            let _ = writeln!(text, "{}: damaged\n  {}", plain(&pack), plain(&problem));
        }
    }
    drop(bar);
    say(&text);
    Ok(if is_good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn words(checked: &Checked) -> String {
    match checked {
        Checked::Good | Checked::UnknownDigest => "good".to_owned(),
        Checked::Missing => "it is missing".to_owned(),
        Checked::Size { is, was } => format!("it has {is} bytes and had {was}"),
        Checked::Changed => "its content isn't what was written".to_owned(),
        Checked::Extra => "it isn't part of the checkpoint".to_owned(),
        Checked::NoPlainFile => "it is no plain file any longer".to_owned(),
        Checked::Unreadable(problem) => format!("it can't be read: {}", plain(problem)),
    }
}

fn pack(shelf: &Shelf, checkpoints: &[String]) -> Result<ExitCode, String> {
    let store = &shelf.store;
    let found = checkpoints.iter().map(|text| store.find(text).map(|entry| entry.id().clone()));
    let ids: Vec<Id> = found.collect::<Result<_, _>>().map_err(|error| error.to_string())?;
    let older = Which::Older { than: Duration::ZERO, now: now() };
    let done = store.pack(&if ids.is_empty() { older } else { Which::These(ids) });
    let Packed { packed, in_use, problems, freed } = done.map_err(|error| error.to_string())?;
    shelf.note_size();
    let mut text = String::new();
    for (entry, bytes) in &packed {
        // Writing to a string can't fail.
        let _ = writeln!(text, "packed {} ({} of memory)", called(&entry.record), size(*bytes));
    }
    for id in &in_use {
        let _ = writeln!(text, "{id} stays as it is: it is in use");
    }
    for (id, problem) in &problems {
        let _ = writeln!(text, "{id} stays as it is: {}", plain(problem));
    }
    let count = count(packed.len(), "checkpoint", "checkpoints");
    let _ = writeln!(text, "{count} packed, {} freed", size(freed));
    say(&text);
    Ok(if problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn prune(shelf: &Shelf) -> Result<ExitCode, String> {
    let pruned = shelf.store.prune(&shelf.node.store().limits, now());
    let mut pruned = pruned.map_err(|error| error.to_string())?;
    match shelf.store.compact_packs() {
        Ok(bytes) => pruned.freed += bytes,
        Err(error) => complain(&error.to_string()),
    }
    shelf.note_size();
    say(&told(&pruned));
    Ok(ExitCode::SUCCESS)
}

fn told(pruned: &Pruned) -> String {
    let mut text = String::new();
    for removed in &pruned.removed {
        let _ = writeln!(text, "removed {}: {}", called(&removed.entry.record), removed.why.words());
    }
    for id in &pruned.saved {
        let _ = writeln!(text, "{id} is kept: whoever took it was killed when it was complete");
    }
    for id in &pruned.in_use {
        let _ = writeln!(text, "{id} stays: it is in use");
    }
    for (id, why) in &pruned.unclear {
        let _ = writeln!(text, "{id} stays: {}", plain(why));
    }
    for entry in &pruned.damaged {
        let _ = writeln!(text, "{} stays: it is damaged, cryo rm --force removes it", entry.id);
    }
    let drafts = match pruned.drafts {
        0 => String::new(),
        drafts => format!(" and {}", count(drafts, "unfinished one", "unfinished ones")),
    };
    let removed = count(pruned.removed.len(), "checkpoint", "checkpoints");
    let _ = writeln!(text, "{removed}{drafts} removed, {} freed", size(pruned.freed));
    text
}

/// Of each entry that has something in packs, how much that is.
type Shares = BTreeMap<Id, u64>;

fn in_json(entries: &[Entry], shares: &Shares, damaged: &[Damaged]) -> Result<String, String> {
    let good = entries.iter().map(|entry @ Entry { record, bytes: stored, .. }| {
        let manifest = taken(entry);
        Row {
            id: record.id.as_str(),
            name: record.name.as_deref(),
            container: &record.container,
            called: manifest.as_ref().and_then(|manifest| manifest.called.clone()),
            namespace: &record.namespace,
            taken_at: taken_at(record),
            pinned: record.pinned,
            size: Some(bytes(record)),
            stored: stored + shares.get(&record.id).unwrap_or(&0),
            packed: shares.contains_key(&record.id),
            took: manifest.as_ref().map(|manifest| manifest.took),
            figures: manifest.map(|manifest| manifest.figures),
            damage: None,
        }
    });
    let bad = damaged.iter().map(|entry| Row {
        id: entry.id.as_str(),
        name: None,
        container: "",
        called: None,
        namespace: "",
        taken_at: None,
        pinned: false,
        size: None,
        stored: entry.bytes,
        packed: false,
        took: None,
        figures: None,
        damage: Some(&entry.problem),
    });
    let rows: Vec<_> = good.chain(bad).collect();
    serde_json::to_string_pretty(&rows).map(|text| text + "\n").map_err(|error| error.to_string())
}

fn in_words(entries: &[Entry], shares: &Shares, damaged: &[Damaged]) -> String {
    const NUMBERS: &[usize] = &[4, 5, 6, 7];
    let head = ["NAME", "ID", "CONTAINER", "TAKEN", "SIZE", "ON DISK", "TOOK", "FROZEN", ""];
    let mut table = Table::new(&head, NUMBERS);
    let unknown = || "-".to_owned();
    for entry @ Entry { record, bytes: stored, .. } in entries {
        let manifest = taken(entry);
        let called = manifest.as_ref().and_then(|manifest| manifest.called.clone());
        let took = manifest.as_ref().map(|manifest| manifest.took.saturating_mul(1000));
        let frozen = manifest.and_then(|manifest| manifest.figures.frozen_us);
        let taken = taken_at(record).and_then(time);
        let share = shares.get(&record.id);
        let notes = [record.pinned.then_some("pinned"), share.map(|_| "packed")];
        table.row([
            record.name.clone().or_else(|| named(record)).unwrap_or_else(unknown),
            record.id.to_string(),
            known_as(called.as_deref(), &record.container),
            taken.unwrap_or_else(unknown),
            size(bytes(record)),
            size(stored + share.unwrap_or(&0)),
            took.map_or_else(unknown, duration),
            frozen.map_or_else(unknown, duration),
            notes.into_iter().flatten().collect::<Vec<_>>().join(", "),
        ]);
    }
    for entry in damaged {
        let nothing = String::new;
        let (id, stored) = (entry.id.to_string(), size(entry.bytes));
        let damaged = format!("damaged: {}", entry.problem);
        let columns = [unknown(), id, nothing(), nothing(), nothing(), stored, nothing(), nothing(), damaged];
        table.row(columns);
    }
    table.text()
}

/// How it was taken, as far as it is known: another shim tells nothing.
fn taken(entry: &Entry) -> Option<Manifest> {
    Manifest::read(&entry.folder).ok()
}

/// Archives of others don't tell.
fn taken_at(record: &Record) -> Option<u64> {
    Some(record.taken_at).filter(|taken| *taken > 0)
}

/// By a client, who alone can use that name, or in a registry.
fn named(record: &Record) -> Option<String> {
    let origin = || record.origin.as_ref().map(|origin| origin.reference.clone());
    record.claims.first().and_then(Claim::name).map(|name| format!("({name})")).or_else(origin)
}

fn bytes(record: &Record) -> u64 {
    record.files.values().fold(0, |sum: u64, file| sum.saturating_add(file.size))
}

fn called(record: &Record) -> &str {
    record.name.as_deref().unwrap_or(record.id.as_str())
}
