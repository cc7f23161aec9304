//! A line of a log, read as strictly as logrus writes it.

use std::iter::Peekable;
use std::str::Chars;

#[derive(Debug)]
pub(super) struct Line(Vec<(String, String)>);

impl Line {
    #[track_caller]
    pub(super) fn read(line: &str) -> Line {
        let mut rest = line.chars().peekable();
        let mut fields = Vec::new();
        while rest.peek().is_some() {
            let name: String = rest.by_ref().take_while(|char| *char != '=').collect();
            assert!(!name.is_empty() && !name.contains([' ', '"']), "{name:?} is no name: {line}");
            let value = match rest.next_if_eq(&'"') {
                Some(_) => {
                    quoted(&mut rest).unwrap_or_else(|| panic!("Go can't read the value of {name}: {line}"))
                }
                None => bare(&mut rest),
            };
            assert!(rest.next().is_none_or(|char| char == ' '), "no space after {name}: {line}");
            fields.push((name, value));
        }
        Line(fields)
    }

    pub(super) fn names(&self) -> Vec<&str> {
        self.0.iter().map(|(name, _)| &**name).collect()
    }

    /// Empty if there is none.
    pub(super) fn value(&self, name: &str) -> &str {
        self.0.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value)
    }
}

fn bare(rest: &mut Peekable<Chars<'_>>) -> String {
    let mut value = String::new();
    while let Some(char) = rest.next_if(|char| !matches!(char, ' ' | '"' | '=')) {
        value.push(char);
    }
    value
}

/// As Go's `strconv.Unquote` reads it, from behind the first quotation mark on.
fn quoted(rest: &mut Peekable<Chars<'_>>) -> Option<String> {
    let mut value = String::new();
    loop {
        match rest.next()? {
            '"' => return Some(value),
            '\\' => value.push(escaped(rest)?),
            char if char.is_control() => return None,
            char => value.push(char),
        }
    }
}

fn escaped(rest: &mut Peekable<Chars<'_>>) -> Option<char> {
    Some(match rest.next()? {
        'a' => '\u{7}',
        'b' => '\u{8}',
        'f' => '\u{c}',
        'n' => '\n',
        'r' => '\r',
        't' => '\t',
        'v' => '\u{b}',
        char @ ('\\' | '"') => char,
        'x' => hexadecimal(rest, 2)?,
        'u' => hexadecimal(rest, 4)?,
        'U' => hexadecimal(rest, 8)?,
        _ => return None,
    })
}

fn hexadecimal(rest: &mut Peekable<Chars<'_>>, digits: usize) -> Option<char> {
    let digits: String = rest.by_ref().take(digits).collect();
    char::from_u32(u32::from_str_radix(&digits, 16).ok()?)
}
