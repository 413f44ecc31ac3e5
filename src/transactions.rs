//! Asks producers what became of transactions that stay open, and gives up those that stay open for too long.
//!
//! Only the leader asks. That a producer was asked, and when it is asked next, is written before the
//! question goes out: a new leader goes on with the counting, and nobody is asked twice at a time. The
//! question goes out over whichever node the producer is connected to.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use gantry_protocol::headers::CheckTransactionRequest;
use gantry_protocol::message_id::OffsetMessageId;
use gantry_protocol::properties::names;
use gantry_protocol::{RemotingCommand, RequestCode, topic as names_of};
use gantry_raft::aside;
use gantry_storage::PhysicalOffset;
use gantry_storage::batch::{BatchBuilder, RowHead, RowKind};
use gantry_storage::message::{self, MessageView, NewMessage};
use gantry_storage::tables::{Command, GIVEN_UP_MS, TopicConfig};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::appender::OVERHEAD_BYTES;
use crate::broker::Broker;
use crate::due;
use crate::error::Failure;
use crate::group::{Group, HOLD};
use crate::peer_calls::{Method, decode_reply};

/// Most transactions of a group that are listed.
const LISTED_MAX: usize = 1000;

/// Most half messages of one step.
const STEP_MESSAGES: usize = 64;

/// The clock is looked at this often while a transaction is open, because it may be set.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// How long a step that failed is not tried again.
const PAUSE: Duration = Duration::from_millis(100);

const ASK_TIMEOUT: Duration = Duration::from_secs(3);

/// When producers are asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checks {
    /// How old a half message is when its producer is asked first.
    pub timeout: Duration,
    /// How long from one question to the next.
    pub interval: Duration,
    /// Questions after which a transaction is given up.
    pub most: u32,
}

/// RocketMQ's.
impl Default for Checks {
    fn default() -> Self {
        Checks {
            timeout: Duration::from_secs(6),
            interval: Duration::from_secs(30),
            most: 15,
        }
    }
}

/// A half message whose producer is to be asked.
struct Half {
    place: PhysicalOffset,
    checks: u32,
    /// As it would be delivered; `None` if it cannot be read.
    message: Option<Bytes>,
}

