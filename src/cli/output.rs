//! What commands print: tables, JSON, and a line that says how far they are.

use std::io::{IsTerminal, Write};

use clap::ValueEnum;
use serde::Serialize;

/// How a command prints its data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// Aligned columns for people.
    #[default]
    Table,
    /// JSON for programs.
    Json,
}

/// Writes a line to standard output.
pub(super) fn line(text: &str) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{text}")?;
    out.flush()
}

/// Writes a line to standard error.
pub(super) fn note(text: &str) {
    // When even standard error is gone there is nobody left to tell.
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

/// Writes one JSON document on one line.
pub(super) fn json<T: Serialize>(value: &T) -> std::io::Result<()> {
    line(&serde_json::to_string(value).map_err(std::io::Error::other)?)
}

/// Writes rows under their headings, columns aligned.
pub(super) fn table(headings: &[&str], rows: &[Vec<String>]) -> std::io::Result<()> {
    line(&aligned(headings, rows))
}

fn aligned(headings: &[&str], rows: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = headings.iter().map(|heading| heading.len()).collect();
    for row in rows {
        assert_eq!(row.len(), headings.len(), "row {row:?} under {headings:?}");
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let headings: Vec<String> = headings.iter().map(|heading| heading.to_string()).collect();
    let mut lines = Vec::with_capacity(rows.len() + 1);
    for row in std::iter::once(&headings).chain(rows) {
        let cells = row
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:<width$}"));
        lines.push(cells.collect::<Vec<_>>().join("  ").trim_end().to_string());
    }
    lines.join("\n")
}

/// Bytes with a unit, as `gantry status` shows them.
pub(super) fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = count as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 {
        format!("{count} B")
    } else {
        format!("{value:.1} {}", UNITS[unit])
    }
}

/// A line on standard error that says how far a command is: rewritten in place on a terminal, printed at
/// most once a second elsewhere.
pub(super) struct Progress {
    is_terminal: bool,
    printed: Option<std::time::Instant>,
    last: String,
}

impl Progress {
    pub(super) fn new() -> Progress {
        Progress {
            is_terminal: std::io::stderr().is_terminal(),
            printed: None,
            last: String::new(),
        }
    }

    /// Replaces the line.
    pub(super) fn show(&mut self, text: &str) {
        if text == self.last {
            return;
        }
        let is_due = self
            .printed
            .is_none_or(|at| at.elapsed().as_millis() >= 1000);
        let mut err = std::io::stderr().lock();
        // As in `note`: a closed standard error is no reason to stop.
        let _ = if self.is_terminal {
            write!(err, "\r\x1b[K{text}").and_then(|()| err.flush())
        } else if is_due {
            writeln!(err, "{text}")
        } else {
            return;
        };
        self.printed = Some(std::time::Instant::now());
        self.last = text.to_string();
    }

    /// Ends the line with a text that stays.
    pub(super) fn finish(&mut self, text: &str) {
        self.last.clear();
        let prefix = if self.is_terminal { "\r\x1b[K" } else { "" };
        note(&format!("{prefix}{text}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [
            vec!["1".to_string(), "broker-a".to_string()],
            vec!["10".into(), "b".into()],
        ];
        assert_eq!(
            aligned(&["node", "group"], &rows),
            "node  group\n1     broker-a\n10    b"
        );
    }

    #[test]
    fn sizes_have_units() {
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(64 << 20), "64.0 MiB");
    }
}
