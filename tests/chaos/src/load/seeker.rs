//! Seekers: look for messages by their keys, on any node, as soon as they were acked or some time after.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use gantry_checker::event::Found;
use gantry_checker::{Answer, Queue, Request};
use gantry_protocol::headers::QueryMessageRequest;
use gantry_protocol::{RequestCode, ResponseCode, message};
use tokio::time::sleep;

use super::client::{Asker, Heard, command, seen};
use crate::net::NODES;
use crate::node::GROUPS;
use crate::shell::{Outcome, while_doing};

/// Acked messages that are remembered.
const REMEMBERED: usize = 2_000;

/// An acked message: what it is known by, and where it is.
#[derive(Clone, Debug)]
struct Sought {
    id: u64,
    topic: String,
    group: usize,
}

/// Some of the messages that were acked.
#[derive(Default)]
pub struct Acked(Mutex<Vec<Sought>>);

impl Acked {
    /// Remembers a message, perhaps in place of another; `dice` chooses.
    pub fn remember(&self, id: u64, (topic, group): (&str, usize), dice: u64) {
        let topic = topic.to_string();
        let sought = Sought { id, topic, group };
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() < REMEMBERED {
            all.push(sought);
        } else {
            all[dice as usize % REMEMBERED] = sought;
        }
    }

    fn pick(&self, dice: u64) -> Option<Sought> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        (!all.is_empty()).then(|| all[dice as usize % all.len()].clone())
    }
}

/// The key of a message.
pub fn key_of(id: u64) -> String {
    format!("key-{id:x}")
}

/// Looks for messages until the round ends.
pub async fn run(mut asker: Asker) -> Outcome {
    while asker.round.sends() {
        let dice = asker.random.next();
        if let Some(sought) = asker.round.acked.pick(dice) {
            look(&mut asker, &sought).await?;
        }
        sleep(Duration::from_millis(10)).await;
    }
    Ok(())
}

async fn look(asker: &mut Asker, sought: &Sought) -> Outcome {
    let node = asker.random.below(NODES);
    let key = key_of(sought.id);
    let header = QueryMessageRequest {
        topic: &sought.topic,
        key: &key,
        max_num: 32,
        begin_timestamp: 0,
        end_timestamp: i64::MAX,
    };
    let request = command(RequestCode::QUERY_MESSAGE, |fields| header.write(fields));
    let call = asker.begin(Request::Lookup { id: sought.id })?;
    let heard = asker.ask(node, sought.group, request).await;
    let Heard::Answer(answer) = &heard else {
        return asker.end(call, &heard);
    };
    let mut found = Vec::new();
    match answer.response_code() {
        ResponseCode::SUCCESS => {
            let decoded = message::Message::decode_all(answer.body.clone());
            for message in decoded.map_err(while_doing("reading what a lookup found"))? {
                found.push(Found {
                    queue: Queue {
                        broker: GROUPS[sought.group].to_string(),
                        topic: message.topic.clone(),
                        queue: message.queue_id as u16,
                    },
                    message: seen(&message)?,
                });
            }
        }
        ResponseCode::QUERY_NOT_FOUND => {}
        _ => return asker.end(call, &heard),
    }
    asker.succeed(call, Answer::Found(found))
}
