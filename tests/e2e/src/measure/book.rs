//! What was measured, line by line, and whether it reaches what is asked of us.

use serde_json::{Value, json};

/// What is measured in one line of the table.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Line {
    pub(super) section: String,
    pub(super) what: String,
    pub(super) unit: &'static str,
    pub(super) reach: Option<Reach>,
}

/// What our shim has to reach.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Reach {
    Below(f64),
    BelowStock(f64),
    AboveStock(f64),
    BelowAlone(f64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Column {
    Stock,
    Ours,
    /// The same without a shim: the runtime's command line, or a bare pipe.
    Alone,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Measured {
    pub(super) values: Vec<f64>,
    /// What failed and succeeded when tried again; not among the values.
    pub(super) failed_tries: usize,
    pub(super) failure: Option<String>,
}

#[derive(Debug)]
pub(super) struct Entry {
    pub(super) line: Line,
    pub(super) columns: [Measured; 3],
}

#[derive(Debug, Default)]
pub(super) struct Book {
    pub(super) entries: Vec<Entry>,
}

impl Book {
    pub(super) fn note(&mut self, line: &Line, column: Column, value: f64) {
        self.entry(line).columns[column as usize].values.push(value);
    }

    pub(super) fn note_failure(&mut self, line: &Line, column: Column, text: &str) {
        self.entry(line).columns[column as usize].failure.get_or_insert_with(|| text.to_owned());
    }

    pub(super) fn note_failed_try(&mut self, line: &Line, column: Column) {
        self.entry(line).columns[column as usize].failed_tries += 1;
    }

    fn entry(&mut self, line: &Line) -> &mut Entry {
        let at = self.entries.iter().position(|entry| entry.line == *line).unwrap_or_else(|| {
            // Sections stay together.
            let last = self.entries.iter().rposition(|entry| entry.line.section == line.section);
            let at = last.map_or(self.entries.len(), |last| last + 1);
            self.entries.insert(at, Entry { line: line.clone(), columns: Default::default() });
            at
        });
        &mut self.entries[at]
    }

    pub(super) fn to_json(&self) -> Value {
        self.entries.iter().map(Entry::to_json).collect()
    }
}

impl Measured {
    pub(super) fn median(&self) -> Option<f64> {
        let mut sorted = self.values.clone();
        sorted.sort_by(f64::total_cmp);
        let middle = sorted.len() / 2;
        match sorted.len() {
            0 => None,
            count if count % 2 == 1 => Some(sorted[middle]),
            _ => Some((sorted[middle - 1] + sorted[middle]) / 2.0),
        }
    }

    pub(super) fn spread(&self) -> Option<(f64, f64)> {
        let smallest = self.values.iter().copied().min_by(f64::total_cmp)?;
        let biggest = self.values.iter().copied().max_by(f64::total_cmp)?;
        Some((smallest, biggest))
    }

    fn to_json(&self) -> Value {
        json!({
            "median": self.median(),
            "spread": self.spread(),
            "values": self.values,
            "failed_tries": self.failed_tries,
            "failure": self.failure,
        })
    }
}

impl Entry {
    pub(super) fn of(&self, column: Column) -> &Measured {
        &self.columns[column as usize]
    }

    /// Ours as a multiple of another column.
    pub(super) fn ratio(&self, to: Column) -> Option<f64> {
        let base = self.of(to).median().filter(|base| *base > 0.0)?;
        Some(self.of(Column::Ours).median()? / base)
    }

    /// Nothing if there is nothing to compare with; a failure of ours is a miss.
    pub(super) fn reached(&self) -> Option<bool> {
        let reach = self.line.reach?;
        if self.of(Column::Ours).failure.is_some() {
            return Some(false);
        }
        match reach {
            Reach::Below(limit) => Some(self.of(Column::Ours).median()? <= limit),
            Reach::BelowStock(limit) => Some(self.ratio(Column::Stock)? <= limit),
            Reach::AboveStock(limit) => Some(self.ratio(Column::Stock)? >= limit),
            Reach::BelowAlone(limit) => Some(self.ratio(Column::Alone)? <= limit),
        }
    }

    fn to_json(&self) -> Value {
        json!({
            "section": self.line.section,
            "what": self.line.what,
            "unit": self.line.unit,
            "stock": self.of(Column::Stock).to_json(),
            "cryo": self.of(Column::Ours).to_json(),
            "alone": self.of(Column::Alone).to_json(),
            "cryo_to_stock": self.ratio(Column::Stock),
            "cryo_to_alone": self.ratio(Column::Alone),
            "reach": self.line.reach.map(|reach| reach.to_string()),
            "reached": self.reached(),
        })
    }
}

impl std::fmt::Display for Reach {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Reach::Below(limit) => write!(f, "≤ {limit}"),
            Reach::BelowStock(limit) => write!(f, "≤ {limit:.2} of stock"),
            Reach::AboveStock(limit) => write!(f, "≥ {limit} of stock"),
            Reach::BelowAlone(limit) => write!(f, "≤ {limit} of alone"),
        }
    }
}
