//! What is done to the cluster: one module for each kind of fault.

mod freeze;
mod kill;
mod restart;

use std::collections::BTreeMap;
use std::time::Duration;

use gantry_checker::Note;
use gantry_checker::event::FaultClass;

use crate::cluster::Cluster;
use crate::net::{NODES, name_of};
use crate::schedule::{Class, Shot};
use crate::shell::{Outcome, failure};
use crate::trace::Trace;

/// How long a started node may take to answer at all.
const ANSWER_PATIENCE: Duration = Duration::from_secs(30);

/// What an injection did.
pub enum Effect {
    /// It is in effect.
    Done {
        /// Whom it hit.
        nodes: Vec<usize>,
        /// In words.
        detail: String,
    },
    /// There was nothing to hit, for instance because another fault had already ended the process.
    Moot(String),
}

/// How often a class was injected, and came into effect.
#[derive(Clone, Copy, Debug, Default)]
pub struct Count {
    /// Times that it was tried.
    pub tried: u64,
    /// Times that it was in effect.
    pub done: u64,
}

/// Breaks the cluster and makes it whole again.
pub struct Nemesis {
    /// What is broken.
    pub cluster: Cluster,
    /// What happened, in words.
    pub trace: Trace,
    /// By class.
    pub counts: BTreeMap<Class, Count>,
    /// Names of faults are numbered over the whole run.
    serial: u64,
}

/// A fault in effect, or one that had nothing to hit.
pub struct Active {
    shot: Shot,
    victim: usize,
    name: String,
    nodes: Option<Vec<usize>>,
}

impl Nemesis {
    /// Nothing is broken yet.
    pub fn new(cluster: Cluster, trace: Trace) -> Self {
        Self {
            cluster,
            trace,
            counts: BTreeMap::new(),
            serial: 0,
        }
    }

    /// Injects a fault.
    pub async fn inject(&mut self, shot: &Shot, victim: usize) -> Outcome<Active> {
        self.serial += 1;
        let name = format!("f{}", self.serial);
        let effect = self.do_inject(shot, victim).await?;
        let count = self.counts.entry(shot.class).or_default();
        count.tried += 1;
        let nodes = match effect {
            Effect::Done { nodes, detail } => {
                count.done += 1;
                self.trace
                    .line(&format!("{name} {}: {detail}", shot.class.name()))?;
                self.cluster.view.note(Note::Fault {
                    name: name.clone(),
                    class: history_class(shot.class),
                    nodes: nodes.iter().map(|node| name_of(*node)).collect(),
                })?;
                Some(nodes)
            }
            Effect::Moot(reason) => {
                self.trace
                    .line(&format!("{name} {}: moot, {reason}", shot.class.name()))?;
                None
            }
        };
        Ok(Active {
            shot: shot.clone(),
            victim,
            name,
            nodes,
        })
    }

    /// Ends a fault.
    pub async fn heal(&mut self, active: Active) -> Outcome {
        let Active {
            shot,
            victim,
            name,
            nodes,
        } = active;
        let is_over = || Note::Heal { name: name.clone() };
        // A node that was isolated may ack from the moment that it no longer is.
        let is_isolation = history_class(shot.class) == FaultClass::Isolate;
        if nodes.is_some() && is_isolation {
            self.cluster.view.note(is_over())?;
        }
        self.do_heal(&shot, victim, &name).await?;
        if nodes.is_some() && !is_isolation {
            self.cluster.view.note(is_over())?;
        }
        self.trace
            .line(&format!("{name} {}: over", shot.class.name()))
    }

    async fn do_inject(&mut self, shot: &Shot, victim: usize) -> Outcome<Effect> {
        match shot.class {
            Class::Kill => kill::inject(self, &[victim]).await,
            Class::KillAll => kill::inject(self, &all_from(victim)).await,
            Class::Freeze => freeze::inject(self, victim),
            Class::Restart => restart::inject(self, victim).await,
        }
    }

    async fn do_heal(&mut self, shot: &Shot, victim: usize, _name: &str) -> Outcome {
        match shot.class {
            Class::Kill => kill::heal(self, &[victim]).await,
            Class::KillAll => kill::heal(self, &all_from(victim)).await,
            Class::Freeze => freeze::heal(self, victim),
            // It is over when it has been injected.
            Class::Restart => Ok(()),
        }
    }
}

/// All nodes, beginning with one.
fn all_from(first: usize) -> Vec<usize> {
    (0..NODES).map(|step| (first + step) % NODES).collect()
}

/// Why a class cannot be injected on this machine.
pub fn probe(class: Class) -> Result<(), String> {
    match class {
        Class::Kill | Class::KillAll | Class::Freeze | Class::Restart => Ok(()),
    }
}

fn history_class(class: Class) -> FaultClass {
    match class {
        Class::Kill | Class::KillAll | Class::Restart => FaultClass::Kill,
        Class::Freeze => FaultClass::Pause,
    }
}

/// Fails for a class that the machine cannot do.
pub fn must_work(class: Class) -> Outcome {
    match probe(class) {
        Ok(()) => Ok(()),
        Err(reason) => failure(format!(
            "{} cannot be injected here: {reason}",
            class.name()
        )),
    }
}
