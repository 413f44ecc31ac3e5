//! What goes wrong, when, and for how long.
//!
//! Chance decides, within what the broker promises to stand: every node may die, and all may at once, but
//! only one disk is lost until the one who lost it is a full member again, and a bit flips only where there
//! is a second source.

mod strikes;

use gantry_checker::Note;
use gantry_checker::event::FaultClass;
use gantry_raft::NodeNumber;
use gantry_storage::testing::AccessKind;

use crate::cluster::{NODES, Surroundings, Trouble};
use crate::disk::Plight;
use crate::machine::{Condition, Machine, name_of};
use crate::rng::Rng;
use crate::world::are_members;
use strikes::Strike;

const MS: u64 = 1_000_000;

/// A way between two machines.
type Way = (NodeNumber, NodeNumber);

/// A fault in effect.
struct Active {
    name: String,
    ends: Ends,
    /// Ways to mend.
    ways: Vec<Way>,
    /// Disks to mend.
    disks: Vec<NodeNumber>,
}

/// When a fault is over.
#[derive(Clone, Debug)]
enum Ends {
    At(u64),
    /// When these nodes answer again.
    Answering(Vec<NodeNumber>),
    /// When all nodes are members again.
    Rejoined,
}

/// The hand that makes things go wrong.
pub struct Faults {
    around: Surroundings,
    rng: Rng,
    troubles: Vec<Trouble>,
    active: Vec<Active>,
    /// What follows a fault, and when.
    strikes: Vec<(u64, Strike)>,
    /// The machine whose log rots.
    rotting: Option<NodeNumber>,
    next_at: u64,
    /// Nothing new after this.
    until: u64,
    count: u64,
}

impl Faults {
    /// Faults until a time, beginning when the group has had a moment to form.
    pub fn new(around: &Surroundings, until: u64) -> Self {
        let mut rng = Rng::new(around.seed, "faults");
        Faults {
            around: around.clone(),
            next_at: rng.between(500, 2_500) * MS,
            rng,
            troubles: around.shape.troubles.iter().copied().collect(),
            active: Vec::new(),
            strikes: Vec::new(),
            rotting: None,
            until,
            count: 0,
        }
    }

    /// Ends what is over and begins what is due.
    pub fn step(&mut self, now: u64, machines: &mut [Machine]) {
        let over = |active: &Active| match &active.ends {
            Ends::At(at) => now >= *at,
            Ends::Answering(nodes) => nodes.iter().all(|node| {
                let machine = &machines[usize::from(*node) - 1];
                machine.condition == Condition::Runs && machine.router().is_some()
            }),
            Ends::Rejoined => are_members(machines),
        };
        let over: Vec<usize> = (0..self.active.len())
            .filter(|at| over(&self.active[*at]))
            .collect();
        for at in over.into_iter().rev() {
            self.end(at, machines);
        }
        self.strike_again(now, machines);
        self.aim(now, machines);
        if now >= self.next_at && now < self.until && !self.troubles.is_empty() {
            let mean = self.around.shape.fault_every_ms;
            self.next_at = now + self.rng.between(mean / 4, 2 * mean) * MS;
            let trouble = *self.rng.pick(&self.troubles);
            self.begin(trouble, now, machines);
        }
    }

    /// Ends everything: from here on all must become well. What only time can mend goes on until it has.
    pub fn heal(&mut self, now: u64, machines: &mut [Machine]) {
        self.until = 0;
        self.strikes.clear();
        for at in (0..self.active.len()).rev() {
            if matches!(self.active[at].ends, Ends::At(_)) {
                self.end(at, machines);
            }
        }
        for machine in machines {
            machine.disk.set_plight(Plight::default());
            match &mut machine.condition {
                Condition::Down { until } | Condition::Frozen { until } => *until = now,
                Condition::Runs => {}
            }
        }
    }

    /// The whole cluster loses its power, at a quiet time.
    pub fn cut_all_power(&mut self, now: u64, machines: &mut [Machine]) {
        self.power_cut(now, &NODES, machines);
    }

    /// Whether something is still wrong.
    pub fn is_quiet(&self) -> bool {
        self.active.is_empty()
    }

    /// How many faults there were.
    pub fn count(&self) -> u64 {
        self.count
    }

