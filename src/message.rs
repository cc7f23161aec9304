//! What people are told: short enough for every client, and nothing in it that a terminal
//! would take for more than text.

/// Of the whole message; clients and daemons put their own words before it.
pub(crate) const LIMIT: usize = 300;
/// What may stand before words that are fitted: the longest there is.
pub(crate) const PREFIX: &str = "cannot checkpoint the container: ";

/// At most that many characters of the text: what is too much goes from its middle, since
/// a path ends with what matters, and a line of a log with the system's own words.
pub(crate) fn cut(text: &str, room: usize) -> String {
    let length = text.chars().count();
    let Some(kept) = room.checked_sub(1).filter(|_| length > room) else {
        return if length > room { String::new() } else { text.to_owned() };
    };
    let head: String = text.chars().take(kept.div_ceil(2)).collect();
    let tail: String = text.chars().skip(length - kept / 2).collect();
    format!("{head}…{tail}")
}

/// In one line, without what would move a cursor or turn the direction of the text:
/// names of files and programs are chosen by containers.
pub(crate) fn shown(text: &str) -> String {
    let text: String = text.chars().map(|c| if c.is_whitespace() { ' ' } else { c }).collect();
    text.trim().chars().filter(|c| !c.is_control() && !is_invisible(*c)).collect()
}

fn is_invisible(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_long_loses_its_middle() {
        assert_eq!(cut("abcdefgh", 8), "abcdefgh");
        assert_eq!(cut("abcdefgh", 7), "abc…fgh");
        assert_eq!(cut("äöüäöüäö", 4), "äö…ö");
        assert_eq!(cut("abc", 1), "…");
        assert_eq!(cut("abc", 0), "");
        assert_eq!(cut("", 0), "");
    }

    #[test]
    fn nothing_but_text_is_shown() {
        assert_eq!(shown("a\u{1b}[2J\u{7}b\r\nc\td \u{202e}e "), "a[2Jb  c d e");
    }
}
