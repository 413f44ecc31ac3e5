//! Takes messages by POP, one pop under way for each queue, and acknowledges them.

use std::time::Instant;

use clap::ValueEnum;
use gantry_protocol::ResponseCode;
use gantry_protocol::headers::PopResponse;

use super::answers::Answer;
use super::driver::Driver;
use super::frames::{HeaderKind, OPAQUE_FIRST};
use super::pops::{self, Handed};
use super::reader::{ReadQueue, split_message};
use super::tally::Tally;
use super::turns::Turns;

/// How messages are acknowledged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum AckKind {
    /// Each message by a request of its own, as stock clients do.
    #[default]
    One,
    /// All messages of a pop by one request, as RocketMQ's proxy can.
    Batch,
}

/// How messages are taken.
pub(super) struct Popping {
    pub(super) header: HeaderKind,
    /// Most messages of one pop.
    pub(super) batch: i32,
    pub(super) acks: AckKind,
    /// Whether a pop at the end of a queue waits for a message, or the end is the end.
    pub(super) waits: bool,
    pub(super) consumer: String,
    /// Names of the groups, in the order that connections have them.
    pub(super) brokers: Vec<String>,
}

/// Acknowledgements of the messages of one pop that are not answered yet, or one of them.
#[derive(Clone, Copy, Debug)]
struct AckFlight {
    connection: usize,
    /// When the messages were asked for.
    popped: Instant,
    messages: u64,
    bytes: u64,
}

/// The consumers.
pub(super) struct Popper {
    popping: Popping,
    queues: Vec<ReadQueue>,
    turns: Turns,
    /// Requests to be written, with their connection.
    to_ack: Vec<(usize, Vec<u8>)>,
    acks: Vec<Option<AckFlight>>,
    free: Vec<usize>,
    is_over: bool,
    counted_from: Option<Instant>,
    pub(super) tally: Tally,
}

impl Popper {
    pub(super) fn new(popping: Popping, queues: Vec<ReadQueue>) -> Popper {
        Popper {
            turns: Turns::of_all(queues.len()),
            popping,
            queues,
            to_ack: Vec::new(),
            acks: Vec::new(),
            free: Vec::new(),
            is_over: false,
            counted_from: None,
            tally: Tally::new(),
        }
    }

    /// Puts all requests that are due into the connections' buffers.
    pub(super) fn ask_due(&mut self, now: Instant, driver: &mut Driver) {
        for (index, frame) in self.to_ack.drain(..) {
            let connection = &mut driver.connections[index];
            // Those of a connection that broke have been given up.
            if connection.stream.is_some() {
                connection.out.extend_from_slice(&frame);
                driver.has_output(index);
            }
        }
        for position in self.turns.take_due(now) {
            let queue = &mut self.queues[position];
            let is_read = !self.popping.waits && queue.next >= queue.end;
            let connection = &mut driver.connections[queue.connection];
            if is_read || self.is_over || connection.stream.is_none() {
                continue;
            }
            let opaque = OPAQUE_FIRST + position as i32;
            let frame = pops::pop(&self.popping, &queue.queue, opaque);
            connection.out.extend_from_slice(&frame);
            queue.asked = Some(now);
            driver.has_output(queue.connection);
        }
    }

    /// An answer has come on a connection to the group at a position.
    ///
    /// # Errors
    /// It makes no sense: the connection is of no more use.
    pub(super) fn answered(
        &mut self,
        group: usize,
        answer: &Answer<'_>,
        now: Instant,
    ) -> Result<(), String> {
        let outcome = answer.outcome()?;
        let number = outcome.opaque.checked_sub(OPAQUE_FIRST);
        let number = number.and_then(|number| usize::try_from(number).ok());
        let (Some(number), true) = (number, outcome.is_response) else {
            return Ok(());
        };
        if let Some(slot) = number.checked_sub(self.queues.len()) {
            self.acknowledged(slot, answer, now);
            return Ok(());
        }
        let Some(asked) = self.queues[number].asked.take() else {
            return Ok(());
        };
        match ResponseCode(outcome.code) {
            ResponseCode::SUCCESS => {
                self.acknowledge((number, group), answer, asked)?;
                self.turns.again(number);
            }
            ResponseCode::POLLING_TIMEOUT if self.popping.waits => self.turns.again(number),
            ResponseCode::POLLING_TIMEOUT
            | ResponseCode::POLLING_FULL
            | ResponseCode::PULL_NOT_FOUND => self.turns.pause(number, now),
            _ => {
                self.fail(1, || answer.reason());
                self.turns.pause(number, now);
            }
        }
        Ok(())
    }

