//! How a command ends when it cannot do its work: a sentence for a human, and an exit code.

use crate::client::{ClientError, SendFailure};

/// A command that failed. Its message says what to do next where that is known.
#[derive(Debug)]
pub(super) struct Failure {
    /// What is printed after `gantry: `; nothing if there is nothing to say.
    pub(super) message: String,
    /// Exit code: 1, or 2 when the fault is in the arguments or the configuration, or 0 when the output
    /// is not wanted any more.
    pub(super) code: u8,
}

pub(super) type Outcome = Result<(), Failure>;

impl Failure {
    /// The work could not be done.
    pub(super) fn new(message: impl Into<String>) -> Failure {
        Failure {
            message: message.into(),
            code: 1,
        }
    }

    /// The arguments or the configuration make no sense.
    pub(super) fn usage(message: impl Into<String>) -> Failure {
        Failure {
            message: message.into(),
            code: 2,
        }
    }

    /// The message, with `hint` after it.
    pub(super) fn hint(mut self, hint: &str) -> Failure {
        self.message = format!("{}\n{hint}", self.message);
        self
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Failure {
        let failure = Failure::new(error.to_string());
        match error {
            ClientError::Unreachable { .. } => failure.hint(
                "Is the cluster up? `gantry dev` starts one on this machine; name another one's name servers \
                 with --namesrv \"host:9876;host:9876\".",
            ),
            ClientError::TimedOut { .. } | ClientError::Closed { .. } => failure.hint(
                "The group may have no leader because most of its nodes are down: see `gantry status`.",
            ),
            ClientError::Unsendable(_) => Failure { code: 2, ..failure },
            ClientError::Refused { .. } | ClientError::Unreadable { .. } => failure,
        }
    }
}

impl From<SendFailure> for Failure {
    fn from(failure: SendFailure) -> Failure {
        let attempts = failure.attempts;
        let last = Failure::from(failure.last);
        let message = format!(
            "not sent after {attempts} attempts; the last one: {}",
            last.message
        );
        Failure { message, ..last }
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Failure {
        if error.kind() == std::io::ErrorKind::BrokenPipe {
            // The reader has seen enough, as `head` does.
            return Failure {
                message: String::new(),
                code: 0,
            };
        }
        Failure::new(format!("cannot write the output: {error}"))
    }
}
