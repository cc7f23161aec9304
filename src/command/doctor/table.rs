//! The findings for people, and for programs.

use std::fmt::Write;

use serde_json::json;

use super::judge::{Finding, State};

/// The state needs a column of this width, and what isn't a state begins after it.
const MARK_WIDTH: usize = 9;

pub(super) fn table(findings: &[Finding], ready: bool, root: bool, colours: bool) -> String {
    let width = findings.iter().map(|finding| finding.what.chars().count()).max().unwrap_or(0);
    let mut text = String::new();
    for finding in findings {
        let (mark, colour) = match finding.state {
            State::Ok => ("ok", 32),
            State::Warn => ("warn", 33),
            State::Missing => ("missing", 31),
        };
        let mark = painted(&format!("{mark:MARK_WIDTH$}"), colour, colours);
        // Writing to a string can't fail.
        let _ = writeln!(text, "{mark}{:width$}  {}", finding.what, finding.found);
        if let Some(remedy) = &finding.remedy {
            let _ = writeln!(text, "{:MARK_WIDTH$}  {remedy}", "");
        }
    }
    let (answer, colour) = match (ready, root) {
        (true, true) => ("Ready: checkpoint and restore will work.", 32),
        (true, false) => ("Ready, as far as can be seen without being root.", 33),
        (false, _) => ("Not ready: checkpoint and restore won't work until what is missing is there.", 31),
    };
    let _ = writeln!(text, "\n{}", painted(answer, colour, colours));
    text
}

pub(super) fn json(findings: &[Finding], ready: bool) -> String {
    format!("{:#}\n", json!({ "ready": ready, "findings": findings }))
}

fn painted(text: &str, colour: u8, colours: bool) -> String {
    if colours { format!("\x1b[{colour}m{text}\x1b[0m") } else { text.to_owned() }
}
