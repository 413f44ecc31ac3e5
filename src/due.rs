//! Delivers the messages of a group that wait, each when it is due; carries those further that retention is
//! about to reach.
//!
//! Only the leader works here. A delivery is a message of its real topic that names the place it resolves, so
//! whatever was proposed before a leader fell, applying does it once. The next batch is read when the one
//! before is applied, so nothing is proposed twice by one leader either.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use gantry_protocol::properties::{Builder, names};
use gantry_raft::aside;
use gantry_storage::batch::{BatchBuilder, RowHead, RowKind};
use gantry_storage::message::{FLAG_TRANSACTION_MASK, MessageView, NewMessage};
use gantry_storage::planted::{Bug, planted};
use gantry_storage::tables::{Command, GIVEN_UP_MS, Topic};
use gantry_storage::{Applied, PhysicalOffset, Store};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use crate::appender::{Appended, OVERHEAD_BYTES};
use crate::clock::WallClock;
use crate::error::Failure;
use crate::group::Group;

/// Most messages of one step, and most bytes of them, except that one may be larger.
const STEP_MESSAGES: usize = 512;
const STEP_BYTES: usize = 1024 * 1024;

/// Messages of one step that lie closer to each other in the log are read together; bytes.
const NEAR_BYTES: u64 = 32 * 1024;

/// Threads that read the messages of one step when each has to be read alone, and the fewest for which it
/// is worth to ask one more.
const READERS: usize = 4;
const SHARE_MIN: usize = 16;

/// The clock is looked at this often while something waits, because it may be set.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// How long a step that failed is not tried again.
const PAUSE: Duration = Duration::from_millis(20);

/// What cannot be read is tried again after this time.
const UNREADABLE_PAUSE: Duration = Duration::from_secs(5);

/// How long a write waits for room.
const ROOM_WAIT: Duration = Duration::from_secs(10);

/// What wakes those who work on messages that wait.
#[derive(Debug)]
pub struct Signals {
    next_timer_ms: watch::Sender<Option<u64>>,
    next_check_ms: watch::Sender<Option<u64>>,
    keep_from: watch::Sender<PhysicalOffset>,
}

impl Signals {
    /// Signals for a group with the state of `store`.
    pub fn new(store: &Store) -> Self {
        let tables = store.tables();
        let parked = tables.parked();
        Signals {
            next_timer_ms: watch::Sender::new(parked.timers().first_ms()),
            next_check_ms: watch::Sender::new(parked.halves().first_ms()),
            keep_from: watch::Sender::new(PhysicalOffset::ZERO),
        }
    }

    /// A record was applied.
    pub fn applied(&self, applied: &Applied) {
        set(&self.next_timer_ms, applied.next_timer_ms);
        set(&self.next_check_ms, applied.next_check_ms);
    }

    /// Retention wants everything before `base` to go: what waits there must move.
    pub fn keep_from(&self, base: PhysicalOffset) {
        set(&self.keep_from, base);
    }

    /// When the producer of a half message is asked next, as it changes.
    pub fn next_check_ms(&self) -> watch::Receiver<Option<u64>> {
        self.next_check_ms.subscribe()
    }
}

fn set<T: PartialEq>(sender: &watch::Sender<T>, value: T) {
    sender.send_if_modified(|known| {
        let differs = *known != value;
        *known = value;
        differs
    });
}

/// What a step has come to.
enum Step {
    /// There may be more to do at once.
    Worked,
    /// Nothing is due.
    Idle,
}

/// A message that waited, on its way.
struct Parcel {
    place: PhysicalOffset,
    due_ms: u64,
    /// As it is in the log.
    message: Bytes,
    /// Where it goes; `None` if that topic is gone.
    to: Option<(Arc<Topic>, u16)>,
}

/// Delivers what waits in `group` until the replica stops.
pub async fn run(group: Arc<Group>, clock: WallClock) {
    let mut leadership = group.replica.leadership();
    let mut next_timer_ms = group.signals.next_timer_ms.subscribe();
    let mut keep_from = group.signals.keep_from.subscribe();
    let mut unreadable = Unreadable::default();
    loop {
        if !leadership.borrow_and_update().ready {
            if leadership.changed().await.is_err() {
                return;
            }
            continue;
        }
        let next_ms = *next_timer_ms.borrow_and_update();
        let base = *keep_from.borrow_and_update();
        let pause = match step(&group, &clock, base, &mut unreadable).await {
            Ok(Step::Worked) => continue,
            Ok(Step::Idle) if !unreadable.places.is_empty() => Some(LOOK_INTERVAL),
            Ok(Step::Idle) => until_due(&group, &clock, next_ms),
            Err(Failure::Stopped) => return,
            Err(failure) => {
                tracing::debug!(group = group.name, %failure, "what is due waits a moment");
                Some(PAUSE)
            }
        };
        tokio::select! {
            changed = leadership.changed() => if changed.is_err() { return },
            _ = next_timer_ms.changed() => {}
            _ = keep_from.changed() => {}
            () = sleep_or_wait(pause) => {}
        }
    }
}

