//! Pressure stall information: how much of the time something had to wait.

use std::path::Path;

use super::super::{Error, file};

#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Psi {
    /// At least one task waited.
    pub some: Option<PsiData>,
    /// All tasks waited.
    pub full: Option<PsiData>,
}

/// Averages in percent over that many seconds; the total is in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct PsiData {
    pub avg10: f64,
    pub avg60: f64,
    pub avg300: f64,
    pub total: u64,
}

impl Psi {
    pub(super) fn read(path: &Path) -> Result<Option<Self>, Error> {
        let Some(text) = file::text(path)? else { return Ok(None) };
        let mut psi = Self::default();
        for line in text.lines() {
            let (kind, figures) = line.split_once(' ').unwrap_or((line, ""));
            let data = || PsiData::parse(figures).ok_or_else(|| Error::malformed(path, line));
            match kind {
                "some" => psi.some = Some(data()?),
                "full" => psi.full = Some(data()?),
                _ => {}
            }
        }
        Ok(Some(psi))
    }
}

impl PsiData {
    /// `avg10=0.00 avg60=0.12 avg300=0.05 total=123456`
    fn parse(figures: &str) -> Option<Self> {
        let mut data = Self::default();
        for figure in figures.split_ascii_whitespace() {
            let (key, value) = figure.split_once('=')?;
            match key {
                "avg10" => data.avg10 = value.parse().ok()?,
                "avg60" => data.avg60 = value.parse().ok()?,
                "avg300" => data.avg300 = value.parse().ok()?,
                "total" => data.total = value.parse().ok()?,
                _ => {}
            }
        }
        Some(data)
    }
}
