//! Damaged records come back from the other nodes (ADR 10).
//!
//! A hole is filled record by record, from any node that has the hole's last record: by log matching it has
//! the same bytes before it. Nobody needs to lead for that, so two replicas that are damaged in different
//! places mend each other.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use gantry_storage::LogIndex;
use gantry_storage::commitlog::{CommitLog, Hole, LeaderTag, MendError, Withheld};
use tokio::sync::{Notify, oneshot, watch};
use tokio::time::Instant;

use crate::aside::aside;
use crate::network::{Method, Peers};
use crate::replica::Shared;
use crate::types::{DecodeError, GroupId, NodeNumber};

/// Records that travel in one answer, unless a single one is larger.
const ANSWER_BYTES: usize = 1 << 20;
const ASK_TIMEOUT: Duration = Duration::from_secs(5);
/// Pause after a round in which nobody could help.
pub(crate) const RETRY_INTERVAL: Duration = Duration::from_millis(200);
pub(crate) const REPORT_INTERVAL: Duration = Duration::from_secs(5);
/// A damaged replica leaves elections to others for this long.
const CAMPAIGN_AFTER: Duration = Duration::from_secs(3);

/// What a peer is asked for: the record in front of the hole, and the last one in it.
type Wanted = (Option<(LogIndex, LeaderTag)>, (LogIndex, LeaderTag));

const STATUS_RECORDS: u8 = 0;
const STATUS_DAMAGED: u8 = 1;
const STATUS_PURGED: u8 = 2;
const STATUS_UNKNOWN: u8 = 3;
const STATUS_REFUTED: u8 = 4;

/// Why a node did not help.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoHelp {
    /// It did not answer.
    Silent,
    /// It has not got the records.
    Withheld(Withheld),
}

/// What came of asking all nodes about all holes once.
#[derive(Debug, Default)]
pub(crate) struct Round {
    /// Records that are there again.
    pub(crate) mended: u64,
    /// Per hole that nobody could fill, what the nodes said.
    pub(crate) stuck: Vec<(Hole, BTreeMap<NodeNumber, NoHelp>)>,
}

/// The last word of each node about each hole, by the hole's last record.
pub(crate) type Words = BTreeMap<(LogIndex, NodeNumber), NoHelp>;

impl Round {
    /// A node that has said that it cannot help, and is silent now, has most likely stopped for that reason.
    pub(crate) fn remember(&mut self, words: &mut Words) {
        for (hole, said) in &mut self.stuck {
            for (node, word) in said {
                let key = (hole.last.0, *node);
                match word {
                    NoHelp::Silent => *word = words.get(&key).copied().unwrap_or(NoHelp::Silent),
                    NoHelp::Withheld(_) => drop(words.insert(key, *word)),
                }
            }
        }
    }

    /// A hole that no node can fill any more, as all of them have answered.
    pub(crate) fn hopeless(&self) -> Option<&Hole> {
        let gone =
            |no: &NoHelp| matches!(no, NoHelp::Withheld(Withheld::Damaged | Withheld::Purged));
        let stuck = self.stuck.iter();
        let mut hopeless = stuck.filter(|(_, said)| !said.is_empty() && said.values().all(gone));
        hopeless.next().map(|(hole, _)| hole)
    }

    /// A hole in records that nobody can give because others have retired them: they are of no more use.
    pub(crate) fn retired(&self) -> Option<&Hole> {
        let hopeless = self.hopeless()?;
        let purged = NoHelp::Withheld(Withheld::Purged);
        let mut stuck = self.stuck.iter();
        let (_, said) = stuck.find(|(hole, _)| hole == hopeless)?;
        said.values().any(|no| *no == purged).then_some(hopeless)
    }

    /// A hole in records that were never agreed on, and never will be.
    pub(crate) fn refuted(&self) -> Option<&Hole> {
        let refuted = NoHelp::Withheld(Withheld::Refuted);
        let stuck = self.stuck.iter();
        let mut found = stuck.filter(|(_, said)| said.values().any(|no| *no == refuted));
        found.next().map(|(hole, _)| hole)
    }
}

