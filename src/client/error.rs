//! What can go wrong between this client and a node.

use gantry_protocol::{RequestCode, ResponseCode};

/// Why a request has no successful answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClientError {
    /// No connection: nothing was sent.
    #[error("{address} cannot be reached: {reason}")]
    Unreachable {
        /// Where to.
        address: String,
        /// What the operating system said.
        reason: String,
    },
    /// The connection broke while the answer was awaited: the outcome is unknown.
    #[error("{address} closed the connection before it answered")]
    Closed {
        /// Who.
        address: String,
    },
    /// No answer in time: the outcome is unknown.
    #[error("{address} did not answer within {timeout_ms} ms")]
    TimedOut {
        /// Who.
        address: String,
        /// How long it was waited for, in milliseconds.
        timeout_ms: u128,
    },
    /// The node answered, and the answer is no.
    #[error("{address} refused {request} with {code}: {remark}")]
    Refused {
        /// Who.
        address: String,
        /// What was asked.
        request: RequestCode,
        /// The reason as a number.
        code: ResponseCode,
        /// The reason in words.
        remark: String,
    },
    /// The answer is not what the protocol says.
    #[error("the answer of {address} to {request} cannot be read: {reason}")]
    Unreadable {
        /// Who.
        address: String,
        /// What was asked.
        request: RequestCode,
        /// What is wrong with it.
        reason: String,
    },
    /// The request cannot be sent as it is.
    #[error("{0}")]
    Unsendable(String),
}

impl ClientError {
    /// Whether another node may be asked the same: this one was not reached or has gone.
    pub fn is_unreachable(&self) -> bool {
        matches!(
            self,
            ClientError::Unreachable { .. } | ClientError::Closed { .. }
        )
    }

    /// The code of a refusal.
    pub fn code(&self) -> Option<ResponseCode> {
        match self {
            ClientError::Refused { code, .. } => Some(*code),
            _ => None,
        }
    }
}
