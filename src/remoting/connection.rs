//! One client connection: bytes in, requests to the router, answers out.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use gantry_protocol::{RemotingCommand, frame};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};

use super::channel::Channel;
use super::request::{Answer, Caller, Request};
use super::router::Router;

/// A connection that carries nothing for this long is closed; clients send a heartbeat every 30 s.
const IDLE_TIMEOUT: Duration = Duration::from_secs(120);

const READ_BYTES: usize = 64 * 1024;

/// A frame from this size on is only read while there is room for it among those of all connections.
const LARGE_BYTES: usize = 256 * 1024;

/// Large frames that are read at the same time, together.
const LARGE_FRAMES_BYTES_MAX: usize = 64 * 1024 * 1024;

/// A large frame that has not come within this time gives its room to others, and its connection ends.
const LARGE_TIMEOUT: Duration = Duration::from_secs(30);

/// Room for the large frames of all connections: without it, sixty clients that send the largest messages at
/// once cost half a gigabyte. Who finds none is not read from meanwhile.
#[derive(Clone)]
pub(super) struct LargeFrames(Arc<Semaphore>);

impl Default for LargeFrames {
    fn default() -> Self {
        LargeFrames(Arc::new(Semaphore::new(LARGE_FRAMES_BYTES_MAX)))
    }
}

/// A large frame on its way in.
struct Admitted {
    until: Instant,
    _room: OwnedSemaphorePermit,
}

impl LargeFrames {
    /// Waits for room for the frame that `buffer` begins with, and makes it, if it is large.
    async fn admit(&self, buffer: &mut BytesMut) -> Option<Admitted> {
        let announced = buffer.first_chunk::<4>();
        let total = 4 + u32::from_be_bytes(*announced?) as usize;
        if total < LARGE_BYTES || total <= buffer.len() {
            return None;
        }
        // Frames above the limit of all are refused before this.
        let room = self.0.clone().acquire_many_owned(total as u32).await;
        buffer.reserve(total - buffer.len());
        Some(Admitted {
            until: Instant::now() + LARGE_TIMEOUT,
            _room: room.expect("the semaphore is never closed"),
        })
    }
}

/// Serves a connection until either side ends it.
pub(super) async fn serve(
    (reading, writing): (impl AsyncRead + Unpin, impl AsyncWrite + Unpin),
    channel: Arc<Channel>,
    caller: Caller,
    (router, large): (Arc<Router>, LargeFrames),
) {
    let ended = tokio::select! {
        ended = read_requests(reading, &channel, caller, (&router, &large)) => ended,
        ended = channel.write_out(writing) => ended,
    };
    channel.close();
    router.disconnected(&channel);
    if let Err(error) = ended {
        tracing::debug!(peer = %channel.peer, %error, "connection ended");
    }
}

async fn read_requests(
    mut socket: impl AsyncRead + Unpin,
    channel: &Arc<Channel>,
    mut caller: Caller,
    (router, large): (&Arc<Router>, &LargeFrames),
) -> io::Result<()> {
    let mut buffer = BytesMut::with_capacity(READ_BYTES);
    let mut admitted: Option<Admitted> = None;
    loop {
        caller.received = Instant::now();
        while let Some(cut) = frame::cut(&mut buffer).map_err(invalid)? {
            let command = RemotingCommand::decode(cut).map_err(invalid)?;
            if command.is_response() {
                channel.answered(command);
                continue;
            }
            let answer = Answer::Client(channel.clone());
            router
                .dispatch(Request {
                    command,
                    caller: caller.clone(),
                    answer,
                })
                .await;
            // What it was for has been handed over.
            admitted = None;
        }
        channel.wait_for_room().await;
        if channel.is_closed() {
            return Ok(());
        }
        if admitted.is_none() {
            admitted = large.admit(&mut buffer).await;
        }
        if admitted.is_none() {
            buffer.reserve(READ_BYTES);
        }
        let patience = admitted.as_ref().map(|frame| frame.until);
        let until = patience.unwrap_or_else(|| Instant::now() + IDLE_TIMEOUT);
        let read = timeout_at(until, socket.read_buf(&mut buffer)).await;
        match read.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?? {
            0 if buffer.is_empty() => return Ok(()),
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            _ => {}
        }
    }
}

fn invalid(error: impl std::error::Error + Send + Sync + 'static) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}
