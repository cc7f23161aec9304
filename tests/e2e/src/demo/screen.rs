//! Plain lines for people, brighter on a terminal.

use std::io::IsTerminal;

pub(super) struct Screen {
    silent: bool,
    coloured: bool,
}

impl Screen {
    pub(super) fn new() -> Self {
        let coloured = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        Screen { silent: false, coloured }
    }

    pub(super) fn silent() -> Self {
        Screen { silent: true, coloured: false }
    }

    pub(super) fn heading(&self, text: &str) {
        self.line(&self.in_colour("1", text));
    }

    /// What is done, and what came of it.
    pub(super) fn say(&self, what: &str, text: &str) {
        self.line(&format!("  {} {text}", self.in_colour("36", &format!("{what:<11}"))));
    }

    /// What the container prints.
    pub(super) fn output(&self, text: &str) {
        self.line(&format!("  {} {}", self.in_colour("2", "    stdout |"), self.in_colour("32", text)));
    }

    fn line(&self, text: &str) {
        if !self.silent {
            println!("{text}");
        }
    }

    fn in_colour(&self, code: &str, text: &str) -> String {
        if self.coloured { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}
