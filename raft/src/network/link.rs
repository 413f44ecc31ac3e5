//! A lasting connection to one peer over which calls are made: it is opened at start, opened again
//! whenever it ends, and tells when the peer's process is gone (`design.md` D15).

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::{Buf, Bytes};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};

use super::frame::{Frame, FrameReader, FrameWriter, Head, Kind, invalid};
use super::greeting::{Class, Identity, greet};
use super::peers::Method;
use super::transport::Transport;
use crate::error::CallError;
use crate::types::{GroupId, NodeNumber};

/// Calls that may wait for the socket; more wait in `call` itself.
const QUEUED_CALLS: usize = 256;

/// Id of the call with which a connection begins.
const CLOCK_CALL_ID: u64 = 0;

/// A peer that does not tell its clock for so long is not connected.
const CLOCK_TIMEOUT: Duration = Duration::from_secs(5);

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
    /// The receiver must not begin with it after the caller's deadline. Raft's own messages may come late.
    pub expires: bool,
}

struct Outgoing {
    call: Call,
    deadline: Instant,
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
        let outgoing = Outgoing {
            call,
            deadline,
            reply,
        };
        let queued = timeout_at(deadline, self.outgoing.send(outgoing)).await;
        if !matches!(queued, Ok(Ok(()))) {
            return Err(CallError::Unreachable(self.peer));
        }
        match timeout_at(deadline, answer).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) | Err(_) => Err(CallError::Unanswered(self.peer)),
        }
    }
}

/// The receiver's clock as the caller knows it. A call may wait in a connection for as long as the network
/// is cut, and its caller has long reported that the outcome is unknown when it arrives. So it says until
/// when, by the clock of its receiver, it may be begun. Every reply tells that clock; it was read before the
/// reply came, so what is computed from it is too early by a way through the network, and never too late.
struct PeerClock {
    origin: Instant,
    /// What to add to the time since `origin`; microseconds.
    offset_us: AtomicI64,
}

impl PeerClock {
    fn new() -> PeerClock {
        PeerClock {
            origin: Instant::now(),
            offset_us: AtomicI64::new(0),
        }
    }

    /// A reply that was sent when the peer's clock said `peer_us` has come.
    fn heard(&self, peer_us: u64) {
        let own_us = self.origin.elapsed().as_micros() as i64;
        self.offset_us
            .store(peer_us as i64 - own_us, Ordering::Relaxed);
    }

    /// What the peer's clock says at `at`, or a little less.
    fn at(&self, at: Instant) -> u64 {
        let own_us = (at - self.origin).as_micros() as i64;
        let peer_us = own_us.saturating_add(self.offset_us.load(Ordering::Relaxed));
        peer_us.max(0) as u64
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
                Ok((connection, clock, boot)) => {
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
                    if !self.serve(connection, clock).await {
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

    async fn connect(&self) -> io::Result<((FrameReader, FrameWriter), PeerClock, u64)> {
        let connection = self.transport.connect(self.peer).await?;
        let (mut reader, mut writer, peer) =
            greet(connection, &self.identity, self.class, 0).await?;
        if peer.node != self.peer {
            let reason = format!(
                "node {} answers at the address of node {}: check `peers`",
                peer.node, self.peer
            );
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, reason));
        }
        let clock = PeerClock::new();
        let asked = ask_clock(&mut reader, &mut writer, &clock);
        timeout_at(Instant::now() + CLOCK_TIMEOUT, asked).await??;
        Ok(((reader, writer), clock, peer.boot))
    }

    /// Carries calls until the connection ends; false when the handle is gone.
    async fn serve(
        &mut self,
        (reader, mut writer): (FrameReader, FrameWriter),
        clock: PeerClock,
    ) -> bool {
        let pending = Arc::new(Pending::default());
        let clock = Arc::new(clock);
        let replies = read_replies(reader, self.peer, (pending.clone(), clock.clone()));
        let mut reading = tokio::spawn(replies);
        let mut next_id = CLOCK_CALL_ID;
        let alive = loop {
            let outgoing = tokio::select! {
                outgoing = self.queue.recv() => outgoing,
                _ = &mut reading => break true,
            };
            let Some(outgoing) = outgoing else {
                break false;
            };
            let Outgoing {
                call,
                deadline,
                reply,
            } = outgoing;
            next_id += 1;
            pending.insert(next_id, reply);
            let not_after = if call.expires {
                clock.at(deadline)
            } else {
                u64::MAX
            };
            let head = Head {
                kind: Kind::Call,
                method: call.method,
                group: call.group,
                id: next_id,
            };
            if writer
                .write(head, &expiring(not_after, call.body))
                .await
                .is_err()
            {
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

/// The body of a call: until when it may be begun, and what it says.
fn expiring(not_after_us: u64, mut body: Vec<Bytes>) -> Vec<Bytes> {
    body.insert(0, Bytes::copy_from_slice(&not_after_us.to_le_bytes()));
    body
}

/// The first call of a connection, so that the next ones can say until when.
async fn ask_clock(
    reader: &mut FrameReader,
    writer: &mut FrameWriter,
    clock: &PeerClock,
) -> io::Result<()> {
    let head = Head {
        kind: Kind::Call,
        method: Method::CLOCK,
        group: 0,
        id: CLOCK_CALL_ID,
    };
    writer.write(head, &expiring(u64::MAX, Vec::new())).await?;
    let frame = reader.read().await?.ok_or(io::ErrorKind::UnexpectedEof)?;
    take_clock(frame, clock).map(drop)
}

/// Takes the sender's clock from the body of a reply or failure.
fn take_clock(mut frame: Frame, clock: &PeerClock) -> io::Result<Frame> {
    if !matches!(frame.head.kind, Kind::Reply | Kind::Failure) {
        return Err(invalid(format!(
            "{:?} where a reply belongs",
            frame.head.kind
        )));
    }
    let peer_us = frame
        .body
        .try_get_u64_le()
        .map_err(|_| invalid("a reply without a clock"))?;
    clock.heard(peer_us);
    Ok(frame)
}

async fn read_replies(
    mut reader: FrameReader,
    peer: NodeNumber,
    (pending, clock): (Arc<Pending>, Arc<PeerClock>),
) {
    loop {
        let read = reader.read().await;
        match read.and_then(|frame| frame.map(|frame| take_clock(frame, &clock)).transpose()) {
            Ok(Some(frame)) if frame.head.kind == Kind::Reply => {
                pending.complete(frame.head.id, Ok(frame.body));
            }
            Ok(Some(frame)) => {
                let reason = String::from_utf8_lossy(&frame.body).into_owned();
                pending.complete(frame.head.id, Err(CallError::Refused(peer, reason)));
            }
            Ok(None) => return,
            Err(error) => {
                tracing::debug!(node = peer, %error, "connection to a peer ended");
                return;
            }
        }
    }
}
