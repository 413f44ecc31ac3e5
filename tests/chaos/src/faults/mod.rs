//! What is done to the cluster: one module for each kind of fault.

mod clock;
mod disk;
mod freeze;
mod kill;
mod network;
mod power;
mod restart;
mod rot;
mod torn;
mod transfer;

use std::collections::BTreeMap;
use std::time::Duration;

use gantry_checker::Note;
use gantry_checker::event::FaultClass;

use crate::cluster::Cluster;
use crate::net::{NODES, name_of};
use crate::node::Node;
use crate::schedule::{Class, Shot};
use crate::shell::Outcome;
use crate::trace::Trace;

pub use rot::Kind;

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
    /// Bits flipped, by kind of file.
    pub flipped: BTreeMap<rot::Kind, u64>,
    /// Faults that keep a node down.
    holds: [usize; NODES],
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

impl Active {
    /// Whether there was something to hit.
    pub fn is_in_effect(&self) -> bool {
        self.nodes.is_some()
    }
}

impl Nemesis {
    /// Nothing is broken yet.
    pub fn new(cluster: Cluster, trace: Trace) -> Self {
        Self {
            cluster,
            trace,
            counts: BTreeMap::new(),
            flipped: BTreeMap::new(),
            holds: [0; NODES],
            serial: 0,
        }
    }

    /// Injects a fault.
    pub async fn inject(&mut self, shot: &Shot, victim: usize) -> Outcome<Active> {
        self.serial += 1;
        let name = format!("f{}", self.serial);
        let effect = self.do_inject(shot, victim, &name).await?;
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
        let (shot, name) = (active.shot.clone(), active.name.clone());
        let is_over = || Note::Heal { name: name.clone() };
        // A node that was isolated may ack from the moment that it no longer is.
        let is_isolation = history_class(shot.class) == FaultClass::Isolate;
        if active.nodes.is_some() && is_isolation {
            self.cluster.view.note(is_over())?;
        }
        self.do_heal(&active).await?;
        if active.nodes.is_some() && !is_isolation {
            self.cluster.view.note(is_over())?;
        }
        self.trace
            .line(&format!("{name} {}: over", shot.class.name()))
    }

    /// Keeps a node down until [`Nemesis::release`].
    fn hold(&mut self, node: usize) {
        self.holds[node] += 1;
    }

    /// Takes a hold away from a node that runs.
    fn unhold(&mut self, node: usize) {
        self.holds[node] -= 1;
    }

    /// Takes a hold away from each of these nodes, starts those that nothing keeps down any more, and waits
    /// for their first answers.
    async fn release(&mut self, nodes: &[usize]) -> Outcome {
        let mut started = Vec::new();
        for node in nodes {
            self.unhold(*node);
            if self.holds[*node] == 0 && self.cluster.start_if_down(*node)? {
                started.push(*node);
            }
        }
        for node in started {
            self.cluster.nodes[node]
                .await_answer(ANSWER_PATIENCE)
                .await?;
        }
        Ok(())
    }

    /// Counts flipped bits.
    fn flips(&mut self, kind: rot::Kind, count: u64) {
        *self.flipped.entry(kind).or_default() += count;
    }

    async fn do_inject(&mut self, shot: &Shot, victim: usize, name: &str) -> Outcome<Effect> {
        let dice = shot.dice;
        match shot.class {
            Class::Kill => kill::inject(self, &[victim]).await,
            Class::KillAll => kill::inject(self, &all_from(victim)).await,
            Class::Freeze => freeze::inject(self, victim),
            Class::Restart => restart::inject(self, victim).await,
            Class::Isolate => network::isolate(victim, name).await,
            Class::OneWay => network::one_way(victim, name, dice).await,
            Class::Ring => network::ring(victim, name, dice).await,
            Class::Loss => network::lose(victim, name, dice).await,
            Class::SlowLink => network::slow(victim, dice).await,
            Class::Reorder => network::reorder(victim, name, dice).await,
            Class::DropSockets => network::drop_sockets(self, victim).await,
            Class::PowerCut => power::inject(self, &[victim], dice).await,
            Class::PowerCutTwo => power::inject(self, &two_from(victim), dice).await,
            Class::PowerCutAll => power::inject(self, &all_from(victim), dice).await,
            Class::PowerCutTorn => power::inject_torn(self, victim, dice).await,
            Class::DiskFull => disk::fill(self, victim, dice).await,
            Class::SlowDisk => disk::slow(self, victim, dice).await,
            Class::DiskError => disk::fail(self, victim, dice).await,
            Class::Wipe => disk::wipe(self, victim).await,
            Class::Clock => clock::inject(self, victim, (dice, name)).await,
            Class::Rot(kind) => rot::inject(self, victim, (kind, dice)).await,
            Class::Transfer => transfer::inject(self, victim, dice).await,
        }
    }

