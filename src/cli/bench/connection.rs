//! One connection of the driver: bytes to be written, bytes that have come, and sends under way.

use std::io::{ErrorKind, Write};
use std::net::TcpStream;
use std::time::Instant;

use super::frames::OPAQUE_FIRST;

/// Room for one read.
const READ_BYTES: usize = 64 << 10;

/// A connection to one broker group, or the place of one that is being made again.
#[derive(Debug)]
pub(super) struct Connection {
    /// Position of the group in the list of groups.
    pub(super) group: usize,
    /// `None` while it is down.
    pub(super) stream: Option<TcpStream>,
    /// Bytes to be written; those before `written` are gone.
    pub(super) out: Vec<u8>,
    written: usize,
    /// Bytes that have come and are not a whole frame yet, or not looked at.
    pub(super) received: Vec<u8>,
    /// Sends that are not answered yet.
    pub(super) flights: Flights,
}

/// A send under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Flight {
    /// What its latency counts from: the scheduled time, or that of the first attempt.
    pub(super) from: Instant,
    /// When this attempt was made.
    pub(super) sent: Instant,
    /// It is a half message, and its commit is still to come.
    pub(super) is_half: bool,
}

/// Why a connection is of no more use.
pub(super) type Broken = String;

impl Connection {
    /// A place for a connection to this group, down at first.
    pub(super) fn to_group(group: usize) -> Connection {
        Connection {
            group,
            stream: None,
            out: Vec::new(),
            written: 0,
            received: Vec::new(),
            flights: Flights::default(),
        }
    }

    /// Writes what the socket takes; true if that was all.
    pub(super) fn write(&mut self) -> Result<bool, Broken> {
        let Some(stream) = &mut self.stream else {
            return Ok(true);
        };
        while self.written < self.out.len() {
            match stream.write(&self.out[self.written..]) {
                Ok(count) => self.written += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error.to_string()),
            }
        }
        self.out.clear();
        self.written = 0;
        Ok(true)
    }

    /// Reads once; what came is appended to `received`.
    pub(super) fn read(&mut self) -> Result<(), Broken> {
        let Some(stream) = &self.stream else {
            return Ok(());
        };
        self.received.reserve(READ_BYTES);
        let room = rustix::buffer::spare_capacity(&mut self.received);
        match rustix::io::read(stream, room) {
            Ok(0) => Err("the broker closed the connection".to_string()),
            Ok(_) | Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Closes it and gives back the sends whose outcome is unknown.
    pub(super) fn close(&mut self) -> Vec<Flight> {
        self.stream = None;
        self.out.clear();
        self.written = 0;
        self.received.clear();
        self.flights.take_all()
    }
}

/// Sends under way by number. Numbers are given again as soon as they are free: an answer comes once, and
/// never after its connection has ended.
#[derive(Debug, Default)]
pub(super) struct Flights {
    slots: Vec<Option<Flight>>,
    free: Vec<usize>,
}

impl Flights {
    /// Keeps a send; returns the number that its request must carry.
    pub(super) fn put(&mut self, flight: Flight) -> i32 {
        let slot = match self.free.pop() {
            Some(slot) => {
                self.slots[slot] = Some(flight);
                slot
            }
            None => {
                self.slots.push(Some(flight));
                self.slots.len() - 1
            }
        };
        OPAQUE_FIRST + slot as i32
    }

    /// The send that an answer with this number is about.
    pub(super) fn take(&mut self, opaque: i32) -> Option<Flight> {
        let slot = usize::try_from(opaque.checked_sub(OPAQUE_FIRST)?).ok()?;
        let flight = self.slots.get_mut(slot)?.take()?;
        self.free.push(slot);
        Some(flight)
    }

    /// Those that are under way.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Flight> {
        self.slots.iter().flatten()
    }

    fn take_all(&mut self) -> Vec<Flight> {
        self.free.clear();
        self.slots.drain(..).flatten().collect()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_finds_its_send_once() {
        let now = Instant::now();
        let flight = Flight {
            from: now,
            sent: now,
            is_half: false,
        };
        let mut flights = Flights::default();
        let (first, second) = (flights.put(flight), flights.put(flight));
        assert_ne!(first, second);
        assert_eq!(flights.take(first), Some(flight));
        assert_eq!(flights.take(first), None);
        assert_eq!(flights.put(flight), first, "numbers are used again");
        for unknown in [0, OPAQUE_FIRST - 1, OPAQUE_FIRST + 9, i32::MIN] {
            assert_eq!(flights.take(unknown), None);
        }
        assert_eq!((flights.iter().count(), flights.take_all().len()), (2, 2));
        assert_eq!(flights.take(second), None);
    }
}
