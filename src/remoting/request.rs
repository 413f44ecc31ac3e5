//! A request on its way through the broker: the command, who sent it, and where its answer goes.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use gantry_protocol::{RemotingCommand, RequestCode, ResponseCode};
use gantry_raft::{GroupId, NodeNumber};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::channel::Channel;

/// Who sent a request.
#[derive(Clone, Debug)]
pub struct Caller {
    /// The node whose port the client is connected to.
    pub node: NodeNumber,
    /// Index of the listener it came in on: decides which addresses it is given.
    pub listener: usize,
    /// The group of the port it came in on; none on the name server's port.
    pub port_group: Option<GroupId>,
    /// The client's address.
    pub peer: SocketAddr,
    /// When the request was read.
    pub received: Instant,
}

/// Where the answer goes.
pub enum Answer {
    /// To a client of this node.
    Client(Arc<Channel>),
    /// To the node that forwarded the request.
    Forwarder(oneshot::Sender<Relayed>),
}

/// What comes of a forwarded request.
pub enum Relayed {
    /// The answer as an encoded frame; empty for a request that wants none.
    Frame(Vec<Bytes>),
    /// Nothing was done: this node does not lead.
    NotLeader,
}

/// One request.
pub struct Request {
    /// What is asked.
    pub command: RemotingCommand,
    /// By whom.
    pub caller: Caller,
    /// Where the answer goes.
    pub answer: Answer,
}

impl Request {
    /// The request code, aliases resolved.
    pub fn code(&self) -> RequestCode {
        self.command.request_code()
    }

    /// The connection to the client, if it is a client of this node.
    pub fn channel(&self) -> Option<&Arc<Channel>> {
        match &self.answer {
            Answer::Client(channel) => Some(channel),
            Answer::Forwarder(_) => None,
        }
    }

    /// Answers with a command whose body goes on in `pieces`. Oneway requests are not answered.
    pub fn reply_with(self, response: RemotingCommand, pieces: &[Bytes]) {
        if self.command.is_oneway() {
            if let Answer::Forwarder(tell) = self.answer {
                drop(tell.send(Relayed::Frame(Vec::new())));
            }
            return;
        }
        match self.answer {
            Answer::Client(channel) => channel.send(&response, pieces),
            Answer::Forwarder(tell) => {
                // The forwarding node may be gone; its client sees that.
                drop(tell.send(Relayed::Frame(encode(&response, pieces))));
            }
        }
    }

    /// Answers.
    pub fn reply(self, response: RemotingCommand) {
        self.reply_with(response, &[]);
    }

    /// Gives a request of a client back; tells a forwarding node that this one does not lead.
    pub fn refuse_if_forwarded(self) -> Option<Request> {
        let Request {
            command,
            caller,
            answer,
        } = self;
        match answer {
            Answer::Forwarder(tell) => {
                drop(tell.send(Relayed::NotLeader));
                None
            }
            answer @ Answer::Client(_) => Some(Request {
                command,
                caller,
                answer,
            }),
        }
    }

    /// Answers with a frame that another node encoded.
    pub fn reply_encoded(self, frame: Bytes) {
        match self.answer {
            Answer::Client(channel) if !self.command.is_oneway() => channel.send_encoded(&[frame]),
            Answer::Client(_) => {}
            Answer::Forwarder(tell) => drop(tell.send(Relayed::Frame(vec![frame]))),
        }
    }

    /// Answers with a code and its reason.
    pub fn reply_code(self, code: ResponseCode, remark: impl Into<String>) {
        let response = RemotingCommand::response_to(&self.command, code, remark.into());
        self.reply(response);
    }

    /// Answers with success and nothing else.
    pub fn reply_ok(self) {
        let response = RemotingCommand::success_to(&self.command);
        self.reply(response);
    }
}

fn encode(response: &RemotingCommand, pieces: &[Bytes]) -> Vec<Bytes> {
    let body_bytes = response.body.len() + pieces.iter().map(Bytes::len).sum::<usize>();
    let mut head = BytesMut::new();
    if let Err(error) = response.encode_head_into(&mut head, body_bytes) {
        let remark = format!("the answer does not fit into a frame: {error}");
        let failure = RemotingCommand::response_to(response, ResponseCode::SYSTEM_ERROR, remark);
        failure
            .encode_head_into(&mut head, 0)
            .expect("an answer without a body fits into a frame");
        return vec![head.freeze()];
    }
    let mut encoded = vec![head.freeze(), response.body.clone()];
    encoded.extend(pieces.iter().cloned());
    encoded
}
