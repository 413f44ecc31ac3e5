//! Producers: messages with numbered ids, one at a time or in batches.

use std::ops::Range;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use gantry_checker::event::{Send, Sent};
use gantry_checker::{Answer, Queue, Request};
use gantry_protocol::batch::{self, BatchMessage};
use gantry_protocol::headers::{SendRequest, SendResponse};
use gantry_protocol::message_id::OffsetMessageId;
use gantry_protocol::properties::{Builder, names};
use gantry_protocol::{RemotingCommand, RequestCode};
use tokio::time::sleep;

use super::QUEUES;
use super::client::{Asker, Heard, body_of, command, is_success};
use super::seeker::key_of;
use crate::net::name_of;
use crate::node::GROUPS;
use crate::shell::{Outcome, while_doing};

/// Most messages of a batch.
const BATCH_MAX: u64 = 64;

/// How a producer sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// One message in each request.
    Single,
    /// Several.
    Batch,
}

/// Messages on their way to a queue.
struct Parcel {
    kind: Kind,
    topic: String,
    group: usize,
    queue: u16,
    ids: Range<u64>,
    bodies: Vec<Bytes>,
}

/// Sends until the round ends.
pub async fn run(mut asker: Asker, kind: Kind) -> Outcome {
    while asker.round.sends() {
        let most = match kind {
            Kind::Single => 1,
            Kind::Batch => asker.random.between(2, BATCH_MAX),
        };
        let count = asker.round.pace.claim(most as u32);
        if count == 0 {
            sleep(Duration::from_millis(2)).await;
            continue;
        }
        let topics = asker.round.topics.clone();
        let topic = asker.random.pick(&topics).clone();
        let group = asker.random.below(GROUPS.len());
        let queue = asker.random.below(usize::from(QUEUES)) as u16;
        let parcel = pack(&mut asker, (kind, &topic), (group, queue), u64::from(count));
        let arrived = send(&mut asker, &parcel).await?;
        // Stock clients try again; the harness sometimes does, and then two copies are no wonder.
        if !arrived && asker.random.one_in(3) && asker.round.sends() {
            send(&mut asker, &parcel).await?;
        }
    }
    Ok(())
}

fn pack(
    asker: &mut Asker,
    (kind, topic): (Kind, &str),
    (group, queue): (usize, u16),
    count: u64,
) -> Parcel {
    let ids = asker.round.next_ids(count);
    let bodies = ids
        .clone()
        .map(|id| body_of(id, &mut asker.random))
        .collect();
    Parcel {
        kind,
        topic: topic.to_string(),
        group,
        queue,
        ids,
        bodies,
    }
}

/// Sends a few messages one by one, for a topic that is about to be deleted.
pub async fn send_some(asker: &mut Asker, topic: &str, group: usize, count: u64) -> Outcome<u64> {
    let mut arrived = 0;
    for _ in 0..count {
        let parcel = pack(asker, (Kind::Single, topic), (group, 0), 1);
        arrived += u64::from(send(asker, &parcel).await?);
    }
    Ok(arrived)
}

/// Whether the messages were acked.
async fn send(asker: &mut Asker, parcel: &Parcel) -> Outcome<bool> {
    let node = asker.choose_node(parcel.group);
    let mut calls = Vec::with_capacity(parcel.bodies.len());
    for (id, body) in parcel.ids.clone().zip(&parcel.bodies) {
        let send = Send {
            topic: parcel.topic.clone(),
            id,
            crc: crc32fast::hash(body),
            tries: 1,
            half: false,
            delay_ms: None,
            once_ms: None,
        };
        calls.push(asker.begin(Request::Send(send))?);
    }
    let begun = Instant::now();
    let heard = asker.ask(node, parcel.group, request(parcel)).await;
    let Some(answer) = is_success(&heard) else {
        for call in &calls {
            asker.end(*call, &heard)?;
        }
        let counter = match heard {
            Heard::NotSent => &asker.round.tally.refused,
            _ => &asker.round.tally.unknown,
        };
        counter.fetch_add(calls.len() as u64, Ordering::Relaxed);
        return Ok(false);
    };
    let header = SendResponse::parse(&answer.fields).map_err(while_doing("reading an ack"))?;
    let mut message_ids = header.msg_id.split(',');
    for (number, call) in calls.iter().enumerate() {
        let message_id = message_ids.next().unwrap_or_default();
        let place = message_id.parse::<OffsetMessageId>().ok();
        let sent = Sent {
            queue: Queue {
                broker: GROUPS[parcel.group].to_string(),
                topic: parcel.topic.clone(),
                queue: header.queue_id as u16,
            },
            offset: header.queue_offset as u64 + number as u64,
            physical: place.map(|place| place.physical_offset as u64),
            message_id: message_id.to_string(),
            node: Some(name_of(node)),
        };
        asker.succeed(*call, Answer::Sent(sent))?;
    }
    asker
        .round
        .tally
        .acked(parcel.group, calls.len() as u64, begun);
    // The messages of other topics go with them.
    if asker.round.topics.contains(&parcel.topic) {
        let place = (parcel.topic.as_str(), parcel.group);
        let (id, dice) = (parcel.ids.start, asker.random.next());
        asker.round.acked.remember(id, place, dice);
    }
    Ok(true)
}

fn properties_of(id: u64) -> String {
    let mut text = Builder::new();
    text.push(names::KEYS, &key_of(id));
    text.finish()
}

fn request(parcel: &Parcel) -> RemotingCommand {
    let is_batch = parcel.kind == Kind::Batch;
    let code = if is_batch {
        RequestCode::SEND_BATCH_MESSAGE
    } else {
        RequestCode::SEND_MESSAGE_V2
    };
    let properties = match parcel.kind {
        Kind::Single => properties_of(parcel.ids.start),
        Kind::Batch => String::new(),
    };
    let header = SendRequest {
        producer_group: "chaos-producers",
        topic: &parcel.topic,
        default_topic: "TBW102",
        default_topic_queue_nums: i32::from(QUEUES),
        queue_id: i32::from(parcel.queue),
        properties: Some(&properties),
        reconsume_times: Some(0),
        unit_mode: Some(false),
        batch: Some(is_batch),
        broker_name: Some(GROUPS[parcel.group]),
        ..SendRequest::default()
    };
    let body = match parcel.kind {
        Kind::Single => parcel.bodies[0].clone(),
        Kind::Batch => {
            let mut body = BytesMut::new();
            for (id, message) in parcel.ids.clone().zip(&parcel.bodies) {
                batch::encode(
                    &BatchMessage {
                        flag: 0,
                        body: message,
                        properties: &properties_of(id),
                    },
                    &mut body,
                );
            }
            body.freeze()
        }
    };
    command(code, |fields| header.write(code, fields)).with_body(body)
}
