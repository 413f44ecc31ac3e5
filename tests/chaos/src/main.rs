//! `chaos`: breaks a cluster of three real processes under load, again and again, and has what its clients
//! saw judged. `tests/chaos/README.md` says how it works.

mod cluster;
mod disk;
mod failover;
mod faults;
mod judge;
mod load;
mod logs;
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

use clap::{Args, Parser, Subcommand};

use crate::failover::Failover;
use crate::node::Settings;
use crate::run::Plan;
use crate::schedule::{Class, Mix};
use crate::shell::{Failure, Outcome, failure, while_doing};

/// Breaks a cluster of three real processes under load, and has what its clients saw judged. Needs root;
/// all that it makes on the machine but the files in --out ends with it.
#[derive(Debug, Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    common: Common,
    /// For how long faults are injected.
    #[arg(long, default_value_t = 4.0)]
    minutes: f64,
    /// Classes with weights, as "kill,freeze=3,default"; "each" is the default list with
    /// equal weights, "all" everything that --list shows.
    #[arg(long, default_value = "default")]
    faults: String,
    /// Messages a second that producers send.
    #[arg(long, default_value_t = 4500)]
    load: u32,
    /// Minutes of one round; each is judged by itself.
    #[arg(long, default_value_t = 4.0)]
    round: f64,
    /// The C++ client of the stock-client tests sends too, and its acks are judged.
    #[arg(long)]
    stock: bool,
    /// Show the classes and end.
    #[arg(long)]
    list: bool,
    /// Show which classes can be injected on this machine and end.
    #[arg(long)]
    probe: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Measure how long a group takes no writes when its leader dies or falls silent.
    Failover(FailoverArguments),
}

#[derive(Debug, Args)]
struct FailoverArguments {
    /// How often a leader is hit.
    #[arg(long, default_value_t = 100)]
    kills: usize,
    /// The part of the load that the clients reach at most.
    #[arg(long, default_value_t = 0.6)]
    load: f64,
    /// What hits it: kill, freeze or partition.
    #[arg(long, default_value = "kill")]
    fault: String,
}

/// What every run takes.
#[derive(Debug, Args)]
struct Common {
    /// What the whole schedule follows from; by default another one each time.
    #[arg(long, global = true)]
    seed: Option<u64>,
    /// The broker; by default the `gantry` beside this program.
    #[arg(long, global = true)]
    gantry: Option<PathBuf>,
    /// Where histories, logs and verdicts go, in a directory for each run.
    #[arg(long, default_value = "target/chaos", global = true)]
    out: PathBuf,
    /// A file that gets one line for each run.
    #[arg(long, global = true)]
    results: Option<PathBuf>,
    /// Keep the histories of green rounds too.
    #[arg(long, global = true)]
    keep: bool,
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
    let plan = plan(arguments)?;
    if plan.stock
        && let Err(reason) = load::probe_stock()
    {
        return failure(format!("--stock: {reason}"));
    }
    sandbox::enter()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    let runtime = runtime.map_err(while_doing("starting threads"))?;
    let outcome = runtime.block_on(go(&arguments.common, plan));
    runtime.shutdown_background();
    outcome
}

fn plan(arguments: &Arguments) -> Outcome<Plan> {
    let mut plan = Plan {
        seed: arguments.common.seed.unwrap_or_else(seconds_now),
        lasting: Duration::from_secs_f64(arguments.minutes * 60.0),
        round: Duration::from_secs_f64(arguments.round * 60.0),
        mix: schedule::parse_mix(&arguments.faults)?,
        rate: arguments.load,
        keep: arguments.common.keep,
        stock: arguments.stock,
        failover: None,
    };
    if let Some(Command::Failover(wanted)) = &arguments.command {
        plan.mix = schedule::parse_mix(&wanted.fault)?;
        let class = plan.mix[0].0;
        if plan.mix.len() != 1 || ![Class::Kill, Class::Freeze, Class::Isolate].contains(&class) {
            return failure("failover: --fault is kill, freeze or partition");
        }
        plan.failover = Some(Failover {
            times: wanted.kills,
            load: wanted.load,
            class,
        });
    }
    Ok(plan)
}

async fn go(arguments: &Common, mut plan: Plan) -> Outcome<bool> {
    let mut interrupts = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::interrupt())
        .map_err(while_doing("listening for signals"))?;
    let mut terminations =
        tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())
            .map_err(while_doing("listening for signals"))?;
    let (possible, skipped) = sift(std::mem::take(&mut plan.mix));
    for (class, reason) in &skipped {
        println!("SKIPPED: {}: {reason}", class.name());
    }
    if possible.is_empty() {
        return failure("none of the classes can be injected on this machine");
    }
    plan.mix = possible;
    let directory = arguments
        .out
        .join(format!("seed-{}-{}", plan.seed, seconds_now()));
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
