//! The ends of a connection, as tokio knows byte streams.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::Net;
use super::pipe::{Found, Pipe};

/// Bytes that go under way as one piece.
const PIECE_BYTES: usize = 64 << 10;

/// The side that bytes come out of. Dropping it breaks the direction when more arrives.
pub struct Reader {
    net: Net,
    connection: u64,
    /// Which of the two directions.
    pipe: usize,
}

/// The side that bytes go into. Dropping it ends the direction in order.
pub struct Writer {
    net: Net,
    connection: u64,
    pipe: usize,
}

impl Reader {
    pub(super) fn new(net: Net, connection: u64, pipe: usize) -> Self {
        Reader {
            net,
            connection,
            pipe,
        }
    }
}

impl Writer {
    pub(super) fn new(net: Net, connection: u64, pipe: usize) -> Self {
        Writer {
            net,
            connection,
            pipe,
        }
    }

    fn finish(&self) {
        let mut state = self.net.lock();
        let Some(ends) = state.connections.get(&self.connection).map(|c| c.ends) else {
            return;
        };
        let delay = state.delay_us(ends[self.pipe], ends[1 - self.pipe]);
        let arrives = state.time.now_ns() + delay * 1_000;
        if let Some(cable) = state.connections.get_mut(&self.connection) {
            cable.pipes[self.pipe].finish(arrives);
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        with_pipe(&self.net, self.connection, self.pipe, Pipe::reader_leaves);
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.finish();
        with_pipe(&self.net, self.connection, self.pipe, Pipe::writer_leaves);
    }
}

fn with_pipe<T>(
    net: &Net,
    connection: u64,
    pipe: usize,
    act: impl FnOnce(&mut Pipe) -> T,
) -> Option<T> {
    let mut state = net.lock();
    let cable = state.connections.get_mut(&connection)?;
    Some(act(&mut cable.pipes[pipe]))
}

impl AsyncRead for Reader {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let most = buffer.remaining();
        let take = |pipe: &mut Pipe| pipe.take(most, context.waker());
        let found = with_pipe(&self.net, self.connection, self.pipe, take);
        match found {
            Some(Found::Bytes(bytes)) => {
                buffer.put_slice(&bytes);
                Poll::Ready(Ok(()))
            }
            Some(Found::End) => Poll::Ready(Ok(())),
            Some(Found::Nothing) => Poll::Pending,
            Some(Found::Broken) | None => Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
        }
    }
}

impl AsyncWrite for Writer {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let room = |pipe: &mut Pipe| pipe.has_room(context.waker());
        match with_pipe(&self.net, self.connection, self.pipe, room) {
            Some(Ok(true)) => {}
            Some(Ok(false)) => return Poll::Pending,
            Some(Err(())) | None => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
        }
        let piece = Bytes::copy_from_slice(&bytes[..bytes.len().min(PIECE_BYTES)]);
        let count = piece.len();
        let mut state = self.net.lock();
        let Some(ends) = state.connections.get(&self.connection).map(|c| c.ends) else {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        };
        let delay = state.delay_us(ends[self.pipe], ends[1 - self.pipe]);
        let now = state.time.now_ns();
        if let Some(cable) = state.connections.get_mut(&self.connection) {
            cable.pipes[self.pipe].send(piece, now, now + delay * 1_000);
        }
        Poll::Ready(Ok(count))
    }

    fn poll_flush(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.finish();
        Poll::Ready(Ok(()))
    }
}
