//! How a scenario fails: one text, and the line of the scenario that found out.

use std::fmt;
use std::panic::Location;

pub(crate) type Outcome<T = ()> = Result<T, Failure>;

/// Not an `Error` itself, so that `?` turns every error into one and notes the place.
pub(crate) struct Failure {
    text: String,
    place: &'static Location<'static>,
}

impl Failure {
    #[track_caller]
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Failure { text: text.into(), place: Location::caller() }
    }

    pub(crate) fn text(&self) -> &str {
        &self.text
    }
}

impl<E: std::error::Error> From<E> for Failure {
    #[track_caller]
    fn from(error: E) -> Self {
        let mut text = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            text = format!("{text}: {cause}");
            source = cause.source();
        }
        Failure::new(text)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.place.file(), self.place.line(), self.text)
    }
}

impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Says what was being done when it failed.
pub(crate) trait During<T> {
    fn during(self, what: impl FnOnce() -> String) -> Outcome<T>;
}

impl<T, E: Into<Failure>> During<T> for Result<T, E> {
    #[track_caller]
    fn during(self, what: impl FnOnce() -> String) -> Outcome<T> {
        match self {
            Ok(value) => Ok(value),
            Err(error) => {
                let failure: Failure = error.into();
                Err(Failure::new(format!("{}: {}", what(), failure.text)))
            }
        }
    }
}

/// Fails with a sentence unless the condition holds.
macro_rules! ensure {
    ($condition:expr, $($sentence:tt)+) => {
        if !$condition {
            return Err($crate::harness::Failure::new(format!($($sentence)+)));
        }
    };
}

/// Fails unless both sides are equal, and shows them.
macro_rules! ensure_eq {
    ($found:expr, $wanted:expr, $($what:tt)+) => {
        match (&$found, &$wanted) {
            (found, wanted) if *found != *wanted => {
                return Err($crate::harness::Failure::new(
                    format!("{}: found {found:?}, wanted {wanted:?}", format_args!($($what)+)),
                ));
            }
            _ => {}
        }
    };
}

pub(crate) use {ensure, ensure_eq};