    /// Acknowledges what was handed out.
    fn acknowledge(
        &mut self,
        (position, group): (usize, usize),
        answer: &Answer<'_>,
        asked: Instant,
    ) -> Result<(), String> {
        let (mut rest, mut sizes) = (answer.body, Vec::new());
        while !rest.is_empty() {
            let (body, after) = split_message(rest).ok_or("a message whose sizes are wrong")?;
            sizes.push(body.len() as u64);
            rest = after;
        }
        let command = answer.command()?;
        let header = PopResponse::parse(&command.fields).map_err(|error| error.to_string())?;
        let handed = Handed::all(&header)?;
        let count: usize = handed.iter().map(|part| part.offsets.len()).sum();
        if count != sizes.len() {
            return Err(format!("{} messages and {count} handles", sizes.len()));
        }
        let queue = &mut self.queues[position];
        let own = handed.iter().filter(|part| !part.is_retry());
        let last = own.flat_map(|part| part.offsets.iter().copied()).max();
        queue.next = queue.next.max(last.map_or(0, |last| last + 1));
        let flight = AckFlight {
            connection: queue.connection,
            popped: asked,
            messages: 0,
            bytes: 0,
        };
        let mut sizes = sizes.into_iter();
        for part in handed {
            let of_request = match self.popping.acks {
                AckKind::One => 1,
                AckKind::Batch => part.offsets.len().max(1),
            };
            for offsets in part.offsets.chunks(of_request) {
                let flight = AckFlight {
                    messages: offsets.len() as u64,
                    bytes: sizes.by_ref().take(offsets.len()).sum(),
                    ..flight
                };
                let slot = self.put(flight);
                let opaque = OPAQUE_FIRST + (self.queues.len() + slot) as i32;
                let queue = &self.queues[position].queue;
                let frame = pops::ack(&self.popping, (queue, group), opaque, (&part, offsets));
                self.to_ack.push((flight.connection, frame));
            }
        }
        Ok(())
    }

    fn put(&mut self, flight: AckFlight) -> usize {
        let slot = self.free.pop().unwrap_or(self.acks.len());
        if slot == self.acks.len() {
            self.acks.push(None);
        }
        self.acks[slot] = Some(flight);
        slot
    }

    fn acknowledged(&mut self, slot: usize, answer: &Answer<'_>, now: Instant) {
        let Some(flight) = self.acks.get_mut(slot).and_then(Option::take) else {
            return;
        };
        self.free.push(slot);
        let is_done = answer.outcome().is_ok_and(|outcome| outcome.code == 0);
        if !is_done {
            self.fail(flight.messages, || answer.reason());
        } else if self.counted_from.is_some() {
            self.tally.messages += flight.messages;
            self.tally.bytes += flight.bytes;
            let latency = now.saturating_duration_since(flight.popped);
            self.tally.latencies.record(latency, flight.messages);
        }
    }

    fn fail(&mut self, count: u64, reason: impl FnOnce() -> String) {
        self.tally.first_failure.get_or_insert_with(reason);
        self.tally.failed += if self.counted_from.is_some() {
            count
        } else {
            0
        };
    }

    /// A connection has broken; what it was asked is asked again when it is there again, and what was not
    /// acknowledged comes again.
    pub(super) fn lost(&mut self, connection: usize, reason: &str) {
        let mut failed = 0;
        for queue in &mut self.queues {
            let was_asked = queue.connection == connection && queue.asked.take().is_some();
            failed += u64::from(was_asked);
        }
        for slot in 0..self.acks.len() {
            let flight = self.acks[slot].take_if(|flight| flight.connection == connection);
            if let Some(flight) = flight {
                failed += flight.messages;
                self.free.push(slot);
            }
        }
        self.to_ack.retain(|(index, _)| *index != connection);
        if failed > 0 {
            self.fail(failed, || reason.to_string());
        }
    }

    /// A connection is there again.
    pub(super) fn reconnected(&mut self, connection: usize) {
        self.turns.reconnected(connection, &self.queues);
    }

    /// When something becomes due without an answer.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.turns.next_due()
    }

    /// The measurement begins.
    pub(super) fn begin_counting(&mut self, now: Instant) {
        self.tally.clear();
        self.counted_from = Some(now);
    }

    /// The measurement ends: nothing more is taken, and what was taken is still acknowledged.
    pub(super) fn end_counting(&mut self) {
        self.counted_from = None;
        self.is_over = true;
    }

    /// Whether every queue has been read to its end, and every message acknowledged.
    pub(super) fn is_finished(&self) -> bool {
        let is_read = self.queues.iter().all(|queue| queue.next >= queue.end);
        !self.popping.waits && is_read && self.is_acknowledged()
    }

    /// Whether nothing is left that others would have to wait for.
    pub(super) fn has_drained(&self) -> bool {
        let is_popping = self.queues.iter().any(|queue| queue.asked.is_some());
        self.is_acknowledged() && (self.popping.waits || !is_popping)
    }

    fn is_acknowledged(&self) -> bool {
        self.free.len() == self.acks.len()
    }
}
