//! What the tests take for granted about our own shim's names. One place to change.

/// Decides whether a checkpoint without options ends the container: "true" or "false".
pub(crate) const EXIT_ANNOTATION: &str = "cryo.checkpoint.exit";

/// How long a dump or a restore may take, for the scenarios in which one hangs.
pub(crate) const TIMEOUT_ANNOTATION: &str = "cryo.timeout";

/// Our own description of an image, beside CRIU's files.
pub(crate) const DESCRIPTION: &str = "cryo.json";
