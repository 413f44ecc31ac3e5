//! Sends messages and books what becomes of them.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::Bytes;
use gantry_protocol::headers::SendResponse;
use gantry_protocol::message_id::OffsetMessageId;

use super::answers::Answer;
use super::connection::{Flight, Flights};
use super::driver::{Driver, Lost};
use super::frames::{self, Born, Half, HeaderKind, Queue, SendFrame, Variable};
use super::kinds::MessageKind;
use super::pacing::{Schedule, Walk};
use super::stamp::Stamp;
use super::tally::{Gaps, Tally};
use super::timers::TimerPlan;

/// After a refusal the connection waits, so that a broker that refuses is not asked a million times a second.
const REFUSED_PAUSE: Duration = Duration::from_millis(10);
/// What stock producers give a send.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);
const SILENCE_CHECK_INTERVAL: Duration = Duration::from_millis(100);
const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(30);

/// What is sent, and by how many.
pub(super) struct Load {
    pub(super) header: HeaderKind,
    pub(super) kind: MessageKind,
    /// When each message is due, if they are timed.
    pub(super) timers: Option<TimerPlan>,
    /// Bytes of a message's body.
    pub(super) size: usize,
    /// Messages of one request.
    pub(super) batch: u32,
    /// Producers that the connections belong to in turn.
    pub(super) producers: u32,
    /// What messages carry so that their latency is known where they are read.
    pub(super) stamp: Option<Stamp>,
    /// The queues of each group, used in turn.
    pub(super) queues: Vec<Vec<Queue>>,
}

/// When messages are sent.
#[derive(Clone, Debug)]
pub(super) enum Pace {
    /// When an earlier one was answered; at most so many messages in all.
    Closed { walk: Walk, messages_max: u64 },
    /// When the clock says so, while fewer than so many requests are under way.
    Open { schedule: Schedule, requests: usize },
}

/// The producers.
pub(super) struct Sender {
    load: Load,
    /// By group.
    frames: Vec<Vec<SendFrame>>,
    body: Bytes,
    pace: Pace,
    /// Whether a message is sent again until it is acknowledged.
    retries: bool,
    /// By connection: the next of its group's frames.
    cursors: Vec<usize>,
    /// By connection: what is to be sent, with the time that its latency counts from if that is not the time
    /// of sending.
    due: Vec<VecDeque<Option<Instant>>>,
    /// Connections where something has become due.
    visit: Vec<usize>,
    /// Due on a connection after a pause, in the order of time.
    paused: VecDeque<(Instant, usize, Option<Instant>)>,
    /// Half messages to be committed, with their connection and what their latency counts from.
    halves: Vec<(usize, Instant, Half)>,
    /// Number of the next message.
    number: u64,
    /// Requests without an answer.
    under_way: usize,
    /// The next connection of an open loop.
    turn: usize,
    next_heartbeat: Instant,
    next_silence_check: Instant,
    born: Born,
    counted_from: Option<Instant>,
    pub(super) tally: Tally,
    /// Timers that were acknowledged before the first of them was due.
    pub(super) pending: u64,
    pub(super) gaps: Option<Gaps>,
}

impl Sender {
    /// Producers on the first `connections` connections.
    ///
    /// # Errors
    /// The messages are too large for a frame.
    pub(super) fn new(
        load: Load,
        pace: Pace,
        connections: usize,
        retries: bool,
    ) -> Result<Sender, String> {
        let body = frames::body(load.size, load.batch);
        let frame = |queue: &Queue| SendFrame::new(load.header, queue, load.kind, body.len());
        let mut by_group = Vec::new();
        for queues in &load.queues {
            let encoded: Result<Vec<SendFrame>, String> = queues.iter().map(frame).collect();
            by_group.push(encoded?);
        }
        let now = Instant::now();
        let mut sender = Sender {
            frames: by_group,
            body,
            retries,
            cursors: (0..connections).collect(),
            due: vec![VecDeque::new(); connections],
            visit: Vec::new(),
            paused: VecDeque::new(),
            halves: Vec::new(),
            number: 0,
            under_way: 0,
            turn: 0,
            next_heartbeat: now,
            next_silence_check: now,
            born: Born::new(),
            counted_from: None,
            tally: Tally::new(),
            pending: 0,
            gaps: retries.then(|| Gaps::new(load.queues.len(), now)),
            pace,
            load,
        };
        if let Pace::Closed { walk, .. } = sender.pace {
            for connection in walk.begin() {
                sender.push(connection, None);
            }
        }
        Ok(sender)
    }

