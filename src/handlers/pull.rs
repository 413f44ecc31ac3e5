//! Pulls: 11 and 361. Any replica answers from what it has applied; a pull that finds nothing waits.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use gantry_protocol::bodies::Subscription;
use gantry_protocol::headers::{PullRequest, PullResponse, pull_flags};
use gantry_protocol::{RemotingCommand, ResponseCode, topic as names};
use gantry_storage::planted::{Bug, planted};
use gantry_storage::tables::{Command, OffsetCommit, PERM_READ, Topic};
use gantry_storage::{QueueKey, QueueOffset, QueueRead, ReadStatus};
use tokio::time::{Instant, timeout_at};

use super::{Handled, Response};
use crate::broker::Broker;
use crate::catalog;
use crate::error::Failure;
use crate::filters::Filter;
use crate::group::{Group, HOLD};
use crate::permissions;
use crate::reading::Reading;
use crate::remoting::Request;

/// Messages and bytes of one answer, whatever the client asks for.
const MESSAGES_MAX: i32 = 1024;
const BYTES_MAX: usize = 4 * 1024 * 1024;

/// Bytes of one answer when the client does not say.
const BYTES_DEFAULT: usize = 256 * 1024;

/// The longest that a pull waits; clients give up after 30 s.
const PARK_MAX: Duration = Duration::from_secs(25);

/// An answer of "try again" that comes without a wait is delayed by this, so that nobody spins.
const RETRY_DELAY: Duration = Duration::from_millis(100);

/// What a pull asks for, checked.
struct Wanted {
    consumer_group: String,
    topic: Arc<Topic>,
    queue: u16,
    offset: i64,
    max_messages: usize,
    max_bytes: usize,
    filter: Filter,
    park: Option<Duration>,
}

impl Wanted {
    /// Where the group was moved to in this queue, unless it reads from there.
    fn pending_reset(&self, group: &Group) -> Option<QueueOffset> {
        let tables = group.store.tables();
        tables.pending_reset(&self.consumer_group, &self.topic.config.name, self.queue)
    }

    /// Whether a pull that may wait waits behind messages that its expression did not match: a client that is
    /// told of each of them could as well be sent all. One that is behind hears how far the search got.
    fn goes_on(&self, read: &QueueRead) -> bool {
        let at_the_end = read.next_offset >= read.bounds.next;
        matches!(self.filter, Filter::Sql(_)) && read.status == ReadStatus::NoMatched && at_the_end
    }
}

/// The answer to a member of a group that was moved: it is to go on from there.
fn send_to(group: &Group, wanted: &Wanted, request: &Request, target: QueueOffset) -> Response {
    let key = QueueKey {
        topic_id: wanted.topic.id,
        queue: wanted.queue,
    };
    let bounds = group.store.queue_bounds(key).unwrap_or_default();
    let mut command = RemotingCommand::response_to(
        &request.command,
        ResponseCode::PULL_OFFSET_MOVED,
        "OFFSET_RESET",
    );
    let header = PullResponse {
        next_begin_offset: target.get() as i64,
        min_offset: bounds.min.get() as i64,
        max_offset: bounds.next.get() as i64,
        ..PullResponse::default()
    };
    header.write(&mut command.fields);
    command.into()
}

/// A member reads from where its group was moved to: from now on its commits count.
async fn confirm_reset(group: &Group, wanted: &Wanted, at: QueueOffset) -> Result<(), Failure> {
    let entry = OffsetCommit {
        group: wanted.consumer_group.clone(),
        topic: wanted.topic.config.name.clone(),
        queue: wanted.queue,
        offset: at,
    };
    let confirm = Command::ConfirmReset { entry };
    catalog::change(group, vec![confirm], Instant::now() + HOLD).await
}

/// Answers a pull, at once or when there is something to give.
pub async fn handle(broker: &Broker, group: &Arc<Group>, request: &Request) -> Handled {
    let header = PullRequest::parse(&request.command.fields)?;
    let mut wanted = check(broker, group, &header, request).await?;
    if let Some(target) = wanted.pending_reset(group) {
        if target.get() as i64 != wanted.offset {
            return Ok(send_to(group, &wanted, request, target));
        }
        confirm_reset(group, &wanted, target).await?;
    }
    if header.has_flag(pull_flags::COMMIT_OFFSET) && header.commit_offset >= 0 {
        let offset = QueueOffset::new(header.commit_offset as u64);
        group
            .offsets
            .note(&wanted.consumer_group, header.topic, wanted.queue, offset);
    }
    let key = QueueKey {
        topic_id: wanted.topic.id,
        queue: wanted.queue,
    };
    let deadline = wanted.park.map(|park| request.caller.received + park);
    let mut woken = None;
    loop {
        // A client that sends many pulls and reads no answers must not have them all in our memory.
        if let Some(channel) = request.channel() {
            channel.wait_for_room().await;
        }
        let read = read(broker, group, &wanted, request).await?;
        if let Some(target) = wanted.pending_reset(group) {
            // The group was moved while this pull was waiting.
            return Ok(send_to(group, &wanted, request, target));
        }
        let Some(deadline) = deadline.filter(|deadline| Instant::now() < *deadline) else {
            return Ok(respond(group, &wanted, request, read));
        };
        if wanted.goes_on(&read) {
            wanted.offset = read.next_offset.get() as i64;
        } else if !waits(&read) {
            return Ok(respond(group, &wanted, request, read));
        } else if let Some(woken) = woken.take() {
            // Woken or not, the next turn reads again; the last one answers what it finds.
            drop(timeout_at(deadline, woken).await);
        } else {
            // Registered, and then read once more: a message that comes in between wakes it.
            woken = Some(group.long_poll.park(key));
        }
    }
}

