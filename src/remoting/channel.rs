//! The way out of a client connection: what is to be written, and requests of ours that wait for the
//! client's answer.

use std::collections::HashMap;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::{Bytes, BytesMut};
use gantry_protocol::{RemotingCommand, ResponseCode};
use gantry_raft::GroupId;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::sync::{Notify, oneshot};

/// A body of at least this size is written from where it lies; smaller ones are copied together.
const GATHER_BYTES: usize = 8 * 1024;

/// Answers that wait for a client that does not read. Above this nothing more is read from it.
const OUTGOING_BYTES_MAX: usize = 8 * 1024 * 1024;

/// The writing side of one client connection, shared by everything that answers it.
pub struct Channel {
    /// Unique within the process.
    pub id: u64,
    /// The client's address as this node sees it.
    pub peer: SocketAddr,
    port_group: Option<GroupId>,
    outgoing: Mutex<Outgoing>,
    filled: Notify,
    drained: Notify,
    closed: AtomicBool,
    calls: Mutex<HashMap<i32, oneshot::Sender<RemotingCommand>>>,
    next_opaque: AtomicI32,
}

/// Invariant: `bytes` is the length of `ready` and `tail` together.
#[derive(Default)]
struct Outgoing {
    ready: Vec<Bytes>,
    tail: BytesMut,
    bytes: usize,
}

impl Channel {
    /// A channel to `peer`; [`Channel::write_out`] must run for it.
    pub fn new(id: u64, peer: SocketAddr) -> Self {
        Channel {
            id,
            peer,
            port_group: None,
            outgoing: Mutex::default(),
            filled: Notify::new(),
            drained: Notify::new(),
            closed: AtomicBool::new(false),
            calls: Mutex::default(),
            next_opaque: AtomicI32::new(1),
        }
    }

    /// The same for a connection that came in on the port of a broker group.
    pub fn on_port_of(self, port_group: Option<GroupId>) -> Self {
        Channel { port_group, ..self }
    }

    /// The broker group whose port the connection came in on.
    pub fn port_group(&self) -> Option<GroupId> {
        self.port_group
    }

    /// Queues a command whose body is its own `body` followed by `pieces`. Returns at once. What does
    /// not fit into a frame is replaced by an error answer.
    pub fn send(&self, command: &RemotingCommand, pieces: &[Bytes]) {
        let body_bytes = command.body.len() + pieces.iter().map(Bytes::len).sum::<usize>();
        let mut outgoing = self.lock();
        let before = outgoing.tail.len();
        if let Err(error) = command.encode_head_into(&mut outgoing.tail, body_bytes) {
            tracing::error!(code = command.code, %error, "an answer is too large");
            let remark = format!("the answer does not fit into a frame: {error}");
            let failure = RemotingCommand::response_to(command, ResponseCode::SYSTEM_ERROR, remark);
            let encoded = failure.encode_head_into(&mut outgoing.tail, 0);
            encoded.expect("an answer without a body fits into a frame");
            outgoing.bytes += outgoing.tail.len() - before;
        } else {
            outgoing.bytes += outgoing.tail.len() - before;
            outgoing.push(&command.body);
            for piece in pieces {
                outgoing.push(piece);
            }
        }
        drop(outgoing);
        self.filled.notify_one();
    }

    /// Queues frames that are encoded already.
    pub fn send_encoded(&self, pieces: &[Bytes]) {
        let mut outgoing = self.lock();
        for piece in pieces {
            outgoing.push(piece);
        }
        drop(outgoing);
        self.filled.notify_one();
    }

    /// Sends a request of ours; the receiver gets the client's answer, or is dropped when the
    /// connection ends first.
    pub fn call(&self, mut request: RemotingCommand) -> oneshot::Receiver<RemotingCommand> {
        let opaque = self.next_opaque.fetch_add(1, Ordering::Relaxed);
        request.opaque = opaque;
        let (tell, answer) = oneshot::channel();
        let mut calls = self.lock_calls();
        calls.retain(|_, waiting| !waiting.is_closed());
        calls.insert(opaque, tell);
        drop(calls);
        self.send(&request, &[]);
        answer
    }

    /// Sends a request of ours that wants no answer.
    pub fn notify(&self, request: RemotingCommand) {
        let mut request = request.into_oneway();
        request.opaque = self.next_opaque.fetch_add(1, Ordering::Relaxed);
        self.send(&request, &[]);
    }

    /// The client answered a request of ours.
    pub fn answered(&self, response: RemotingCommand) {
        if let Some(waiting) = self.lock_calls().remove(&response.opaque) {
            // Whoever asked may have given up waiting.
            drop(waiting.send(response));
        }
    }

    /// Whether the connection has ended.
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    /// Ends the connection from our side.
    pub fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
        self.lock_calls().clear();
        self.filled.notify_one();
        self.drained.notify_waiters();
    }

    /// Waits until the client has taken enough of what it was sent, or the connection has ended.
    pub async fn wait_for_room(&self) {
        loop {
            let mut drained = std::pin::pin!(self.drained.notified());
            // Registered before the look: a write in between must count.
            drained.as_mut().enable();
            if self.lock().bytes <= OUTGOING_BYTES_MAX || self.is_closed() {
                return;
            }
            drained.await;
        }
    }

    /// Writes what is queued until the connection ends.
    pub async fn write_out(&self, mut socket: impl AsyncWrite + Unpin) -> io::Result<()> {
        loop {
            let (pieces, bytes) = self.take();
            if pieces.is_empty() {
                if self.is_closed() {
                    return socket.shutdown().await;
                }
                self.filled.notified().await;
                continue;
            }
            write_all(&mut socket, pieces).await?;
            self.lock().bytes -= bytes;
            self.drained.notify_waiters();
        }
    }

    fn take(&self) -> (Vec<Bytes>, usize) {
        let mut outgoing = self.lock();
        outgoing.seal_tail();
        let pieces = std::mem::take(&mut outgoing.ready);
        let bytes = pieces.iter().map(Bytes::len).sum();
        (pieces, bytes)
    }

    fn lock(&self) -> MutexGuard<'_, Outgoing> {
        self.outgoing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_calls(&self) -> MutexGuard<'_, HashMap<i32, oneshot::Sender<RemotingCommand>>> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Outgoing {
    fn push(&mut self, piece: &Bytes) {
        self.bytes += piece.len();
        if piece.len() >= GATHER_BYTES {
            self.seal_tail();
            self.ready.push(piece.clone());
        } else {
            self.tail.extend_from_slice(piece);
        }
    }

    fn seal_tail(&mut self) {
        if !self.tail.is_empty() {
            let tail = self.tail.split().freeze();
            self.ready.push(tail);
        }
    }
}

async fn write_all(socket: &mut (impl AsyncWrite + Unpin), pieces: Vec<Bytes>) -> io::Result<()> {
    let mut slices: Vec<IoSlice<'_>> = pieces.iter().map(|p| IoSlice::new(p)).collect();
    let mut rest = slices.as_mut_slice();
    // Nothing is left to write of empty pieces.
    IoSlice::advance_slices(&mut rest, 0);
    while !rest.is_empty() {
        match socket.write_vectored(rest).await? {
            0 => return Err(io::ErrorKind::WriteZero.into()),
            written => IoSlice::advance_slices(&mut rest, written),
        }
    }
    Ok(())
}
