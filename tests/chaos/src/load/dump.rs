//! Reads every queue from end to end from every replica, after all faults are over.

use std::collections::HashMap;
use std::sync::Arc;

use gantry_checker::{Answer, Queue, Request};

use super::client::{Asker, group_of, pull_request, read_pulled};
use super::{Round, admin, stock};
use crate::net::{NODES, name_of};
use crate::shell::{Outcome, failure, while_doing};

/// Most messages of a pull.
const MOST: i32 = 1024;
/// How often one pull is tried.
const TRIES: usize = 20;

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
    for queue in asker.round.queues() {
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
    loop {
        let pulled = pull(asker, node, queue, at).await?;
        if min.is_none() && pulled.min > at {
            // What is before the first offset has been removed, and a pull of it brings nothing.
            at = pulled.min;
            min = Some(at);
            continue;
        }
        let first = *min.get_or_insert(pulled.min);
        let has_more = pulled.next > at && !pulled.messages.is_empty();
        at = at.max(pulled.next);
        messages.extend(pulled.messages);
        if !has_more || at >= pulled.max {
            let next = at.max(pulled.max);
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

async fn pull(
    asker: &Asker,
    node: usize,
    queue: &Queue,
    at: u64,
) -> Outcome<super::client::Pulled> {
    for _ in 0..TRIES {
        let heard = asker
            .ask(node, group_of(queue), pull_request(queue, at, MOST))
            .await;
        if let Some(pulled) = read_pulled(&heard)? {
            return Ok(pulled);
        }
    }
    failure(format!(
        "{} does not let {queue} be read at {at}",
        name_of(node)
    ))
}