/// Answers a peer that asks for records.
pub(crate) async fn answer(log: CommitLog, body: Bytes) -> Result<Vec<Bytes>, String> {
    let decoded: Result<Wanted, _> = bincode::deserialize(&body);
    let (before, last) = decoded.map_err(|e| DecodeError::new("records", e).to_string())?;
    let reading = aside(move || log.records_for(before, last, ANSWER_BYTES));
    let status = |status: u8| Bytes::copy_from_slice(&[status]);
    Ok(match reading.await.map_err(|error| error.to_string())? {
        Ok(records) => vec![status(STATUS_RECORDS), records],
        Err(Withheld::Damaged) => vec![status(STATUS_DAMAGED)],
        Err(Withheld::Purged) => vec![status(STATUS_PURGED)],
        Err(Withheld::Unknown) => vec![status(STATUS_UNKNOWN)],
        Err(Withheld::Refuted) => vec![status(STATUS_REFUTED)],
    })
}

/// One log that is being mended.
pub(crate) struct Mender<'a> {
    pub(crate) log: &'a CommitLog,
    /// The log is open and has a writer.
    pub(crate) open: bool,
    pub(crate) peers: &'a Peers,
    pub(crate) group: GroupId,
}

impl Mender<'_> {
    /// Asks every node about every hole, until each is filled or nobody helps.
    ///
    /// # Errors
    /// The disk does not take the records.
    pub(crate) async fn round(&self) -> Result<Round, MendError> {
        let mut round = Round::default();
        for hole in self.log.holes() {
            let mut hole = Some(hole);
            while let Some(rest) = hole {
                match self.fill_some(&rest).await? {
                    Ok(records) => {
                        round.mended += records.max(1);
                        let holes = self.log.holes();
                        hole = holes.into_iter().find(|left| left.last == rest.last);
                    }
                    Err(said) => {
                        round.stuck.push((rest, said));
                        hole = None;
                    }
                }
            }
        }
        Ok(round)
    }

    async fn fill_some(
        &self,
        hole: &Hole,
    ) -> Result<Result<u64, BTreeMap<NodeNumber, NoHelp>>, MendError> {
        if hole.is_filler() {
            return self.fill(hole, Bytes::new()).await.map(Ok);
        }
        let mut said = BTreeMap::new();
        for node in self.peers.others() {
            match self.ask(node, hole).await {
                Ok(records) => match self.fill(hole, records).await {
                    Ok(count) => return Ok(Ok(count)),
                    // Cut off in the meantime.
                    Err(MendError::Gone) => return Ok(Ok(0)),
                    Err(MendError::Foreign(reason)) => {
                        tracing::warn!(node, reason, "a peer's records do not fit");
                        said.insert(node, NoHelp::Withheld(Withheld::Unknown));
                    }
                    Err(error) => return Err(error),
                },
                Err(no_help) => drop(said.insert(node, no_help)),
            }
        }
        Ok(Err(said))
    }

    async fn ask(&self, node: NodeNumber, hole: &Hole) -> Result<Bytes, NoHelp> {
        let wanted: Wanted = (hole.before, hole.last);
        let body = bincode::serialize(&wanted).expect("plain fields always encode");
        let deadline = Instant::now() + ASK_TIMEOUT;
        let method = (self.group, Method::RECORDS);
        let asked = self.peers.fetch(node, method, vec![body.into()], deadline);
        let answer = asked.await.map_err(|_| NoHelp::Silent)?;
        Err(NoHelp::Withheld(match answer.first() {
            Some(&STATUS_RECORDS) => return Ok(answer.slice(1..)),
            Some(&STATUS_DAMAGED) => Withheld::Damaged,
            Some(&STATUS_PURGED) => Withheld::Purged,
            Some(&STATUS_REFUTED) => Withheld::Refuted,
            _ => Withheld::Unknown,
        }))
    }

    async fn fill(&self, hole: &Hole, records: Bytes) -> Result<u64, MendError> {
        let (log, hole) = (self.log.clone(), *hole);
        if !self.open {
            let filling = aside(move || log.fill_unopened(&hole, &records));
            return filling.await.expect("filling a hole does not panic");
        }
        let (tell, told) = oneshot::channel();
        log.fill(hole, records, Box::new(move |done| drop(tell.send(done))));
        // A writer that went away answers everything that is queued.
        told.await.unwrap_or(Err(MendError::Gone))
    }
}

