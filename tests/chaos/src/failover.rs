//! `chaos failover`: how long a group takes no writes when the node that leads it dies or falls silent, at
//! a part of the load that the cluster can bear. Every ack is verified like in any other run.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::faults::Nemesis;
use crate::load::{Load, Round};
use crate::net::name_of;
use crate::node::GROUPS;
use crate::random::Random;
use crate::schedule::{Class, Shot};
use crate::shell::{Outcome, failure};

/// How long the cluster's peak is measured.
const PEAK_TIME: Duration = Duration::from_secs(5);
/// Never reached by these clients.
const NO_LIMIT: u32 = 1_000_000;
/// A group that has not come back by then does not come back.
const PATIENCE: Duration = Duration::from_secs(20);
const WHOLE_PATIENCE: Duration = Duration::from_secs(60);

/// What is to be measured.
#[derive(Clone, Copy, Debug)]
pub struct Failover {
    /// How often a leader is hit.
    pub times: usize,
    /// The part of the peak that is sent.
    pub load: f64,
    /// What hits it: `kill`, `freeze` or `partition`.
    pub class: Class,
}

/// What was measured.
#[derive(Clone, Debug, Default)]
pub struct Gaps {
    /// Messages a second that the clients can send at most.
    pub peak: u64,
    /// From the hit to the first ack of a send that began after it, in milliseconds.
    pub gaps_ms: Vec<f64>,
}

impl Gaps {
    /// The value that so many percent do not exceed (nearest rank).
    pub fn percentile(&self, percent: f64) -> f64 {
        let mut sorted = self.gaps_ms.clone();
        sorted.sort_by(f64::total_cmp);
        let rank = (percent / 100.0 * sorted.len() as f64).ceil() as usize;
        sorted
            .get(rank.saturating_sub(1))
            .copied()
            .unwrap_or(f64::NAN)
    }
}

/// Hits the leaders of the groups in turn.
pub async fn measure(
    plan: Failover,
    nemesis: &mut Nemesis,
    round: &Arc<Round>,
    load: &mut Load,
) -> Outcome<Gaps> {
    let mut gaps = Gaps {
        peak: peak(round).await,
        gaps_ms: Vec::new(),
    };
    round.pace.set((gaps.peak as f64 * plan.load) as u32);
    let mut random = Random::of(round.seed, 3);
    for number in 0..plan.times {
        nemesis.cluster.await_whole(WHOLE_PATIENCE).await?;
        // The cluster puts every group back to its own node first; time is part of the load.
        sleep(Duration::from_millis(random.between(500, 1500))).await;
        load.check()?;
        let group = number % GROUPS.len();
        let Some(leader) = nemesis.cluster.view.leader_of(group) else {
            return failure(format!("nobody leads {}", GROUPS[group]));
        };
        let shot = Shot {
            class: plan.class,
            after_ms: 0,
            lasting_ms: 0,
            dice: random.next(),
        };
        round.tally.expect_ack(group, std::time::Instant::now());
        let active = nemesis.inject(&shot, leader).await?;
        let until = Instant::now() + PATIENCE;
        let gap = loop {
            match round.tally.gap() {
                Some(gap) => break gap,
                None if Instant::now() > until => {
                    return failure(format!("{} does not come back", GROUPS[group]));
                }
                None => sleep(Duration::from_millis(1)).await,
            }
        };
        let gap_ms = gap.as_secs_f64() * 1000.0;
        let (group, leader) = (GROUPS[group], name_of(leader));
        nemesis.trace.line(&format!(
            "{group}, led by {leader}, acks again after {gap_ms:.1} ms"
        ))?;
        gaps.gaps_ms.push(gap_ms);
        nemesis.heal(active).await?;
    }
    nemesis.cluster.await_whole(WHOLE_PATIENCE).await?;
    Ok(gaps)
}

/// Messages a second when the clients send as fast as they can.
async fn peak(round: &Arc<Round>) -> u64 {
    round.pace.set(NO_LIMIT);
    sleep(Duration::from_secs(1)).await;
    let (before, started) = (round.tally.acked_in_all(), Instant::now());
    sleep(PEAK_TIME).await;
    let acked = round.tally.acked_in_all() - before;
    (acked as f64 / started.elapsed().as_secs_f64()) as u64
}
