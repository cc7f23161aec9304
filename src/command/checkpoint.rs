//! `cryo checkpoint`: of any container whose shim is Cryo, into the store, under a name.

use std::io::{self, IsTerminal};
use std::process::ExitCode;

use clap::Args;
use cryo::checkpoint::Figures;
use cryo::checkpoint::manifest::{Manifest, now};
use cryo::store::Store;
use serde::Serialize;

use super::answer::{finish, say, tell, time};
use super::ask;
use super::find::{Found, Place};
use super::place::Shelf;
use super::progress::Bar;
use super::table::{duration, known_as, size};

/// Docker's ids have 64 digits; the first ones tell them apart, as in its own output.
const SHORT_ID: usize = 12;
/// Of the part of a name that is made of a container's.
const LONGEST_STEM: usize = 80;

#[derive(Args)]
pub(crate) struct Options {
    /// Its id, the beginning of it, or Docker's or nerdctl's name for it.
    #[arg(required_unless_present = "pod")]
    container: Option<String>,
    /// What the checkpoint is to be called: letters, digits, '_', '.' and '-'. If it isn't said,
    /// a name is made from the container's and the time, and printed.
    name: Option<String>,
    #[command(flatten)]
    place: Place,
    /// End the container when its checkpoint is safe.
    #[arg(long, conflicts_with = "leave_running")]
    exit: bool,
    /// Let it run on, which is what happens without a word: nothing is lost by that.
    #[arg(long)]
    leave_running: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// What `--json` prints. Fields may be added, none is renamed.
#[derive(Debug, Serialize)]
struct Report<'a> {
    name: &'a str,
    id: &'a str,
    container: &'a str,
    called: Option<&'a str>,
    namespace: &'a str,
    left_running: bool,
    /// Milliseconds.
    took: u64,
    figures: Figures,
}

pub(crate) fn run(options: &Options) -> ExitCode {
    finish(take(options).map(|()| ExitCode::SUCCESS))
}

fn take(options: &Options) -> Result<(), String> {
    let (found, name) = chosen(options)?;
    let shim = found.shim()?;
    let Shelf { store, .. } = Shelf::open()?;
    let name = match name {
        Some(name) => name.to_owned(),
        None => unused(&store, &stem(options, &found)),
    };
    let image = Store::wish(store.root(), &name).display().to_string();
    let mut words = vec![
        "-address",
        &shim.containerd,
        "-namespace",
        &found.namespace,
        "-id",
        &found.id,
        "-image",
        &image,
    ];
    words.extend(options.exit.then_some("-exit"));
    words.push("checkpoint");
    let mut bar = Bar::new(None);
    let watched = io::stderr().is_terminal();
    let look = || {
        if let Some(progress) = watched.then(|| store.progress(&name)).flatten() {
            bar.show(progress.written, Some(progress.needed));
        }
    };
    let asked = ask::shim(&words, look).map_err(String::from);
    drop(bar);
    if let Err(why) = asked {
        return Err(if shim.is_alive() { why } else { died(&found.id, &why) });
    }
    let entry =
        store.find(&name).map_err(|error| format!("containerd says that it is done, but: {error}"))?;
    let manifest = Manifest::read(&entry.folder).map_err(|error| format!("can't read cryo.json: {error}"))?;
    let report = Report {
        name: &name,
        id: entry.id().as_str(),
        container: &manifest.container,
        called: manifest.called.as_deref(),
        namespace: &manifest.namespace,
        left_running: manifest.left_running,
        took: manifest.took,
        figures: manifest.figures,
    };
    if options.json {
        let text = serde_json::to_string_pretty(&report).map_err(|error| error.to_string())?;
        say(&(text + "\n"));
    } else {
        say(&format!("{name}\n"));
        tell(&in_words(&report));
    }
    Ok(())
}

/// containerd only says that a connection was closed.
fn died(id: &str, why: &str) -> String {
    let short = known_as(None, id);
    format!(
        "the shim of {short} has died meanwhile, and the container with it ({why}); if the checkpoint was complete by then, cryo store prune finds it"
    )
}

/// With a pod, what stands first is the name.
fn chosen(options: &Options) -> Result<(Found, Option<&str>), String> {
    let Options { container, name, place, .. } = options;
    match (&place.pod, container, name) {
        (Some(_), Some(container), Some(_)) => {
            Err(format!("give --pod or a container, not both: {container:?} is one too much"))
        }
        (Some(_), name, None) => Ok((place.find(None)?, name.as_deref())),
        (_, container, name) => Ok((place.find(container.as_deref())?, name.as_deref())),
    }
}

