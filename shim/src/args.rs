//! The command line, in the style of Go's `flag` package, as containerd writes it.

use std::path::PathBuf;

pub(crate) const USAGE: &str = "\
containerd-shim-cryo-v2: runs one container for containerd, with checkpoint and restore.
containerd starts it; by hand only these are of use:

  -v, -version   print the version
  -info          print what the runtime can do, as containerd reads it (options on stdin)
  -h, -help      print this

As containerd calls it: [FLAGS] start|delete
  -namespace NAME   -id ID   -address ADDRESS   -publish-binary PATH
  -bundle PATH      -socket PATH   -debug
";

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Args {
    pub namespace: String,
    pub id: String,
    /// containerd's own socket; a part of ours is named after it.
    pub address: String,
    pub bundle: Option<PathBuf>,
    /// Where to listen if no socket was handed over.
    pub socket: Option<PathBuf>,
    pub debug: bool,
    pub action: Action,
    /// Of what `cryo` asks for: where a checkpoint goes or comes from.
    pub image: Option<PathBuf>,
    /// A checkpoint ends the container.
    pub exit: bool,
    /// A restore makes another container.
    pub new_id: Option<String>,
    pub log_uri: String,
    pub terminal: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Action {
    /// Be the shim.
    #[default]
    Serve,
    Start,
    Delete,
    /// Ask containerd, for `cryo`.
    Checkpoint,
    Restore,
    Info,
    Version,
    Help,
}

impl Args {
    pub fn parse(words: impl IntoIterator<Item = String>) -> Result<Args, String> {
        let mut args = Args::default();
        let mut words = words.into_iter();
        while let Some(word) = words.next() {
            let Some(flag) = word.strip_prefix("--").or(word.strip_prefix('-')) else {
                args.action = action(&word)?;
                break;
            };
            if flag.is_empty() {
                break;
            }
            let (name, value) = match flag.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (flag, None),
            };
            if !args.switch(name, value.as_deref())? {
                let value = value.or_else(|| words.next());
                args.set(name, value.ok_or_else(|| format!("flag needs a value: -{name}"))?)?;
            }
        }
        Ok(args)
    }

    /// Flags without a value. Says whether it was one.
    fn switch(&mut self, name: &str, value: Option<&str>) -> Result<bool, String> {
        let action = match name {
            "debug" | "exit" | "terminal" => {
                let switch = match name {
                    "debug" => &mut self.debug,
                    "exit" => &mut self.exit,
                    _ => &mut self.terminal,
                };
                *switch = truth(name, value)?;
                return Ok(true);
            }
            "v" | "version" => Action::Version,
            "info" => Action::Info,
            "h" | "help" => Action::Help,
            _ => return Ok(false),
        };
        if truth(name, value)? {
            self.action = action;
        }
        Ok(true)
    }

    fn set(&mut self, name: &str, value: String) -> Result<(), String> {
        match name {
            "namespace" => self.namespace = value,
            "id" => self.id = value,
            "address" => self.address = value,
            "bundle" => self.bundle = Some(value.into()),
            "socket" => self.socket = Some(value.into()),
            "image" => self.image = Some(value.into()),
            "new-id" => self.new_id = Some(value),
            "log-uri" => self.log_uri = value,
            // Nothing is published through containerd's binary, and there is no
            // profiler to listen for.
            "publish-binary" | "debug-socket" => {}
            _ => return Err(format!("unknown flag: -{name}")),
        }
        Ok(())
    }

    /// The arguments with which the shim starts itself.
    pub fn for_daemon(&self) -> Vec<&str> {
        let mut words = vec!["-namespace", &self.namespace, "-id", &self.id, "-address", &self.address];
        if self.debug {
            words.push("-debug");
        }
        words
    }
}

fn action(word: &str) -> Result<Action, String> {
    match word {
        "start" => Ok(Action::Start),
        "delete" => Ok(Action::Delete),
        "checkpoint" => Ok(Action::Checkpoint),
        "restore" => Ok(Action::Restore),
        _ => Err(format!("unknown command '{word}': containerd calls start or delete")),
    }
}

fn truth(name: &str, value: Option<&str>) -> Result<bool, String> {
    match value {
        None | Some("1" | "t" | "T" | "true" | "TRUE" | "True") => Ok(true),
        Some("0" | "f" | "F" | "false" | "FALSE" | "False") => Ok(false),
        Some(value) => Err(format!("-{name} is true or false, not '{value}'")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Args, String> {
        Args::parse(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn containerds_own_command_line_is_understood() {
        let line =
            "-namespace k8s.io -address /run/c.sock -publish-binary /bin/containerd -id abc -debug start";
        let args = parse(line).unwrap();
        assert_eq!((args.namespace.as_str(), args.id.as_str()), ("k8s.io", "abc"));
        assert_eq!(args.action, Action::Start);
        assert!(args.debug);
    }

    #[test]
    fn two_dashes_and_equals_signs_are_fine_too() {
        let args = parse("--namespace=ns --id=a=b -debug=false -bundle /b delete").unwrap();
        assert_eq!((args.id.as_str(), args.debug), ("a=b", false));
        assert_eq!(args.bundle, Some("/b".into()));
    }

    #[test]
    fn mistakes_are_named() {
        assert!(parse("-nope x").unwrap_err().contains("-nope"));
        assert!(parse("-id").unwrap_err().contains("needs a value"));
        assert!(parse("restart").unwrap_err().contains("restart"));
        assert!(parse("-debug=maybe start").unwrap_err().contains("maybe"));
    }

    #[test]
    fn the_daemon_understands_what_it_is_given() {
        let args = parse("-namespace ns -id x -address /a -debug start").unwrap();
        let daemon = Args::parse(args.for_daemon().into_iter().map(str::to_owned)).unwrap();
        assert_eq!(daemon, Args { action: Action::Serve, ..args });
    }
}
