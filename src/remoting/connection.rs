//! One client connection: bytes in, requests to the router, answers out.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use gantry_protocol::{RemotingCommand, frame};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::time::{Instant, timeout};

use super::channel::Channel;
use super::request::{Answer, Caller, Request};
use super::router::Router;

/// A connection that carries nothing for this long is closed; clients send a heartbeat every 30 s.
const IDLE_TIMEOUT: Duration = Duration::from_secs(120);

const READ_BYTES: usize = 64 * 1024;

/// Serves a connection until either side ends it.
pub async fn serve(
    (reading, writing): (impl AsyncRead + Unpin, impl AsyncWrite + Unpin),
    channel: Arc<Channel>,
    caller: Caller,
    router: Arc<Router>,
) {
    let ended = tokio::select! {
        ended = read_requests(reading, &channel, caller, &router) => ended,
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
    router: &Arc<Router>,
) -> io::Result<()> {
    let mut buffer = BytesMut::with_capacity(READ_BYTES);
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
        }
        channel.wait_for_room().await;
        if channel.is_closed() {
            return Ok(());
        }
        buffer.reserve(READ_BYTES);
        let read = timeout(IDLE_TIMEOUT, socket.read_buf(&mut buffer)).await;
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
