//! `checker FILE...`: reads the histories of one run and prints what was broken.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use gantry_checker::verdict::{self, PrintError};
use gantry_checker::{Bounds, Checker, Merged, ReadError};

const NS_PER_S: f64 = 1e9;

/// Judges the histories of one run. Ends with 0 if nothing was broken, with 1 if something was or a required
/// fault did not happen, and with 2 if a history cannot be read.
#[derive(Parser)]
struct Arguments {
    /// History files, together one history.
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// A kind of fault that must have happened, as `kill`; may be given several times.
    #[arg(long)]
    require: Vec<String>,
    /// Queues may have lost their beginning to retention.
    #[arg(long)]
    retention: bool,
    /// Seconds for which a lock of a queue holds.
    #[arg(long, default_value_t = 60.0)]
    lease: f64,
    /// Seconds by which clocks may disagree over a wait.
    #[arg(long, default_value_t = 0.05)]
    skew: f64,
    /// Seconds from the last heal to the first ack.
    #[arg(long, default_value_t = 10.0)]
    resume: f64,
    /// Seconds from the last heal until all replicas have caught up.
    #[arg(long, default_value_t = 60.0)]
    catch_up: f64,
    /// Seconds from the end of the load until consumers are at the end.
    #[arg(long, default_value_t = 60.0)]
    drain: f64,
    /// Seconds by which a delayed message may be late.
    #[arg(long, default_value_t = 10.0)]
    late: f64,
    /// Seconds until the producer of an open half message must be asked.
    #[arg(long, default_value_t = 60.0)]
    asked: f64,
}

/// Why nothing can be said.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(transparent)]
    Print(#[from] PrintError),
    #[error(transparent)]
    Output(#[from] io::Error),
}

impl Arguments {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "`as` saturates"
    )]
    fn bounds(&self) -> Bounds {
        let ns = |seconds: f64| (seconds * NS_PER_S) as u64;
        Bounds {
            retention: self.retention,
            lease_ns: ns(self.lease),
            skew_ns: ns(self.skew),
            resume_ns: ns(self.resume),
            catch_up_ns: ns(self.catch_up),
            drain_ns: ns(self.drain),
            late_ns: ns(self.late),
            asked_ns: ns(self.asked),
            ..Bounds::default()
        }
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let mut out = io::stdout().lock();
    match run(&arguments, &mut out) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(failure) => {
            eprintln!("checker: {failure}");
            ExitCode::from(2)
        }
    }
}

fn run(arguments: &Arguments, out: &mut impl Write) -> Result<bool, Failure> {
    let mut history = Merged::open(&arguments.files)?;
    let mut checker = Checker::new(&arguments.bounds());
    for entry in &mut history {
        checker.see(entry?.event);
    }
    for path in history.torn() {
        writeln!(
            out,
            "note: the last line of {} is cut short and left out",
            path.display()
        )?;
    }
    let report = checker.finish();
    verdict::print(&report, &arguments.files, out)?;
    let happened: BTreeSet<String> = report
        .faults
        .iter()
        .map(|class| snake_case(&format!("{class:?}")))
        .collect();
    let mut all_happened = true;
    for class in arguments
        .require
        .iter()
        .filter(|class| !happened.contains(*class))
    {
        writeln!(out, "required fault did not happen: {class}")?;
        all_happened = false;
    }
    Ok(report.is_green() && all_happened)
}

fn snake_case(name: &str) -> String {
    let mut snake = String::new();
    for letter in name.chars() {
        if letter.is_uppercase() && !snake.is_empty() {
            snake.push('_');
        }
        snake.extend(letter.to_lowercase());
    }
    snake
}
