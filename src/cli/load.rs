//! The load of the failover demonstration: synchronous producers without pause, and the proof afterwards
//! that each acknowledged message is where its acknowledgement says.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::task::JoinSet;

use super::failure::Failure;
use crate::client::{Acked, Client, ClientError, Outgoing, Producer, Pulled, QueueAt};

const READ_DEADLINE: Duration = Duration::from_secs(30);
const RETRY_PAUSE: Duration = Duration::from_millis(100);
const FAILURE_PAUSE: Duration = Duration::from_millis(10);
const PROBE_PAUSE: Duration = Duration::from_millis(2);
/// A group that takes this long has not failed over.
const PROBE_DEADLINE: Duration = Duration::from_secs(30);

/// What all producers share.
#[derive(Default)]
struct Shared {
    next_number: AtomicU64,
    acked: AtomicU64,
    failed: AtomicU64,
    stopping: AtomicBool,
}

/// Producers under way.
pub(super) struct Load {
    producer: Arc<Producer>,
    shared: Arc<Shared>,
    tasks: JoinSet<Share>,
    /// Acknowledgements outside of the producers, by the probe.
    probed: Vec<(u64, Acked)>,
}

/// What one producer has to report.
#[derive(Default)]
struct Share {
    acked: Vec<(u64, Acked)>,
    longest_gap: Duration,
    first_failure: Option<String>,
}

/// What all producers have to report.
pub(super) struct Report {
    /// Number and place of each acknowledged message.
    pub(super) acked: Vec<(u64, Acked)>,
    /// Sends that were given up.
    pub(super) failed: u64,
    /// The longest that a producer waited from one acknowledgement to the next.
    pub(super) longest_gap: Duration,
    /// Why the first failed send failed.
    pub(super) first_failure: Option<String>,
}

impl Load {
    /// Starts so many producers.
    pub(super) fn start(client: Arc<Client>, topic: &str, producers: usize) -> Load {
        let producer = Arc::new(Producer::new(client, topic));
        let shared = Arc::new(Shared::default());
        let mut tasks = JoinSet::new();
        for _ in 0..producers {
            tasks.spawn(produce(Arc::clone(&producer), Arc::clone(&shared)));
        }
        Load {
            producer,
            shared,
            tasks,
            probed: Vec::new(),
        }
    }

    /// Acknowledged and failed so far.
    pub(super) fn counts(&self) -> (u64, u64) {
        (
            self.shared.acked.load(Ordering::Relaxed),
            self.shared.failed.load(Ordering::Relaxed),
        )
    }

    /// Sends to one group by fresh routes until it acknowledges; returns how long after `since` that was.
    ///
    /// The producers cannot tell: they ask for routes every 30 s, as stock ones do, and until then avoid
    /// the group's old leader by sending to other groups.
    pub(super) async fn probe(&mut self, group: &str, since: Instant) -> Result<Duration, Failure> {
        let number = self.shared.next_number.fetch_add(1, Ordering::Relaxed);
        loop {
            let error = match self.producer.send_once_to(group, &message(number)).await {
                Ok(acked) => {
                    let gap = since.elapsed();
                    self.probed.push((number, acked));
                    return Ok(gap);
                }
                Err(error) => error,
            };
            if since.elapsed() > PROBE_DEADLINE {
                let seconds = PROBE_DEADLINE.as_secs();
                return Err(Failure::new(format!(
                    "{group} takes no writes after {seconds} s: {error}"
                )));
            }
            tokio::time::sleep(PROBE_PAUSE).await;
        }
    }

    /// Lets every producer finish its send, and adds up.
    pub(super) async fn finish(mut self) -> Report {
        self.shared.stopping.store(true, Ordering::Relaxed);
        let mut report = Report {
            acked: self.probed,
            failed: self.shared.failed.load(Ordering::Relaxed),
            longest_gap: Duration::ZERO,
            first_failure: None,
        };
        while let Some(joined) = self.tasks.join_next().await {
            let share = joined.expect("producers do not panic");
            report.acked.extend(share.acked);
            report.longest_gap = report.longest_gap.max(share.longest_gap);
            report.first_failure = report.first_failure.or(share.first_failure);
        }
        report.failed = self.shared.failed.load(Ordering::Relaxed);
        report
    }
}