    async fn do_heal(&mut self, active: &Active) -> Outcome {
        let (victim, name) = (active.victim, active.name.as_str());
        let is_in_effect = active.nodes.is_some();
        match active.shot.class {
            Class::Kill | Class::DiskError | Class::Wipe if !self.is_held(victim) => Ok(()),
            Class::Kill | Class::DiskError | Class::Wipe => self.release(&[victim]).await,
            Class::KillAll => self.release(&all_from(victim)).await,
            Class::Freeze => freeze::heal(self, victim),
            Class::Isolate | Class::OneWay | Class::Ring | Class::Loss => {
                network::unfilter(name).await
            }
            Class::SlowLink => network::unslow(victim).await,
            Class::Reorder => {
                network::unfilter(name).await?;
                network::unslow(victim).await
            }
            Class::PowerCut | Class::PowerCutTorn if is_in_effect => {
                power::heal(self, &[victim]).await
            }
            Class::PowerCutTwo if is_in_effect => power::heal(self, &two_from(victim)).await,
            Class::PowerCutAll if is_in_effect => power::heal(self, &all_from(victim)).await,
            Class::DiskFull => disk::free(self, victim).await,
            Class::SlowDisk => disk::unslow(victim).await,
            Class::Clock => clock::heal(self, victim).await,
            Class::Rot(kind) => rot::heal(self, victim, kind).await,
            // The others are over when they have been injected.
            _ => Ok(()),
        }
    }

    fn is_held(&self, node: usize) -> bool {
        self.holds[node] > 0
    }
}

/// All nodes, beginning with one.
fn all_from(first: usize) -> Vec<usize> {
    (0..NODES).map(|step| (first + step) % NODES).collect()
}

/// A node and the next.
fn two_from(first: usize) -> Vec<usize> {
    vec![first, (first + 1) % NODES]
}

/// Says which package has a program that is missing.
fn needs(program: &str, package: &str) -> Result<(), String> {
    if crate::shell::exists(program) {
        return Ok(());
    }
    Err(format!("{program} is missing (Debian package {package})"))
}

/// Takes away what a run that was killed may have left: control groups belong to no namespace.
pub async fn clean_up() -> Outcome {
    for node in 0..NODES {
        disk::unslow(node).await?;
    }
    Ok(())
}

/// Why a class cannot be injected on this machine.
pub fn probe(class: Class) -> Result<(), String> {
    match class {
        Class::Kill | Class::KillAll | Class::Freeze | Class::Restart => Ok(()),
        Class::Transfer => Ok(()),
        Class::Isolate | Class::OneWay | Class::Ring | Class::Loss => network::probe_filter(),
        Class::SlowLink | Class::DropSockets => network::probe_iproute(),
        Class::Reorder => network::probe_filter().and_then(|()| network::probe_iproute()),
        Class::PowerCut | Class::PowerCutTwo | Class::PowerCutAll => needs("xfs_io", "xfsprogs"),
        Class::PowerCutTorn => {
            needs("xfs_io", "xfsprogs")?;
            needs("strace", "strace")
        }
        Class::DiskError => needs("strace", "strace"),
        Class::SlowDisk => disk::probe_slow(),
        Class::DiskFull | Class::Wipe => needs("mkfs.ext4", "e2fsprogs"),
        Class::Clock => Node::probe_clock(),
        Class::Rot(_) => Ok(()),
    }
}

fn history_class(class: Class) -> FaultClass {
    match class {
        Class::Kill | Class::KillAll | Class::Restart | Class::Transfer => FaultClass::Kill,
        Class::Freeze => FaultClass::Pause,
        Class::Isolate => FaultClass::Isolate,
        Class::OneWay | Class::Ring | Class::Loss => FaultClass::Network,
        Class::SlowLink | Class::Reorder | Class::DropSockets => FaultClass::Network,
        Class::PowerCut | Class::PowerCutTwo => FaultClass::PowerCut,
        Class::PowerCutAll | Class::PowerCutTorn => FaultClass::PowerCut,
        Class::DiskFull | Class::SlowDisk => FaultClass::DiskPressure,
        Class::DiskError => FaultClass::DiskFailure,
        Class::Wipe => FaultClass::Membership,
        Class::Clock => FaultClass::Clock,
        Class::Rot(_) => FaultClass::Rot,
    }
}