/// Whether a pull that found this waits for more.
fn waits(read: &QueueRead) -> bool {
    matches!(read.status, ReadStatus::OffsetOverflowOne)
        || (read.status == ReadStatus::NoMessageInQueue && read.next_offset == QueueOffset::ZERO)
}

async fn check(
    broker: &Broker,
    group: &Arc<Group>,
    header: &PullRequest<'_>,
    request: &Request,
) -> Result<Wanted, Failure> {
    let topic = find_topic(group, header.topic, request).await?;
    if topic.config.perm & PERM_READ == 0 {
        let reason = format!("topic {} may not be read", header.topic);
        return Err(Failure::code(ResponseCode::NO_PERMISSION, reason));
    }
    check_permissions(group, header)?;
    let queues = topic.config.read_queues.max(topic.config.write_queues);
    let queue = u16::try_from(header.queue_id)
        .ok()
        .filter(|queue| *queue < queues);
    let queue = queue.ok_or_else(|| {
        let reason = format!(
            "topic {} has {queues} queues, not a queue {}",
            header.topic, header.queue_id
        );
        Failure::code(ResponseCode::SYSTEM_ERROR, reason)
    })?;
    let suspends = header.has_flag(pull_flags::SUSPEND);
    let park = Duration::from_millis(header.suspend_timeout_millis.max(0) as u64).min(PARK_MAX);
    let asked_bytes = header.max_msg_bytes.filter(|bytes| *bytes > 0);
    Ok(Wanted {
        consumer_group: header.consumer_group.to_string(),
        filter: filter(broker, header)?,
        topic,
        queue,
        offset: header.queue_offset,
        max_messages: header.max_msg_nums.clamp(1, MESSAGES_MAX) as usize,
        max_bytes: asked_bytes.map_or(BYTES_DEFAULT, |bytes| (bytes as usize).min(BYTES_MAX)),
        park: suspends.then_some(park),
    })
}

/// Whether the broker may be read, and the topic by this group.
fn check_permissions(group: &Group, header: &PullRequest<'_>) -> Result<(), Failure> {
    let tables = group.store.tables();
    let refused = |reason: String| Err(Failure::code(ResponseCode::NO_PERMISSION, reason));
    if permissions::of_broker(&tables) & PERM_READ == 0 {
        return refused(format!("the broker {} may not be read now", group.name));
    }
    if !permissions::may_read(&tables, header.consumer_group, header.topic) {
        let (consumer, topic) = (header.consumer_group, header.topic);
        return refused(format!(
            "group {consumer} is forbidden to read topic {topic}"
        ));
    }
    Ok(())
}

/// The topic; "does not exist" only after this replica has caught up.
async fn find_topic(group: &Group, name: &str, request: &Request) -> Result<Arc<Topic>, Failure> {
    if let Some(topic) = group.store.tables().topic(name) {
        return Ok(topic);
    }
    group.catch_up(request.caller.received + HOLD).await?;
    group.store.tables().topic(name).ok_or_else(|| {
        Failure::code(
            ResponseCode::TOPIC_NOT_EXIST,
            format!("topic {name} does not exist"),
        )
    })
}

/// What a pull wants: from the request, or from what the group subscribed with.
fn filter(broker: &Broker, header: &PullRequest<'_>) -> Result<Filter, Failure> {
    if header.has_flag(pull_flags::SUBSCRIPTION) {
        let expression = header.subscription.unwrap_or_default();
        return Filter::of(
            &broker.filters,
            header.expression_type.unwrap_or_default(),
            expression,
        );
    }
    let found = broker
        .sessions
        .subscription(header.consumer_group, header.topic);
    let Some(subscription) = found else {
        let reason = format!(
            "group {} has no subscription of topic {}; it comes with the next heartbeat",
            header.consumer_group, header.topic
        );
        return Err(Failure::code(ResponseCode::SUBSCRIPTION_NOT_EXIST, reason));
    };
    check_version(&subscription, header)?;
    Filter::of(
        &broker.filters,
        &subscription.expression_type,
        &subscription.sub_string,
    )
}

fn check_version(subscription: &Subscription, header: &PullRequest<'_>) -> Result<(), Failure> {
    if subscription.sub_version < header.sub_version.unwrap_or(0) {
        let reason = format!("the subscription of {} is not the latest", header.topic);
        return Err(Failure::code(ResponseCode::SUBSCRIPTION_NOT_LATEST, reason));
    }
    Ok(())
}

