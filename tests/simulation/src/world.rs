//! The whole of it: machines, clients and faults, a step of time after the other.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Mutex, Once};

use gantry_checker::Note;
use gantry_raft::NodeNumber;

use crate::clients::{Clients, Stage};
use crate::cluster::{BROKER, NODES, Surroundings};
use crate::faults::Faults;
use crate::machine::{Condition, Machine, name_of};
use crate::rng::Rng;
use crate::trace::Trace;

const MS: u64 = 1_000_000;

/// How often it is written down how far each replica is.
const PROGRESS_NS: u64 = 250 * MS;

/// What panicked in this process, and where.
static PANICS: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// A simulated cluster under load.
pub struct World {
    /// What all parts share.
    pub around: Surroundings,
    /// The machines, in the order of their nodes.
    pub machines: Vec<Machine>,
    /// The load.
    pub clients: Clients,
    /// What goes wrong.
    pub faults: Faults,
    /// Who led in each term.
    leaders: BTreeMap<u64, NodeNumber>,
}

impl World {
    /// A world that has not begun. There is one in a process.
    pub fn new(around: Surroundings, faults_until: u64) -> Self {
        collect_panics(around.trace.clone());
        let mut rng = Rng::new(around.seed, "machines");
        let machine = |node: &NodeNumber| Machine::new(*node, around.clone(), &mut rng);
        let machines: Vec<Machine> = NODES.iter().map(machine).collect();
        let cluster = Note::Cluster {
            broker: BROKER.to_string(),
            nodes: NODES.iter().map(|node| name_of(*node)).collect(),
        };
        around.history.note(cluster);
        World {
            machines,
            clients: Clients::new(around.clone()),
            faults: Faults::new(&around, faults_until),
            around,
            leaders: BTreeMap::new(),
        }
    }

    /// Goes on for a step of time.
    ///
    /// # Errors
    /// Something was seen that must never be.
    pub fn step(&mut self) -> Result<(), String> {
        self.around.time.step();
        let now = self.around.time.now_ns();
        self.around.net.deliver();
        self.faults.step(now, &mut self.machines);
        for machine in &mut self.machines {
            machine.step(now);
        }
        self.look_at_leaders()?;
        self.clients.step(now);
        if now.is_multiple_of(PROGRESS_NS) {
            self.note_progress();
        }
        match PANICS.lock().expect("nothing panics here").pop() {
            Some(panic) => Err(format!("panic: {panic}")),
            None => Ok(()),
        }
    }

    /// Goes on until `reached`, or for so many milliseconds; says whether it was.
    ///
    /// # Errors
    /// Something was seen that must never be.
    pub fn run_until(
        &mut self,
        limit_ms: u64,
        mut reached: impl FnMut(&mut World) -> bool,
    ) -> Result<bool, String> {
        for _ in 0..limit_ms {
            if reached(self) {
                return Ok(true);
            }
            self.step()?;
        }
        Ok(reached(self))
    }

    /// All that went wrong ends.
    pub fn heal(&mut self) {
        let now = self.around.time.now_ns();
        self.faults.heal(now, &mut self.machines);
    }

    /// All machines lose their power.
    pub fn cut_all_power(&mut self) {
        let now = self.around.time.now_ns();
        self.faults.cut_all_power(now, &mut self.machines);
    }

    /// Tells the clients how far the run is.
    pub fn set_stage(&mut self, stage: Stage) {
        if stage == Stage::Drain {
            self.around.history.note(Note::LoadEnds);
        }
        self.clients.set_stage(stage);
    }

    /// Whether all replicas are members and hold the same.
    pub fn is_converged(&self) -> bool {
        is_converged(&self.machines)
    }

    /// Where each node is, for messages.
    pub fn describe(&self) -> String {
        let mut text = String::new();
        for machine in &self.machines {
            let status = machine.group().map(|group| group.replica.status());
            let (node, condition) = (machine.node, machine.condition);
            let ended = machine.last_end.as_deref().unwrap_or("-");
            text += &format!("\n  node {node}: {condition:?}, last end: {ended}, {status:?}");
        }
        text
    }

    /// A term has one leader.
    fn look_at_leaders(&mut self) -> Result<(), String> {
        for (place, machine) in self.machines.iter().enumerate() {
            let group = machine
                .group()
                .filter(|_| machine.condition == Condition::Runs);
            let leads = group.is_some_and(|group| group.leads());
            self.around.leads[place].store(leads, Ordering::Relaxed);
            let Some(now) = group.map(|group| group.leadership()) else {
                continue;
            };
            if now.ready && now.leader == Some(machine.node) {
                let known = *self.leaders.entry(now.term).or_insert(machine.node);
                if known != machine.node {
                    let (term, node) = (now.term, machine.node);
                    return Err(format!(
                        "term {term} is led by node {known} and by node {node}"
                    ));
                }
            }
        }
        Ok(())
    }

    fn note_progress(&self) {
        for machine in &self.machines {
            let Some(group) = machine.group() else {
                continue;
            };
            let status = group.replica.status();
            if let (Some(committed), Some(applied)) = (status.committed, status.applied) {
                self.around.history.note(Note::Progress {
                    broker: BROKER.to_string(),
                    node: name_of(machine.node),
                    committed,
                    applied,
                });
            }
        }
    }
}

/// Whether all replicas run, vote, follow the same leader, and have applied the same, all there is.
pub fn is_converged(machines: &[Machine]) -> bool {
    let mut seen = None;
    are_members(machines)
        && machines.iter().all(|machine| {
            let running = machine.condition == Condition::Runs;
            let Some(group) = machine.group().filter(|_| running) else {
                return false;
            };
            let status = group.replica.status();
            let now = status.leadership;
            let position = (now.term, now.leader, status.last, status.applied);
            now.leader.is_some()
                && status.last == status.applied
                && *seen.get_or_insert(position) == position
        })
}

/// Whether all replicas run and vote, and no others do.
pub fn are_members(machines: &[Machine]) -> bool {
    machines.iter().all(|machine| {
        let running = machine.condition == Condition::Runs;
        let group = machine.group().filter(|_| running);
        group.is_some_and(|group| {
            let status = group.replica.status();
            status.voters == NODES && status.learners.is_empty()
        })
    })
}

/// A panic of a task ends only the task, but no panic is all right.
fn collect_panics(trace: Trace) {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        std::panic::set_hook(Box::new(move |info| {
            eprintln!("{info}");
            // The process may end right after this.
            trace.flush();
            if let Ok(mut panics) = PANICS.lock() {
                panics.insert(0, info.to_string());
            }
        }));
    });
}
