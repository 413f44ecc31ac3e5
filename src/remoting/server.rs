//! Client ports: binds them, accepts connections, keeps to the limit of connections.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use gantry_raft::{GroupId, NodeNumber};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::channel::Channel;
use super::connection::{self, LargeFrames};
use super::request::Caller;
use super::router::Router;

/// A port that clients connect to.
pub struct ClientPort {
    /// Index of the listener it belongs to.
    pub listener: usize,
    /// The group that the port stands for; none for the name server's.
    pub group: Option<GroupId>,
    /// The bound socket.
    pub socket: TcpListener,
}

/// Binds an address; the error names it and says what to do.
pub async fn bind(address: SocketAddr, what: &str) -> io::Result<TcpListener> {
    TcpListener::bind(address).await.map_err(|error| {
        let hint = match error.kind() {
            io::ErrorKind::AddrInUse => {
                ": another process uses the port; stop it or choose another port"
            }
            io::ErrorKind::AddrNotAvailable => ": this machine does not have that address",
            io::ErrorKind::PermissionDenied => {
                ": the port needs more rights; choose one above 1023"
            }
            _ => "",
        };
        io::Error::new(
            error.kind(),
            format!("cannot listen on {address} for {what}: {error}{hint}"),
        )
    })
}

/// All client ports of this node.
pub struct RemotingServer {
    node: NodeNumber,
    router: Arc<Router>,
    connections: Arc<Semaphore>,
    large: LargeFrames,
    next_channel: Arc<AtomicU64>,
}

impl RemotingServer {
    /// A server that takes at most `connections_max` connections on all its ports together.
    pub fn new(node: NodeNumber, router: Arc<Router>, connections_max: usize) -> Self {
        RemotingServer {
            node,
            router,
            connections: Arc::new(Semaphore::new(connections_max)),
            large: LargeFrames::default(),
            next_channel: Arc::new(AtomicU64::new(1)),
        }
    }

    /// Serves the ports until `stop` becomes true; then ends the connections too, and returns when all
    /// sockets are closed.
    pub async fn serve(self, ports: Vec<ClientPort>, stop: watch::Receiver<bool>) {
        let server = Arc::new(self);
        let mut accepting = JoinSet::new();
        for port in ports {
            accepting.spawn(server.clone().accept(port, stop.clone()));
        }
        while accepting.join_next().await.is_some() {}
    }

    async fn accept(self: Arc<Self>, port: ClientPort, mut stop: watch::Receiver<bool>) {
        let mut running = JoinSet::new();
        loop {
            tokio::select! {
                accepted = port.socket.accept() => match accepted {
                    Ok((stream, peer)) => {
                        if let Some(serving) = self.take(&port, stream, peer) {
                            running.spawn(serving);
                        }
                    }
                    Err(error) => {
                        tracing::warn!(%error, "cannot accept a connection");
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                },
                Some(_) = running.join_next() => {}
                () = stopped(&mut stop) => break,
            }
        }
        drop(port);
        running.shutdown().await;
    }

    fn take(
        &self,
        port: &ClientPort,
        stream: TcpStream,
        peer: SocketAddr,
    ) -> Option<impl Future<Output = ()> + Send + 'static> {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%peer, %error, "connection ended at once");
            return None;
        }
        self.serve_one(stream.into_split(), (port.listener, port.group), peer)
    }

    /// Serves the two directions of a connection that came in on a listener's port of a group, until it
    /// ends; none if there are too many connections.
    pub fn serve_one(
        &self,
        stream: (
            impl AsyncRead + Send + Unpin + 'static,
            impl AsyncWrite + Send + Unpin + 'static,
        ),
        (listener, port_group): (usize, Option<GroupId>),
        peer: SocketAddr,
    ) -> Option<impl Future<Output = ()> + Send + 'static> {
        let Ok(permit) = self.connections.clone().try_acquire_owned() else {
            self.router.metrics().refused("connections");
            tracing::warn!(%peer, "too many connections: raise broker.connections_max");
            return None;
        };
        let id = self.next_channel.fetch_add(1, Ordering::Relaxed);
        let channel = Arc::new(Channel::new(id, peer).on_port_of(port_group));
        let caller = Caller {
            node: self.node,
            listener,
            port_group,
            peer,
            received: Instant::now(),
        };
        let (router, large) = (self.router.clone(), self.large.clone());
        Some(async move {
            router.metrics().connections.inc();
            connection::serve(stream, channel, caller, (router.clone(), large)).await;
            router.metrics().connections.dec();
            drop(permit);
        })
    }
}

/// Completes when `stop` is true, or nobody can make it so any more.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    drop(stop.wait_for(|stop| *stop).await);
}
