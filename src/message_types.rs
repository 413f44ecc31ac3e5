//! What kind of message a topic takes: its attribute `message.type`. RocketMQ checks it in its proxy, with
//! the code and the words that are used here.

use gantry_protocol::ResponseCode;
use gantry_protocol::properties::{self, names};
use gantry_storage::tables::TopicConfig;

use crate::error::Failure;

/// The attribute.
pub const ATTRIBUTE: &str = "message.type";

const NORMAL: &str = "NORMAL";
const FIFO: &str = "FIFO";
const DELAY: &str = "DELAY";
const TRANSACTION: &str = "TRANSACTION";

/// Values that a topic may be given; with the last it takes every kind.
pub const VALUES: [&str; 5] = [NORMAL, FIFO, DELAY, TRANSACTION, "UNSPECIFIED"];

/// Fails with code 13 for a message that the topic does not take. A topic without the attribute takes all.
///
/// One for ordered messages takes those without a sharding key too: classic clients order by choosing the
/// queue, and say nothing of it in the message.
pub fn check(topic: &TopicConfig, properties: &str) -> Result<(), Failure> {
    let Some(expected) = topic.attributes.get(ATTRIBUTE) else {
        return Ok(());
    };
    let expected = expected.as_str();
    if !matches!(expected, NORMAL | FIFO | DELAY | TRANSACTION) {
        return Ok(());
    }
    let actual = kind(properties);
    if actual == expected || (expected == FIFO && actual == NORMAL) {
        return Ok(());
    }
    let reason = format!(
        "TopicMessageType validate failed, the expected type is {expected}, but actual type is {actual}"
    );
    Err(Failure::code(ResponseCode::MESSAGE_ILLEGAL, reason))
}

/// The kind of a message, by its properties.
fn kind(text: &str) -> &'static str {
    let mut kind = NORMAL;
    for (name, value) in properties::iter(text) {
        match name {
            names::TRANSACTION_PREPARED if value == "true" => return TRANSACTION,
            names::DELAY_LEVEL
            | names::TIMER_DELIVER_MS
            | names::TIMER_DELAY_SEC
            | names::TIMER_DELAY_MS => kind = DELAY,
            names::SHARDING_KEY if kind == NORMAL => kind = FIFO,
            _ => {}
        }
    }
    kind
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_takes_its_own_kind() {
        let texts = [
            (NORMAL, "TAGS\u{1}a\u{2}TRAN_MSG\u{1}false\u{2}"),
            (FIFO, "__SHARDINGKEY\u{1}k\u{2}"),
            (DELAY, "__SHARDINGKEY\u{1}k\u{2}DELAY\u{1}3\u{2}"),
            (DELAY, "TIMER_DELAY_MS\u{1}3\u{2}__SHARDINGKEY\u{1}k\u{2}"),
            (TRANSACTION, "DELAY\u{1}3\u{2}TRAN_MSG\u{1}true\u{2}"),
        ];
        let mut topic = TopicConfig::new("t", 1);
        for (_, text) in texts {
            assert_eq!(check(&topic, text), Ok(()), "any, without the attribute");
        }
        for expected in VALUES {
            topic.attributes.insert(ATTRIBUTE.into(), expected.into());
            for (actual, text) in texts {
                let takes_all = expected == "UNSPECIFIED";
                let by_queue = expected == FIFO && actual == NORMAL;
                let taken = takes_all || by_queue || actual == expected;
                let checked = check(&topic, text);
                assert_eq!(checked.is_ok(), taken, "{expected} takes {actual}");
            }
        }
    }
}
