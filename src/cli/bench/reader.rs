//! Reads queues by pulls, one under way for each queue, and books what comes.

use std::time::{Duration, Instant};

use gantry_protocol::ResponseCode;
use gantry_protocol::headers::PullResponse;
use gantry_protocol::message::sys_flags;

use super::answers::Answer;
use super::driver::Driver;
use super::frames::{self, HeaderKind, OPAQUE_FIRST, Queue, Selection};
use super::stamp::Stamp;
use super::tally::Tally;
use super::timers::{Arrivals, TimerPlan, wall_us};
use super::turns::Turns;

/// Timers that come twice come within this time, as a rule.
const TWICE_WITHIN: Duration = Duration::from_secs(1);

/// How queues are read.
pub(super) struct Reading {
    pub(super) header: HeaderKind,
    pub(super) selection: Selection,
    /// Most messages of one pull.
    pub(super) pull_batch: i32,
    /// Whether a pull at the end of a queue waits for a message, or the end is the end.
    pub(super) waits: bool,
    /// Latency is that of messages with this stamp, and not that of pulls.
    pub(super) stamp: Option<Stamp>,
    /// Latency is how late these come, and only they count.
    pub(super) timers: Option<TimerPlan>,
}

/// A queue, and how far it is read.
#[derive(Clone, Debug)]
pub(super) struct ReadQueue {
    pub(super) queue: Queue,
    pub(super) connection: usize,
    /// Offset of the next pull.
    pub(super) next: i64,
    /// Where reading ends, unless it waits.
    pub(super) end: i64,
    /// When the pull under way was sent.
    pub(super) asked: Option<Instant>,
}

/// The consumers.
pub(super) struct Reader {
    reading: Reading,
    queues: Vec<ReadQueue>,
    turns: Turns,
    counted_from: Option<Instant>,
    /// When the last timer came.
    last_timer: Option<Instant>,
    pub(super) tally: Tally,
    /// Messages that the brokers went through, selected or not.
    pub(super) scanned: u64,
    pub(super) arrivals: Option<Arrivals>,
}

impl Reader {
    pub(super) fn new(reading: Reading, queues: Vec<ReadQueue>) -> Reader {
        Reader {
            turns: Turns::of_all(queues.len()),
            arrivals: reading.timers.map(Arrivals::of),
            last_timer: None,
            scanned: 0,
            reading,
            queues,
            counted_from: None,
            tally: Tally::new(),
        }
    }

    /// Puts all pulls that are due into the connections' buffers.
    pub(super) fn ask_due(&mut self, now: Instant, driver: &mut Driver) {
        for position in self.turns.take_due(now) {
            let queue = &mut self.queues[position];
            let is_read = !self.reading.waits && queue.next >= queue.end;
            let connection = &mut driver.connections[queue.connection];
            // One that is down is asked when it is up.
            if is_read || connection.stream.is_none() {
                continue;
            }
            connection.out.extend_from_slice(&frames::pull(
                self.reading.header,
                (&queue.queue, &self.reading.selection),
                (OPAQUE_FIRST + position as i32, queue.next),
                self.reading.pull_batch,
                self.reading.waits,
            ));
            queue.asked = Some(now);
            driver.has_output(queue.connection);
        }
    }

    /// An answer has come.
    ///
    /// # Errors
    /// It makes no sense: the connection is of no more use.
    pub(super) fn answered(&mut self, answer: &Answer<'_>, now: Instant) -> Result<(), String> {
        let outcome = answer.outcome()?;
        let position = outcome.opaque.checked_sub(OPAQUE_FIRST);
        let position = position.and_then(|position| usize::try_from(position).ok());
        let queue = position.and_then(|position| self.queues.get_mut(position));
        let (Some(position), Some(queue), true) = (position, queue, outcome.is_response) else {
            return Ok(());
        };
        let Some(asked) = queue.asked.take() else {
            return Ok(());
        };
        let code = ResponseCode(outcome.code);
        let has_position = matches!(
            code,
            ResponseCode::SUCCESS
                | ResponseCode::PULL_NOT_FOUND
                | ResponseCode::PULL_RETRY_IMMEDIATELY
                | ResponseCode::PULL_OFFSET_MOVED
        );
        if has_position {
            let command = answer.command()?;
            let header = PullResponse::parse(&command.fields).map_err(|error| error.to_string())?;
            if self.counted_from.is_some() {
                self.scanned += header.next_begin_offset.abs_diff(queue.next);
            }
            queue.next = header.next_begin_offset;
        } else {
            self.tally
                .first_failure
                .get_or_insert_with(|| answer.reason());
            self.tally.failed += u64::from(self.counted_from.is_some());
        }
        if code == ResponseCode::SUCCESS {
            self.book(answer.body, asked, now)?;
            self.turns.again(position);
        } else if has_position && self.reading.waits {
            self.turns.again(position);
        } else {
            self.turns.pause(position, now);
        }
        Ok(())
    }

