//! One seed from beginning to end: faults under load, everything well again, all replicas equal, a power cut
//! of all, the same again, and a last look at whether the cluster serves.

use std::collections::BTreeMap;
use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use gantry_checker::{Bounds, Checker, Report};

use crate::clients::{Stage, probe};
use crate::cluster::{Shape, Surroundings, Trouble};
use crate::steps::Step;
use crate::verify::{self, Wrong};
use crate::world::World;
use crate::{entropy, log};

const SECOND_NS: u64 = 1_000_000_000;

/// How long things go wrong; milliseconds.
pub const FAULTS_MS: u64 = 20_000;

/// How long the cluster may take until sends succeed, until all replicas are equal, until consumers have
/// read everything; milliseconds.
const RESUME_MS: u64 = 15_000;
const CONVERGE_MS: u64 = 60_000;
const DRAIN_MS: u64 = 60_000;

/// How long damage may last that was met; milliseconds.
const MEND_MS: u64 = 60_000;

/// What became of a seed.
#[derive(Debug)]
pub struct Outcome {
    /// The seed.
    pub seed: u64,
    /// What was wrong; nothing if all was well.
    pub failures: Vec<String>,
    /// Simulated milliseconds.
    pub simulated_ms: u64,
    /// Faults that were made.
    pub faults: u64,
    /// Leaders that were killed at each step.
    pub killed: BTreeMap<Step, u64>,
    /// Events in the history.
    pub events: u64,
    /// Lines of the trace, and a checksum over all of them.
    pub trace: (u64, u64),
}

/// Runs a seed. A process runs one: what it draws of chance begins with the process.
pub fn run(seed: u64, features: bool, out: Option<File>) -> Outcome {
    entropy::seed(seed);
    let around = Surroundings::new(seed, Shape::new(seed, features), out);
    log::into(around.trace.clone());
    around
        .trace
        .line("world", format_args!("{:?}", around.shape));
    let mut world = World::new(around.clone(), FAULTS_MS * 1_000_000);
    let mut failures: Vec<String> = live(&mut world).err().into_iter().collect();
    let faults = world.faults.count();
    let report = judge(&around, drift_ppm(&world));
    for violation in &report.violations {
        let (invariant, text) = (violation.invariant, &violation.text);
        let meaning = invariant.meaning();
        failures.push(format!("{invariant:?} ({meaning}): {text}"));
    }
    for failure in &failures {
        around.trace.line("world", format_args!("FAILED {failure}"));
    }
    around.trace.flush();
    Outcome {
        seed,
        failures,
        simulated_ms: around.time.now_ns() / 1_000_000,
        faults,
        killed: around.steps.killed(),
        events: report.events,
        trace: around.trace.checksum(),
    }
}

/// The phases.
fn live(world: &mut World) -> Result<(), String> {
    world.run_until(FAULTS_MS, |_| false)?;
    world.heal();
    let acked_before = world.around.history.acked();
    let enough = |world: &mut World| world.around.history.acked() >= acked_before + 20;
    if !world.run_until(RESUME_MS, enough)? {
        return Err(format!("sends do not succeed again{}", world.describe()));
    }
    world.set_stage(Stage::Drain);
    converge(world)?;
    if !world.run_until(DRAIN_MS, |world| world.clients.are_done())? {
        return Err(format!(
            "consumers do not reach the end{}",
            world.describe()
        ));
    }
    converge(world)?;
    compare(world)?;
    world.cut_all_power();
    converge(world)?;
    compare(world)?;
    serves(world)?;
    world.set_stage(Stage::Over);
    Ok(())
}

fn converge(world: &mut World) -> Result<(), String> {
    let converged = |world: &mut World| world.faults.is_quiet() && world.is_converged();
    if world.run_until(CONVERGE_MS, converged)? {
        return Ok(());
    }
    Err(format!(
        "the replicas do not come to be equal{}",
        world.describe()
    ))
}

/// The replicas are equal. What has rotted unseen comes back in the time that it may take, once it was looked
/// at.
fn compare(world: &mut World) -> Result<(), String> {
    let troubles = &world.around.shape.troubles;
    let rots = [Trouble::RotLog, Trouble::RotDerived]
        .iter()
        .any(|rot| troubles.contains(rot));
    let until = world.around.time.now_ns() + MEND_MS * 1_000_000;
    loop {
        match verify::replicas_are_equal(world) {
            Ok(()) => return Ok(()),
            Err(Wrong::Damaged(_)) if rots && world.around.time.now_ns() < until => {}
            Err(Wrong::Damaged(text) | Wrong::Differ(text)) => return Err(text),
        }
        world.run_until(500, |_| false)?;
        converge(world)?;
    }
}

/// Ten messages are sent and read.
fn serves(world: &mut World) -> Result<(), String> {
    let done = Arc::new(AtomicU32::new(0));
    let counted = done.clone();
    world
        .clients
        .spawn("probe", |client| probe(client, counted));
    world.run_until(30_000, |world| world.clients.are_done())?;
    match done.load(Ordering::Relaxed) {
        10 => Ok(()),
        count => Err(format!(
            "only {count} of 10 messages could be sent and read{}",
            world.describe()
        )),
    }
}

/// How far any two clocks drift apart, the true one among them.
fn drift_ppm(world: &World) -> u64 {
    let rates = world.machines.iter().map(|machine| machine.time.rate());
    let rates: Vec<u64> = rates.chain([1_000_000]).collect();
    let (slowest, fastest) = (rates.iter().min(), rates.iter().max());
    fastest.zip(slowest).map_or(0, |(fast, slow)| fast - slow)
}

fn judge(around: &Surroundings, drift_ppm: u64) -> Report {
    let bounds = Bounds {
        retention: around.shape.retention_bytes.is_some(),
        // 60 s by clocks that are wrong by up to a twentieth.
        lease_ns: 50 * SECOND_NS,
        drift_ppm,
        clocks_agree: !around.shape.troubles.contains(&Trouble::Clock),
        late_ns: 5 * SECOND_NS,
        asked_ns: 10 * SECOND_NS,
        ..Bounds::default()
    };
    let mut checker = Checker::new(&bounds);
    for event in around.history.take() {
        checker.see(event);
    }
    checker.finish()
}