    fn push(&mut self, connection: usize, from: Option<Instant>) {
        // A connection with something due is listed already, or is down.
        if self.due[connection].is_empty() {
            self.visit.push(connection);
        }
        self.due[connection].push_back(from);
    }

    /// A connection is there again.
    pub(super) fn reconnected(&mut self, connection: usize, driver: &mut Driver) {
        if connection >= self.due.len() {
            return;
        }
        self.greet(connection, driver);
        self.visit.push(connection);
    }

    fn greet(&mut self, connection: usize, driver: &mut Driver) {
        let producer = connection as u32 % self.load.producers;
        let heartbeat = frames::heartbeat(self.load.header, producer);
        let place = &mut driver.connections[connection];
        if place.stream.is_some() {
            place.out.extend_from_slice(&heartbeat);
            driver.has_output(connection);
        }
    }

    /// Puts all that is due into the connections' buffers.
    pub(super) fn send_due(&mut self, now: Instant, driver: &mut Driver) {
        if self.next_heartbeat <= now {
            self.next_heartbeat = now + HEARTBEAT_INTERVAL;
            (0..self.due.len()).for_each(|connection| self.greet(connection, driver));
        }
        self.admit(now);
        self.commit_halves(now, driver);
        if self.visit.is_empty() {
            return;
        }
        let born = *self.born.now();
        let mut visit = std::mem::take(&mut self.visit);
        for index in visit.drain(..) {
            // What is due on a connection that is down waits until it is up.
            if driver.connections[index].stream.is_none() {
                continue;
            }
            while let Some(from) = self.due[index].pop_front() {
                if from.is_none() && !self.may_begin() {
                    continue;
                }
                self.put(index, from.unwrap_or(now), (now, &born), driver);
            }
            driver.has_output(index);
        }
        self.visit = visit;
    }

    /// What the clock makes due.
    fn admit(&mut self, now: Instant) {
        while let Some((at, connection, from)) = self.paused.front().copied() {
            if at > now {
                break;
            }
            self.paused.pop_front();
            self.push(connection, from);
        }
        loop {
            let Pace::Open { schedule, requests } = &mut self.pace else {
                return;
            };
            if self.under_way >= *requests {
                return;
            }
            let Some(at) = schedule.take_due(now) else {
                return;
            };
            self.under_way += 1;
            let connection = self.turn;
            self.turn = (self.turn + 1) % self.due.len();
            self.push(connection, Some(at));
        }
    }

    /// Takes a new message from what a closed loop may still send.
    fn may_begin(&mut self) -> bool {
        let Pace::Closed { messages_max, .. } = &mut self.pace else {
            return true;
        };
        let allowed = *messages_max > 0;
        *messages_max = messages_max.saturating_sub(u64::from(self.load.batch));
        self.under_way += usize::from(allowed);
        allowed
    }

    fn put(
        &mut self,
        index: usize,
        from: Instant,
        (now, born): (Instant, &[u8; 13]),
        driver: &mut Driver,
    ) {
        let connection = &mut driver.connections[index];
        let frames = &self.frames[connection.group];
        let cursor = &mut self.cursors[index];
        let frame = &frames[*cursor % frames.len()];
        *cursor = cursor.wrapping_add(1);
        let number = self.number;
        self.number += 1;
        let flight = Flight {
            from,
            sent: now,
            is_half: self.load.kind == MessageKind::Transactional,
        };
        let timers = &self.load.timers;
        let variable = Variable {
            opaque: connection.flights.put(flight),
            producer: index as u32 % self.load.producers,
            born,
            number,
            due_ms: timers.map_or(0, |plan| plan.due_ms(number)),
        };
        frame.append(&variable, &mut connection.out);
        let start = connection.out.len();
        connection.out.extend_from_slice(&self.body);
        if let Some(stamp) = &self.load.stamp {
            stamp.write(from, &mut connection.out[start..]);
        }
        if let Some(plan) = timers {
            plan.write(number, &mut connection.out[start..]);
        }
        driver.write_early(index);
    }

