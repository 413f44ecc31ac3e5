//! Runs seeds of the simulation, each in a process of its own, and says how to see each failure again.

use std::fs::File;
use std::ops::Range;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{ArgGroup, Parser};

use simulation::run::{Outcome, run};
use simulation::sweep::{self, KILLED_AT, Sweep};
use simulation::{entropy, planted};

/// Simulates clusters of three nodes under faults and judges what their clients and replicas saw.
///
/// A seed decides everything: the same seed gives the same run, to the byte. What is simulated and what is
/// not is in docs/reliability.md.
#[derive(Parser)]
#[command(name = "simulation", group = ArgGroup::new("what").required(true))]
struct Arguments {
    /// Run these seeds; the first is in, the last is not.
    #[arg(long, value_name = "A..B", value_parser = parse_seeds, group = "what")]
    seeds: Option<Range<u64>>,

    /// Run one seed in this process and print what became of it.
    #[arg(long, value_name = "N", group = "what")]
    seed: Option<u64>,

    /// Run each of these seeds twice and compare the checksums of the traces.
    #[arg(long, value_name = "A..B", value_parser = parse_seeds, group = "what")]
    replay_check: Option<Range<u64>>,

    /// Plant each known bug and count the seeds until it is found. Needs `--features planted-bugs`.
    #[arg(long, group = "what")]
    planted: bool,

    /// Write the full trace of the seed here.
    #[arg(long, value_name = "FILE", requires = "seed", num_args = 0..=1)]
    #[arg(default_missing_value = "trace.txt")]
    trace: Option<PathBuf>,

    /// Run with one bug planted; `--planted` lists them. Needs `--features planted-bugs`.
    #[arg(long, value_name = "NAME")]
    bug: Option<String>,

    /// Without messages that wait, are popped or handed back: the load of before there were these.
    #[arg(long)]
    plain: bool,

    /// Give each planted bug at most so many seeds.
    #[arg(long, value_name = "N", default_value_t = 200)]
    limit: u64,

    /// Processes at the same time; default one for each processor.
    #[arg(long, value_name = "N")]
    jobs: Option<usize>,

    /// Wall-clock time after which a seed counts as stuck; seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    patience: u64,
}

fn parse_seeds(text: &str) -> Result<Range<u64>, String> {
    let (first, end) = text
        .split_once("..")
        .ok_or("two numbers with `..` between them, for instance 0..100")?;
    let number = |text: &str| {
        text.parse::<u64>()
            .map_err(|error| format!("{text}: {error}"))
    };
    let seeds = number(first)?..number(end)?;
    if seeds.is_empty() {
        return Err(format!("{first}..{end} holds no seed"));
    }
    Ok(seeds)
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if !entropy::is_in_force() {
        eprintln!(
            "simulation: chance is not under control on this platform; Linux with glibc is needed"
        );
        return ExitCode::from(2);
    }
    let sweep = Sweep {
        jobs: arguments
            .jobs
            .or_else(|| std::thread::available_parallelism().ok().map(Into::into))
            .unwrap_or(1),
        patience_s: arguments.patience,
        bug: arguments.bug.clone(),
        plain: arguments.plain,
    };
    let outcome = match &arguments {
        Arguments {
            seed: Some(seed), ..
        } => one(*seed, &arguments),
        Arguments {
            seeds: Some(seeds), ..
        } => sweep::seeds(&sweep, seeds.clone()),
        Arguments {
            replay_check: Some(seeds),
            ..
        } => sweep::replays(&sweep, seeds.clone()),
        _ => planted::search(&sweep, arguments.limit),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(reason) => {
            eprintln!("simulation: {reason}");
            ExitCode::from(2)
        }
    }
}

/// Runs a seed here; true if all was well.
fn one(seed: u64, arguments: &Arguments) -> Result<bool, String> {
    if let Some(name) = &arguments.bug {
        planted::plant(name)?;
    }
    sweep::stay_on_one_processor();
    let out = match &arguments.trace {
        Some(path) => {
            let created = File::create(path);
            Some(created.map_err(|error| format!("cannot write {}: {error}", path.display()))?)
        }
        None => None,
    };
    let outcome = run(seed, !arguments.plain, out);
    for failure in &outcome.failures {
        println!("  {failure}");
    }
    println!("{}", line_of(&outcome));
    if let Some(path) = &arguments.trace {
        println!("trace in {}", path.display());
    }
    Ok(outcome.failures.is_empty())
}

/// The last line of a seed, which a sweep reads.
fn line_of(outcome: &Outcome) -> String {
    let Outcome {
        seed,
        failures,
        simulated_ms,
        faults,
        killed,
        events,
        trace: (lines, checksum),
    } = outcome;
    let verdict = if failures.is_empty() {
        "passed"
    } else {
        "FAILED"
    };
    let killed: Vec<String> = killed
        .iter()
        .map(|(step, count)| format!("{step:?} {count}"))
        .collect();
    let killed = match killed.is_empty() {
        true => String::new(),
        false => format!("{KILLED_AT}{}", killed.join(", ")),
    };
    format!(
        "seed {seed} {verdict}: {simulated_ms} ms, {faults} faults, {events} events, trace of {lines} lines \
         {checksum:016x}{killed}"
    )
}