async fn sleep_or_wait(pause: Option<Duration>) {
    match pause {
        Some(pause) => sleep(pause).await,
        None => std::future::pending().await,
    }
}

/// How long nothing is due; `None` while nothing waits.
fn until_due(group: &Group, clock: &WallClock, next_ms: Option<u64>) -> Option<Duration> {
    let wait_ms = next_ms?.saturating_sub(group.now_ms(clock));
    Some(Duration::from_millis(wait_ms).min(LOOK_INTERVAL))
}

/// Messages that could not be read, and when that is tried again.
#[derive(Default)]
struct Unreadable {
    places: BTreeSet<PhysicalOffset>,
    again: Option<Instant>,
}

impl Unreadable {
    fn note(&mut self, group: &Group, place: PhysicalOffset, reason: &str) {
        tracing::error!(group = group.name, %place, reason, "a message that waits cannot be read");
        self.places.insert(place);
        self.again.get_or_insert(Instant::now() + UNREADABLE_PAUSE);
    }

    /// The places to leave out now.
    fn now(&mut self) -> BTreeSet<PhysicalOffset> {
        if self.again.is_some_and(|again| Instant::now() >= again) {
            *self = Unreadable::default();
        }
        self.places.clone()
    }
}

async fn step(
    group: &Arc<Group>,
    clock: &WallClock,
    keep_from: PhysicalOffset,
    unreadable: &mut Unreadable,
) -> Result<Step, Failure> {
    let early_ms = if planted(Bug::TimerEarly) { 1_500 } else { 0 };
    let now_ms = group.now_ms(clock) + early_ms;
    let skip = unreadable.now();
    let due: Vec<(u64, PhysicalOffset)> = {
        let tables = group.store.tables();
        let due = tables.parked().timers().due(now_ms);
        let due = due.filter(|(_, place)| !skip.contains(place));
        due.take(STEP_MESSAGES).collect()
    };
    if !due.is_empty() {
        let parcels = read(group, due, unreadable).await?;
        return deliver(group, clock, parcels).await;
    }
    let stale = stale(group, keep_from, &skip);
    if stale.is_empty() {
        return Ok(Step::Idle);
    }
    let parcels = read(group, stale, unreadable).await?;
    move_on(group, parcels).await
}

/// What waits where retention wants to cut.
fn stale(
    group: &Group,
    keep_from: PhysicalOffset,
    skip: &BTreeSet<PhysicalOffset>,
) -> Vec<(u64, PhysicalOffset)> {
    let tables = group.store.tables();
    let parked = tables.parked();
    let timers = parked.timers().before(keep_from);
    let all = timers.chain(parked.halves().before(keep_from));
    let readable = all.filter(|(_, place)| !skip.contains(place));
    readable.take(STEP_MESSAGES).collect()
}

/// Reads messages, as many as one step takes, in their order.
async fn read(
    group: &Arc<Group>,
    entries: Vec<(u64, PhysicalOffset)>,
    unreadable: &mut Unreadable,
) -> Result<Vec<Parcel>, Failure> {
    let lonely = lonely(&entries);
    let readers = if lonely.len() > entries.len() / 2 {
        READERS
    } else {
        1
    };
    let lonely = Arc::new(lonely);
    let share = entries.len().div_ceil(readers).max(SHARE_MIN);
    let read_share = |share: &[(u64, PhysicalOffset)]| {
        let (reading, lonely, share) = (group.clone(), lonely.clone(), share.to_vec());
        tokio::spawn(aside(move || read_now(&reading.store, share, &lonely)))
    };
    let shares: Vec<_> = entries.chunks(share).map(read_share).collect();
    let (mut parcels, mut bytes) = (Vec::new(), 0);
    for read in shares {
        let read = read.await.map_err(|_| Failure::Stopped)?;
        let (read, failed) = read.map_err(|_| Failure::Stopped)?;
        for (place, reason) in failed {
            unreadable.note(group, place, &reason);
        }
        // What does not fit is still due, and what is due later must not come before it.
        parcels.extend(read.into_iter().take_while(|parcel| {
            bytes += parcel.message.len();
            bytes <= STEP_BYTES || bytes == parcel.message.len()
        }));
    }
    Ok(parcels)
}

