//! The network: streams of bytes between machines, late, held up, broken.
//!
//! It behaves as TCP does to those who use it. What is sent arrives in order or the connection breaks; while
//! a way is cut nothing arrives and nobody is told, until the one who sent has waited too long for it. The
//! death of a process closes its connections at once; that of a machine closes nothing.

mod pipe;
mod stream;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use gantry_raft::{BoxFuture, Connection, NodeNumber, Transport};
use tokio::sync::mpsc::UnboundedSender;
use tokio::time::sleep;

use crate::rng::Rng;
use crate::time::Time;
use crate::trace::Trace;
use pipe::Pipe;
pub use stream::{Reader, Writer};

/// Machines by number. Those of the cluster have the numbers of their nodes.
pub type MachineNumber = u16;

/// How long sent bytes may stay unacknowledged before a connection ends.
const USER_TIMEOUT_NS: u64 = 10_000_000_000;

/// How long connecting may take.
const CONNECT_TIMEOUT_MS: u64 = 2_000;
const CONNECT_STEP_MS: u64 = 20;

/// A connection of a client, with its address.
pub type ClientConnection = (Reader, Writer, SocketAddr);

/// The network. Clones are the same.
#[derive(Clone)]
pub struct Net {
    state: Arc<Mutex<State>>,
}

struct State {
    time: Time,
    trace: Trace,
    rng: Rng,
    machines: BTreeMap<MachineNumber, Doors>,
    /// Ways that carry nothing: from, to.
    cuts: BTreeSet<(MachineNumber, MachineNumber)>,
    /// Ways that are slow, with the longest delay; microseconds.
    slow: BTreeMap<(MachineNumber, MachineNumber), u64>,
    connections: BTreeMap<u64, Cable>,
    opened: u64,
}

/// Where a machine listens. One that is switched off is not in the table.
#[derive(Clone, Default)]
struct Doors {
    peers: Option<UnboundedSender<Connection>>,
    clients: Option<UnboundedSender<ClientConnection>>,
}

/// An open connection.
struct Cable {
    /// Who opened it, and to whom.
    ends: [MachineNumber; 2],
    /// From the first end to the second, and back.
    pipes: [Pipe; 2],
    /// An end was switched off: nothing arrives any more.
    dead: bool,
}

impl Net {
    /// A network of machines that are all switched off.
    pub fn new(seed: u64, time: Time, trace: Trace) -> Self {
        let state = State {
            time,
            trace,
            rng: Rng::new(seed, "network"),
            machines: BTreeMap::new(),
            cuts: BTreeSet::new(),
            slow: BTreeMap::new(),
            connections: BTreeMap::new(),
            opened: 0,
        };
        Net {
            state: Arc::new(Mutex::new(state)),
        }
    }

    /// The machine has power: it refuses connections, and ends those that it does not know any more.
    pub fn switch_on(&self, machine: MachineNumber) {
        let mut state = self.lock();
        state.machines.insert(machine, Doors::default());
        for cable in state.connections.values_mut() {
            if cable.dead && cable.ends.contains(&machine) {
                cable.pipes.iter_mut().for_each(Pipe::reset);
            }
        }
    }

    /// The machine has lost its power: nothing comes from it, not even the end of its connections. Its
    /// process must not run any more after this.
    pub fn switch_off(&self, machine: MachineNumber) {
        let mut state = self.lock();
        state.machines.remove(&machine);
        for cable in state.connections.values_mut() {
            cable.dead |= cable.ends.contains(&machine);
        }
    }

    /// A process on the machine listens; nobody does if these are none.
    pub fn listen(
        &self,
        machine: MachineNumber,
        peers: Option<UnboundedSender<Connection>>,
        clients: Option<UnboundedSender<ClientConnection>>,
    ) {
        if let Some(doors) = self.lock().machines.get_mut(&machine) {
            *doors = Doors { peers, clients };
        }
    }

    /// Nothing passes from one machine to another until [`heal`](Self::heal).
    pub fn cut(&self, from: MachineNumber, to: MachineNumber) {
        self.lock().cuts.insert((from, to));
    }

    /// What passes from one machine to another takes up to so many microseconds.
    pub fn slow_down(&self, from: MachineNumber, to: MachineNumber, delay_us: u64) {
        self.lock().slow.insert((from, to), delay_us);
    }

    /// Whether nothing passes from one machine to another.
    pub fn is_cut(&self, from: MachineNumber, to: MachineNumber) -> bool {
        self.lock().cuts.contains(&(from, to))
    }

    /// The way from one machine to another is as it should be. What was held up arrives, or some of the
    /// connections turn out to be broken.
    pub fn heal(&self, from: MachineNumber, to: MachineNumber) {
        let mut state = self.lock();
        state.slow.remove(&(from, to));
        if state.cuts.remove(&(from, to)) {
            let State {
                connections, rng, ..
            } = &mut *state;
            for cable in connections.values_mut() {
                let ends = cable.ends;
                if (ends == [from, to] || ends == [to, from]) && rng.per_mille(300) {
                    cable.pipes.iter_mut().for_each(Pipe::reset);
                }
            }
        }
    }

