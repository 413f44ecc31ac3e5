//! `chaos`: breaks a cluster of three real processes under load, again and again, and has what its clients saw
//! judged. `tests/chaos/README.md` says how it works.

mod cluster;
mod disk;
mod faults;
mod judge;
mod load;
mod net;
mod node;
mod random;
mod results;
mod run;
mod sandbox;
mod schedule;
mod shell;
mod trace;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Parser;

use crate::node::Settings;
use crate::run::Plan;
use crate::schedule::{Class, Mix};
use crate::shell::{Failure, Outcome, failure, while_doing};

/// Breaks a cluster of three real processes under load, and has what its clients saw judged. Needs root; all that
/// it makes on the machine but the files in --out ends with it.
#[derive(Debug, Parser)]
struct Arguments {
    /// What the whole schedule follows from; by default another one each time.
    #[arg(long)]
    seed: Option<u64>,
    /// For how long faults are injected.
    #[arg(long, default_value_t = 4.0)]
    minutes: f64,
    /// Classes with weights, as "kill,freeze=3,default"; "all" is everything that --list shows.
    #[arg(long, default_value = "default")]
    faults: String,
    /// Messages a second that producers send.
    #[arg(long, default_value_t = 4500)]
    load: u32,
    /// Minutes of one round; each is judged by itself.
    #[arg(long, default_value_t = 4.0)]
    round: f64,
    /// The broker; by default the `gantry` beside this program, built first when cargo runs this.
    #[arg(long)]
    gantry: Option<PathBuf>,
    /// Where histories, logs and verdicts go, in a directory for each run.
    #[arg(long, default_value = "target/chaos")]
    out: PathBuf,
    /// A file that gets one line for each run.
    #[arg(long)]
    results: Option<PathBuf>,
    /// Keep the histories of green rounds too.
    #[arg(long)]
    keep: bool,
    /// Show the classes and end.
    #[arg(long)]
    list: bool,
    /// Show which classes can be injected on this machine and end.
    #[arg(long)]
    probe: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match begin(&arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(failure) => {
            eprintln!("chaos: {failure}");
            ExitCode::from(2)
        }
    }
}

fn begin(arguments: &Arguments) -> Outcome<bool> {
    if arguments.list {
        for class in Class::all() {
            let by_default = if class.weight() > 0 {
                ""
            } else {
                " (not in the default list)"
            };
            println!("{:<18} {}{by_default}", class.name(), class.meaning());
        }
        return Ok(true);
    }
    if arguments.probe {
        for class in Class::all() {
            match faults::probe(class) {
                Ok(()) => println!("{:<18} can be injected", class.name()),
                Err(reason) => println!("{:<18} SKIPPED: {reason}", class.name()),
            }
        }
        return Ok(true);
    }
    let mix = schedule::parse_mix(&arguments.faults)?;
    sandbox::enter()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    let runtime = runtime.map_err(while_doing("starting threads"))?;
    let outcome = runtime.block_on(go(arguments, mix));
    runtime.shutdown_background();
    outcome
}

async fn go(arguments: &Arguments, mix: Mix) -> Outcome<bool> {
    let mut interrupts = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::interrupt())
        .map_err(while_doing("listening for signals"))?;
    let mut terminations =
        tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())
            .map_err(while_doing("listening for signals"))?;
    let (possible, skipped) = sift(mix);
    for (class, reason) in &skipped {
        println!("SKIPPED: {}: {reason}", class.name());
    }
    if possible.is_empty() {
        return failure("none of the classes can be injected on this machine");
    }
    let seed = arguments.seed.unwrap_or_else(seconds_now);
    let plan = Plan {
        seed,
        lasting: Duration::from_secs_f64(arguments.minutes * 60.0),
        round: Duration::from_secs_f64(arguments.round * 60.0),
        mix: possible,
        rate: arguments.load,
        keep: arguments.keep,
    };
    let directory = arguments.out.join(format!("seed-{seed}-{}", seconds_now()));
    std::fs::create_dir_all(&directory).map_err(while_doing("making the output directory"))?;
    let directory = directory
        .canonicalize()
        .map_err(while_doing("the output directory"))?;
    let settings = Settings {
        program: program(arguments.gantry.as_deref())?,
        directory,
    };
    let report = tokio::select! {
        report = run::run(&settings, plan.clone()) => report?,
        // What was made ends with this process.
        _ = interrupts.recv() => return failure("interrupted"),
        _ = terminations.recv() => return failure("terminated"),
    };
    results::print(&plan, &report, &skipped, arguments.results.as_deref())
}

/// Those classes that this machine can do, and the others with the reason.
fn sift(mix: Mix) -> (Mix, Vec<(Class, String)>) {
    let mut possible = Mix::new();
    let mut skipped = Vec::new();
    for (class, weight) in mix {
        match faults::probe(class) {
            Ok(()) => possible.push((class, weight)),
            Err(reason) => skipped.push((class, reason)),
        }
    }
    (possible, skipped)
}

/// Seconds since 1970.
fn seconds_now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs()
}

/// The broker under test.
fn program(given: Option<&Path>) -> Outcome<PathBuf> {
    let beside = || -> Outcome<PathBuf> {
        let own = std::env::current_exe().map_err(while_doing("finding this program's file"))?;
        Ok(own.with_file_name("gantry"))
    };
    let path = match given {
        Some(path) => path.to_path_buf(),
        None => beside()?,
    };
    path.canonicalize().map_err(|error| {
        let path = path.display();
        Failure(format!(
            "{path}: {error}; build it: cargo build --release -p gantry"
        ))
    })
}
