//! Names of topics and groups: what is legal and what is special.

use thiserror::Error;

/// Longest topic name in bytes.
pub const TOPIC_BYTES_MAX: usize = 127;
/// Longest retry or dead-letter topic name in bytes.
pub const RETRY_TOPIC_BYTES_MAX: usize = 255;
/// Longest group name in bytes.
pub const GROUP_BYTES_MAX: usize = 120;

/// Topic whose settings automatically created topics take over.
pub const DEFAULT_TOPIC: &str = "TBW102";
/// Messages waiting for a delay level.
pub const SCHEDULE_TOPIC: &str = "SCHEDULE_TOPIC_XXXX";
/// Half messages.
pub const HALF_TOPIC: &str = "RMQ_SYS_TRANS_HALF_TOPIC";
/// Marks of resolved half messages.
pub const HALF_DONE_TOPIC: &str = "RMQ_SYS_TRANS_OP_HALF_TOPIC";
/// Half messages that were checked too often.
pub const HALF_GIVEN_UP_TOPIC: &str = "TRANS_CHECK_MAX_TIME_TOPIC";
/// Traces that clients send.
pub const TRACE_TOPIC: &str = "RMQ_SYS_TRACE_TOPIC";
/// Messages waiting for a time.
pub const TIMER_TOPIC: &str = "rmq_sys_wheel_timer";
/// Prefix of the topic that a group's messages are retried through.
pub const RETRY_PREFIX: &str = "%RETRY%";
/// Prefix of the topic that a group's given-up messages end in.
pub const DEAD_LETTER_PREFIX: &str = "%DLQ%";

const SYSTEM_PREFIX: &str = "rmq_sys_";
const REPLY_SUFFIX: &str = "_REPLY_TOPIC";

const SYSTEM_TOPICS: [&str; 9] = [
    DEFAULT_TOPIC,
    SCHEDULE_TOPIC,
    HALF_TOPIC,
    HALF_DONE_TOPIC,
    HALF_GIVEN_UP_TOPIC,
    TRACE_TOPIC,
    "BenchmarkTest",
    "OFFSET_MOVED_EVENT",
    "SELF_TEST_TOPIC",
];

/// Topics that clients may not send to.
const UNSENDABLE_TOPICS: [&str; 7] = [
    SCHEDULE_TOPIC,
    TIMER_TOPIC,
    HALF_TOPIC,
    HALF_DONE_TOPIC,
    HALF_GIVEN_UP_TOPIC,
    "OFFSET_MOVED_EVENT",
    "SELF_TEST_TOPIC",
];

/// Groups of tools, which must exist without anyone creating them.
pub const SYSTEM_GROUPS: [&str; 8] = [
    "TOOLS_CONSUMER",
    "FILTERSRV_CONSUMER",
    "SELF_TEST_C_GROUP",
    "CID_ONS-HTTP-PROXY",
    "CID_ONSAPI_PULL",
    "CID_ONSAPI_PERMISSION",
    "CID_ONSAPI_OWNER",
    "CID_SYS_RMQ_TRANS",
];

/// A name that no topic or group can have.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum NameError {
    /// Nothing, or only blanks.
    #[error("the {kind} name is empty")]
    Empty {
        /// `topic` or `group`.
        kind: &'static str,
    },
    /// Longer than its kind allows.
    #[error("the {kind} name has {bytes} bytes, the limit is {limit}")]
    TooLong {
        /// `topic` or `group`.
        kind: &'static str,
        /// Length of the name.
        bytes: usize,
        /// Its limit.
        limit: usize,
    },
    /// A character outside of `%|a-zA-Z0-9_-`.
    #[error("the {kind} name contains {found:?}, allowed are letters, digits and %|_-")]
    IllegalCharacter {
        /// `topic` or `group`.
        kind: &'static str,
        /// The first such character.
        found: char,
    },
}

/// Checks a topic name.
///
/// # Errors
/// [`NameError`].
pub fn check_topic(name: &str) -> Result<(), NameError> {
    let is_internal = name.starts_with(RETRY_PREFIX) || name.starts_with(DEAD_LETTER_PREFIX);
    let limit = if is_internal {
        RETRY_TOPIC_BYTES_MAX
    } else {
        TOPIC_BYTES_MAX
    };
    check("topic", name, limit)
}

