//! A network inside one process, for tests: nodes reach each other through memory, can be cut off from all
//! others, and can be gone.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{mpsc, watch};

use super::transport::{BoxFuture, Connection, Transport};
use crate::types::NodeNumber;

const PIPE_BYTES: usize = 256 * 1024;

/// The cables between the nodes.
#[derive(Clone, Default)]
pub struct MemoryNetwork {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    listeners: BTreeMap<NodeNumber, mpsc::UnboundedSender<Connection>>,
    isolated: BTreeSet<NodeNumber>,
    cables: Vec<Cable>,
    refused: u64,
}

/// One open connection; dropping `alive` ends both directions.
struct Cable {
    ends: (NodeNumber, NodeNumber),
    alive: watch::Sender<()>,
}

impl MemoryNetwork {
    /// A network without nodes.
    pub fn new() -> Self {
        MemoryNetwork::default()
    }

    /// Makes `node` reachable; connections to it come out of the receiver. Replaces an earlier one.
    pub fn listen(&self, node: NodeNumber) -> mpsc::UnboundedReceiver<Connection> {
        let (tx, rx) = mpsc::unbounded_channel();
        self.lock().listeners.insert(node, tx);
        rx
    }

    /// The way out of `node`.
    pub fn transport(&self, node: NodeNumber) -> MemoryTransport {
        MemoryTransport {
            network: self.clone(),
            from: node,
        }
    }

    /// The process of `node` is gone: its connections break, and connecting is refused.
    pub fn kill(&self, node: NodeNumber) {
        let mut state = self.lock();
        state.listeners.remove(&node);
        state
            .cables
            .retain(|cable| cable.ends.0 != node && cable.ends.1 != node);
    }

    /// Nothing passes between `node` and any other; bytes vanish without a sign of it.
    pub fn isolate(&self, node: NodeNumber) {
        let mut state = self.lock();
        state.isolated.insert(node);
        // A silent host: no end of stream is seen, so the cables stay and carry nothing.
        for cable in state
            .cables
            .iter()
            .filter(|c| c.ends.0 == node || c.ends.1 == node)
        {
            cable.alive.send_replace(());
        }
    }

    /// Ends every isolation. Connections that were silent meanwhile break now.
    pub fn heal(&self) {
        let mut state = self.lock();
        let isolated = std::mem::take(&mut state.isolated);
        let touched = |node: &NodeNumber| isolated.contains(node);
        state
            .cables
            .retain(|cable| !touched(&cable.ends.0) && !touched(&cable.ends.1));
    }

    /// How often connecting was refused because nobody listens, over all nodes.
    pub fn refused(&self) -> u64 {
        self.lock().refused
    }

    fn is_cut(&self, from: NodeNumber, to: NodeNumber) -> bool {
        let state = self.lock();
        state.isolated.contains(&from) || state.isolated.contains(&to)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The connections that one node opens.
pub struct MemoryTransport {
    network: MemoryNetwork,
    from: NodeNumber,
}

impl Transport for MemoryTransport {
    fn connect(&self, to: NodeNumber) -> BoxFuture<'_, io::Result<Connection>> {
        Box::pin(async move {
            if self.network.is_cut(self.from, to) {
                return Err(io::ErrorKind::TimedOut.into());
            }
            let mut state = self.network.lock();
            let Some(listener) = state.listeners.get(&to).cloned() else {
                state.refused += 1;
                return Err(io::ErrorKind::ConnectionRefused.into());
            };
            let (alive, watching) = watch::channel(());
            let (near, far) = cable(&self.network, (self.from, to), watching);
            if listener.send(far).is_err() {
                return Err(io::ErrorKind::ConnectionRefused.into());
            }
            state.cables.push(Cable {
                ends: (self.from, to),
                alive,
            });
            Ok(near)
        })
    }
}

/// Two ends joined by two pumps that stop while the direction is cut and end with the cable.
fn cable(
    network: &MemoryNetwork,
    ends: (NodeNumber, NodeNumber),
    alive: watch::Receiver<()>,
) -> (Connection, Connection) {
    let (near_out, pump_in_a) = tokio::io::duplex(PIPE_BYTES);
    let (pump_out_a, far_in) = tokio::io::duplex(PIPE_BYTES);
    let (far_out, pump_in_b) = tokio::io::duplex(PIPE_BYTES);
    let (pump_out_b, near_in) = tokio::io::duplex(PIPE_BYTES);
    tokio::spawn(pump(
        network.clone(),
        ends,
        (pump_in_a, pump_out_a),
        alive.clone(),
    ));
    tokio::spawn(pump(
        network.clone(),
        (ends.1, ends.0),
        (pump_in_b, pump_out_b),
        alive,
    ));
    let near = Connection {
        reader: Box::new(near_in),
        writer: Box::new(near_out),
    };
    let far = Connection {
        reader: Box::new(far_in),
        writer: Box::new(far_out),
    };
    (near, far)
}

async fn pump(
    network: MemoryNetwork,
    direction: (NodeNumber, NodeNumber),
    (mut from, mut to): (tokio::io::DuplexStream, tokio::io::DuplexStream),
    mut alive: watch::Receiver<()>,
) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let read = tokio::select! {
            read = from.read(&mut buffer) => read,
            gone = alive.changed() => match gone {
                Ok(()) => continue,
                Err(_) => return,
            },
        };
        let Ok(count) = read else { return };
        if network.is_cut(direction.0, direction.1) {
            // Bytes into a cut cable are lost; the stream cannot go on after the gap.
            while alive.changed().await.is_ok() {}
            return;
        }
        if count == 0 || to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}
