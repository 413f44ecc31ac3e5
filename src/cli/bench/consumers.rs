//! Those who read, in either of the two ways.

use std::time::Instant;

use super::answers::Answer;
use super::driver::Driver;
use super::popper::Popper;
use super::reader::Reader;
use super::tally::Tally;

/// The consumers of a measurement.
pub(super) enum Consumers {
    /// They pull.
    Pulling(Reader),
    /// They pop and acknowledge.
    Popping(Popper),
}

impl Consumers {
    /// What has been counted.
    pub(super) fn tally(&self) -> &Tally {
        match self {
            Consumers::Pulling(reader) => &reader.tally,
            Consumers::Popping(popper) => &popper.tally,
        }
    }

    /// Puts all requests that are due into the connections' buffers.
    pub(super) fn ask_due(&mut self, now: Instant, driver: &mut Driver) {
        match self {
            Consumers::Pulling(reader) => reader.ask_due(now, driver),
            Consumers::Popping(popper) => popper.ask_due(now, driver),
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
        match self {
            Consumers::Pulling(reader) => reader.answered(answer, now),
            Consumers::Popping(popper) => popper.answered(group, answer, now),
        }
    }

    /// A connection has broken.
    pub(super) fn lost(&mut self, connection: usize, reason: &str) {
        match self {
            Consumers::Pulling(reader) => reader.lost(connection, reason),
            Consumers::Popping(popper) => popper.lost(connection, reason),
        }
    }

    /// A connection is there again.
    pub(super) fn reconnected(&mut self, connection: usize) {
        match self {
            Consumers::Pulling(reader) => reader.reconnected(connection),
            Consumers::Popping(popper) => popper.reconnected(connection),
        }
    }

    /// When something becomes due without an answer.
    pub(super) fn next_due(&self) -> Option<Instant> {
        match self {
            Consumers::Pulling(reader) => reader.next_due(),
            Consumers::Popping(popper) => popper.next_due(),
        }
    }

    /// The measurement begins.
    pub(super) fn begin_counting(&mut self, now: Instant) {
        match self {
            Consumers::Pulling(reader) => reader.begin_counting(now),
            Consumers::Popping(popper) => popper.begin_counting(now),
        }
    }

    /// The measurement ends.
    pub(super) fn end_counting(&mut self) {
        match self {
            Consumers::Pulling(reader) => reader.end_counting(),
            Consumers::Popping(popper) => popper.end_counting(),
        }
    }

    /// Whether there is nothing more to read.
    pub(super) fn is_finished(&self, now: Instant) -> bool {
        match self {
            Consumers::Pulling(reader) => reader.is_finished(now),
            Consumers::Popping(popper) => popper.is_finished(),
        }
    }

    /// Whether nothing is left to do after the end, apart from what is still being sent.
    pub(super) fn has_drained(&self) -> bool {
        match self {
            Consumers::Pulling(_) => true,
            Consumers::Popping(popper) => popper.has_drained(),
        }
    }
}
