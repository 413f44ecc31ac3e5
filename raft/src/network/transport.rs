//! How one node opens a byte stream to another: TCP in production, memory in tests.

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;

use crate::types::NodeNumber;

/// How long opening a TCP connection may take before the peer counts as unreachable.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// How long sent bytes may stay unacknowledged before the kernel ends a connection.
const USER_TIMEOUT: Duration = Duration::from_secs(10);

/// The two directions of a byte stream between two nodes.
pub struct Connection {
    /// Bytes from the peer.
    pub reader: Box<dyn AsyncRead + Send + Sync + Unpin>,
    /// Bytes to the peer.
    pub writer: Box<dyn AsyncWrite + Send + Sync + Unpin>,
}

/// A future that can be kept in a struct.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Opens connections to peers.
pub trait Transport: Send + Sync + 'static {
    /// Opens a connection to the peer port of node `to`, within a bounded time.
    ///
    /// An error of the kinds `ConnectionRefused`, `NotFound`, `HostUnreachable` says that nobody
    /// listens there.
    fn connect(&self, to: NodeNumber) -> BoxFuture<'_, io::Result<Connection>>;
}

/// TCP to the addresses of the configuration. Names are resolved again at every connect.
pub struct TcpTransport {
    addresses: BTreeMap<NodeNumber, String>,
}

impl TcpTransport {
    /// `addresses` gives `host:port` of each node's peer port.
    pub fn new(addresses: BTreeMap<NodeNumber, String>) -> Self {
        TcpTransport { addresses }
    }
}

impl Transport for TcpTransport {
    fn connect(&self, to: NodeNumber) -> BoxFuture<'_, io::Result<Connection>> {
        Box::pin(async move {
            let address = self.addresses.get(&to).ok_or_else(|| {
                io::Error::new(
                    io::ErrorKind::InvalidInput,
                    format!("node {to} has no address"),
                )
            })?;
            match timeout(CONNECT_TIMEOUT, dial(address)).await {
                Ok(stream) => split_tcp(stream?),
                Err(_) => Err(io::ErrorKind::TimedOut.into()),
            }
        })
    }
}

async fn dial(address: &str) -> io::Result<TcpStream> {
    let resolved = lookup_host(address)
        .await
        .map_err(|e| io::Error::new(io::ErrorKind::NotFound, format!("{address}: {e}")))?;
    let mut last = io::Error::new(io::ErrorKind::NotFound, format!("{address} has no address"));
    for candidate in resolved {
        match TcpStream::connect(candidate).await {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Makes a connection of a TCP stream, with the socket options that all peers use.
pub fn split_tcp(stream: TcpStream) -> io::Result<Connection> {
    stream.set_nodelay(true)?;
    let socket = socket2::SockRef::from(&stream);
    socket.set_tcp_user_timeout(Some(USER_TIMEOUT))?;
    let keepalive = socket2::TcpKeepalive::new()
        .with_time(Duration::from_secs(5))
        .with_interval(Duration::from_secs(2))
        .with_retries(3);
    socket.set_tcp_keepalive(&keepalive)?;
    let (reader, writer) = stream.into_split();
    Ok(Connection {
        reader: Box::new(reader),
        writer: Box::new(writer),
    })
}
