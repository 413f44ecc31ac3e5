//! Messages that nobody acknowledged in time: they become messages of the retry topic of their group and
//! topic.
//!
//! Only the leader does it. The lease ends in the same record that holds the new message, and the record is
//! of no effect for a lease that has ended: each message comes again once, whoever leads.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use gantry_protocol::ResponseCode;
use gantry_protocol::properties::names;
use gantry_protocol::topic as topics;
use gantry_storage::batch::{BatchBuilder, RowHead};
use gantry_storage::message::{self, MessageView, NewMessage};
use gantry_storage::tables::{Command, DueLease, Redelivery, Topic, TopicConfig};
use gantry_storage::{QueueKey, ReadStatus};
use tokio::time::{Instant, sleep, timeout};

use super::take::messages_in;
use crate::appender::Appended;
use crate::clock::WallClock;
use crate::error::Failure;
use crate::filters::Filter;
use crate::group::{Group, HOLD};
use crate::reading::Reading;

/// Leases that end with one batch.
const BATCH_LEASES: usize = 64;
/// Bytes of messages that are read for one batch, except that one may be larger.
const BATCH_BYTES: usize = 1 << 20;
/// How long a leader waits after something went wrong.
const PAUSE: Duration = Duration::from_millis(200);
/// The wall clock may jump: it is looked at this often while something is due later.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
const OVERHEAD_BYTES: usize = 300;

/// A lease and what takes its place.
struct Expired {
    lease: DueLease,
    /// `None` if the message is not in the log any more.
    message: Option<(Arc<Topic>, Bytes)>,
}

/// Ends leases of a group whenever this node leads it.
pub async fn run(group: Arc<Group>, clock: WallClock) {
    let mut due = group.pops.next_lease_ms.subscribe();
    let mut leadership = group.replica.leadership();
    loop {
        let next_ms = *due.borrow_and_update();
        leadership.borrow_and_update();
        let now_ms = now_ms(&group, &clock);
        let wait = next_ms.map(|at_ms| Duration::from_millis(at_ms.saturating_sub(now_ms)));
        match wait.filter(|_| group.leads()) {
            Some(Duration::ZERO) => {
                if let Err(error) = redeliver(&group, now_ms).await {
                    tracing::debug!(group = group.name, %error, "messages are not redelivered yet");
                    sleep(PAUSE).await;
                }
                // What was done is applied, and what comes next is known.
            }
            wait => {
                let changed = async {
                    tokio::select! {
                        changed = due.changed() => changed.is_ok(),
                        changed = leadership.changed() => changed.is_ok(),
                    }
                };
                let goes_on = match wait.or(next_ms.map(|_| LOOK_INTERVAL)) {
                    Some(wait) => timeout(wait.min(LOOK_INTERVAL), changed)
                        .await
                        .unwrap_or(true),
                    None => changed.await,
                };
                if !goes_on {
                    return;
                }
            }
        }
    }
}

fn now_ms(group: &Group, clock: &WallClock) -> u64 {
    clock.now_ms().max(group.store.tables().clock_ms())
}

/// Ends those leases that are due, as many as fit into one batch.
async fn redeliver(group: &Arc<Group>, now_ms: u64) -> Result<(), Failure> {
    let due: Vec<DueLease> = {
        let tables = group.store.tables();
        let due = tables.leases().due();
        let due = due.take_while(|lease| lease.visible_ms <= now_ms);
        due.take(BATCH_LEASES).collect()
    };
    let (mut expired, mut bytes, mut failed) = (Vec::new(), 0, None);
    for lease in due {
        if bytes >= BATCH_BYTES {
            break;
        }
        match read(group, &lease).await {
            Ok(message) => {
                bytes += message.as_ref().map_or(0, |(_, message)| message.len());
                expired.push(Expired { lease, message });
            }
            // One that cannot be read now does not hold up the others.
            Err(failure) => failed = Some(failure),
        }
    }
    if expired.is_empty() {
        return failed.map_or(Ok(()), Err);
    }
    let wanted = expired.iter().filter(|expired| expired.message.is_some());
    let wanted = wanted.count() as u64;
    let retired = expired.len() as u64 - wanted;
    if retired > 0 {
        tracing::warn!(
            group = group.name,
            retired,
            "messages were removed with old log before anybody acknowledged them"
        );
    }
    let stored = append(group, expired).await?;
    group.metrics.pop_redelivered(stored);
    if stored == 0 && wanted > 0 {
        // The clock went back, or another one was quicker; it costs a record to find out.
        sleep(PAUSE).await;
    }
    Ok(())
}

