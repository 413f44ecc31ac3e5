//! Makes connections: all of them at the start, and broken ones again while the driver goes on.
//!
//! Where to is what a fresh route says, as a stock client learns it, and not what the driver happens to know.

use std::net::TcpStream;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::task::JoinSet;

use crate::cli::failure::Failure;
use crate::client::{Client, ClientError};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// Between two attempts; routes change only when a group has a leader again.
const RETRY_PAUSE: Duration = Duration::from_millis(5);
/// So many connections make the pause of the next ones longer by one more, so that a thousand that broke
/// together do not keep the name servers from electing.
const PENDING_FOR_A_PAUSE: u32 = 16;
/// Connections that are opened at the same time.
const OPENING_MAX: usize = 64;

/// Where connections go.
#[derive(Clone)]
pub(super) struct Places {
    /// Asks for routes.
    pub(super) client: Arc<Client>,
    /// A topic that every group has.
    pub(super) topic: String,
    /// The groups, in the order that connections name them.
    pub(super) groups: Vec<String>,
}

/// A connection that is there, and which one it is.
type Made = (usize, TcpStream);

/// Connections that are being made.
pub(super) struct Reconnects {
    runtime: Handle,
    places: Arc<Places>,
    pending: usize,
    made: Receiver<Made>,
    tell: Sender<Made>,
}

impl Reconnects {
    /// Uses the runtime of the calling thread.
    pub(super) fn new(places: Places) -> Reconnects {
        let (tell, made) = channel();
        Reconnects {
            runtime: Handle::current(),
            places: Arc::new(places),
            pending: 0,
            made,
            tell,
        }
    }

    pub(super) fn groups(&self) -> usize {
        self.places.groups.len()
    }

    /// A connection for each entry, to the group at that position, in the same order.
    pub(super) fn open_all(&mut self, groups: Vec<usize>) -> Result<Vec<TcpStream>, Failure> {
        let places = Arc::clone(&self.places);
        self.runtime.block_on(async move {
            let mut addresses = Vec::with_capacity(places.groups.len());
            for group in &places.groups {
                addresses.push(places.address(group).await?);
            }
            let mut streams: Vec<Option<TcpStream>> = groups.iter().map(|_| None).collect();
            let mut opening = JoinSet::new();
            for (index, group) in groups.into_iter().enumerate() {
                if opening.len() == OPENING_MAX {
                    keep(opening.join_next().await, &mut streams)?;
                }
                let address = addresses[group].clone();
                opening.spawn(async move { (index, open(&address).await) });
            }
            while !opening.is_empty() {
                keep(opening.join_next().await, &mut streams)?;
            }
            Ok(streams.into_iter().flatten().collect())
        })
    }

    /// Makes a connection again, however long it takes.
    pub(super) fn start(&mut self, index: usize, group: usize) {
        let pause = RETRY_PAUSE * (1 + self.pending as u32 / PENDING_FOR_A_PAUSE);
        self.pending += 1;
        let (places, tell) = (Arc::clone(&self.places), self.tell.clone());
        self.runtime.spawn(async move {
            let group = &places.groups[group];
            loop {
                let opened = match places.address(group).await {
                    Ok(address) => open(&address).await,
                    Err(error) => Err(error),
                };
                match opened {
                    Ok(stream) => {
                        // Nobody takes it when the run has ended meanwhile.
                        let _ = tell.send((index, stream));
                        return;
                    }
                    Err(error) => tracing::debug!(%error, group, "connecting again"),
                }
                tokio::time::sleep(pause).await;
            }
        });
    }

    /// Whether connections are being made.
    pub(super) fn are_pending(&self) -> bool {
        self.pending > 0
    }

    /// The next one that is there again.
    pub(super) fn finished(&mut self) -> Option<Made> {
        let made = self.made.try_recv().ok()?;
        self.pending -= 1;
        Some(made)
    }
}

impl Places {
    /// The address that takes the group's writes now.
    async fn address(&self, group: &str) -> Result<String, ClientError> {
        let groups = self
            .client
            .groups_of(&self.topic)
            .await?
            .unwrap_or_default();
        let found = groups.into_iter().find(|found| found.name == group);
        let address = found.and_then(|mut found| found.addresses.remove(&0));
        address.ok_or_else(|| {
            ClientError::Unsendable(format!(
                "the route of {} has no broker id 0 of {group}",
                self.topic
            ))
        })
    }
}

type Opened = (usize, Result<TcpStream, ClientError>);

fn keep(
    opened: Option<Result<Opened, tokio::task::JoinError>>,
    streams: &mut [Option<TcpStream>],
) -> Result<(), Failure> {
    let opened = opened.expect("only called while some are under way");
    let (index, stream) = opened.expect("connecting does not panic");
    streams[index] = Some(stream?);
    Ok(())
}

/// A connection that never blocks.
async fn open(address: &str) -> Result<TcpStream, ClientError> {
    let unreachable = |reason: String| ClientError::Unreachable {
        address: address.to_string(),
        reason,
    };
    let connecting = tokio::net::TcpStream::connect(address);
    let stream = match tokio::time::timeout(CONNECT_TIMEOUT, connecting).await {
        Ok(stream) => stream,
        Err(_) => return Err(unreachable("no answer to connect".to_string())),
    };
    let prepared = stream.and_then(|stream| {
        stream.set_nodelay(true)?;
        stream.into_std()
    });
    prepared.map_err(|error| unreachable(error.to_string()))
}
