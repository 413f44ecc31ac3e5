//! Faults that strike while another is not over yet.

use gantry_checker::event::FaultClass;
use gantry_raft::NodeNumber;

use super::{Ends, Faults, MS};
use crate::cluster::NODES;
use crate::disk::Plight;
use crate::machine::{Condition, Machine};
use crate::world::are_members;

/// What follows a fault.
pub(super) enum Strike {
    /// All processes die.
    KillAll,
    /// All machines lose their power.
    CutAllPower,
    /// The first one loses its disk, and the second one its power.
    LoseDisk(NodeNumber, NodeNumber),
}

impl Faults {
    /// Kills the leader where a step was taken at which it is to die.
    pub(super) fn aim(&mut self, now: u64, machines: &mut [Machine]) {
        if !self.around.shape.features || now >= self.until {
            return;
        }
        let steps = self.around.steps.clone();
        for step in steps.due(now) {
            let leader = NODES.iter().copied().find(|node| self.around.leads(*node));
            if let Some(leader) = leader {
                self.around
                    .trace
                    .line("world", format_args!("the leader dies at {step:?}"));
                self.kill(now, leader, machines);
            }
            steps.struck(step, leader.is_some());
        }
    }

    /// Does what is due of what was to follow.
    pub(super) fn strike_again(&mut self, now: u64, machines: &mut [Machine]) {
        let is_due = |(at, _): &mut (u64, Strike)| now >= *at;
        let due: Vec<_> = self.strikes.extract_if(.., is_due).collect();
        for (_, strike) in due {
            match strike {
                Strike::KillAll => self.kill_all(now, machines),
                Strike::CutAllPower => self.power_cut(now, &NODES, machines),
                Strike::LoseDisk(victim, other) => {
                    self.lose_disk_beside(now, (victim, other), machines);
                }
            }
        }
    }

    /// What was written and not synced outlives the processes, and then the machines do not outlive it:
    /// whoever takes what it reads for durable is wrong.
    pub(super) fn relapse(&mut self, now: u64, machines: &[Machine]) {
        let ms = self.rng.between(150, 400);
        for machine in machines {
            machine.disk.set_plight(Plight {
                stalls_ms: Some(ms),
                ..machine.disk.plight()
            });
        }
        self.note(FaultClass::DiskPressure, &NODES, Ends::At(now + ms * MS));
        let at = now + self.rng.between(50, 150) * MS;
        self.strikes.push((at, Strike::KillAll));
    }

    fn kill_all(&mut self, now: u64, machines: &mut [Machine]) {
        for machine in machines.iter_mut() {
            // The stall goes with the one who waited for it.
            machine.disk.set_plight(Plight {
                stalls_ms: None,
                ..machine.disk.plight()
            });
            if !matches!(machine.condition, Condition::Down { .. }) {
                machine.kill(now + 20 * MS);
            }
        }
        self.note(FaultClass::Kill, &NODES, Ends::Answering(NODES.to_vec()));
        let at = now + self.rng.between(30, 400) * MS;
        self.strikes.push((at, Strike::CutAllPower));
    }

    /// One follower falls behind, the other one will lose its disk: what was acked meanwhile is then on the
    /// leader alone, which goes away for a time.
    pub(super) fn leave_one_copy(&mut self, now: u64, machines: &[Machine]) {
        let leader = NODES.iter().copied().find(|node| self.around.leads(*node));
        let Some(leader) = leader.filter(|_| self.is_quiet() && are_members(machines)) else {
            return;
        };
        let (_, behind) = self.pair(leader);
        let mut others = NODES.iter().copied();
        let victim = others.find(|node| ![leader, behind].contains(node));
        let victim = victim.expect("three less two is one");
        self.isolate(now, behind);
        let until = now + self.rng.between(300, 1_500) * MS;
        let isolated = self.active.last_mut().expect("it was just begun");
        isolated.ends = Ends::At(until);
        self.strikes.push((until, Strike::LoseDisk(victim, leader)));
    }

    fn lose_disk_beside(
        &mut self,
        now: u64,
        (victim, other): (NodeNumber, NodeNumber),
        machines: &mut [Machine],
    ) {
        if !are_members(machines) {
            return;
        }
        let at = |node: NodeNumber| usize::from(node) - 1;
        self.lose_disk(now, &mut machines[at(victim)]);
        machines[at(other)].cut_power(now + self.rng.between(3_000, 6_000) * MS);
        self.note(FaultClass::PowerCut, &[other], Ends::Answering(vec![other]));
    }
}