/// The places that have no other one near them.
fn lonely(entries: &[(u64, PhysicalOffset)]) -> BTreeSet<PhysicalOffset> {
    let mut places: Vec<PhysicalOffset> = entries.iter().map(|(_, place)| *place).collect();
    places.sort_unstable();
    let is_near = |one: PhysicalOffset, other: PhysicalOffset| {
        other.get().saturating_sub(one.get()) < NEAR_BYTES
    };
    let lonely = |at: &usize| {
        let has_before = *at > 0 && is_near(places[*at - 1], places[*at]);
        let has_behind = *at + 1 < places.len() && is_near(places[*at], places[*at + 1]);
        !has_before && !has_behind
    };
    (0..places.len())
        .filter(lonely)
        .map(|at| places[at])
        .collect()
}

type Failed = Vec<(PhysicalOffset, String)>;

fn read_now(
    store: &Store,
    entries: Vec<(u64, PhysicalOffset)>,
    lonely: &BTreeSet<PhysicalOffset>,
) -> (Vec<Parcel>, Failed) {
    let (mut parcels, mut failed, mut bytes) = (Vec::new(), Vec::new(), 0);
    for (due_ms, place) in entries {
        let read = match lonely.contains(&place) {
            true => store.parked_message_alone(place),
            false => store.parked_message(place),
        };
        let message = match read {
            Ok(Some(message)) => message,
            Ok(None) => {
                failed.push((place, "it is not in the log".to_string()));
                continue;
            }
            Err(error) => {
                failed.push((place, error.to_string()));
                continue;
            }
        };
        bytes += message.len();
        match MessageView::parse(&message) {
            Ok(view) => {
                let to = destination(store, &view);
                parcels.push(Parcel {
                    place,
                    due_ms,
                    message,
                    to,
                });
            }
            Err(error) => failed.push((place, error.to_string())),
        }
        if bytes > STEP_BYTES {
            break;
        }
    }
    (parcels, failed)
}

/// Where a message that waited goes. A topic that was made smaller takes it in another queue.
pub fn destination(store: &Store, message: &MessageView<'_>) -> Option<(Arc<Topic>, u16)> {
    let name = message.property(names::REAL_TOPIC)?;
    let topic = store.tables().topic(name)?;
    let queue = message.property(names::REAL_QUEUE_ID)?;
    let queue: u16 = queue.parse().unwrap_or(0);
    let queue = queue % topic.queues().max(1);
    Some((topic, queue))
}

/// Proposes the messages that these become, and those that become nothing.
async fn deliver(
    group: &Arc<Group>,
    clock: &WallClock,
    parcels: Vec<Parcel>,
) -> Result<Step, Failure> {
    let (going, gone): (Vec<Parcel>, Vec<Parcel>) =
        parcels.into_iter().partition(|parcel| parcel.to.is_some());
    if !gone.is_empty() {
        let places = gone.iter().map(|parcel| parcel.place).collect();
        give_up(group, places).await?;
    }
    if going.is_empty() {
        return Ok(Step::Worked);
    }
    let bytes = going
        .iter()
        .map(|parcel| parcel.message.len() + OVERHEAD_BYTES);
    let size = (going.len(), bytes.sum());
    let encode = |batch: &mut BatchBuilder| {
        for parcel in &going {
            push_delivered(batch, parcel);
        }
    };
    let until = Instant::now() + ROOM_WAIT;
    let results = group.appender.append(size, encode, until).await?;
    let now_ms = clock.now_ms();
    for (parcel, result) in going.iter().zip(results) {
        match result {
            Appended::At { .. } => {
                let late_ms = now_ms.saturating_sub(parcel.due_ms);
                let late = Duration::from_millis(late_ms).as_secs_f64();
                group.metrics.parked.timer_lateness.observe(late);
                group.metrics.parked.timers_delivered.inc();
            }
            // A queue that went while this was under way; what waits still does.
            Appended::NoSuchQueue if group.store.tables().parked().is_open(parcel.place) => {}
            Appended::NoSuchQueue => note_gone(group, parcel.place),
            Appended::AlreadyResolved | Appended::SentBefore(_) => {}
        }
    }
    Ok(Step::Worked)
}