    fn commit_halves(&mut self, now: Instant, driver: &mut Driver) {
        let mut halves = std::mem::take(&mut self.halves);
        for (index, from, half) in halves.drain(..) {
            let flight = Flight {
                from,
                sent: now,
                is_half: false,
            };
            let connection = &mut driver.connections[index];
            if connection.stream.is_none() {
                let reason = "the connection broke before a half message was committed";
                self.failed(index, flight, reason, now);
                continue;
            }
            let opaque = connection.flights.put(flight);
            let producer = index as u32 % self.load.producers;
            let frame = frames::commit(self.load.header, opaque, producer, half);
            connection.out.extend_from_slice(&frame);
            driver.has_output(index);
        }
        self.halves = halves;
    }

    /// An answer has come. Returns why the connection should not be used any more, if that is so.
    pub(super) fn answered(
        &mut self,
        (index, group): (usize, usize),
        flights: &mut Flights,
        answer: &Answer<'_>,
        now: Instant,
    ) -> Result<(), String> {
        let outcome = answer.outcome()?;
        if !outcome.is_response {
            return Ok(());
        }
        let Some(flight) = flights.take(outcome.opaque) else {
            // A heartbeat's.
            return Ok(());
        };
        if outcome.code == 0 && flight.is_half {
            self.halves.push((index, flight.from, half_of(answer)?));
            return Ok(());
        }
        if outcome.code == 0 {
            self.acknowledged((index, group), flight, now);
            return Ok(());
        }
        let reason = answer.reason();
        if self.counts(flight.from) {
            self.tally.refusals.record(now - flight.sent, 1);
        }
        self.failed(index, flight, &reason, now);
        // A broker that refuses may not be the one to ask any more: a fresh route tells.
        if self.retries { Err(reason) } else { Ok(()) }
    }

    fn acknowledged(&mut self, (index, group): (usize, usize), flight: Flight, now: Instant) {
        self.under_way -= 1;
        if self.counts(flight.from) {
            let messages = u64::from(self.load.batch);
            self.tally.messages += messages;
            self.tally.bytes += messages * self.load.size as u64;
            self.tally.latencies.record(now - flight.from, messages);
            let timers = &self.load.timers;
            let in_time = timers.as_ref().is_some_and(|plan| now < plan.first);
            self.pending += u64::from(in_time);
        }
        if let Some(gaps) = &mut self.gaps {
            gaps.acknowledged(group, now);
        }
        if let Pace::Closed { walk, .. } = self.pace {
            self.push(walk.next(index), None);
        }
    }

    /// Whether a message that began then belongs to the measurement. A closed loop counts what is answered
    /// in its time, an open loop what was scheduled in it.
    fn counts(&self, from: Instant) -> bool {
        match self.pace {
            Pace::Closed { .. } => self.counted_from.is_some(),
            Pace::Open { .. } => self.counted_from.is_some_and(|since| from >= since),
        }
    }

    fn failed(&mut self, index: usize, flight: Flight, reason: &str, now: Instant) {
        self.tally
            .first_failure
            .get_or_insert_with(|| reason.to_string());
        let resumed = now + REFUSED_PAUSE;
        if self.retries {
            self.tally.retried += u64::from(self.load.batch);
            self.paused.push_back((resumed, index, Some(flight.from)));
            return;
        }
        self.under_way -= 1;
        if self.counts(flight.from) {
            self.tally.failed += u64::from(self.load.batch);
        }
        if let Pace::Closed { walk, .. } = self.pace {
            self.paused.push_back((resumed, walk.next(index), None));
        }
    }

