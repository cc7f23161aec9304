//! Who may ask for what: the container's annotations, merged with what the client said.

use std::collections::HashMap;
use std::time::Duration;

/// Whether a checkpoint stops the container if the client didn't say.
pub const EXIT: &str = "cryo.checkpoint.exit";
/// Seconds after which a checkpoint or restore is given up.
pub const TIMEOUT: &str = "cryo.timeout";

/// Docker's namespace in containerd. Docker means to stop the container, but tells so
/// only to the stock shim.
const DOCKER: &str = "moby";

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("annotation {name}={value:?}: {expected}")]
pub struct Error {
    name: &'static str,
    value: String,
    expected: &'static str,
}

pub type Annotations = HashMap<String, String>;

/// What a checkpoint without options does.
pub fn exits_after_checkpoint(annotations: &Annotations, namespace: &str) -> Result<bool, Error> {
    let Some(value) = annotations.get(EXIT) else { return Ok(namespace == DOCKER) };
    value.parse().map_err(|_| Error { name: EXIT, value: value.clone(), expected: "give true or false" })
}

pub fn deadline(annotations: &Annotations) -> Result<Option<Duration>, Error> {
    let Some(value) = annotations.get(TIMEOUT) else { return Ok(None) };
    match value.parse() {
        Ok(seconds @ 1..) => Ok(Some(Duration::from_secs(seconds))),
        _ => Err(Error { name: TIMEOUT, value: value.clone(), expected: "give a number of seconds above 0" }),
    }
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
    fn a_timeout_is_a_number_of_seconds() {
        assert_eq!(deadline(&annotated(TIMEOUT, "90")), Ok(Some(Duration::from_secs(90))));
        assert!(deadline(&annotated(TIMEOUT, "0")).is_err());
        assert!(deadline(&annotated(TIMEOUT, "1m")).is_err());
    }
}