/// What people call it, as far as a name may be so.
fn stem(options: &Options, found: &Found) -> String {
    let Options { container, place: Place { pod, of_pod, .. }, .. } = options;
    let id: String =
        if found.id.len() == 64 { found.id.chars().take(SHORT_ID).collect() } else { found.id.clone() };
    let called = match (pod, container) {
        (Some(pod), _) => {
            let pod = pod.split('/').next_back().unwrap_or_default();
            of_pod.as_ref().map_or_else(|| pod.to_owned(), |container| format!("{pod}-{container}"))
        }
        (None, Some(container)) if !found.id.starts_with(container.as_str()) => container.clone(),
        _ => id,
    };
    let plain = |letter: char| letter.is_ascii_alphanumeric() || "_.-".contains(letter);
    let called: String = called.chars().take(LONGEST_STEM).map(|c| if plain(c) { c } else { '-' }).collect();
    // The first has to be a letter or a digit.
    called.trim_start_matches(['_', '.', '-']).to_owned()
}

fn unused(store: &Store, stem: &str) -> String {
    let time: String = time(now()).unwrap_or_default().chars().filter(|c| !"-:".contains(*c)).collect();
    let name = [stem, &time].join("-");
    let name = name.trim_start_matches('-');
    let numbered = (2..).map(|number| format!("{name}-{number}"));
    let mut names = std::iter::once(name.to_owned()).chain(numbered);
    // Whoever takes it meanwhile is told by the store.
    names.find(|name| store.find(name).is_err()).unwrap_or_default()
}

fn in_words(report: &Report<'_>) -> String {
    let Report { container, called, left_running, took, figures, .. } = report;
    let short = known_as(*called, container);
    let bytes = figures.bytes.map(|bytes| format!(", {}", size(bytes))).unwrap_or_default();
    let frozen = match figures.frozen_us {
        Some(frozen) if *left_running => format!(", stood still for {}", duration(frozen)),
        _ => String::new(),
    };
    let state = if *left_running { "runs on" } else { "was stopped" };
    format!(
        "{short} was checkpointed in {}{bytes}{frozen}; it {state}\n",
        duration(took.saturating_mul(1000))
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(id: &str) -> Found {
        Found { id: id.into(), namespace: "default".into(), bundle: "/".into() }
    }

    fn options(container: Option<&str>, pod: Option<&str>, of_pod: Option<&str>) -> Options {
        let owned = |text: Option<&str>| text.map(str::to_owned);
        Options {
            container: owned(container),
            name: None,
            place: Place { namespace: None, pod: owned(pod), of_pod: owned(of_pod) },
            exit: false,
            leave_running: false,
            json: false,
        }
    }

    #[test]
    fn a_checkpoint_is_called_as_people_call_its_container() {
        let long = "0123456789abcdef".repeat(4);
        assert_eq!(stem(&options(Some("web"), None, None), &found(&long)), "web");
        assert_eq!(stem(&options(Some("0123"), None, None), &found(&long)), "0123456789ab");
        assert_eq!(stem(&options(Some("co"), None, None), &found("counter")), "counter");
        assert_eq!(stem(&options(None, Some("shop/web"), None), &found(&long)), "web");
        assert_eq!(stem(&options(None, Some("shop/web"), Some("app")), &found(&long)), "web-app");
        assert_eq!(stem(&options(Some("_a b"), None, None), &found(&long)), "a-b");
    }

    #[test]
    fn a_name_that_is_taken_gets_a_number() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("store")).unwrap();
        let name = unused(&store, "web");
        assert!(name.starts_with("web-2") && name.ends_with('Z') && name.len() == 20, "{name}");
    }

    #[test]
    fn the_summary_says_what_became_of_the_container() {
        let figures = Figures { frozen_us: Some(43_210), bytes: Some(3 << 20), ..Figures::default() };
        let mut report = Report {
            name: "one",
            id: "0123456789abcdef",
            container: "web",
            called: None,
            namespace: "default",
            left_running: true,
            took: 1234,
            figures,
        };
        let said = in_words(&report);
        assert_eq!(said, "web was checkpointed in 1.2 s, 3.0 MiB, stood still for 43 ms; it runs on\n");
        report.left_running = false;
        report.called = Some("shop/web/app");
        assert_eq!(in_words(&report), "shop/web/app was checkpointed in 1.2 s, 3.0 MiB; it was stopped\n");
    }
}
