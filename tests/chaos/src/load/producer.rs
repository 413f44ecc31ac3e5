//! Producers: messages with numbered ids, one at a time or in batches.

use std::ops::Range;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use gantry_checker::event::{Send, Sent};
use gantry_checker::{Answer, Request};
use gantry_protocol::batch::{self, BatchMessage};
use gantry_protocol::headers::{SendRequest, SendResponse};
use gantry_protocol::message::sys_flags;
use gantry_protocol::message_id::OffsetMessageId;
use gantry_protocol::properties::{Builder, names};
use gantry_protocol::{RemotingCommand, RequestCode};
use tokio::time::sleep;

use super::client::{Asker, Heard, body_of, command, is_success};
use super::delayer::Delay;
use super::seeker::key_of;
use super::{QUEUES, queue_at};
use crate::net::name_of;
use crate::node::GROUPS;
use crate::shell::{Outcome, while_doing};

/// The producer group of all sends but those of transactions.
const PRODUCERS: &str = "chaos-producers";

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
        arrived += u64::from(send_one(asker, topic, (group, 0)).await?);
    }
    Ok(arrived)
}

/// Sends a message to a queue of a group; whether it was acked.
pub async fn send_one(asker: &mut Asker, topic: &str, place: (usize, u16)) -> Outcome<bool> {
    let parcel = pack(asker, (Kind::Single, topic), place, 1);
    send(asker, &parcel).await
}

/// How a message is not to come at once.
pub enum Wait {
    /// It is the first half of a transaction of this producer group.
    Half(String),
    /// It comes later.
    Delay(Delay),
}

/// A message that was sent and waits.
pub struct Waiting {
    /// What it is known by.
    pub id: u64,
    /// Its offset in the queue where it waits.
    pub offset: i64,
    /// Its place in the log, where it waits.
    pub physical: i64,
    /// What it can be recalled with.
    pub recall_handle: Option<String>,
}

/// Sends a message to a queue of a group that is not to come at once; nothing if it was not acked.
pub async fn send_waiting(
    asker: &mut Asker,
    topic: &str,
    (group, queue): (usize, u16),
    wait: &Wait,
) -> Outcome<Option<Waiting>> {
    let parcel = pack(asker, (Kind::Single, topic), (group, queue), 1);
    let (id, body) = (parcel.ids.start, &parcel.bodies[0]);
    let (half, delay_ms) = match wait {
        Wait::Half(_) => (true, None),
        Wait::Delay(delay) => (false, Some(delay.ms())),
    };
    let call = asker.begin(Request::Send(Send {
        half,
        delay_ms,
        ..to_send(topic, id, body)
    }))?;
    let node = asker.choose_node(group);
    let heard = asker.ask(node, group, waiting_request(&parcel, wait)).await;
    let Some(answer) = is_success(&heard) else {
        asker.end(call, &heard)?;
        return Ok(None);
    };
    let header = SendResponse::parse(&answer.fields).map_err(while_doing("reading an ack"))?;
    let place = header.msg_id.parse::<OffsetMessageId>();
    let place = place.map_err(while_doing("reading the id of a message"))?;
    let sent = sent(node, &parcel, &header, (0, header.msg_id));
    asker.succeed(call, Answer::Sent(sent))?;
    Ok(Some(Waiting {
        id,
        offset: header.queue_offset,
        physical: place.physical_offset,
        recall_handle: header.recall_handle.map(str::to_string),
    }))
}

fn waiting_request(parcel: &Parcel, wait: &Wait) -> RemotingCommand {
    let mut properties = Builder::new();
    let unique_key = format!("{:032X}", parcel.ids.start);
    properties.push(names::UNIQ_KEY, &unique_key);
    let mut producer_group = PRODUCERS;
    let mut sys_flag = 0;
    match wait {
        Wait::Half(producers) => {
            producer_group = producers;
            properties.push(names::TRANSACTION_PREPARED, "true");
            properties.push(names::PRODUCER_GROUP, producers);
            sys_flag = sys_flags::TRANSACTION_PREPARED;
        }
        Wait::Delay(delay) => {
            let (name, value) = delay.property();
            properties.push(name, &value);
        }
    }
    let properties = properties.finish();
    let header = SendRequest {
        producer_group,
        sys_flag,
        properties: Some(&properties),
        ..header(parcel)
    };
    let code = RequestCode::SEND_MESSAGE_V2;
    command(code, |fields| header.write(code, fields)).with_body(parcel.bodies[0].clone())
}

/// What the history says of a message that lies there at once.
fn to_send(topic: &str, id: u64, body: &[u8]) -> Send {
    Send {
        topic: topic.to_string(),
        id,
        crc: crc32fast::hash(body),
        tries: 1,
        half: false,
        delay_ms: None,
        once_ms: None,
    }
}

/// What the ack of the n-th message of a parcel says.
fn sent(
    node: usize,
    parcel: &Parcel,
    header: &SendResponse<'_>,
    (number, message_id): (u64, &str),
) -> Sent {
    let place = message_id.parse::<OffsetMessageId>().ok();
    Sent {
        queue: queue_at(parcel.group, &parcel.topic, header.queue_id as u16),
        offset: header.queue_offset as u64 + number,
        physical: place.map(|place| place.physical_offset as u64),
        message_id: message_id.to_string(),
        node: Some(name_of(node)),
    }
}

/// Whether the messages were acked.
async fn send(asker: &mut Asker, parcel: &Parcel) -> Outcome<bool> {
    let node = asker.choose_node(parcel.group);
    let mut calls = Vec::with_capacity(parcel.bodies.len());
    for (id, body) in parcel.ids.clone().zip(&parcel.bodies) {
        calls.push(asker.begin(Request::Send(to_send(&parcel.topic, id, body)))?);
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
    for (number, call) in (0..).zip(&calls) {
        let message_id = message_ids.next().unwrap_or_default();
        let sent = sent(node, parcel, &header, (number, message_id));
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

/// What every send says.
fn header(parcel: &Parcel) -> SendRequest<'_> {
    SendRequest {
        producer_group: PRODUCERS,
        topic: &parcel.topic,
        default_topic: "TBW102",
        default_topic_queue_nums: i32::from(QUEUES),
        queue_id: i32::from(parcel.queue),
        reconsume_times: Some(0),
        unit_mode: Some(false),
        broker_name: Some(GROUPS[parcel.group]),
        ..SendRequest::default()
    }
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
        properties: Some(&properties),
        batch: Some(is_batch),
        ..header(parcel)
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