/// Asks about the open transactions of `group` until the replica stops.
pub async fn run(broker: Arc<Broker>, group: Arc<Group>) {
    let mut leadership = group.replica.leadership();
    let mut next_check_ms = group.signals.next_check_ms();
    loop {
        if !leadership.borrow_and_update().ready {
            if leadership.changed().await.is_err() {
                return;
            }
            continue;
        }
        let next_ms = *next_check_ms.borrow_and_update();
        let pause = match step(&broker, &group).await {
            Ok(true) => continue,
            Ok(false) => next_ms.map(|next_ms| {
                let wait_ms = next_ms.saturating_sub(group.now_ms(&broker.clock));
                Duration::from_millis(wait_ms).min(LOOK_INTERVAL)
            }),
            Err(Failure::Stopped) => return,
            Err(failure) => {
                tracing::debug!(group = group.name, %failure, "producers are asked a moment later");
                Some(PAUSE)
            }
        };
        let waiting = async {
            match pause {
                Some(pause) => sleep(pause).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            changed = leadership.changed() => if changed.is_err() { return },
            _ = next_check_ms.changed() => {}
            () = waiting => {}
        }
    }
}

/// The open transactions of the groups that this node leads, in the order of the log; not all of them if
/// there are very many. Reads the log.
pub fn open(broker: &Broker) -> Vec<Value> {
    let mut open = Vec::new();
    for group in broker.groups.iter().filter(|group| group.leads()) {
        let halves: Vec<(u64, PhysicalOffset, u32)> = {
            let tables = group.store.tables();
            let parked = tables.parked();
            let all = parked.halves().before(PhysicalOffset::new(u64::MAX));
            let first = all.take(LISTED_MAX);
            first
                .map(|(next_ms, place)| (next_ms, place, parked.checks_of(place)))
                .collect()
        };
        let host = broker.routes.store_host(0, group.node, group.id);
        for (next_ms, place, checks) in halves {
            // One that cannot be read, or has just ended, is left out.
            let half = group.store.message_at(place, host).ok().flatten();
            let view = half.as_ref().map(|half| MessageView::parse(half));
            let Some(Ok(view)) = view else { continue };
            let property = |name| view.property(name).unwrap_or_default().to_string();
            open.push(json!({
                "group": group.name,
                "place": place.get(),
                "offset": view.queue_offset().get(),
                "topic": property(names::REAL_TOPIC),
                "producer": property(names::PRODUCER_GROUP),
                "key": property(names::UNIQ_KEY),
                "born_ms": view.born_timestamp(),
                "checks": checks,
                "given_up": next_ms == GIVEN_UP_MS,
            }));
        }
    }
    open
}

/// Asks about what is due; whether anything was.
async fn step(broker: &Arc<Broker>, group: &Arc<Group>) -> Result<bool, Failure> {
    let checks = broker.config.broker.checks;
    let now_ms = group.now_ms(&broker.clock);
    let due: Vec<(PhysicalOffset, u32)> = {
        let tables = group.store.tables();
        let parked = tables.parked();
        let due = parked.halves().due(now_ms).take(STEP_MESSAGES);
        due.map(|(_, place)| (place, parked.checks_of(place)))
            .collect()
    };
    if due.is_empty() {
        return Ok(false);
    }
    let (given_up, asked): (Vec<Half>, Vec<Half>) = read(broker, group, due)
        .await?
        .into_iter()
        .partition(|half| half.checks >= checks.most && half.message.is_some());
    if !given_up.is_empty() {
        give_up(group, given_up).await?;
    }
    if asked.is_empty() {
        return Ok(true);
    }
    let next_ms = now_ms + checks.interval.as_millis() as u64;
    let next = asked.iter().map(|half| (half.place, next_ms)).collect();
    let checked = Command::HalvesChecked { next };
    group.appender.execute(vec![checked]).await?;
    for half in asked {
        let Some(message) = half.message else {
            let (group, place) = (&group.name, half.place);
            tracing::error!(group, %place, "a half message cannot be read");
            continue;
        };
        group.metrics.parked.transaction_checks.inc();
        tokio::spawn(ask(broker.clone(), group.clone(), message));
    }
    Ok(true)
}

async fn read(
    broker: &Broker,
    group: &Arc<Group>,
    due: Vec<(PhysicalOffset, u32)>,
) -> Result<Vec<Half>, Failure> {
    let host = broker.routes.store_host(0, group.node, group.id);
    let store = group.store.clone();
    let reading = aside(move || {
        let half = |(place, checks)| Half {
            place,
            checks,
            message: store.message_at(place, host).ok().flatten(),
        };
        due.into_iter().map(half).collect()
    });
    reading.await.map_err(|_| Failure::Stopped)
}

/// Asks one producer, over this node or over another that has one of its group.
async fn ask(broker: Arc<Broker>, group: Arc<Group>, half: Bytes) {
    let Some((producer, question)) = question(&half) else {
        tracing::error!(
            group = group.name,
            "a half message does not say whose it is"
        );
        return;
    };
    if let Some(channel) = broker.sessions.producer_channel(&producer, group.id) {
        channel.notify(question);
        return;
    }
    let mut frame = BytesMut::new();
    if let Err(error) = question.encode_into(&mut frame) {
        tracing::error!(group = group.name, %error, "a half message is too large to ask about");
        return;
    }
    let question = AskedProducer {
        producer,
        frame: frame.to_vec(),
    };
    let body = Bytes::from(bincode::serialize(&question).expect("plain fields always encode"));
    for node in broker.sessions.nodes_of_producer(&question.producer) {
        let method = (group.id, Method::AskProducer as u8);
        let deadline = Instant::now() + ASK_TIMEOUT;
        let reply = broker
            .peers
            .call(node, method, vec![body.clone()], deadline);
        match reply.await.map(|reply| decode_reply::<bool>(&reply)) {
            Ok(Ok(true)) => return,
            Ok(Ok(false)) => {}
            Ok(Err(failure)) => tracing::debug!(node, %failure, "a producer was not asked"),
            Err(error) => tracing::debug!(node, %error, "a producer was not asked"),
        }
    }
    let producer = &question.producer;
    tracing::debug!(group = group.name, producer, "nobody is there to be asked");
}

/// What another node is to ask a producer that is connected to it.
#[derive(serde::Serialize, serde::Deserialize)]
struct AskedProducer {
    producer: String,
    frame: Vec<u8>,
}

/// Asks a producer that is connected to this node for another one; whether there is any.
pub fn ask_here(broker: &Broker, group: &Group, body: &[u8]) -> Result<bool, String> {
    let asked: AskedProducer = bincode::deserialize(body).map_err(|error| error.to_string())?;
    let mut frame = BytesMut::from(&asked.frame[..]);
    let cut = gantry_protocol::frame::cut(&mut frame).map_err(|error| error.to_string())?;
    let cut = cut.ok_or("a question to a producer is cut short")?;
    let question = RemotingCommand::decode(cut).map_err(|error| error.to_string())?;
    let channel = broker.sessions.producer_channel(&asked.producer, group.id);
    if let Some(channel) = &channel {
        channel.notify(question);
    }
    Ok(channel.is_some())
}

/// The producer group of a half message, and the question to one of its members.
fn question(half: &Bytes) -> Option<(String, RemotingCommand)> {
    let view = MessageView::parse(half).ok()?;
    let producer = view.property(names::PRODUCER_GROUP)?.to_string();
    let topic = view.property(names::REAL_TOPIC)?;
    let queue: u16 = view.property(names::REAL_QUEUE_ID)?.parse().ok()?;
    let unique_key = view.property(names::UNIQ_KEY);
    let id = OffsetMessageId {
        host: view.store_host().into(),
        physical_offset: view.physical_offset().get() as i64,
    };
    let id = id.to_string();
    let mut question = RemotingCommand::request(RequestCode::CHECK_TRANSACTION_STATE, 0);
    let header = CheckTransactionRequest {
        topic: Some(topic),
        tran_state_table_offset: view.queue_offset().get() as i64,
        commit_log_offset: view.physical_offset().get() as i64,
        msg_id: unique_key.or(Some(&id)),
        transaction_id: unique_key,
        offset_msg_id: Some(&id),
    };
    header.write(&mut question.fields);
    let restored = NewMessage {
        topic,
        ..due::copy(&view, queue, view.properties())
    };
    let mut body = BytesMut::new();
    restored.encode(&mut body).ok()?;
    message::patch_store_time(&mut body, view.store_timestamp());
    let (queue_offset, place) = (view.queue_offset(), view.physical_offset());
    message::patch(&mut body, queue_offset, place, view.store_host()).ok()?;
    Some((producer, question.with_body(body.freeze())))
}

/// Puts half messages aside whose producers were asked often enough. They can still be ended, by hand.
async fn give_up(group: &Arc<Group>, halves: Vec<Half>) -> Result<(), Failure> {
    let name = names_of::HALF_GIVEN_UP_TOPIC;
    if group.store.tables().topic(name).is_none() {
        let config = TopicConfig::new(name, 1);
        let create = Command::CreateTopic { config };
        group.appender.execute(vec![create]).await?;
    }
    let topic = group.store.tables().topic(name).ok_or(Failure::NotLeader)?;
    let messages: Vec<(PhysicalOffset, Bytes)> = halves
        .into_iter()
        .filter_map(|half| Some((half.place, half.message?)))
        .collect();
    let bytes = messages
        .iter()
        .map(|(_, message)| message.len() + OVERHEAD_BYTES);
    let size = (messages.len(), bytes.sum());
    let encode = |batch: &mut BatchBuilder| {
        for (place, bytes) in &messages {
            let view = MessageView::parse(bytes).expect("the store gives messages");
            let head = RowHead {
                topic_id: topic.id,
                kind: RowKind::Moves,
                origin: place.get(),
            };
            let message = NewMessage {
                topic: name,
                ..due::copy(&view, 0, view.properties())
            };
            let pushed = batch.push_with_tags_code(head, &message, GIVEN_UP_MS as i64);
            pushed.expect("it was stored before");
        }
    };
    group
        .appender
        .append(size, encode, Instant::now() + HOLD)
        .await?;
    for (place, _) in &messages {
        tracing::warn!(group = group.name, %place, "a transaction is given up");
    }
    let given_up = &group.metrics.parked.transactions_given_up;
    given_up.inc_by(messages.len() as u64);
    Ok(())
}
