//! Which queues are asked next.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::reader::ReadQueue;

/// After an answer without a message that did not wait for one, and after a refusal.
const EMPTY_PAUSE: Duration = Duration::from_millis(10);

/// Positions of queues that are to be asked: at once, or after a pause.
pub(super) struct Turns {
    ready: Vec<usize>,
    /// In the order of time.
    paused: VecDeque<(Instant, usize)>,
}

impl Turns {
    /// All of so many queues, at once.
    pub(super) fn of_all(queues: usize) -> Turns {
        Turns {
            ready: (0..queues).collect(),
            paused: VecDeque::new(),
        }
    }

    /// A queue is asked again at once.
    pub(super) fn again(&mut self, position: usize) {
        self.ready.push(position);
    }

    /// A queue is asked again after a pause.
    pub(super) fn pause(&mut self, position: usize, now: Instant) {
        self.paused.push_back((now + EMPTY_PAUSE, position));
    }

    /// The queues of a connection that is there again are asked at once.
    pub(super) fn reconnected(&mut self, connection: usize, queues: &[ReadQueue]) {
        self.paused
            .retain(|(_, position)| queues[*position].connection != connection);
        let queues = queues.iter().enumerate();
        let of_connection = queues.filter(|(_, queue)| queue.connection == connection);
        self.ready
            .extend(of_connection.map(|(position, _)| position));
    }

    /// Takes those whose time has come.
    pub(super) fn take_due(&mut self, now: Instant) -> impl Iterator<Item = usize> + '_ {
        let due = self.paused.partition_point(|(at, _)| *at <= now);
        self.ready
            .extend(self.paused.drain(..due).map(|(_, position)| position));
        self.ready.drain(..)
    }

    /// When the next pause ends.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.paused.front().map(|(at, _)| *at)
    }
}
