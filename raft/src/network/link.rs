//! A lasting connection to one peer over which calls are made: it is opened at start, opened again
//! whenever it ends, and tells when the peer's process is gone (`design.md` D15).

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};

use super::frame::{FrameReader, FrameWriter, Head, Kind};
use super::greeting::{Class, Identity, greet};
use super::transport::Transport;
use crate::error::CallError;
use crate::types::{GroupId, NodeNumber};

/// Calls that may wait for the socket; more wait in `call` itself.
const QUEUED_CALLS: usize = 256;

const RECONNECT_MIN: Duration = Duration::from_millis(20);
const RECONNECT_MAX: Duration = Duration::from_millis(500);

/// What happened to a peer's process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerEvent {
    /// A connection is up; the process has this boot id.
    Connected {
        /// The peer.
        node: NodeNumber,
        /// The number that its process drew at start.
        boot: u64,
    },
    /// The connection broke and nobody listens there any more, or another process does: the process
    /// that was there is gone.
    Gone {
        /// The peer.
        node: NodeNumber,
    },
}

/// A call to make: the method is the receiver's business.
pub(super) struct Call {
    pub method: u8,
    pub group: GroupId,
    pub body: Vec<Bytes>,
}

struct Outgoing {
    call: Call,
    reply: oneshot::Sender<Result<Bytes, CallError>>,
}

/// The handle of a link. Dropping it ends the connection.
pub(super) struct Link {
    peer: NodeNumber,
    connected: Arc<AtomicBool>,
    outgoing: mpsc::Sender<Outgoing>,
    task: JoinHandle<()>,
}

impl Drop for Link {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Link {
    /// Starts connecting to `peer` and keeps at it. Only the link of class `Control` sends events.
    pub(super) fn open(
        transport: Arc<dyn Transport>,
        identity: Identity,
        peer: NodeNumber,
        class: Class,
        events: Option<mpsc::UnboundedSender<PeerEvent>>,
    ) -> Link {
        let (outgoing, queue) = mpsc::channel(QUEUED_CALLS);
        let connected = Arc::new(AtomicBool::new(false));
        let worker = Worker {
            transport,
            identity,
            peer,
            class,
            events,
            queue,
            connected: connected.clone(),
        };
        Link {
            peer,
            connected,
            outgoing,
            task: tokio::spawn(worker.run()),
        }
    }

    /// Whether the last attempt to connect succeeded and the connection has not ended since.
    pub(super) fn is_connected(&self) -> bool {
        self.connected.load(Ordering::Relaxed)
    }

    /// Makes a call and waits for its reply until `deadline`.
    pub(super) async fn call(&self, call: Call, deadline: Instant) -> Result<Bytes, CallError> {
        if !self.is_connected() {
            return Err(CallError::Unreachable(self.peer));
        }
        let (reply, answer) = oneshot::channel();
        let queued = timeout_at(deadline, self.outgoing.send(Outgoing { call, reply })).await;
        if !matches!(queued, Ok(Ok(()))) {
            return Err(CallError::Unreachable(self.peer));
        }
        match timeout_at(deadline, answer).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) | Err(_) => Err(CallError::Unanswered(self.peer)),
        }
    }
}

/// Replies that are waited for, by the id of the call.
#[derive(Default)]
struct Pending(Mutex<HashMap<u64, oneshot::Sender<Result<Bytes, CallError>>>>);

impl Pending {
    fn lock(&self) -> MutexGuard<'_, HashMap<u64, oneshot::Sender<Result<Bytes, CallError>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn insert(&self, id: u64, reply: oneshot::Sender<Result<Bytes, CallError>>) {
        let mut pending = self.lock();
        if pending.len() >= QUEUED_CALLS {
            // Callers that gave up leave their entry behind.
            pending.retain(|_, waiting| !waiting.is_closed());
        }
        pending.insert(id, reply);
    }

    fn complete(&self, id: u64, result: Result<Bytes, CallError>) {
        if let Some(reply) = self.lock().remove(&id) {
            // The caller may have passed its deadline; then nobody wants the answer.
            drop(reply.send(result));
        }
    }
}

struct Worker {
    transport: Arc<dyn Transport>,
    identity: Identity,
    peer: NodeNumber,
    class: Class,
    events: Option<mpsc::UnboundedSender<PeerEvent>>,
    queue: mpsc::Receiver<Outgoing>,
    connected: Arc<AtomicBool>,
}