    fn begin(&mut self, trouble: Trouble, now: u64, machines: &mut [Machine]) {
        let node = self.victim();
        match trouble {
            Trouble::Kill => self.kill(now, node, machines),
            Trouble::PowerCut => {
                let nodes: Vec<NodeNumber> = match self.rng.below(10) {
                    0..2 => NODES.to_vec(),
                    2..4 => NODES.iter().copied().filter(|n| *n != node).collect(),
                    _ => vec![node],
                };
                self.power_cut(now, &nodes, machines);
            }
            Trouble::Isolate => self.isolate(now, node),
            Trouble::Cut => self.cut(now, node),
            Trouble::Slow => self.slow(now, node),
            Trouble::Break => {
                let (one, other) = self.pair(node);
                self.around.net.break_one(one, other);
            }
            Trouble::Freeze => {
                let machine = &mut machines[usize::from(node) - 1];
                if machine.condition == Condition::Runs {
                    let until = now + self.rng.between(100, 3_000) * MS;
                    machine.freeze(until);
                    self.note(FaultClass::Pause, &[node], Ends::At(until));
                }
            }
            Trouble::Clock => {
                let offset = self.rng.between(0, 7_200_000) as i64 - 3_600_000;
                machines[usize::from(node) - 1].time.set_offset_ms(offset);
                self.note(FaultClass::Clock, &[node], Ends::At(now));
            }
            Trouble::DiskFailure | Trouble::DiskFull | Trouble::DiskStall => {
                self.afflict(trouble, now, &machines[usize::from(node) - 1]);
            }
            Trouble::Rot | Trouble::RotLog | Trouble::RotDerived => {
                self.rot(trouble, now, (node, &*machines));
            }
            Trouble::Wipe => self.wipe(now, node, machines),
            Trouble::HandOver => hand_over(machines),
            Trouble::Relapse => self.relapse(now, machines),
            Trouble::LastCopy => self.leave_one_copy(now, machines),
        }
    }

    /// The leader in half of the cases.
    fn victim(&mut self) -> NodeNumber {
        let leader = NODES.iter().copied().find(|node| self.around.leads(*node));
        let any = *self.rng.pick(&NODES);
        leader.filter(|_| self.rng.per_mille(500)).unwrap_or(any)
    }

    fn pair(&mut self, one: NodeNumber) -> Way {
        let others: Vec<NodeNumber> = NODES.iter().copied().filter(|n| *n != one).collect();
        (one, *self.rng.pick(&others))
    }

    fn kill(&mut self, now: u64, node: NodeNumber, machines: &mut [Machine]) {
        let machine = &mut machines[usize::from(node) - 1];
        if matches!(machine.condition, Condition::Down { .. }) {
            return;
        }
        machine.kill(now + self.rng.between(50, 2_500) * MS);
        self.note(FaultClass::Kill, &[node], Ends::Answering(vec![node]));
    }

    fn power_cut(&mut self, now: u64, nodes: &[NodeNumber], machines: &mut [Machine]) {
        for node in nodes {
            let until = now + self.rng.between(200, 3_000) * MS;
            machines[usize::from(*node) - 1].cut_power(until);
        }
        self.note(FaultClass::PowerCut, nodes, Ends::Answering(nodes.to_vec()));
    }

    fn isolate(&mut self, now: u64, node: NodeNumber) {
        let others = NODES.iter().copied().filter(|other| *other != node);
        let ways = others.flat_map(|other| [(node, other), (other, node)]);
        let ways: Vec<Way> = ways.collect();
        for (from, to) in &ways {
            self.around.net.cut(*from, *to);
        }
        let ends = Ends::At(now + self.rng.between(300, 4_000) * MS);
        self.note(FaultClass::Isolate, &[node], ends).ways = ways;
    }

    /// One direction, or both: then the two reach each other only through the third.
    fn cut(&mut self, now: u64, node: NodeNumber) {
        let (from, to) = self.pair(node);
        let ways = match self.rng.per_mille(500) {
            true => vec![(from, to)],
            false => vec![(from, to), (to, from)],
        };
        for (from, to) in &ways {
            self.around.net.cut(*from, *to);
        }
        let ends = Ends::At(now + self.rng.between(300, 5_000) * MS);
        self.note(FaultClass::Network, &[from, to], ends).ways = ways;
    }

    fn slow(&mut self, now: u64, node: NodeNumber) {
        let (from, to) = self.pair(node);
        let delay_us = *self.rng.pick(&[20_000, 100_000, 400_000]);
        self.around.net.slow_down(from, to, delay_us);
        let ends = Ends::At(now + self.rng.between(500, 5_000) * MS);
        self.note(FaultClass::Network, &[from, to], ends).ways = vec![(from, to)];
    }

