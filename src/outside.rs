//! What only the daemon knows that asked for a container. The core knows none; it asks a
//! program that does, which is our own binary with another verb: what that takes in memory is
//! gone with it.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::reaper::Reaper;
use crate::rootfs::Base;
use crate::runtime::capture;

/// Daemons answer within milliseconds, or are busy with something else.
const PATIENCE: Duration = Duration::from_secs(5);
/// The image that a container was made of. The program prints what is known as JSON.
pub const BASE: &str = "base";

/// How to call the program; what is asked comes after that.
#[derive(Clone, Debug, Default)]
pub struct Outside {
    pub program: PathBuf,
    pub arguments: Vec<String>,
}

impl Outside {
    /// What nobody tells is unknown.
    pub(crate) async fn base(&self, reaper: Reaper, container: &str) -> Base {
        let mut command = Command::new(&self.program);
        command.args(&self.arguments).args([BASE, container]).stdin(Stdio::null()).current_dir("/");
        let problem = match capture(reaper, &mut command, PATIENCE).await {
            Ok(Some(answer)) if answer.status == 0 => match serde_json::from_str(&answer.text) {
                Ok(base) => return base,
                Err(error) => error.to_string(),
            },
            Ok(Some(answer)) => answer.errors.trim().to_owned(),
            Ok(None) => "there is no answer".to_owned(),
            Err(error) => error.to_string(),
        };
        tracing::warn!(problem, "nobody tells what the container's image is");
        Base::default()
    }
}
