//! One request, one function: read the typed header, check it, call one domain function, format the
//! answer. Handlers know no other handlers.

pub mod assignment;
pub mod counters;
pub mod end_transaction;
pub mod groups;
pub mod heartbeat;
pub mod kv;
pub mod leases;
pub mod locks;
pub mod members;
pub mod offsets;
pub mod permissions;
pub mod pop;
pub mod pop_status;
pub mod progress;
pub mod pull;
pub mod query;
pub mod recall;
pub mod replication;
pub mod reply;
pub mod resets;
pub mod routing;
pub mod send;
pub mod send_back;
pub mod stats;
pub mod topics;
pub mod unsupported;

use bytes::Bytes;
use gantry_protocol::RemotingCommand;

use crate::error::Failure;

/// An answer: a command, and the rest of its body in pieces that are not copied.
pub struct Response {
    /// The command with the first part of the body.
    pub command: RemotingCommand,
    /// The rest of the body.
    pub pieces: Vec<Bytes>,
}

impl From<RemotingCommand> for Response {
    fn from(command: RemotingCommand) -> Self {
        Response {
            command,
            pieces: Vec::new(),
        }
    }
}

/// What a handler gives.
pub type Handled = Result<Response, Failure>;
