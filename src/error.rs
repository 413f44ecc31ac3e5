//! Every way in which a request fails, and the one place that turns it into RocketMQ's codes.

use gantry_protocol::{FieldError, RemotingCommand, RequestCode, ResponseCode};
use gantry_raft::{BarrierError, CallError, ProposeError};

/// Why a request could not be done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// Nothing was done: another replica leads. The request goes on there.
    #[error("this replica does not lead the group")]
    NotLeader,
    /// The write was under way when leadership changed; it may or may not take effect.
    #[error("leadership changed while the write was under way; its outcome is unknown, send again")]
    Unsettled,
    /// No replica led the group for as long as a client waits.
    #[error("the group has no leader; no majority of its nodes can be reached")]
    NoLeader,
    /// This node is going down.
    #[error("this node is stopping")]
    Stopped,
    /// The client is answered with this code and text.
    #[error("{1}")]
    Code(ResponseCode, String),
}

impl Failure {
    /// A failure with a code and the reason that the client sees.
    pub fn code(code: ResponseCode, reason: impl Into<String>) -> Self {
        Failure::Code(code, reason.into())
    }

    /// What a proposal's error means for whoever waits for it.
    pub fn from_propose(error: &ProposeError) -> Self {
        match error {
            ProposeError::NotLeader { .. } => Failure::NotLeader,
            ProposeError::Unsettled => Failure::Unsettled,
            ProposeError::Stopped(_) => Failure::Stopped,
        }
    }

    /// The answer to a request that failed for good. Codes are those that make stock clients try
    /// again where trying again helps: 14 for sends, 1 for the others.
    pub fn to_response(&self, request: &RemotingCommand) -> RemotingCommand {
        let code = match self {
            Failure::Code(code, _) => *code,
            _ if is_send(request.request_code()) => ResponseCode::SERVICE_NOT_AVAILABLE,
            _ => ResponseCode::SYSTEM_ERROR,
        };
        RemotingCommand::response_to(request, code, self.to_string())
    }
}

fn is_send(code: RequestCode) -> bool {
    matches!(
        code,
        RequestCode::SEND_MESSAGE | RequestCode::SEND_MESSAGE_V2 | RequestCode::SEND_BATCH_MESSAGE
    )
}

impl From<FieldError> for Failure {
    fn from(error: FieldError) -> Self {
        Failure::Code(ResponseCode::SYSTEM_ERROR, error.to_string())
    }
}

impl From<BarrierError> for Failure {
    fn from(error: BarrierError) -> Self {
        match error {
            BarrierError::NotLeader { .. } => Failure::NotLeader,
            BarrierError::Stopped(_) => Failure::Stopped,
        }
    }
}

impl From<CallError> for Failure {
    fn from(error: CallError) -> Self {
        match error {
            // A node that refuses a call has done nothing: it is starting, most likely.
            CallError::Unreachable(_) | CallError::Refused(..) => Failure::NotLeader,
            CallError::Unanswered(_) => Failure::Unsettled,
        }
    }
}
