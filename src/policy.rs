//! Who may ask for what: the container's annotations, merged with what the client said,
//! within what the node's owner allows.

mod node_file;

use std::collections::HashMap;
use std::time::Duration;

pub use node_file::{NodeFile, NotAllowed};

/// Whether a checkpoint stops the container if the client didn't say.
pub const EXIT: &str = "cryo.checkpoint.exit";
/// Time after which a checkpoint or restore is given up.
pub const TIMEOUT: &str = "cryo.timeout";
/// What becomes of open TCP connections.
pub const TCP: &str = "cryo.tcp";

/// What becomes of processes that were added to the container.
pub const EXEC: &str = "cryo.exec";
/// The checkpoint that a container starts from.
pub const RESTORE_FROM: &str = "cryo.restore-from";

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("annotation {name}={value:?}: {expected}")]
pub struct Error {
    name: &'static str,
    value: String,
    expected: &'static str,
}

pub type Annotations = HashMap<String, String>;

/// Docker's namespace in containerd.
pub const DOCKER: &str = "moby";

/// Whether all that annotations ask for can be understood: better told when the container
/// is made than when it is to be checkpointed.
pub fn check(annotations: &Annotations) -> Result<(), Error> {
    exits_after_checkpoint(annotations, "")?;
    deadline(annotations)?;
    tcp(annotations)?;
    refuses_execs(annotations).map(drop)
}

/// What a checkpoint without options does. Docker means to stop the container, but tells
/// so only to the stock shim.
pub fn exits_after_checkpoint(annotations: &Annotations, namespace: &str) -> Result<bool, Error> {
    let Some(value) = annotations.get(EXIT) else { return Ok(namespace == DOCKER) };
    value.parse().map_err(|_| Error { name: EXIT, value: value.clone(), expected: "give true or false" })
}

pub fn deadline(annotations: &Annotations) -> Result<Option<Duration>, Error> {
    let Some(value) = annotations.get(TIMEOUT) else { return Ok(None) };
    match duration(value) {
        Some(deadline) if !deadline.is_zero() => Ok(Some(deadline)),
        _ => Err(Error {
            name: TIMEOUT,
            value: value.clone(),
            expected: "give a time above zero, like 90s, 15m or 1h",
        }),
    }
}

/// What becomes of open TCP connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tcp {
    /// A container that has some isn't checkpointed.
    Refuse,
    /// They go on after a restore, if their other ends are still there.
    Established,
    /// They are closed at a restore.
    Close,
}

pub fn tcp(annotations: &Annotations) -> Result<Option<Tcp>, Error> {
    match annotations.get(TCP).map(String::as_str) {
        None => Ok(None),
        Some("refuse") => Ok(Some(Tcp::Refuse)),
        Some("established") => Ok(Some(Tcp::Established)),
        Some("close") => Ok(Some(Tcp::Close)),
        Some(value) => {
            Err(Error { name: TCP, value: value.to_owned(), expected: "give established, close or refuse" })
        }
    }
}

/// Whether a container isn't checkpointed while processes run in it that were added by
/// exec, and won't be in the image.
pub fn refuses_execs(annotations: &Annotations) -> Result<bool, Error> {
    match annotations.get(EXEC).map(String::as_str) {
        None | Some("terminate") => Ok(false),
        Some("refuse") => Ok(true),
        Some(value) => {
            Err(Error { name: EXEC, value: value.to_owned(), expected: "give terminate or refuse" })
        }
    }
}

/// A bare number is one of seconds.
fn duration(text: &str) -> Option<Duration> {
    let digits = text.trim_end_matches(|unit: char| unit.is_ascii_alphabetic());
    let unit = match &text[digits.len()..] {
        "" | "s" => 1,
        "m" => 60,
        "h" => 3600,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(unit).map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn annotated(name: &str, value: &str) -> Annotations {
        [(name.to_owned(), value.to_owned())].into()
    }

    #[test]
    fn without_options_docker_stops_and_others_run_on() {
        assert_eq!(exits_after_checkpoint(&Annotations::new(), "moby"), Ok(true));
        assert_eq!(exits_after_checkpoint(&Annotations::new(), "k8s.io"), Ok(false));
    }

    #[test]
    fn the_annotation_decides_otherwise() {
        assert_eq!(exits_after_checkpoint(&annotated(EXIT, "false"), "moby"), Ok(false));
        assert_eq!(exits_after_checkpoint(&annotated(EXIT, "true"), "default"), Ok(true));
        let error = exits_after_checkpoint(&annotated(EXIT, "yes"), "moby").unwrap_err();
        assert_eq!(error.to_string(), r#"annotation cryo.checkpoint.exit="yes": give true or false"#);
    }

    #[test]
    fn a_timeout_is_a_time_above_zero() {
        for (text, seconds) in [("90", 90), ("90s", 90), ("15m", 900), ("1h", 3600)] {
            assert_eq!(deadline(&annotated(TIMEOUT, text)), Ok(Some(Duration::from_secs(seconds))));
        }
        for text in ["0", "0s", "s", "", "-1", "1.5", "1d", "99999999999999999999", "9999999999999999999h"] {
            assert!(deadline(&annotated(TIMEOUT, text)).is_err(), "{text}");
        }
    }

    #[test]
    fn tcp_connections_are_kept_or_closed_if_asked_for() {
        assert_eq!(tcp(&Annotations::new()), Ok(None));
        assert_eq!(tcp(&annotated(TCP, "established")), Ok(Some(Tcp::Established)));
        assert_eq!(tcp(&annotated(TCP, "close")), Ok(Some(Tcp::Close)));
        assert!(tcp(&annotated(TCP, "yes")).is_err());
    }

    #[test]
    fn a_container_is_made_only_if_its_annotations_are_understood() {
        assert_eq!(check(&annotated("cryo.other", "x")), Ok(()));
        for (name, value) in [(EXIT, "yes"), (TIMEOUT, "0"), (TCP, "maybe"), (EXEC, "")] {
            assert!(check(&annotated(name, value)).is_err(), "{name}");
        }
    }

    #[test]
    fn added_processes_end_unless_the_owner_minds() {
        assert_eq!(refuses_execs(&Annotations::new()), Ok(false));
        assert_eq!(refuses_execs(&annotated(EXEC, "terminate")), Ok(false));
        assert_eq!(refuses_execs(&annotated(EXEC, "refuse")), Ok(true));
        assert!(refuses_execs(&annotated(EXEC, "wait")).is_err());
    }
}