    fn afflict(&mut self, trouble: Trouble, now: u64, machine: &Machine) {
        let mut plight = machine.disk.plight();
        match trouble {
            Trouble::DiskFull => {
                plight.full = true;
                let ends = Ends::At(now + self.rng.between(300, 4_000) * MS);
                let active = self.note(FaultClass::DiskPressure, &[machine.node], ends);
                active.disks = vec![machine.node];
            }
            Trouble::DiskStall => {
                let longest = *self.rng.pick(&[300, 2_000, 10_000]);
                let ms = self.rng.between(longest / 3, longest);
                plight.stalls_ms = Some(ms);
                let ends = Ends::At(now + ms * MS);
                self.note(FaultClass::DiskPressure, &[machine.node], ends);
            }
            _ => {
                // It is written down as a fault when it happens.
                let kinds = [
                    AccessKind::Sync,
                    AccessKind::Sync,
                    AccessKind::Write,
                    AccessKind::Read,
                    AccessKind::Allocate,
                    AccessKind::Name,
                ];
                plight.fails = Some(*self.rng.pick(&kinds));
                self.count += 1;
            }
        }
        machine.disk.set_plight(plight);
    }

    fn rot(&mut self, trouble: Trouble, now: u64, (node, machines): (NodeNumber, &[Machine])) {
        // Of a log's copies only one rots, whoever the victim would be.
        let node = match trouble {
            Trouble::RotLog => *self.rotting.get_or_insert(node),
            _ => node,
        };
        let machine = &machines[usize::from(node) - 1];
        let flipped = match trouble {
            Trouble::RotLog => machine.disk.rot_log(),
            Trouble::RotDerived => machine.disk.rot_derived(),
            _ => {
                // A second slot is one source: not where the other may be torn or lost, or where what a lost
                // mark vouched for may be damaged.
                let others = [
                    Trouble::PowerCut,
                    Trouble::DiskFailure,
                    Trouble::Relapse,
                    Trouble::LastCopy,
                    Trouble::RotLog,
                ];
                let slots = !others.iter().any(|one| self.troubles.contains(one));
                machine.disk.rot(slots)
            }
        };
        if flipped {
            self.note(FaultClass::Rot, &[node], Ends::At(now));
        }
    }

    fn wipe(&mut self, now: u64, node: NodeNumber, machines: &mut [Machine]) {
        if self.is_quiet() && are_members(machines) {
            self.lose_disk(now, &mut machines[usize::from(node) - 1]);
        }
    }

    fn lose_disk(&mut self, now: u64, machine: &mut Machine) {
        machine.cut_power(now + self.rng.between(200, 2_000) * MS);
        machine.disk.fs().wipe();
        self.note(FaultClass::Membership, &[machine.node], Ends::Rejoined);
        // Another disk must not be lost before this one is back, and it will not be: one is enough.
        self.troubles
            .retain(|trouble| ![Trouble::Wipe, Trouble::LastCopy].contains(trouble));
    }

    /// A fault has taken effect.
    fn note(&mut self, class: FaultClass, nodes: &[NodeNumber], ends: Ends) -> &mut Active {
        self.count += 1;
        let name = format!("{class:?} {}", self.count);
        self.around.history.note(Note::Fault {
            name: name.clone(),
            class,
            nodes: nodes.iter().map(|node| name_of(*node)).collect(),
        });
        self.active.push(Active {
            name,
            ends,
            ways: Vec::new(),
            disks: Vec::new(),
        });
        self.active.last_mut().expect("it was just put there")
    }

    fn end(&mut self, at: usize, machines: &mut [Machine]) {
        let ended = self.active.remove(at);
        let name = ended.name;
        self.around.history.note(Note::Heal { name });
        for way in ended.ways {
            // Another fault may hold the same way.
            if !self.active.iter().any(|other| other.ways.contains(&way)) {
                self.around.net.heal(way.0, way.1);
            }
        }
        for node in ended.disks {
            let disk = &machines[usize::from(node) - 1].disk;
            disk.set_plight(Plight {
                full: false,
                ..disk.plight()
            });
        }
    }
}

/// The leader gives its place to another.
fn hand_over(machines: &[Machine]) {
    for machine in machines {
        if let Some(group) = machine.group().filter(|group| group.leads()) {
            let replica = group.replica.clone();
            machine.spawn(async move { replica.hand_over().await });
        }
    }
}