    /// Breaks one of the connections between two machines: what a lost packet comes to in the end.
    pub fn break_one(&self, one: MachineNumber, other: MachineNumber) {
        let mut state = self.lock();
        let between = |cable: &Cable| cable.ends == [one, other] || cable.ends == [other, one];
        let ids: Vec<u64> = state
            .connections
            .iter()
            .filter(|(_, cable)| between(cable))
            .map(|(id, _)| *id)
            .collect();
        if ids.is_empty() {
            return;
        }
        let id = *state.rng.pick(&ids);
        if let Some(cable) = state.connections.get_mut(&id) {
            cable.pipes.iter_mut().for_each(Pipe::reset);
        }
    }

    /// Hands over what has arrived by now.
    pub fn deliver(&self) {
        let mut state = self.lock();
        let now = state.time.now_ns();
        let State {
            connections,
            cuts,
            trace,
            ..
        } = &mut *state;
        for (id, cable) in connections.iter_mut() {
            for side in 0..2 {
                let way = (cable.ends[side], cable.ends[1 - side]);
                let passes = !cable.dead && !cuts.contains(&way);
                if passes {
                    let arrived = cable.pipes[side].deliver(now);
                    if arrived > 0 {
                        trace.line("net", format_args!("{id} {} > {} {arrived}", way.0, way.1));
                    }
                } else if cable.pipes[side].oldest_unsent(now) > USER_TIMEOUT_NS {
                    cable.pipes.iter_mut().for_each(Pipe::reset);
                }
            }
        }
        connections.retain(|_, cable| !cable.pipes.iter().all(Pipe::is_over));
    }

    /// Opens a stream to what listens there; waits as long as a handshake would.
    async fn open<T>(
        &self,
        from: MachineNumber,
        to: MachineNumber,
        hand_over: impl Fn(&Doors, Reader, Writer) -> Option<T>,
    ) -> io::Result<(Reader, Writer)> {
        let mut waited = 0;
        loop {
            let delay = {
                let mut state = self.lock();
                state.delay_us(from, to) + state.delay_us(to, from)
            };
            sleep(Duration::from_micros(delay)).await;
            let reachable = {
                let state = self.lock();
                let cut = |way| state.cuts.contains(&way);
                state.machines.contains_key(&to) && !cut((from, to)) && !cut((to, from))
            };
            if reachable {
                break;
            }
            waited += CONNECT_STEP_MS;
            if waited > CONNECT_TIMEOUT_MS {
                return Err(io::ErrorKind::TimedOut.into());
            }
            sleep(Duration::from_millis(CONNECT_STEP_MS)).await;
        }
        let (id, [near, far]) = self.lay_cable(from, to);
        let doors = self.lock().machines.get(&to).cloned();
        let handed = doors.and_then(|doors| hand_over(&doors, far.0, far.1));
        if handed.is_none() {
            self.lock().connections.remove(&id);
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        Ok(near)
    }

    /// A new connection and both its ends.
    fn lay_cable(&self, from: MachineNumber, to: MachineNumber) -> (u64, [(Reader, Writer); 2]) {
        let mut state = self.lock();
        state.opened += 1;
        let id = state.opened;
        state.connections.insert(
            id,
            Cable {
                ends: [from, to],
                pipes: [Pipe::default(), Pipe::default()],
                dead: false,
            },
        );
        let end = |side: usize| {
            (
                Reader::new(self.clone(), id, 1 - side),
                Writer::new(self.clone(), id, side),
            )
        };
        (id, [end(0), end(1)])
    }

    /// Opens a connection to a node's port for clients.
    pub async fn connect_client(
        &self,
        from: MachineNumber,
        to: MachineNumber,
        address: SocketAddr,
    ) -> io::Result<(Reader, Writer)> {
        self.open(from, to, |doors, reader, writer| {
            let door = doors.clients.as_ref()?;
            door.send((reader, writer, address)).ok()
        })
        .await
    }

    /// The way out of a node to its peers.
    pub fn transport(&self, from: NodeNumber) -> Arc<dyn Transport> {
        Arc::new(NodeTransport {
            net: self.clone(),
            from,
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("the network does not panic")
    }
}

impl State {
    /// How long the next piece takes; microseconds.
    fn delay_us(&mut self, from: MachineNumber, to: MachineNumber) -> u64 {
        match self.slow.get(&(from, to)).copied() {
            Some(longest) => self.rng.between(longest / 10, longest),
            None => self.rng.between(50, 1_500),
        }
    }
}

struct NodeTransport {
    net: Net,
    from: NodeNumber,
}

impl Transport for NodeTransport {
    fn connect(&self, to: NodeNumber) -> BoxFuture<'_, io::Result<Connection>> {
        Box::pin(async move {
            let (reader, writer) = self
                .net
                .open(self.from, to, |doors, reader, writer| {
                    let connection = Connection {
                        reader: Box::new(reader),
                        writer: Box::new(writer),
                    };
                    doors.peers.as_ref()?.send(connection).ok()
                })
                .await?;
            Ok(Connection {
                reader: Box::new(reader),
                writer: Box::new(writer),
            })
        })
    }
}
