//! What went in and out of a group, as tools ask for it: readings of its counters are taken here, and the
//! counts of all nodes are put together. A send counts where its leader is, a pull at the node that
//! answers it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use gantry_protocol::ResponseCode;
use gantry_protocol::bodies::{CounterStats, CounterWindow};
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;
use tokio::time::{Instant, interval};

use crate::broker::Broker;
use crate::clock::WallClock;
use crate::error::Failure;
use crate::group::Group;
use crate::metrics::{READ_INTERVAL, Span, Way};
use crate::peer_calls::{Method, decode_reply, encode_reply};

const DAY_MS: u64 = 24 * 3600 * 1000;

/// How long other nodes' counts are waited for. Those of a node that does not answer are missing.
const PEER_WAIT: Duration = Duration::from_millis(500);

/// A counter: RocketMQ's name of what is counted, and of what it is counted for.
pub type Item = (String, String);

/// A count over the last minute, hour and day.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Counts([Count; 3]);

#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Count {
    sum: u64,
    calls: u64,
    per_second: f64,
}

impl Counts {
    fn of(spans: [Span; 3], amount: impl Fn(&Span) -> u64) -> Self {
        Counts(spans.map(|span| Count {
            sum: amount(&span),
            calls: span.calls,
            per_second: span.per_second(amount(&span)),
        }))
    }

    fn add(&mut self, other: &Counts) {
        for (count, more) in self.0.iter_mut().zip(&other.0) {
            count.sum += more.sum;
            count.calls += more.calls;
            count.per_second += more.per_second;
        }
    }

    /// How much fell on a second of the last minute.
    pub fn per_second(&self) -> f64 {
        self.0[0].per_second
    }

    /// The counts as tools read them.
    pub fn to_body(&self) -> CounterStats {
        let [minute, hour, day] = self.0.map(|count| CounterWindow {
            avgpt: count.sum as f64 / count.calls.max(1) as f64,
            sum: count.sum as i64,
            tps: count.per_second,
        });
        CounterStats {
            stats_day: day,
            stats_hour: hour,
            stats_minute: minute,
        }
    }
}

/// Reads every group's counters, until the task is ended.
pub async fn run(groups: Vec<Arc<Group>>, clock: WallClock) {
    let mut due = interval(READ_INTERVAL);
    loop {
        due.tick().await;
        for group in &groups {
            group.metrics.traffic.read();
            let traffic = &group.metrics.traffic;
            let (put, got) = (
                traffic.since_start(Way::In).0,
                traffic.since_start(Way::Out).0,
            );
            group.mornings.read(clock.now_ms(), [put, got]);
        }
    }
}

/// Messages in and out since the process began, at the last two midnights (UTC).
#[derive(Default)]
pub struct Mornings(Mutex<Days>);

#[derive(Default)]
struct Days {
    today: u64,
    yesterday_morning: [u64; 2],
    this_morning: [u64; 2],
}

impl Mornings {
    /// The totals now; the first ones of a day are those of its morning.
    fn read(&self, now_ms: u64, totals: [u64; 2]) {
        let mut days = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let day = now_ms / DAY_MS;
        if day <= days.today {
            return;
        }
        if days.today != 0 {
            days.yesterday_morning = days.this_morning;
            days.this_morning = totals;
        }
        days.today = day;
    }

    /// In and out, at yesterday's midnight and at today's.
    pub fn get(&self) -> ([u64; 2], [u64; 2]) {
        let days = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        (days.yesterday_morning, days.this_morning)
    }
}

/// What this node counted; none if it has nothing of that name.
fn here(group: &Group, cluster: &str, (name, key): &Item) -> Option<Counts> {
    let traffic = &group.metrics.traffic;
    let of_group = || {
        let (topic, consumer) = key.split_once('@')?;
        traffic.delivered(topic, consumer)
    };
    let of_broker = |way| (key == cluster || *key == group.name).then(|| traffic.all(way));
    match name.as_str() {
        "TOPIC_PUT_NUMS" => Some(Counts::of(traffic.accepted(key)?, |span| span.messages)),
        "TOPIC_PUT_SIZE" => Some(Counts::of(traffic.accepted(key)?, |span| span.bytes)),
        "GROUP_GET_NUMS" => Some(Counts::of(of_group()?, |span| span.messages)),
        "GROUP_GET_SIZE" => Some(Counts::of(of_group()?, |span| span.bytes)),
        "SNDBCK_PUT_NUMS" => {
            // What was sent back is what the group's retry topic was given.
            let (_, consumer) = key.split_once('@')?;
            let retry = gantry_protocol::topic::retry_topic(consumer);
            Some(Counts::of(traffic.accepted(&retry)?, |span| span.messages))
        }
        "BROKER_PUT_NUMS" => Some(Counts::of(of_broker(Way::In)?, |span| span.messages)),
        "BROKER_GET_NUMS" => Some(Counts::of(of_broker(Way::Out)?, |span| span.messages)),
        _ => None,
    }
}

