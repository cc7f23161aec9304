//! What an entry is called for as long as it lives: 16 random hex digits.

use std::fmt;
use std::io;

use rustix::rand::{GetRandomFlags, getrandom};
use serde::{Deserialize, Serialize};

const DIGITS: usize = 16;

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Id(String);

impl Id {
    pub(super) fn random() -> io::Result<Id> {
        let mut bytes = [0; DIGITS / 2];
        let read = getrandom(&mut bytes[..], GetRandomFlags::empty())?;
        // The kernel never gives less of so few.
        debug_assert_eq!(read, bytes.len());
        Ok(Id(format!("{:016x}", u64::from_ne_bytes(bytes))))
    }

    pub fn parse(text: &str) -> Option<Id> {
        (text.len() == DIGITS && is_prefix(text)).then(|| Id(text.to_owned()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Whether an id may begin like that.
pub(super) fn is_prefix(text: &str) -> bool {
    text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

impl TryFrom<String> for Id {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Id, &'static str> {
        Id::parse(&text).ok_or("an id has 16 hex digits")
    }
}

impl From<Id> for String {
    fn from(id: Id) -> String {
        id.0
    }
}

impl fmt::Display for Id {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_16_hex_digits_and_nothing_else() {
        let id = Id::random().unwrap();
        assert_eq!(Id::parse(id.as_str()), Some(id));
        for text in [
            "",
            "0123456789abcde",
            "0123456789abcdef0",
            "0123456789ABCDEF",
            "../../../../../et",
            "é23456789abcdef",
        ] {
            assert_eq!(Id::parse(text), None, "{text}");
        }
    }

    #[test]
    fn no_two_are_the_same() {
        assert_ne!(Id::random().unwrap(), Id::random().unwrap());
    }
}
