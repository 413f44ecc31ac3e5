//! Reads every queue from end to end from every replica, after all faults are over.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use gantry_checker::{Answer, Queue, Request};
use tokio::time::{Instant, sleep};

use super::client::{Asker, group_of, is_without_topic, pull_request, read_pulled};
use super::deeds::Deed;
use super::returner::DEAD_LETTERS;
use super::{Round, admin, delayer, stock};
use crate::net::{NODES, name_of};
use crate::shell::{Outcome, failure, while_doing};

/// Most messages of a pull.
const MOST: i32 = 1024;
/// How often one pull is tried.
const TRIES: usize = 20;
/// A queue that is being mended brings nothing for a while, though it does not end there; how long that may
/// last, and how often it is looked at.
const MENDING_MAX: Duration = Duration::from_secs(30);
const MENDING_PAUSE: Duration = Duration::from_millis(100);

/// What a replica holds.
#[derive(Default)]
pub struct Held {
    /// Messages.
    pub messages: u64,
    /// Where those of stock clients are.
    pub stock: HashMap<u64, Vec<(Queue, u64)>>,
}

/// Reads all queues of a round from all nodes; says what the fullest of the replicas holds.
pub async fn dump(round: &Arc<Round>) -> Outcome<Held> {
    let mut readers = tokio::task::JoinSet::new();
    for node in 0..NODES {
        let asker = round.asker(format!("dump-{}", name_of(node)), 1000 + node as u64);
        readers.spawn(dump_node(asker, node));
    }
    let mut held = Held::default();
    while let Some(ended) = readers.join_next().await {
        let other = ended.map_err(while_doing("reading a replica"))??;
        if other.messages > held.messages {
            held = other;
        }
    }
    let mut asker = round.asker("topics".to_string(), 2000);
    admin::delete_topics(&mut asker).await?;
    Ok(held)
}

async fn dump_node(asker: Asker, node: usize) -> Outcome<Held> {
    let mut held = Held::default();
    for queue in asker.round.every_queue() {
        dump_queue(&asker, node, &queue, &mut held).await?;
    }
    Ok(held)
}

async fn dump_queue(asker: &Asker, node: usize, queue: &Queue, held: &mut Held) -> Outcome {
    let request = Request::Dump {
        node: name_of(node),
        queue: queue.clone(),
    };
    let call = asker.begin(request)?;
    let mut messages = Vec::new();
    let mut min = None;
    let mut at = 0;
    let mut progress = Instant::now();
    loop {
        let Some(pulled) = pull(asker, node, queue, at).await? else {
            // Brokers make such topics when the first message comes there.
            let nothing = Answer::Dumped {
                min: 0,
                next: 0,
                messages,
            };
            return asker.succeed(call, nothing);
        };
        if min.is_none() && pulled.min > at {
            // What is before the first offset has been removed, and a pull of it brings nothing.
            at = pulled.min;
            min = Some(at);
            continue;
        }
        let first = *min.get_or_insert(pulled.min);
        if pulled.next <= at && at < pulled.max && progress.elapsed() < MENDING_MAX {
            sleep(MENDING_PAUSE).await;
            continue;
        }
        let goes_on = pulled.next > at;
        progress = Instant::now();
        at = at.max(pulled.next);
        messages.extend(pulled.messages);
        if !goes_on || at >= pulled.max {
            let next = at.max(pulled.max);
            if node == 0 {
                count(asker, queue, messages.len() as u64);
            }
            held.messages += messages.len() as u64;
            for message in messages
                .iter()
                .filter(|message| stock::is_stock(message.id))
            {
                let place = (queue.clone(), message.offset);
                held.stock.entry(message.id).or_default().push(place);
            }
            asker.succeed(
                call,
                Answer::Dumped {
                    min: first,
                    next,
                    messages,
                },
            )?;
            return Ok(());
        }
    }
}

/// Counts what has come to where messages come later.
fn count(asker: &Asker, queue: &Queue, messages: u64) {
    let deeds = &asker.round.tally.deeds;
    if queue.topic == asker.round.topic(delayer::TOPIC) {
        deeds.add(Deed::Due, messages);
    } else if queue.topic.starts_with(DEAD_LETTERS) {
        deeds.add(Deed::DeadLetter, messages);
    }
}

/// Nothing if it is a topic for copies that is not there.
async fn pull(
    asker: &Asker,
    node: usize,
    queue: &Queue,
    at: u64,
) -> Outcome<Option<super::client::Pulled>> {
    let is_for_copies = queue.topic.starts_with('%');
    for _ in 0..TRIES {
        let heard = asker
            .ask(node, group_of(queue), pull_request(queue, at, MOST))
            .await;
        if let Some(pulled) = read_pulled(&heard)? {
            return Ok(Some(pulled));
        }
        if is_for_copies && is_without_topic(&heard) {
            return Ok(None);
        }
    }
    failure(format!(
        "{} does not let {queue} be read at {at}",
        name_of(node)
    ))
}