    /// A connection has broken.
    pub(super) fn lost(&mut self, lost: Lost, reason: &str, now: Instant) {
        for flight in lost.flights {
            self.failed(lost.connection, flight, reason, now);
        }
    }

    /// Connections that owe an answer for too long, if messages are sent again.
    pub(super) fn silent(&mut self, now: Instant, driver: &Driver) -> Vec<usize> {
        if !self.retries || now < self.next_silence_check {
            return Vec::new();
        }
        self.next_silence_check = now + SILENCE_CHECK_INTERVAL;
        let is_silent = |index: &usize| {
            let flights = &driver.connections[*index].flights;
            flights
                .iter()
                .any(|flight| now.saturating_duration_since(flight.sent) > ANSWER_TIMEOUT)
        };
        (0..self.due.len()).filter(is_silent).collect()
    }

    /// When something becomes due without an answer.
    pub(super) fn next_due(&self) -> Instant {
        let mut next = self.next_heartbeat;
        if let Some((at, _, _)) = self.paused.front() {
            next = next.min(*at);
        }
        if let Pace::Open { schedule, requests } = &self.pace
            && self.under_way < *requests
            && let Some(at) = schedule.next()
        {
            next = next.min(at);
        }
        next
    }

    /// The measurement begins.
    pub(super) fn begin_counting(&mut self, now: Instant) {
        self.tally.clear();
        self.counted_from = Some(now);
        if let Some(gaps) = &mut self.gaps {
            *gaps = Gaps::new(self.load.queues.len(), now);
        }
    }

    /// The measurement ends: nothing new is begun. What an open loop has scheduled, and what is sent again,
    /// is still waited for.
    pub(super) fn end_counting(&mut self, now: Instant) {
        match &mut self.pace {
            Pace::Closed { messages_max, .. } => {
                *messages_max = 0;
                self.counted_from = None;
            }
            Pace::Open { schedule, .. } => schedule.end_at(now),
        }
    }

    /// Whether the clock says when messages are sent.
    pub(super) fn has_schedule(&self) -> bool {
        matches!(self.pace, Pace::Open { .. })
    }

    /// Whether every message has its answer, and no more will be sent.
    pub(super) fn is_finished(&self) -> bool {
        let is_over = match &self.pace {
            Pace::Closed { messages_max, .. } => *messages_max == 0,
            Pace::Open { schedule, .. } => schedule.next().is_none(),
        };
        is_over && self.under_way == 0
    }

    /// Nothing is waited for any more: what is not acknowledged has failed, and took at least until now.
    pub(super) fn give_up(&mut self, now: Instant, driver: &mut Driver) {
        let mut left: Vec<Instant> = self.due.iter().flatten().flatten().copied().collect();
        left.extend(self.paused.iter().filter_map(|(_, _, from)| *from));
        left.extend(self.halves.iter().map(|(_, from, _)| *from));
        for connection in &driver.connections[..self.due.len()] {
            left.extend(connection.flights.iter().map(|flight| flight.from));
        }
        if let Pace::Open { schedule, .. } = &mut self.pace {
            left.extend(std::iter::from_fn(|| schedule.take_due(now)));
        }
        let is_open = self.has_schedule();
        for from in left {
            if is_open && !self.counts(from) {
                continue;
            }
            self.tally.failed += u64::from(self.load.batch);
            self.tally
                .first_failure
                .get_or_insert_with(|| "not answered before the end".to_string());
            if is_open || self.retries {
                self.tally.latencies.record(
                    now.saturating_duration_since(from),
                    u64::from(self.load.batch),
                );
            }
        }
    }
}

/// Where the broker has put a half message.
fn half_of(answer: &Answer<'_>) -> Result<Half, String> {
    let command = answer.command()?;
    let header = SendResponse::parse(&command.fields).map_err(|error| error.to_string())?;
    let id: OffsetMessageId = header
        .msg_id
        .parse()
        .map_err(|error| format!("message id {}: {error}", header.msg_id))?;
    Ok(Half {
        queue_offset: header.queue_offset,
        physical_offset: id.physical_offset,
    })
}