    fn book(&mut self, messages: &[u8], asked: Instant, now: Instant) -> Result<(), String> {
        let now_us = wall_us();
        let mut rest = messages;
        while !rest.is_empty() {
            let (body, after) = split_message(rest).ok_or("a message whose sizes are wrong")?;
            rest = after;
            let Some(since) = self.counted_from else {
                continue;
            };
            if let Some(stamp) = &self.reading.stamp {
                let Some(sent) = stamp.read(body).filter(|sent| *sent >= since) else {
                    continue;
                };
                let latency = now.saturating_duration_since(sent);
                self.tally.latencies.record(latency, 1);
            }
            if let Some(arrivals) = &mut self.arrivals {
                let Some(late) = arrivals.book(body, now_us) else {
                    continue;
                };
                self.last_timer = Some(now);
                self.tally.latencies.record(late, 1);
            }
            self.tally.messages += 1;
            self.tally.bytes += body.len() as u64;
        }
        if self.latency_is_of_pulls() && self.counted_from.is_some() {
            self.tally.latencies.record(now - asked, 1);
        }
        Ok(())
    }

    /// Whether only some of the messages are asked for.
    pub(super) fn is_selective(&self) -> bool {
        self.reading.selection != Selection::All
    }

    fn latency_is_of_pulls(&self) -> bool {
        self.reading.stamp.is_none() && self.arrivals.is_none()
    }

    /// A connection has broken; its pulls are sent again when it is there again.
    pub(super) fn lost(&mut self, connection: usize, reason: &str) {
        for queue in &mut self.queues {
            if queue.connection == connection && queue.asked.take().is_some() {
                self.tally.failed += u64::from(self.counted_from.is_some());
                self.tally
                    .first_failure
                    .get_or_insert_with(|| reason.to_string());
            }
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
        self.scanned = 0;
        self.counted_from = Some(now);
    }

    /// The measurement ends. Stamped messages count by the time of their stamp and go on counting.
    pub(super) fn end_counting(&mut self) {
        if self.latency_is_of_pulls() {
            self.counted_from = None;
        }
    }

    /// Whether every queue has been read to its end, or every timer has come and none of them again.
    pub(super) fn is_finished(&self, now: Instant) -> bool {
        if let Some(arrivals) = &self.arrivals {
            let since = self.last_timer.map(|at| now.saturating_duration_since(at));
            return arrivals.is_complete() && since.is_some_and(|since| since >= TWICE_WITHIN);
        }
        !self.reading.waits && self.queues.iter().all(|queue| queue.next >= queue.end)
    }
}

/// The body of the first of these stored messages, and what follows that message.
pub(super) fn split_message(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    const SYS_FLAG_AT: usize = 36;
    const BODY_LENGTH_AT: usize = 84;
    const V6_MORE_BYTES: usize = 12;
    let int = |at: usize| Some(i32::from_be_bytes(*bytes.get(at..)?.first_chunk()?));
    let (message, after) = bytes.split_at_checked(usize::try_from(int(0)?).ok()?)?;
    let sys_flag = int(SYS_FLAG_AT)?;
    let is_v6 = |bit: i32| usize::from(sys_flag & bit != 0);
    let v6_hosts = is_v6(sys_flags::BORN_HOST_V6) + is_v6(sys_flags::STORE_HOST_V6);
    let at = BODY_LENGTH_AT + v6_hosts * V6_MORE_BYTES;
    let length = usize::try_from(int(at)?).ok()?;
    let body = message.get(at + 4..at + 4 + length)?;
    Some((body, after))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn stored(body: &[u8], sys_flag: i32, more: usize) -> Vec<u8> {
        let total = 84 + more + 4 + body.len() + 1 + 2;
        let mut bytes = vec![0; total];
        bytes[..4].copy_from_slice(&(total as i32).to_be_bytes());
        bytes[36..40].copy_from_slice(&sys_flag.to_be_bytes());
        bytes[84 + more..][..4].copy_from_slice(&(body.len() as i32).to_be_bytes());
        bytes[88 + more..][..body.len()].copy_from_slice(body);
        bytes
    }

    #[test]
    fn bodies_are_found_behind_hosts_of_either_size() {
        let v6 = sys_flags::BORN_HOST_V6 | sys_flags::STORE_HOST_V6;
        let bytes = [
            stored(b"one", 0, 0),
            stored(b"two", sys_flags::STORE_HOST_V6, 12),
            stored(b"", v6, 24),
        ]
        .concat();
        let (one, rest) = split_message(&bytes).unwrap();
        let (two, rest) = split_message(rest).unwrap();
        assert_eq!(
            (one, two, split_message(rest)),
            (&b"one"[..], &b"two"[..], Some((&b""[..], &b""[..])))
        );
        assert_eq!(split_message(&bytes[..20]), None);
        let mut long = stored(b"one", 0, 0);
        long[87] = 200;
        assert_eq!(split_message(&long), None);
    }
}
