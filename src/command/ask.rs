//! Other programs that do for us what we don't know how: the shim's binary, which asks
//! containerd, and Docker's client.

use std::io;
use std::time::Duration;

use cryo::reaper::Reaper;

use super::root::SHIM;
use super::run::{Said, run};
use super::search;

/// The shim has a deadline of its own; whoever is asked only has to be heard.
const PATIENCE: Duration = Duration::from_secs(24 * 3600);
/// Between looks at how far it is.
const PAUSE: Duration = Duration::from_millis(100);
/// Said by the shim's binary.
const NO_CONTAINER: u32 = 3;

pub(crate) enum Problem {
    /// That containerd has no such container.
    NoContainer,
    Refused(String),
}

impl From<Problem> for String {
    fn from(problem: Problem) -> String {
        match problem {
            Problem::NoContainer => "containerd has no such container".to_owned(),
            Problem::Refused(why) => why,
        }
    }
}

/// Has the shim's binary ask containerd, and looks after something meanwhile.
pub(crate) fn shim(words: &[&str], meanwhile: impl FnMut()) -> Result<String, Problem> {
    let program = search::shim(&search::path()).ok_or_else(|| {
        Problem::Refused(format!("{SHIM} is neither beside this program nor in PATH: install it there"))
    })?;
    program_says(&program.to_string_lossy(), words, meanwhile)
}

pub(crate) fn docker(words: &[&str]) -> Result<String, Problem> {
    program_says("docker", words, || {})
}

fn program_says(program: &str, words: &[&str], mut meanwhile: impl FnMut()) -> Result<String, Problem> {
    let mut ask = async || -> io::Result<Said> {
        let (reaper, path) = (Reaper::start()?, search::path());
        let asked = run(reaper, program, words, &path, PATIENCE);
        tokio::pin!(asked);
        loop {
            tokio::select! {
                said = &mut asked => return Ok(said),
                () = tokio::time::sleep(PAUSE) => meanwhile(),
            }
        }
    };
    let event_loop = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let said = event_loop.and_then(|event_loop| event_loop.block_on(ask()));
    let refused = |why: &str| Err(Problem::Refused(why.trim().to_owned()));
    match said {
        Ok(Said::Done { status: 0, output, .. }) => Ok(output),
        Ok(Said::Done { status: NO_CONTAINER, .. }) => Err(Problem::NoContainer),
        Ok(Said::Done { status, errors, .. }) if errors.trim().is_empty() => {
            refused(&format!("{program} ended with {status} and no word"))
        }
        Ok(Said::Done { errors, .. }) => refused(&errors),
        Ok(Said::NotThere) => refused(&format!("{program} isn't there")),
        Ok(Said::Silent(after)) => refused(&format!("{program} says nothing for {} s", after.as_secs())),
        Err(error) => refused(&format!("cannot run {program}: {error}")),
    }
}