/// Reads the queue; what would send the client elsewhere is only believed after catching up.
async fn read(
    broker: &Broker,
    group: &Arc<Group>,
    wanted: &Wanted,
    request: &Request,
) -> Result<QueueRead, Failure> {
    let first = read_once(broker, group, wanted, request).await?;
    let moves = matches!(
        first.status,
        ReadStatus::OffsetOverflowBadly | ReadStatus::OffsetTooSmall | ReadStatus::NoMessageInQueue
    );
    if !moves || planted(Bug::MovedWithoutCatchUp) {
        return Ok(first);
    }
    match group.catch_up(Instant::now() + HOLD).await {
        Ok(()) => read_once(broker, group, wanted, request).await,
        Err(_) => {
            // Without a leader nobody knows: the client stays where it is and asks again.
            tokio::time::sleep(RETRY_DELAY).await;
            let offset = QueueOffset::new(wanted.offset.max(0) as u64);
            Ok(QueueRead {
                status: ReadStatus::NoMatched,
                next_offset: offset,
                ..first
            })
        }
    }
}

async fn read_once(
    broker: &Broker,
    group: &Arc<Group>,
    wanted: &Wanted,
    request: &Request,
) -> Result<QueueRead, Failure> {
    let caller = &request.caller;
    let key = QueueKey {
        topic_id: wanted.topic.id,
        queue: wanted.queue,
    };
    let offset = QueueOffset::new(wanted.offset.max(0) as u64);
    let reading = Reading {
        key,
        offset,
        max_messages: wanted.max_messages,
        max_bytes: wanted.max_bytes,
        filter: wanted.filter.clone(),
        whole: false,
        store_host: broker
            .routes
            .store_host(caller.listener, caller.node, group.id),
    };
    let read = reading.read(group, Instant::now() + HOLD).await?;
    Ok(read.unwrap_or_else(|| stay(group, key, offset)))
}

/// The answer while this replica cannot give its next message: the client stays where it is.
fn stay(group: &Group, key: QueueKey, offset: QueueOffset) -> QueueRead {
    QueueRead {
        status: ReadStatus::NoMatched,
        next_offset: offset,
        bounds: group.store.queue_bounds(key).unwrap_or_default(),
        body: Bytes::new(),
        count: 0,
    }
}

fn respond(group: &Group, wanted: &Wanted, request: &Request, read: QueueRead) -> Response {
    let (code, remark) = match read.status {
        ReadStatus::Found => (ResponseCode::SUCCESS, "FOUND"),
        ReadStatus::NoMatched => (ResponseCode::PULL_RETRY_IMMEDIATELY, "NO_MATCHED_MESSAGE"),
        ReadStatus::Removed => (ResponseCode::PULL_RETRY_IMMEDIATELY, "MESSAGE_WAS_REMOVING"),
        ReadStatus::OffsetOverflowOne => (ResponseCode::PULL_NOT_FOUND, "OFFSET_OVERFLOW_ONE"),
        ReadStatus::NoMessageInQueue if wanted.offset == 0 => {
            (ResponseCode::PULL_NOT_FOUND, "NO_MESSAGE_IN_QUEUE")
        }
        ReadStatus::NoMessageInQueue => (ResponseCode::PULL_OFFSET_MOVED, "NO_MESSAGE_IN_QUEUE"),
        ReadStatus::OffsetOverflowBadly => {
            (ResponseCode::PULL_OFFSET_MOVED, "OFFSET_OVERFLOW_BADLY")
        }
        ReadStatus::OffsetTooSmall => (ResponseCode::PULL_OFFSET_MOVED, "OFFSET_TOO_SMALL"),
    };
    let mut command = RemotingCommand::response_to(&request.command, code, remark);
    // A client that gets nowhere here may get on at another replica: the leader is 0.
    let stuck =
        read.status == ReadStatus::NoMatched && read.next_offset.get() as i64 == wanted.offset;
    let header = PullResponse {
        suggest_which_broker_id: i64::from(stuck && group.leads()),
        next_begin_offset: read.next_offset.get() as i64,
        min_offset: read.bounds.min.get() as i64,
        max_offset: read.bounds.next.get() as i64,
        ..PullResponse::default()
    };
    header.write(&mut command.fields);
    let found = read.status == ReadStatus::Found;
    group.metrics.traffic.count_pull(found);
    if found {
        let topic = &wanted.topic.config.name;
        let is_retry = names::group_of_retry_topic(topic).is_some();
        let labels = (topic.as_str(), wanted.consumer_group.as_str());
        let is_system = names::is_system(topic);
        let (count, bytes) = (read.count as u64, read.body.len() as u64);
        group
            .metrics
            .messages_out(labels, (is_system, is_retry), count, bytes);
    }
    let body: Bytes = read.body;
    Response {
        command,
        pieces: vec![body],
    }
}
