//! A report in words, each violation with the lines of the history that show it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, BufRead, Write};
use std::path::PathBuf;

use crate::checker::{Invariant, Report};
use crate::reader::{Merged, ReadError};

/// Why a report cannot be printed.
#[derive(Debug, thiserror::Error)]
pub enum PrintError {
    /// The history cannot be read again.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The output cannot be written.
    #[error(transparent)]
    Write(#[from] io::Error),
}

/// Prints what was broken, and each invariant with what was held against it. `files` are those that were
/// judged.
///
/// # Errors
/// When the history cannot be read again, or nothing can be written.
pub fn print(report: &Report, files: &[PathBuf], out: &mut impl Write) -> Result<(), PrintError> {
    print_violations(report, files, out)?;
    print_summary(report, out)?;
    Ok(())
}

/// Each violation with the lines that show it, which are read again.
fn print_violations(
    report: &Report,
    files: &[PathBuf],
    out: &mut impl Write,
) -> Result<(), PrintError> {
    let shown = report
        .violations
        .iter()
        .flat_map(|violation| &violation.events);
    let numbers: BTreeSet<u64> = shown.copied().collect();
    let mut places = BTreeMap::new();
    if let Some(last) = numbers.last() {
        for entry in Merged::open(files)? {
            let entry = entry?;
            if numbers.contains(&entry.number) {
                places.insert(entry.number, (entry.file, entry.line));
            }
            if entry.number == *last {
                break;
            }
        }
    }
    let lines = lines_at(files, &places)?;
    for violation in &report.violations {
        writeln!(out, "{:?}: {}", violation.invariant, violation.text)?;
        for place in violation
            .events
            .iter()
            .filter_map(|number| places.get(number))
        {
            let text = lines.get(place).map_or("", String::as_str);
            writeln!(out, "    {}:{}: {text}", files[place.0].display(), place.1)?;
        }
    }
    Ok(())
}

/// The beginnings of some lines of some files.
fn lines_at(
    files: &[PathBuf],
    places: &BTreeMap<u64, (usize, u64)>,
) -> Result<BTreeMap<(usize, u64), String>, PrintError> {
    const COLUMNS_MAX: usize = 400;
    let wanted: BTreeSet<&(usize, u64)> = places.values().collect();
    let mut found = BTreeMap::new();
    for (file, path) in files.iter().enumerate() {
        let reader = io::BufReader::new(fs::File::open(path)?);
        for (number, line) in (1..).zip(reader.lines()) {
            if wanted.contains(&(file, number)) {
                found.insert((file, number), line?.chars().take(COLUMNS_MAX).collect());
            }
        }
    }
    Ok(found)
}

fn print_summary(report: &Report, out: &mut impl Write) -> io::Result<()> {
    writeln!(out, "{} events", report.events)?;
    for invariant in Invariant::ALL {
        let broken = report.broken.get(&invariant).copied().unwrap_or(0);
        let judged = report.judged.get(&invariant).copied().unwrap_or(0);
        let verdict = match (broken, judged) {
            (0, 0) => "nothing to judge".to_string(),
            (0, _) => format!("holds ({judged})"),
            _ => format!("BROKEN {broken} times ({judged})"),
        };
        let name = format!("{invariant:?}");
        writeln!(out, "{name:<8} {verdict:<24} {}", invariant.meaning())?;
    }
    Ok(())
}
