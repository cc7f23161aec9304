//! The book as people read it.

use super::book::{Book, Column, Entry, Line, Measured};

const HEADS: [&str; 6] = ["stock", "cryo", "alone", "cryo/stock", "cryo/alone", "reach"];

/// Columns as wide as what they hold; failures as numbered notes below.
pub(super) fn print(book: &Book) {
    let mut failures = Vec::new();
    let rows: Vec<[String; 7]> = book.entries.iter().map(|entry| cells(entry, &mut failures)).collect();
    let widths: Vec<usize> = (0..7_usize)
        .map(|at| {
            let head = at.checked_sub(1).map_or("", |at| HEADS[at]);
            rows.iter().map(|row| row[at].chars().count()).chain([head.len()]).max().unwrap_or(0)
        })
        .collect();
    let mut section = "";
    for (entry, row) in book.entries.iter().zip(&rows) {
        if entry.line.section != section {
            section = &entry.line.section;
            println!("\n{}", section);
            print_row(&["", HEADS[0], HEADS[1], HEADS[2], HEADS[3], HEADS[4], HEADS[5]], &widths);
        }
        print_row(&row.each_ref().map(String::as_str), &widths);
    }
    println!();
    for (number, failure) in failures.iter().enumerate() {
        println!("[{}] {failure}", number + 1);
    }
    book.entries.iter().for_each(print_tries);
}

fn print_tries(entry: &Entry) {
    for (head, column) in HEADS.into_iter().zip([Column::Stock, Column::Ours, Column::Alone]) {
        let Measured { values, failed_tries, .. } = entry.of(column);
        if *failed_tries > 0 {
            let (tries, successes) = (values.len() + failed_tries, values.len());
            let Line { section, what, .. } = &entry.line;
            println!("- {head} needed {tries} tries for {successes} successes: {section}: {what}");
        }
    }
}

fn print_row(cells: &[&str; 7], widths: &[usize]) {
    let mut line = String::new();
    for (at, (cell, width)) in cells.iter().zip(widths).enumerate() {
        let space = " ".repeat(width - cell.chars().count());
        // Words to the left, figures to the right.
        line += &if at == 0 || at == 6 { format!("  {cell}{space}") } else { format!("  {space}{cell}") };
    }
    println!("{}", line.trim_end());
}

fn cells(entry: &Entry, failures: &mut Vec<String>) -> [String; 7] {
    let mut cell = |column| shown(entry.of(column), failures);
    let (stock, ours, alone) = (cell(Column::Stock), cell(Column::Ours), cell(Column::Alone));
    let ratio = |column| entry.ratio(column).map_or(String::new(), |ratio| format!("{ratio:.2}"));
    let reach = match (entry.line.reach, entry.reached()) {
        (None, _) => String::new(),
        (Some(reach), Some(true)) => format!("{reach}: met"),
        (Some(reach), Some(false)) => format!("{reach}: MISSED"),
        (Some(reach), None) => format!("{reach}: nothing to compare with"),
    };
    let what = match entry.line.unit {
        "" => entry.line.what.clone(),
        unit => format!("{}, {unit}", entry.line.what),
    };
    [what, stock, ours, alone, ratio(Column::Stock), ratio(Column::Alone), reach]
}

fn shown(measured: &Measured, failures: &mut Vec<String>) -> String {
    if let Some(failure) = &measured.failure {
        let at = failures.iter().position(|known| known == failure).unwrap_or_else(|| {
            failures.push(failure.clone());
            failures.len() - 1
        });
        return format!("fails [{}]", at + 1);
    }
    match (measured.median(), measured.spread()) {
        (Some(median), Some((smallest, biggest))) => {
            format!("{} ({}–{})", number(median), number(smallest), number(biggest))
        }
        _ => "-".into(),
    }
}

fn number(value: f64) -> String {
    match value.abs() {
        size if size == size.trunc() && size < 100.0 => format!("{value}"),
        size if size < 10.0 => format!("{value:.2}"),
        size if size < 100.0 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}
