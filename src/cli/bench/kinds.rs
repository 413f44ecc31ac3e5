//! Kinds of messages, and the properties that make a message one of them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use gantry_protocol::properties::{Builder, names};

/// Begins the names of producer groups.
pub(super) const PRODUCER_PREFIX: &str = "gantry-bench-";
/// Labels that messages carry in turn: the tags t0 to t9, and the property a from 0 to 9.
pub(super) const LABELS: u64 = 10;

/// A time of thirteen digits.
const DUE_MS: &str = "8000000000000";
/// Digits of the number in a unique key; together with those of its process as long as those of stock
/// clients.
const KEY_DIGITS: usize = 16;

/// What kind of messages are sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum MessageKind {
    /// They can be read when they are acknowledged.
    #[default]
    Plain,
    /// Some in one request.
    Batch,
    /// They come so long after they were sent.
    Delayed(Duration),
    /// Each comes at a time of its own.
    Timed,
    /// Half messages, which are committed when they are acknowledged.
    Transactional,
    /// Each has a unique key.
    Keyed,
    /// They have a tag and a property that filters can tell apart.
    Labelled,
}

impl MessageKind {
    /// The text of their properties, with what the first message of the first producer has in the blanks.
    pub(super) fn properties(self, producer: &str) -> String {
        let mut properties = Builder::new();
        match self {
            MessageKind::Plain | MessageKind::Batch => {}
            MessageKind::Delayed(delay) => {
                properties.push(names::TIMER_DELAY_MS, &delay.as_millis().to_string());
            }
            MessageKind::Timed => {
                properties.push(names::TIMER_DELIVER_MS, DUE_MS);
            }
            MessageKind::Transactional => {
                properties.push(names::TRANSACTION_PREPARED, "true");
                properties.push(names::PRODUCER_GROUP, producer);
            }
            MessageKind::Keyed => {
                properties.push(names::UNIQ_KEY, &first_key());
            }
            MessageKind::Labelled => {
                properties.push(names::TAGS, "t0").push("a", "0");
            }
        }
        properties.finish()
    }

    /// What has to be written over the properties, and how far behind the beginning of which.
    pub(super) fn blanks(self) -> Vec<(&'static str, usize, Blank)> {
        match self {
            MessageKind::Timed => vec![(names::TIMER_DELIVER_MS, 0, Blank::DueMs)],
            MessageKind::Transactional => {
                let behind = PRODUCER_PREFIX.len();
                vec![(names::PRODUCER_GROUP, behind, Blank::Producer)]
            }
            MessageKind::Keyed => vec![(names::UNIQ_KEY, KEY_DIGITS, Blank::Key)],
            MessageKind::Labelled => {
                vec![(names::TAGS, 1, Blank::Label), ("a", 0, Blank::Label)]
            }
            _ => Vec::new(),
        }
    }
}

/// A number in a send that differs from one send to the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Blank {
    /// The producer's.
    Producer,
    /// The time at which the message is due; milliseconds since 1970.
    DueMs,
    /// The message's, at the end of its unique key.
    Key,
    /// The message's, of which only the last digit counts.
    Label,
}

impl Blank {
    /// How long it is.
    pub(super) fn digits(self) -> usize {
        match self {
            Blank::Producer => 6,
            Blank::DueMs => DUE_MS.len(),
            Blank::Key => KEY_DIGITS,
            Blank::Label => 1,
        }
    }
}

/// The first of the unique keys of this process; its last digits count. Their form is that of stock
/// clients, who begin theirs with an address and a process id.
fn first_key() -> String {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let process = since.as_nanos() as u64 ^ u64::from(std::process::id()) << 40;
    format!("{process:016X}{:0KEY_DIGITS$}", 0)
}