/// The message of a lease, and the topic that it comes again in.
async fn read(
    group: &Arc<Group>,
    lease: &DueLease,
) -> Result<Option<(Arc<Topic>, Bytes)>, Failure> {
    let key = lease.name.key;
    let reading = Reading {
        key,
        offset: lease.name.offset,
        max_messages: 1,
        max_bytes: 1,
        filter: Filter::All,
        whole: false,
        store_host: SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0),
    };
    let read = reading.read(group, Instant::now() + PAUSE).await?;
    let read = read.ok_or_else(|| {
        let reason = "the message is damaged here and has not come back yet";
        Failure::code(ResponseCode::SYSTEM_ERROR, reason)
    })?;
    let is_it = messages_in(&read.body)
        .next()
        .map(|message| message.queue_offset());
    if read.status != ReadStatus::Found || is_it != Some(lease.name.offset) {
        // Retired: nobody can be given it any more.
        return Ok(None);
    }
    let Some(origin) = group.store.tables().topic_by_id(key.topic_id) else {
        return Ok(None);
    };
    let topic = retry_topic(group, &lease.group, &origin).await?;
    Ok(Some((topic, read.body)))
}

/// The topic in which messages of `origin` come again. One that came again before stays where it is.
async fn retry_topic(
    group: &Group,
    consumer: &str,
    origin: &Arc<Topic>,
) -> Result<Arc<Topic>, Failure> {
    if origin.config.name.starts_with(topics::RETRY_PREFIX) {
        return Ok(origin.clone());
    }
    let name = topics::pop_retry_topic(consumer, &origin.config.name);
    let found = group.store.tables().topic(&name);
    if let Some(found) = found {
        return Ok(found);
    }
    let config = TopicConfig::new(&name, 1);
    let create = vec![Command::CreateTopic { config }];
    group.execute(create, Instant::now() + HOLD).await?;
    let found = group.store.tables().topic(&name);
    found.ok_or(Failure::NotLeader)
}

/// Writes the messages and the end of their leases as one; returns how many messages came again.
async fn append(group: &Group, expired: Vec<Expired>) -> Result<u64, Failure> {
    let messages = expired
        .iter()
        .filter_map(|expired| expired.message.as_ref());
    let sizes = messages.map(|(_, message)| message.len() + OVERHEAD_BYTES);
    let (count, bytes) = sizes.fold((0, 0), |(count, bytes), size| (count + 1, bytes + size));
    if let Some(reason) = group.disk.refuses(bytes) {
        return Err(Failure::code(ResponseCode::SERVICE_NOT_AVAILABLE, reason));
    }
    let encode = |batch: &mut BatchBuilder| push(batch, &expired);
    let appending = group
        .appender
        .append((count, bytes), encode, Instant::now() + HOLD);
    let appended = appending.await?;
    let stored = appended
        .iter()
        .filter(|one| matches!(one, Appended::At { .. }));
    Ok(stored.count() as u64)
}

fn push(batch: &mut BatchBuilder, expired: &[Expired]) {
    let mut leases = Vec::with_capacity(expired.len());
    for Expired { lease, message } in expired {
        let row = message.as_ref().map(|(topic, bytes)| {
            let original = messages_in(bytes).next().expect("one was read");
            push_copy(batch, topic, &original, lease.name.pop_ms) as u32
        });
        leases.push(Redelivery {
            group: lease.group.to_string(),
            name: lease.name,
            row,
        });
    }
    batch.push_command(&Command::Redeliver { leases });
}

/// The message once more, with one more delivery counted.
fn push_copy(
    batch: &mut BatchBuilder,
    topic: &Topic,
    original: &MessageView<'_>,
    pop_ms: u64,
) -> usize {
    let key = QueueKey {
        topic_id: topic.id,
        queue: 0,
    };
    let properties = properties_of_copy(original, pop_ms);
    let mut copy = NewMessage {
        topic: &topic.config.name,
        queue_id: key.queue,
        flag: original.flag(),
        sys_flag: original.sys_flag(),
        born_timestamp: original.born_timestamp(),
        born_host: original.born_host(),
        reconsume_times: original.reconsume_times().saturating_add(1),
        prepared_offset: original.prepared_offset(),
        body: original.body(),
        properties: &properties,
    };
    if copy.encoded_len().is_err() {
        // There is no room for one property more.
        copy.properties = original.properties();
    }
    let head = RowHead {
        topic_id: key.topic_id,
        ..RowHead::default()
    };
    let pushed = batch.push_message(head, &copy);
    pushed.expect("a message of another topic with the same properties")
}

/// All properties, and when the message was first handed out.
fn properties_of_copy(original: &MessageView<'_>, pop_ms: u64) -> Vec<u8> {
    let mut properties = original.properties().to_vec();
    if original.property(names::FIRST_POP_TIME).is_none() {
        message::push_property(&mut properties, names::FIRST_POP_TIME, &pop_ms.to_string());
    }
    properties
}
