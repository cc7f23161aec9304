//! Log files of containers, as the CRI writes them: time, stream, whole or part, text.

use super::super::failure::{Failure, Outcome};

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) time: String,
    /// "stdout" or "stderr".
    pub(crate) stream: String,
    /// The line goes on in the next entry.
    pub(crate) is_part: bool,
    pub(crate) text: String,
}

/// What is in a file so far; an entry that is being written isn't one yet.
#[track_caller]
pub(crate) fn entries(text: &str) -> Outcome<Vec<Entry>> {
    let whole = text.rfind('\n').map_or("", |end| &text[..=end]);
    whole.split_terminator('\n').map(entry).collect()
}

#[track_caller]
fn entry(line: &str) -> Outcome<Entry> {
    match line.splitn(4, ' ').collect::<Vec<_>>()[..] {
        [time, stream @ ("stdout" | "stderr"), tag @ ("F" | "P"), text] => {
            Ok(Entry { time: time.into(), stream: stream.into(), is_part: tag == "P", text: text.into() })
        }
        _ => Err(Failure::new(format!("no line of a log of the CRI: {line:?}"))),
    }
}
