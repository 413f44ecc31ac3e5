//! The driver's sockets: one thread, one epoll, any number of connections.
//!
//! Threads that block would be simpler and as cheap for four connections; with a thousand they would measure
//! the scheduler.

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::{Timespec, epoll};

use super::connection::{Connection, Flight};
use super::reconnects::Reconnects;
use crate::cli::failure::Failure;

/// Above this the bytes of a connection are written at once, so that the broker can begin.
const WRITE_BYTES: usize = 128 << 10;
const EVENTS_MAX: usize = 256;
/// How long a broken connection may stay unnoticed as made again.
const RECONNECT_POLL: Duration = Duration::from_millis(1);

/// All connections.
pub(super) struct Driver {
    epoll: OwnedFd,
    pub(super) connections: Vec<Connection>,
    /// Those with bytes to be written, each once or more.
    dirty: Vec<usize>,
    events: Vec<epoll::Event>,
    reconnects: Reconnects,
    /// Why the first connection broke.
    pub(super) first_break: Option<String>,
}

/// A connection that broke, and its sends of unknown outcome.
pub(super) struct Lost {
    pub(super) connection: usize,
    pub(super) flights: Vec<Flight>,
}

fn cannot(what: &str, error: impl std::fmt::Display) -> Failure {
    Failure::new(format!("cannot {what}: {error}"))
}

impl Driver {
    /// Opens `count` connections, in turn to each group.
    pub(super) fn connect(mut reconnects: Reconnects, count: usize) -> Result<Driver, Failure> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC);
        let epoll = epoll.map_err(|error| cannot("wait for sockets", error))?;
        let groups = reconnects.groups();
        let streams = reconnects.open_all((0..count).map(|index| index % groups).collect())?;
        let mut driver = Driver {
            epoll,
            connections: (0..count)
                .map(|index| Connection::to_group(index % groups))
                .collect(),
            dirty: Vec::new(),
            events: Vec::with_capacity(EVENTS_MAX),
            reconnects,
            first_break: None,
        };
        for (index, stream) in streams.into_iter().enumerate() {
            driver.connected(index, stream)?;
        }
        Ok(driver)
    }

    fn connected(&mut self, index: usize, stream: std::net::TcpStream) -> Result<(), Failure> {
        let data = epoll::EventData::new_u64(index as u64);
        epoll::add(&self.epoll, &stream, data, epoll::EventFlags::IN)
            .map_err(|error| cannot("watch a socket", error))?;
        self.connections[index].stream = Some(stream);
        Ok(())
    }

    /// Says that a connection has bytes to be written; writes some if there are many.
    pub(super) fn has_output(&mut self, index: usize) {
        self.dirty.push(index);
    }

    /// Writes early if much has gathered. What breaks here is noticed by [`Driver::flush`].
    pub(super) fn write_early(&mut self, index: usize) {
        if self.connections[index].out.len() >= WRITE_BYTES
            && self.connections[index].write().is_err()
        {
            self.dirty.push(index);
        }
    }

    /// Writes what the sockets take. Connections that break are added to `lost`.
    pub(super) fn flush(&mut self, lost: &mut Vec<Lost>) -> Result<(), Failure> {
        let mut dirty = std::mem::take(&mut self.dirty);
        for index in dirty.drain(..) {
            match self.connections[index].write() {
                Ok(true) => {}
                Ok(false) => self.watch(index, epoll::EventFlags::IN | epoll::EventFlags::OUT)?,
                Err(reason) => self.lose(index, reason, lost),
            }
        }
        self.dirty = dirty;
        Ok(())
    }

    fn watch(&self, index: usize, flags: epoll::EventFlags) -> Result<(), Failure> {
        let Some(stream) = &self.connections[index].stream else {
            return Ok(());
        };
        let data = epoll::EventData::new_u64(index as u64);
        epoll::modify(&self.epoll, stream, data, flags)
            .map_err(|error| cannot("watch a socket", error))
    }

    /// Waits until something comes or `until` has come, and reads. Connections with something to look at are
    /// put into `ready`.
    pub(super) fn wait(
        &mut self,
        until: Instant,
        ready: &mut Vec<usize>,
        lost: &mut Vec<Lost>,
    ) -> Result<(), Failure> {
        let mut wait = until.saturating_duration_since(Instant::now());
        if self.reconnects.are_pending() {
            wait = wait.min(RECONNECT_POLL);
        }
        let timeout = Timespec {
            tv_sec: wait.as_secs() as i64,
            tv_nsec: i64::from(wait.subsec_nanos()),
        };
        self.events.clear();
        let room = rustix::buffer::spare_capacity(&mut self.events);
        match epoll::wait(&self.epoll, room, Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(cannot("wait for sockets", error)),
        }
        for position in 0..self.events.len() {
            let event = self.events[position];
            let (index, flags) = (event.data.u64() as usize, event.flags);
            if flags.contains(epoll::EventFlags::OUT) {
                self.watch(index, epoll::EventFlags::IN)?;
                self.dirty.push(index);
            }
            if flags.difference(epoll::EventFlags::OUT).is_empty() {
                continue;
            }
            match self.connections[index].read() {
                Ok(()) => ready.push(index),
                Err(reason) => self.lose(index, reason, lost),
            }
        }
        Ok(())
    }

    /// Gives a connection up; it is made again in the background, by a fresh route.
    pub(super) fn lose(&mut self, index: usize, reason: String, lost: &mut Vec<Lost>) {
        let connection = &mut self.connections[index];
        if connection.stream.is_none() {
            return;
        }
        // Closing takes it out of the epoll.
        let flights = connection.close();
        let group = connection.group;
        self.first_break.get_or_insert(reason);
        self.reconnects.start(index, group);
        lost.push(Lost {
            connection: index,
            flights,
        });
    }

    /// Connections that were made again since the last call.
    pub(super) fn reconnected(&mut self) -> Result<Vec<usize>, Failure> {
        let mut indices = Vec::new();
        while let Some((index, stream)) = self.reconnects.finished() {
            self.connected(index, stream)?;
            indices.push(index);
        }
        Ok(indices)
    }
}
