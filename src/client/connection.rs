//! One TCP connection: many requests under way, each answer finds its request by its number.

use std::collections::HashMap;
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use gantry_protocol::{RemotingCommand, frame};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, oneshot};

use super::ClientError;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
const READ_BYTES: usize = 64 << 10;
const UNSENT_REQUESTS_MAX: usize = 64;

/// Where requests of the other side go; `None`: nobody takes them.
pub(super) type Asked = Option<mpsc::Sender<RemotingCommand>>;

/// A connection to one address. Dropping it closes it; what is under way then fails.
pub(super) struct Connection {
    address: String,
    outgoing: mpsc::Sender<Bytes>,
    waiting: Arc<Waiting>,
    next_opaque: AtomicI32,
}

/// Who waits for which answer; `None` once the connection has ended.
struct Waiting(Mutex<Option<HashMap<i32, oneshot::Sender<RemotingCommand>>>>);

impl Connection {
    /// Connects; a host name is resolved at each attempt.
    pub(super) async fn open(address: &str, asked: Asked) -> Result<Connection, ClientError> {
        let unreachable = |reason: String| ClientError::Unreachable {
            address: address.to_string(),
            reason,
        };
        let stream = match tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await
        {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return Err(unreachable(error.to_string())),
            Err(_) => return Err(unreachable("no answer to connect".to_string())),
        };
        stream
            .set_nodelay(true)
            .map_err(|error| unreachable(error.to_string()))?;
        let (reader, writer) = stream.into_split();
        let (outgoing, unsent) = mpsc::channel(UNSENT_REQUESTS_MAX);
        let waiting = Arc::new(Waiting(Mutex::new(Some(HashMap::new()))));
        tokio::spawn(read_answers(reader, Arc::clone(&waiting), asked));
        tokio::spawn(write_requests(writer, unsent, Arc::clone(&waiting)));
        Ok(Connection {
            address: address.to_string(),
            outgoing,
            waiting,
            next_opaque: AtomicI32::new(1),
        })
    }

    /// Whether it can no longer be used.
    pub(super) fn is_closed(&self) -> bool {
        self.waiting.is_closed()
    }

    /// Sends a request and awaits its answer, whatever its code.
    pub(super) async fn call(
        &self,
        mut request: RemotingCommand,
        timeout: Duration,
    ) -> Result<RemotingCommand, ClientError> {
        let opaque = self.next_opaque.fetch_add(1, Ordering::Relaxed);
        request.opaque = opaque;
        let mut frame = BytesMut::new();
        request
            .encode_into(&mut frame)
            .map_err(|e| ClientError::Unsendable(e.to_string()))?;
        let closed = || ClientError::Closed {
            address: self.address.clone(),
        };
        let (answer, answered) = oneshot::channel();
        self.waiting.add(opaque, answer).map_err(|()| closed())?;
        let exchange = async {
            self.outgoing
                .send(frame.freeze())
                .await
                .map_err(|_| closed())?;
            answered.await.map_err(|_| closed())
        };
        match tokio::time::timeout(timeout, exchange).await {
            Ok(outcome) => outcome,
            Err(_) => {
                self.waiting.take(opaque);
                let timeout_ms = timeout.as_millis();
                Err(ClientError::TimedOut {
                    address: self.address.clone(),
                    timeout_ms,
                })
            }
        }
    }
}

impl Waiting {
    fn add(&self, opaque: i32, answer: oneshot::Sender<RemotingCommand>) -> Result<(), ()> {
        match self.lock().as_mut() {
            Some(table) => {
                table.insert(opaque, answer);
                Ok(())
            }
            None => Err(()),
        }
    }

    fn take(&self, opaque: i32) -> Option<oneshot::Sender<RemotingCommand>> {
        self.lock().as_mut().and_then(|table| table.remove(&opaque))
    }

    /// Ends the connection for everybody: dropping the senders tells those who wait.
    fn close(&self) {
        *self.lock() = None;
    }

    fn is_closed(&self) -> bool {
        self.lock().is_none()
    }

    fn lock(
        &self,
    ) -> std::sync::MutexGuard<'_, Option<HashMap<i32, oneshot::Sender<RemotingCommand>>>> {
        self.0
            .lock()
            .expect("no code panics while it holds this lock")
    }
}

async fn write_requests(
    mut writer: OwnedWriteHalf,
    mut unsent: mpsc::Receiver<Bytes>,
    waiting: Arc<Waiting>,
) {
    while let Some(frame) = unsent.recv().await {
        if let Err(error) = writer.write_all(&frame).await {
            tracing::debug!(%error, "connection broke while writing");
            break;
        }
    }
    waiting.close();
}

async fn read_answers(mut reader: OwnedReadHalf, waiting: Arc<Waiting>, asked: Asked) {
    let mut buffer = BytesMut::with_capacity(READ_BYTES);
    loop {
        if let Err(reason) = deliver_answers(&mut buffer, &waiting, &asked) {
            tracing::warn!(reason, "closing a connection whose bytes make no sense");
            break;
        }
        buffer.reserve(READ_BYTES);
        match reader.read_buf(&mut buffer).await {
            Ok(0) => break,
            Ok(_) => {}
            Err(error) => {
                tracing::debug!(%error, "connection broke while reading");
                break;
            }
        }
    }
    waiting.close();
}

/// Hands out every whole answer in the buffer, and what the other side asks. Who takes that and does not keep
/// up misses some of it: brokers ask again.
fn deliver_answers(buffer: &mut BytesMut, waiting: &Waiting, asked: &Asked) -> Result<(), String> {
    while let Some(frame) = frame::cut(buffer).map_err(|error| error.to_string())? {
        let command = RemotingCommand::decode(frame).map_err(|error| error.to_string())?;
        if !command.is_response() {
            let full = asked
                .as_ref()
                .is_some_and(|asked| asked.try_send(command).is_err());
            if full {
                tracing::warn!("a request of a broker is dropped: nobody takes them fast enough");
            }
            continue;
        }
        // An answer that comes after its timeout finds nobody, and one may have gone away since.
        if let Some(answer) = waiting.take(command.opaque) {
            let _ = answer.send(command);
        }
    }
    Ok(())
}