fn message(number: u64) -> Outgoing {
    Outgoing {
        body: Bytes::from(format!("failover {number}")),
        ..Outgoing::default()
    }
}

async fn produce(producer: Arc<Producer>, shared: Arc<Shared>) -> Share {
    let mut share = Share::default();
    let mut last_ack: Option<Instant> = None;
    while !shared.stopping.load(Ordering::Relaxed) {
        let number = shared.next_number.fetch_add(1, Ordering::Relaxed);
        match producer.send(&message(number)).await {
            Ok(acked) => {
                let now = Instant::now();
                if let Some(last) = last_ack {
                    share.longest_gap = share.longest_gap.max(now - last);
                }
                last_ack = Some(now);
                share.acked.push((number, acked));
                shared.acked.fetch_add(1, Ordering::Relaxed);
            }
            Err(failure) => {
                shared.failed.fetch_add(1, Ordering::Relaxed);
                share
                    .first_failure
                    .get_or_insert_with(|| failure.to_string());
                // Nothing is gained by trying a thousand times a second what has failed three times.
                tokio::time::sleep(FAILURE_PAUSE).await;
            }
        }
    }
    share
}

/// Reads every queue back and counts the acknowledged messages that are not at their queue and offset.
pub(super) async fn count_lost(
    client: &Client,
    topic: &str,
    acked: &[(u64, Acked)],
) -> Result<u64, Failure> {
    let groups = client.groups().await?;
    let (expected, mut lost) = by_queue(acked);
    for ((broker, queue), offsets) in expected {
        let Some(group) = groups.iter().find(|group| group.name == broker) else {
            return Err(Failure::new(format!(
                "{broker} is no longer in the cluster"
            )));
        };
        let at = QueueAt {
            group: group.clone(),
            topic: topic.to_string(),
            queue,
            consumer: "TOOLS_CONSUMER".to_string(),
            sql: None,
        };
        lost += lost_in(client, &at, offsets).await?;
    }
    Ok(lost)
}

type Expected<'a> = BTreeMap<(&'a str, i32), BTreeMap<i64, u64>>;

/// Numbers by queue and offset. A place that was given twice has lost one of its messages.
fn by_queue(acked: &[(u64, Acked)]) -> (Expected<'_>, u64) {
    let mut expected = Expected::new();
    let mut given_twice = 0;
    for (number, place) in acked {
        let offsets = expected.entry((&place.broker, place.queue)).or_default();
        if offsets.insert(place.offset, *number).is_some() {
            given_twice += 1;
        }
    }
    (expected, given_twice)
}

async fn lost_in(
    client: &Client,
    at: &QueueAt,
    expected: BTreeMap<i64, u64>,
) -> Result<u64, Failure> {
    let (Some((first, _)), Some((last, _))) =
        (expected.first_key_value(), expected.last_key_value())
    else {
        return Ok(0);
    };
    let mut found = HashMap::new();
    let mut offset = *first;
    while offset <= *last {
        let pulled = pull_patiently(client, at, offset).await?;
        let is_end = pulled.messages.is_empty() && pulled.next <= offset;
        for message in pulled.messages {
            found.insert(message.queue_offset, message.body);
        }
        if is_end {
            break;
        }
        offset = pulled.next;
    }
    let is_lost =
        |(offset, number): &(&i64, &u64)| found.get(offset) != Some(&message(**number).body);
    Ok(expected.iter().filter(is_lost).count() as u64)
}

/// A group may just be handing leadership back to the node that came back.
async fn pull_patiently(client: &Client, at: &QueueAt, offset: i64) -> Result<Pulled, ClientError> {
    let started = Instant::now();
    loop {
        match client.pull(at, offset, Duration::ZERO).await {
            Err(error) if started.elapsed() < READ_DEADLINE => {
                tracing::debug!(%error, "reading back");
                tokio::time::sleep(RETRY_PAUSE).await;
            }
            outcome => return outcome,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_given_twice_is_a_loss() {
        let place = |offset| Acked {
            message_id: String::new(),
            unique_key: String::new(),
            broker: "a".to_string(),
            queue: 0,
            offset,
            attempts: 1,
        };
        let acked = [(1, place(0)), (2, place(1)), (3, place(1))];
        let (expected, lost) = by_queue(&acked);
        assert_eq!((expected[&("a", 0)].len(), lost), (2, 1));
    }
}
