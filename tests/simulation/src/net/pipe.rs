//! One direction of a connection: what is under way, what has arrived, and who waits for it.

use std::collections::VecDeque;
use std::task::Waker;

use bytes::Bytes;

/// Bytes that may be under way or wait to be read before the sender has to wait.
const ROOM_BYTES: usize = 256 << 10;

/// The state of a direction. Both ends hold on to it through the network.
#[derive(Default)]
pub(super) struct Pipe {
    /// Sent, with the time of arrival.
    under_way: VecDeque<(u64, u64, Bytes)>,
    arrived: VecDeque<Bytes>,
    /// Bytes of both.
    bytes: usize,
    /// The sender has said that nothing follows; when that arrives.
    end: Option<u64>,
    /// That has arrived.
    ended: bool,
    broken: bool,
    reader_gone: bool,
    writer_gone: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

/// What a reader finds.
pub(super) enum Found {
    Bytes(Bytes),
    End,
    Broken,
    Nothing,
}

impl Pipe {
    /// Whether more can be sent; an error if nothing can ever be again. Who has to wait is woken.
    pub(super) fn has_room(&mut self, waiter: &Waker) -> Result<bool, ()> {
        if self.broken || self.end.is_some() {
            return Err(());
        }
        if self.bytes < ROOM_BYTES {
            return Ok(true);
        }
        self.writer = Some(waiter.clone());
        Ok(false)
    }

    /// Sends bytes that arrive at a time, but not before what was sent earlier.
    pub(super) fn send(&mut self, bytes: Bytes, now: u64, arrives: u64) {
        let after = self.under_way.back().map_or(0, |(_, at, _)| *at);
        self.bytes += bytes.len();
        self.under_way.push_back((now, arrives.max(after), bytes));
    }

    /// Nothing follows what was sent.
    pub(super) fn finish(&mut self, arrives: u64) {
        let after = self.under_way.back().map_or(0, |(_, at, _)| *at);
        self.end.get_or_insert(arrives.max(after));
    }

    /// What the reader gets now. Who finds nothing is woken.
    pub(super) fn take(&mut self, most: usize, waiter: &Waker) -> Found {
        if let Some(mut first) = self.arrived.pop_front() {
            let part = first.split_to(first.len().min(most));
            if !first.is_empty() {
                self.arrived.push_front(first);
            }
            self.bytes -= part.len();
            wake(&mut self.writer);
            return Found::Bytes(part);
        }
        if self.broken {
            return Found::Broken;
        }
        if self.ended {
            return Found::End;
        }
        self.reader = Some(waiter.clone());
        Found::Nothing
    }

    /// Lets arrive what is due; returns how many bytes did.
    pub(super) fn deliver(&mut self, now: u64) -> usize {
        let mut bytes = 0;
        while let Some((_, _, piece)) = self.under_way.pop_front_if(|(_, due, _)| *due <= now) {
            bytes += piece.len();
            if self.reader_gone {
                // The other side's kernel answers that nobody wants it.
                self.reset();
            } else {
                self.arrived.push_back(piece);
            }
        }
        let ends = self.under_way.is_empty() && self.end.is_some_and(|due| due <= now);
        let news = bytes > 0 || (ends && !self.ended);
        self.ended |= ends;
        if news {
            wake(&mut self.reader);
        }
        bytes
    }

    /// How long the oldest bytes that have not arrived have been under way.
    pub(super) fn oldest_unsent(&self, now: u64) -> u64 {
        let first = self.under_way.front();
        first.map_or(0, |(sent, _, _)| now.saturating_sub(*sent))
    }

    /// The connection is broken: both sides see it, and what has not been read is lost.
    pub(super) fn reset(&mut self) {
        self.broken = true;
        self.under_way.clear();
        self.arrived.clear();
        self.bytes = 0;
        wake(&mut self.reader);
        wake(&mut self.writer);
    }

    pub(super) fn reader_leaves(&mut self) {
        self.reader_gone = true;
        self.reader = None;
    }

    pub(super) fn writer_leaves(&mut self) {
        self.writer_gone = true;
        self.writer = None;
    }

    /// Nobody holds on to either side.
    pub(super) fn is_over(&self) -> bool {
        self.reader_gone && self.writer_gone
    }
}

fn wake(waiter: &mut Option<Waker>) {
    if let Some(waiter) = waiter.take() {
        waiter.wake();
    }
}