/// What all nodes that can be reached counted, in the order of the items.
pub async fn everywhere(broker: &Broker, group: &Group, items: Vec<Item>) -> Vec<Option<Counts>> {
    let cluster = &broker.config.cluster;
    let mut counts: Vec<Option<Counts>> = items
        .iter()
        .map(|item| here(group, cluster, item))
        .collect();
    let body = Bytes::from(bincode::serialize(&items).expect("texts always encode"));
    let mut asking = JoinSet::new();
    for node in broker
        .peers
        .others()
        .filter(|node| broker.peers.is_connected(*node))
    {
        let (peers, body) = (broker.peers.clone(), body.clone());
        let method = (group.id, Method::Counters as u8);
        asking.spawn(async move {
            let deadline = Instant::now() + PEER_WAIT;
            let reply = peers.call(node, method, vec![body], deadline).await?;
            decode_reply::<Vec<Option<Counts>>>(&reply)
        });
    }
    while let Some(asked) = asking.join_next().await {
        match asked {
            Ok(Ok(more)) => add(&mut counts, more),
            Ok(Err(error)) => tracing::debug!(%error, "a node's counts are missing"),
            Err(error) => tracing::error!(%error, "asking for a node's counts failed"),
        }
    }
    counts
}

fn add(counts: &mut [Option<Counts>], more: Vec<Option<Counts>>) {
    for (count, more) in counts.iter_mut().zip(more) {
        if let Some(more) = more {
            count.get_or_insert_default().add(&more);
        }
    }
}

/// Another node's question; gives the reply to it, or what is wrong with it.
pub fn answer(broker: &Broker, group: &Group, body: &[u8]) -> Result<Vec<Bytes>, String> {
    let items: Vec<Item> = bincode::deserialize(body).map_err(|error| error.to_string())?;
    let cluster = &broker.config.cluster;
    let counts: Vec<Option<Counts>> = items
        .iter()
        .map(|item| here(group, cluster, item))
        .collect();
    Ok(encode_reply(&Ok(counts)))
}

/// One item; code 1 if nothing of that name was ever counted.
pub async fn item(
    broker: &Broker,
    group: &Group,
    (name, key): (&str, &str),
) -> Result<Counts, Failure> {
    let items = vec![(name.to_string(), key.to_string())];
    let counts = everywhere(broker, group, items).await;
    counts.into_iter().next().flatten().ok_or_else(|| {
        let reason = format!("nothing is counted as {name} of {key}");
        Failure::code(ResponseCode::SYSTEM_ERROR, reason)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_of_nodes_add_up() {
        let span = Span {
            messages: 6,
            bytes: 60,
            calls: 2,
            took: Duration::from_secs(3),
        };
        let one = Counts::of([span; 3], |span| span.messages);
        let mut counts = vec![None, Some(one)];
        add(&mut counts, vec![Some(one), Some(one)]);
        assert_eq!(counts[0], Some(one));
        let body = counts[1].unwrap_or_default().to_body();
        assert_eq!(body.stats_minute.sum, 12);
        assert!((body.stats_hour.tps - 4.0).abs() < 1e-9);
        assert!((body.stats_day.avgpt - 3.0).abs() < 1e-9);
    }

    #[test]
    fn a_day_begins_with_what_it_found() {
        let mornings = Mornings::default();
        mornings.read(5 * DAY_MS + 1, [10, 1]);
        assert_eq!(mornings.get(), ([0, 0], [0, 0]), "it began today");
        mornings.read(5 * DAY_MS + 2, [20, 2]);
        mornings.read(6 * DAY_MS, [30, 3]);
        assert_eq!(mornings.get(), ([0, 0], [30, 3]));
        mornings.read(7 * DAY_MS, [50, 5]);
        mornings.read(6 * DAY_MS, [60, 6]);
        assert_eq!(mornings.get(), ([30, 3], [50, 5]), "clocks may jump back");
    }
}
