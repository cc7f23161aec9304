//! Prometheus' text format, as far as we write it: what was written is what is counted on.

use std::collections::BTreeMap;
use std::fmt::Write;

/// A metric: what it is called, what it is, and what it says.
#[derive(Clone, Copy, Debug)]
pub(super) struct Family {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) help: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Counter,
    Gauge,
    /// Of seconds.
    Histogram,
}

/// Upper ends, in seconds: from a tiny container to a hundred gigabytes.
const BUCKETS: [&str; 12] =
    ["0.01", "0.025", "0.05", "0.1", "0.25", "0.5", "1", "2.5", "5", "10", "30", "120"];
/// More than a node has. What comes later is counted under one name, so that nobody can fill
/// the file, and Prometheus, with names.
const MOST_NAMESPACES: usize = 32;
const OTHERS: &str = "(others)";

/// All that was counted so far, by name and labels.
#[derive(Debug, Default)]
pub(super) struct Text {
    samples: BTreeMap<String, f64>,
    /// Lines of later versions, which share the file.
    foreign: Vec<String>,
}

impl Text {
    /// Lines that can't be understood are forgotten.
    pub(super) fn parse(text: &str, families: &[Family]) -> Text {
        let mut read = Text::default();
        for line in text.lines() {
            if !families.iter().any(|family| family.is_of(line)) {
                read.foreign.extend(is_ours(line).then(|| line.to_owned()));
            } else if let Some((series, value)) = line.rsplit_once(' ')
                && let Some(value) = value.parse().ok().filter(|value: &f64| value.is_finite())
                && !line.starts_with('#')
            {
                read.samples.insert(series.to_owned(), value);
            }
        }
        read
    }

    pub(super) fn write(&self, families: &[Family]) -> String {
        let mut text = String::new();
        // Writing to a string can't fail.
        for Family { name, kind, help } in families {
            let _ = write!(text, "# HELP {name} {help}\n# TYPE {name} {}\n", kind.name());
            let mut samples: Vec<_> =
                self.samples.iter().filter(|(series, _)| base(series, *kind) == *name).collect();
            samples.sort_by(|one, other| place(one.0).total_cmp(&place(other.0)));
            for (series, value) in samples {
                let _ = writeln!(text, "{series} {value}");
            }
        }
        self.foreign.iter().for_each(|line| text.extend([line, "\n"]));
        text
    }

    pub(super) fn add(&mut self, series: impl Into<String>, by: f64) {
        *self.samples.entry(series.into()).or_default() += by;
    }

    pub(super) fn set(&mut self, series: &str, value: f64) {
        self.samples.insert(series.to_owned(), value);
    }

    /// Into a histogram; nothing only makes it known.
    pub(super) fn observe(&mut self, name: &str, seconds: Option<f64>) {
        let within = |end: &str| end.parse().is_ok_and(|end| seconds.is_some_and(|seconds| seconds <= end));
        for end in BUCKETS {
            self.add(format!("{name}_bucket{{le=\"{end}\"}}"), if within(end) { 1.0 } else { 0.0 });
        }
        let one = if seconds.is_some() { 1.0 } else { 0.0 };
        self.add(format!("{name}_bucket{{le=\"+Inf\"}}"), one);
        self.add(format!("{name}_sum"), seconds.unwrap_or_default());
        self.add(format!("{name}_count"), one);
    }

    /// The label under which a namespace is counted, if each has a series of that counter.
    pub(super) fn label(&self, namespace: &str, counter: &str) -> String {
        let own = label(namespace);
        let series = |label: &str| format!("{counter}{{{label}}}");
        let known = self.samples.keys().filter(|series| base(series, Kind::Counter) == counter).count();
        if self.samples.contains_key(&series(&own)) || known < MOST_NAMESPACES {
            return own;
        }
        label(OTHERS)
    }
}

impl Family {
    /// Whether the line is a sample of it, or says what it is.
    fn is_of(&self, line: &str) -> bool {
        let of_comment = line.strip_prefix("# ").and_then(|words| words.split(' ').nth(1));
        of_comment.unwrap_or_else(|| base(line, self.kind)) == self.name
    }
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        }
    }
}

fn label(namespace: &str) -> String {
    let quoted = namespace.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    format!("namespace=\"{quoted}\"")
}

/// The name of the family that a series belongs to.
fn base(series: &str, kind: Kind) -> &str {
    let name = series.split(['{', ' ']).next().unwrap_or_default();
    match kind {
        Kind::Histogram => {
            let ends = ["_bucket", "_sum", "_count"];
            ends.iter().find_map(|end| name.strip_suffix(end)).unwrap_or_default()
        }
        Kind::Counter | Kind::Gauge => name,
    }
}

/// Buckets come in the order of their ends, before sum and count.
fn place(series: &str) -> f64 {
    match series.split_once("le=\"").and_then(|(_, end)| end.split('"').next()) {
        Some(end) => end.parse().unwrap_or(f64::INFINITY),
        None if series.ends_with("_sum") || series.ends_with("_count") => f64::NAN,
        None => 0.0,
    }
}

/// No more of what somebody else has put there is kept.
fn is_ours(line: &str) -> bool {
    let words = line.strip_prefix("# HELP ").or_else(|| line.strip_prefix("# TYPE ")).unwrap_or(line);
    words.starts_with("cryo_")
}
