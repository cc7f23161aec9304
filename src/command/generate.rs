//! What the definition of the command line is good for besides: completions for shells, and
//! manual pages.

use std::fs;
use std::path::Path;
use std::process::ExitCode;

use clap::Command;
use clap_complete::Shell;

use super::answer::{complain, say};

pub(crate) fn completion(mut command: Command, shell: Shell) -> ExitCode {
    let name = command.get_name().to_owned();
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut command, name, &mut text);
    say(&String::from_utf8_lossy(&text));
    ExitCode::SUCCESS
}

/// One page for each verb, into a folder.
pub(crate) fn man(command: Command, folder: &Path) -> ExitCode {
    let written = fs::create_dir_all(folder).and_then(|()| clap_mangen::generate_to(command, folder));
    match written {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&format!("cannot write manual pages to {}: {error}", folder.display()));
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::command::Arguments;

    #[test]
    fn there_is_a_page_for_each_verb() {
        let folder = tempfile::tempdir().unwrap();
        man(Arguments::command(), folder.path());
        for page in ["cryo.1", "cryo-check.1", "cryo-export.1", "cryo-store-verify.1"] {
            let text = fs::read_to_string(folder.path().join(page)).unwrap();
            assert!(text.contains(".SH SYNOPSIS"), "{page}");
        }
    }
}