/// Checks a producer or consumer group name.
///
/// # Errors
/// [`NameError`].
pub fn check_group(name: &str) -> Result<(), NameError> {
    check("group", name, GROUP_BYTES_MAX)
}

/// Whether a topic belongs to the broker: not deletable, not listed as a user's.
///
/// The topics named after a cluster or a broker group, as [`reply_topic`], are not known here.
pub fn is_system(name: &str) -> bool {
    SYSTEM_TOPICS.contains(&name) || name.starts_with(SYSTEM_PREFIX)
}

/// Whether clients may send to a topic.
pub fn is_sendable(name: &str) -> bool {
    !UNSENDABLE_TOPICS.contains(&name)
}

/// The topic that a group's messages are retried through.
pub fn retry_topic(group: &str) -> String {
    format!("{RETRY_PREFIX}{group}")
}

/// The topic that a group's given-up messages end in.
pub fn dead_letter_topic(group: &str) -> String {
    format!("{DEAD_LETTER_PREFIX}{group}")
}

/// The retry topic of one topic of a group that pops.
pub fn pop_retry_topic(group: &str, topic: &str) -> String {
    format!("{RETRY_PREFIX}{group}_{topic}")
}

/// The topic that replies to requests are stored in.
pub fn reply_topic(cluster: &str) -> String {
    format!("{cluster}{REPLY_SUFFIX}")
}

/// The group of a retry topic.
pub fn group_of_retry_topic(topic: &str) -> Option<&str> {
    topic.strip_prefix(RETRY_PREFIX)
}

/// The group of a dead-letter topic.
pub fn group_of_dead_letter_topic(topic: &str) -> Option<&str> {
    topic.strip_prefix(DEAD_LETTER_PREFIX)
}

fn check(kind: &'static str, name: &str, limit: usize) -> Result<(), NameError> {
    if name.trim().is_empty() {
        return Err(NameError::Empty { kind });
    }
    if name.len() > limit {
        return Err(NameError::TooLong {
            kind,
            bytes: name.len(),
            limit,
        });
    }
    let is_legal = |byte: u8| byte.is_ascii_alphanumeric() || b"%|_-".contains(&byte);
    let illegal = name.bytes().position(|byte| !is_legal(byte));
    // All before it are ASCII, so a character begins there.
    match illegal.and_then(|at| name[at..].chars().next()) {
        Some(found) => Err(NameError::IllegalCharacter { kind, found }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn legal_and_illegal_names() {
        assert_eq!(check_topic("Az09_-|%"), Ok(()));
        assert_eq!(check_topic(&"t".repeat(127)), Ok(()));
        let too_long = NameError::TooLong {
            kind: "topic",
            bytes: 128,
            limit: 127,
        };
        assert_eq!(check_topic(&"t".repeat(128)), Err(too_long));
        assert_eq!(check_topic(&retry_topic(&"g".repeat(248))), Ok(()));
        assert!(matches!(
            check_topic(&retry_topic(&"g".repeat(249))),
            Err(NameError::TooLong {
                bytes: 256,
                limit: 255,
                ..
            })
        ));
        for name in ["", "  "] {
            assert_eq!(check_topic(name), Err(NameError::Empty { kind: "topic" }));
        }
        for found in ['.', ' ', '/', '\u{e9}', '\0', '\n', '$'] {
            let error = NameError::IllegalCharacter {
                kind: "group",
                found,
            };
            assert_eq!(check_group(&format!("g{found}x")), Err(error));
        }
        assert!(check_group(&"g".repeat(120)).is_ok() && check_group(&"g".repeat(121)).is_err());
    }

    #[test]
    fn special_names() {
        for name in ["TBW102", "rmq_sys_anything", SCHEDULE_TOPIC] {
            assert!(is_system(name), "{name}");
        }
        assert!(!is_system("orders") && !is_system("%RETRY%g"));
        assert!(!is_sendable(HALF_TOPIC) && is_sendable(TRACE_TOPIC) && is_sendable("orders"));
        assert_eq!(group_of_retry_topic(&retry_topic("g")), Some("g"));
        assert_eq!(
            group_of_dead_letter_topic(&dead_letter_topic("g")),
            Some("g")
        );
        assert_eq!(group_of_retry_topic("g"), None);
        assert_eq!(pop_retry_topic("g", "t"), "%RETRY%g_t");
        assert_eq!(reply_topic("C"), "C_REPLY_TOPIC");
    }
}