async fn give_up(group: &Group, places: Vec<PhysicalOffset>) -> Result<(), Failure> {
    for place in &places {
        note_gone(group, *place);
    }
    let unpark = Command::Unpark { places };
    group.appender.execute(vec![unpark]).await.map(drop)
}

fn note_gone(group: &Group, place: PhysicalOffset) {
    group.metrics.parked.timers_without_topic.inc();
    let name = &group.name;
    tracing::warn!(group = name, %place, "a message was due whose topic is gone");
}

/// Properties that say when a message is to come, and where it was meant for.
pub const WAITING_PROPERTIES: [&str; 8] = [
    names::DELAY_LEVEL,
    names::TIMER_DELIVER_MS,
    names::TIMER_DELAY_SEC,
    names::TIMER_DELAY_MS,
    names::TIMER_OUT_MS,
    names::REAL_TOPIC,
    names::REAL_QUEUE_ID,
    names::TRANSACTION_PREPARED,
];

fn push_delivered(batch: &mut BatchBuilder, parcel: &Parcel) {
    let view = MessageView::parse(&parcel.message).expect("it was checked when it was read");
    let (topic, queue) = parcel
        .to
        .as_ref()
        .expect("those without a topic were left out");
    let text = String::from_utf8_lossy(view.properties());
    let properties = Builder::from_text_without(&text, &WAITING_PROPERTIES);
    let message = NewMessage {
        topic: &topic.config.name,
        sys_flag: view.sys_flag() & !FLAG_TRANSACTION_MASK,
        ..copy(&view, *queue, properties.as_str().as_bytes())
    };
    let head = RowHead {
        topic_id: topic.id,
        kind: RowKind::Resolves,
        origin: parcel.place.get(),
    };
    let pushed = batch.push_message(head, &message);
    pushed.expect("it was stored with more properties before");
}

/// The same message again.
pub fn copy<'a>(view: &MessageView<'a>, queue_id: u16, properties: &'a [u8]) -> NewMessage<'a> {
    NewMessage {
        topic: view.topic(),
        queue_id,
        flag: view.flag(),
        sys_flag: view.sys_flag(),
        born_timestamp: view.born_timestamp(),
        born_host: view.born_host(),
        reconsume_times: view.reconsume_times(),
        prepared_offset: view.prepared_offset(),
        body: view.body(),
        properties,
    }
}

/// Appends messages that wait once more, to wait there. Transactions that were given up end here.
async fn move_on(group: &Arc<Group>, parcels: Vec<Parcel>) -> Result<Step, Failure> {
    let (given_up, parcels): (Vec<Parcel>, Vec<Parcel>) = parcels
        .into_iter()
        .partition(|parcel| parcel.due_ms == GIVEN_UP_MS);
    if !given_up.is_empty() {
        let places: Vec<PhysicalOffset> = given_up.iter().map(|parcel| parcel.place).collect();
        let (name, count) = (&group.name, places.len());
        tracing::warn!(
            group = name,
            count,
            "transactions given up go with their part of the log"
        );
        let unpark = Command::Unpark { places };
        group.appender.execute(vec![unpark]).await?;
    }
    if parcels.is_empty() {
        return Ok(Step::Worked);
    }
    let ids = parcels.iter().map(|parcel| {
        let view = MessageView::parse(&parcel.message).ok()?;
        Some(group.store.tables().topic(view.topic())?.id)
    });
    let Some(ids) = ids.collect::<Option<Vec<u32>>>() else {
        let reason = "a topic for messages that wait is gone";
        return Err(Failure::code(
            gantry_protocol::ResponseCode::SYSTEM_ERROR,
            reason,
        ));
    };
    let bytes = parcels
        .iter()
        .map(|parcel| parcel.message.len() + OVERHEAD_BYTES);
    let size = (parcels.len(), bytes.sum());
    let encode = |batch: &mut BatchBuilder| {
        for (parcel, topic_id) in parcels.iter().zip(&ids) {
            let view =
                MessageView::parse(&parcel.message).expect("it was checked when it was read");
            let head = RowHead {
                topic_id: *topic_id,
                kind: RowKind::Moves,
                origin: parcel.place.get(),
            };
            let message = copy(&view, view.queue_id() as u16, view.properties());
            let pushed = batch.push_with_tags_code(head, &message, parcel.due_ms as i64);
            pushed.expect("it was stored before");
        }
    };
    let until = Instant::now() + ROOM_WAIT;
    let moved = group.appender.append(size, encode, until).await?;
    group.metrics.parked.moved.inc_by(moved.len() as u64);
    Ok(Step::Worked)
}
