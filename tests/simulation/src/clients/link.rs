//! A client's connection to one node: one request at a time, in RocketMQ's protocol.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use bytes::BytesMut;
use gantry_protocol::{RemotingCommand, RequestCode, frame};
use gantry_raft::NodeNumber;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, timeout_at};

use crate::net::{Net, Reader, Writer};

/// The number of the machine that all clients are on.
pub const CLIENT_MACHINE: u16 = 100;

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lost {
    /// The request has not been sent.
    Unsent,
    /// It has been, and nobody knows what came of it.
    Unknown,
}

/// Connects when it is needed, and anew after an answer did not come.
pub struct Link {
    net: Net,
    address: SocketAddr,
    node: NodeNumber,
    stream: Option<(Reader, Writer, BytesMut)>,
    opaque: i32,
    /// What the node asked.
    asked: Vec<RemotingCommand>,
}

impl Link {
    /// A link of the client of that number.
    pub fn new(net: Net, client: u16, node: NodeNumber) -> Self {
        let address = SocketAddr::from((Ipv4Addr::new(10, 0, 1, 1), 40_000 + client));
        Link {
            net,
            address,
            node,
            stream: None,
            opaque: 0,
            asked: Vec::new(),
        }
    }

    /// Asks and waits for the answer, whatever it says.
    pub async fn call(
        &mut self,
        mut request: RemotingCommand,
        limit: Duration,
    ) -> Result<RemotingCommand, Lost> {
        let deadline = Instant::now() + limit;
        if self.stream.is_none() {
            let opening = self
                .net
                .connect_client(CLIENT_MACHINE, self.node, self.address);
            let Ok(Ok((reader, writer))) = timeout_at(deadline, opening).await else {
                return Err(Lost::Unsent);
            };
            self.stream = Some((reader, writer, BytesMut::new()));
        }
        self.opaque += 1;
        request.opaque = self.opaque;
        let outcome = match timeout_at(deadline, self.exchange(&request)).await {
            Ok(Some(answer)) => Ok(answer),
            Ok(None) | Err(_) => Err(Lost::Unknown),
        };
        if outcome.is_err() {
            self.stream = None;
        }
        outcome
    }

    async fn exchange(&mut self, request: &RemotingCommand) -> Option<RemotingCommand> {
        let (_, writer, _) = self.stream.as_mut()?;
        let mut bytes = BytesMut::new();
        request.encode_into(&mut bytes).ok()?;
        writer.write_all(&bytes).await.ok()?;
        self.read(Some(request.opaque)).await
    }

    /// What the node asks within a time, or has asked before.
    pub async fn listen(&mut self, limit: Duration) -> Vec<RemotingCommand> {
        let until = Instant::now() + limit;
        if self.stream.is_none() {
            tokio::time::sleep_until(until).await;
        } else if timeout_at(until, self.read(None)).await.is_ok() {
            self.stream = None;
        }
        std::mem::take(&mut self.asked)
    }

    /// Reads until there is an answer to this request, or until the connection ends, and keeps what the node
    /// asks.
    async fn read(&mut self, answer_to: Option<i32>) -> Option<RemotingCommand> {
        let (reader, _, buffer) = self.stream.as_mut()?;
        loop {
            while let Some(cut) = frame::cut(buffer).ok()? {
                let command = RemotingCommand::decode(cut).ok()?;
                if command.is_response() && Some(command.opaque) == answer_to {
                    return Some(command);
                }
                if command.request_code() == RequestCode::CHECK_TRANSACTION_STATE {
                    self.asked.push(command);
                }
            }
            if reader.read_buf(buffer).await.ok()? == 0 {
                return None;
            }
        }
    }
}