/// Is notified when damage is found.
pub(crate) fn observe(log: &CommitLog) -> Arc<Notify> {
    let found: Arc<Notify> = Arc::default();
    let notify = found.clone();
    log.observe_damage(Box::new(move || notify.notify_one()));
    found
}

/// Mends what is found damaged while the replica runs. It votes and acknowledges meanwhile, because that is
/// about log ids, which a hole does not change; it does not campaign at first, because a leader that
/// misses records may have to wait for them.
pub(crate) async fn run(shared: Arc<Shared>, found: Arc<Notify>, tell: watch::Sender<u64>) {
    let mender = Mender {
        log: &shared.log,
        open: true,
        peers: &shared.peers,
        group: shared.group,
    };
    let elections = shared.raft.runtime_config();
    loop {
        if shared.log.holes().is_empty() {
            elections.elect(true);
            found.notified().await;
            continue;
        }
        elections.elect(false);
        let began = Instant::now();
        let stuck = || {
            if began.elapsed() >= CAMPAIGN_AFTER {
                elections.elect(true);
            }
        };
        until_whole(&mender, &shared.name, &tell, stuck).await;
    }
}

/// Waits for Raft to start, and mends what is found damaged meanwhile: Raft reads parts of the log first and
/// waits for them, and until it has started nobody else mends.
pub(crate) async fn beside_start<R>(
    starting: impl Future<Output = R>,
    mender: Mender<'_>,
    name: &str,
    (found, tell): (&Notify, &watch::Sender<u64>),
) -> R {
    let mending = async {
        loop {
            if mender.log.holes().is_empty() {
                found.notified().await;
            } else {
                until_whole(&mender, name, tell, || ()).await;
            }
        }
    };
    tokio::select! {
        started = starting => started,
        never = mending => never,
    }
}

/// Returns when the log has no hole left. `stuck` is called after each round in which one stayed.
async fn until_whole(mender: &Mender<'_>, name: &str, tell: &watch::Sender<u64>, stuck: impl Fn()) {
    let mut reported: Option<Instant> = None;
    while !mender.log.holes().is_empty() {
        let round = match mender.round().await {
            Ok(round) => round,
            Err(error) => {
                // The log is closed, or the disk is unfit: the fence stays.
                tracing::error!(group = name, %error, "damaged records cannot be mended");
                tokio::time::sleep(REPORT_INTERVAL).await;
                continue;
            }
        };
        if round.mended > 0 {
            tracing::info!(group = name, records = round.mended, "mended");
            tell.send_modify(|times| *times += 1);
        }
        if round.stuck.is_empty() {
            continue;
        }
        if reported.is_none_or(|at| at.elapsed() >= REPORT_INTERVAL) {
            report(name, &round);
            reported = Some(Instant::now());
        }
        stuck();
        tokio::time::sleep(RETRY_INTERVAL).await;
    }
    // Also when a cut took the holes along.
    tell.send_modify(|times| *times += 1);
}

/// Says what is waited for, and what to do if that is in vain.
pub(crate) fn report(group: &str, round: &Round) {
    for (hole, said) in &round.stuck {
        let (first, last) = (hole.first(), hole.last.0);
        if round.hopeless().is_some_and(|hopeless| hopeless == hole) {
            tracing::error!(
                group,
                %first,
                %last,
                "these records are damaged on every node, or gone: they stay fenced. Restore the segment \
                 file that has them from a copy, on any one node; see docs/operations.md"
            );
        } else {
            tracing::warn!(group, %first, %last, ?said, "damaged records wait for a node that has them");
        }
    }
}