impl Worker {
    async fn run(mut self) {
        let mut backoff = RECONNECT_MIN;
        let mut known_boot = None;
        let mut refused = None;
        loop {
            match self.connect().await {
                Ok((reader, writer, boot)) => {
                    if known_boot.is_some_and(|known| known != boot) {
                        self.tell(PeerEvent::Gone { node: self.peer });
                    }
                    known_boot = Some(boot);
                    refused = None;
                    backoff = RECONNECT_MIN;
                    // First, so that who acts on the event finds the link usable.
                    self.connected.store(true, Ordering::Relaxed);
                    self.tell(PeerEvent::Connected {
                        node: self.peer,
                        boot,
                    });
                    if !self.serve(reader, writer).await {
                        return;
                    }
                }
                Err(error) => {
                    if known_boot.is_some() && proves_absence(&error) {
                        known_boot = None;
                        tracing::info!(node = self.peer, %error, "peer process is gone");
                        self.tell(PeerEvent::Gone { node: self.peer });
                    }
                    if error.kind() == io::ErrorKind::PermissionDenied {
                        let reason = error.to_string();
                        if refused.as_ref() != Some(&reason) {
                            tracing::error!(
                                node = self.peer,
                                reason,
                                "peer refuses the connection"
                            );
                            refused = Some(reason);
                        }
                        backoff = RECONNECT_MAX;
                    }
                    if !self.pause(backoff).await {
                        return;
                    }
                    backoff = (backoff * 2).min(RECONNECT_MAX);
                }
            }
        }
    }

    async fn connect(&self) -> io::Result<(FrameReader, FrameWriter, u64)> {
        let connection = self.transport.connect(self.peer).await?;
        let (reader, writer, peer) = greet(connection, &self.identity, self.class, 0).await?;
        if peer.node != self.peer {
            let reason = format!(
                "node {} answers at the address of node {}: check `peers`",
                peer.node, self.peer
            );
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, reason));
        }
        Ok((reader, writer, peer.boot))
    }

    /// Carries calls until the connection ends; false when the handle is gone.
    async fn serve(&mut self, reader: FrameReader, mut writer: FrameWriter) -> bool {
        let pending = Arc::new(Pending::default());
        let mut reading = tokio::spawn(read_replies(reader, self.peer, pending.clone()));
        let mut next_id = 0;
        let alive = loop {
            let outgoing = tokio::select! {
                outgoing = self.queue.recv() => outgoing,
                _ = &mut reading => break true,
            };
            let Some(Outgoing { call, reply }) = outgoing else {
                break false;
            };
            next_id += 1;
            pending.insert(next_id, reply);
            let head = Head {
                kind: Kind::Call,
                method: call.method,
                group: call.group,
                id: next_id,
            };
            if writer.write(head, &call.body).await.is_err() {
                break true;
            }
        };
        self.connected.store(false, Ordering::Relaxed);
        reading.abort();
        for (_, reply) in pending.lock().drain() {
            drop(reply.send(Err(CallError::Unanswered(self.peer))));
        }
        alive
    }

    /// Waits before the next attempt and refuses what is called meanwhile; false when the handle is
    /// gone.
    async fn pause(&mut self, backoff: Duration) -> bool {
        let until = Instant::now() + backoff;
        while let Ok(outgoing) = timeout_at(until, self.queue.recv()).await {
            let Some(outgoing) = outgoing else {
                return false;
            };
            drop(outgoing.reply.send(Err(CallError::Unreachable(self.peer))));
        }
        true
    }

    fn tell(&self, event: PeerEvent) {
        if let Some(events) = &self.events {
            // Nobody listens any more only while the process stops.
            let _ = events.send(event);
        }
    }
}

/// Whether a failed connect proves that nobody listens, as opposed to silence.
fn proves_absence(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound | io::ErrorKind::HostUnreachable
    )
}

async fn read_replies(mut reader: FrameReader, peer: NodeNumber, pending: Arc<Pending>) {
    loop {
        match reader.read().await {
            Ok(Some(frame)) => match frame.head.kind {
                Kind::Reply => pending.complete(frame.head.id, Ok(frame.body)),
                Kind::Failure => {
                    let reason = String::from_utf8_lossy(&frame.body).into_owned();
                    pending.complete(frame.head.id, Err(CallError::Refused(peer, reason)));
                }
                kind => {
                    tracing::warn!(node = peer, ?kind, "unexpected frame from a peer");
                    return;
                }
            },
            Ok(None) => return,
            Err(error) => {
                tracing::debug!(node = peer, %error, "connection to a peer ended");
                return;
            }
        }
    }
}
