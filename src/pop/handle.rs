//! Receipt handles: what a client shows to acknowledge a message. Text that it assembles itself from the
//! header of an answer, so the form is RocketMQ's. Valid on every node and under every leader.

use std::fmt;
use std::str::FromStr;

use gantry_protocol::topic as names;

/// The `reviveQid` of messages that are consumed in order.
pub const IN_ORDER: i32 = 999;

/// Longest time for which a message may be handed out; milliseconds. Clients ask for 12 h at most.
pub const INVISIBLE_MS_MAX: i64 = 3 * 24 * 60 * 60 * 1000;

/// Which topic a message lies in: its own, or the retry topic of the group and that topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetryKind {
    /// The topic that was asked for.
    None,
    /// `%RETRY%group_topic`.
    V1,
    /// `%RETRY%group+topic`, which this broker never writes.
    V2,
}

impl RetryKind {
    /// As it stands in texts.
    pub fn as_str(self) -> &'static str {
        match self {
            RetryKind::None => "0",
            RetryKind::V1 => "1",
            RetryKind::V2 => "2",
        }
    }

    /// Reads the text of one.
    pub fn parse(text: &str) -> Option<RetryKind> {
        Some(match text {
            "0" => RetryKind::None,
            "1" => RetryKind::V1,
            "2" => RetryKind::V2,
            _ => return None,
        })
    }

    /// The topic that a message of `topic` lies in; clients give either name.
    pub fn topic_of(self, group: &str, topic: &str) -> String {
        if self == RetryKind::None || topic.starts_with(names::RETRY_PREFIX) {
            return topic.to_owned();
        }
        match self {
            RetryKind::V2 => format!("{}{group}+{topic}", names::RETRY_PREFIX),
            _ => names::pop_retry_topic(group, topic),
        }
    }
}

/// A handle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Handle {
    /// First offset of the messages that were handed out with it.
    pub start_offset: i64,
    /// When, in milliseconds of the log's clock.
    pub pop_time: i64,
    /// For how long; milliseconds.
    pub invisible_time: i64,
    /// [`IN_ORDER`], or a number that means nothing here.
    pub revive_queue: i32,
    /// Where the message lies.
    pub retry: RetryKind,
    /// The group of brokers.
    pub broker_name: String,
    /// The queue.
    pub queue_id: i32,
    /// The message in it. Old clients leave it out.
    pub offset: Option<i64>,
}

impl fmt::Display for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} {} {} {} {} {} {}",
            self.start_offset,
            self.pop_time,
            self.invisible_time,
            self.revive_queue,
            self.retry.as_str(),
            self.broker_name,
            self.queue_id
        )?;
        match self.offset {
            Some(offset) => write!(f, " {offset}"),
            None => Ok(()),
        }
    }
}

impl FromStr for Handle {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{:?} is no receipt handle", text.get(..80).unwrap_or(text));
        let parts: Vec<&str> = text.split(' ').collect();
        let ([_, _, _, _, _, _, _] | [_, _, _, _, _, _, _, _]) = parts[..] else {
            return Err(wrong());
        };
        let number = |at: usize| parts[at].parse::<i64>().map_err(|_| wrong());
        let small = |at: usize| parts[at].parse::<i32>().map_err(|_| wrong());
        Ok(Handle {
            start_offset: number(0)?,
            pop_time: number(1)?,
            invisible_time: number(2)?,
            revive_queue: small(3)?,
            retry: RetryKind::parse(parts[4]).ok_or_else(wrong)?,
            broker_name: parts[5].to_owned(),
            queue_id: small(6)?,
            offset: (parts.len() == 8).then(|| number(7)).transpose()?,
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn handles_are_rocketmqs_text() {
        let text = "10 1700000000000 60000 0 1 broker-a 3 12";
        let handle: Handle = text.parse().unwrap();
        assert_eq!(handle.retry, RetryKind::V1);
        assert_eq!((handle.queue_id, handle.offset), (3, Some(12)));
        assert_eq!(handle.to_string(), text);
        let old = "10 1700000000000 60000 999 0 broker-a 3";
        let handle: Handle = old.parse().unwrap();
        assert_eq!((handle.revive_queue, handle.offset), (IN_ORDER, None));
        assert_eq!(handle.to_string(), old);
        for wrong in [
            "",
            "1 2 3",
            "1 2 3 4 5 b 6 7",
            "1 2 3 4 0 b x 7",
            "1 2 3 4 0 b 6 7 8",
        ] {
            assert!(wrong.parse::<Handle>().is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn the_topic_follows_from_either_name() {
        let retry = names::pop_retry_topic("G", "T");
        assert_eq!(RetryKind::V1.topic_of("G", "T"), retry);
        assert_eq!(RetryKind::V1.topic_of("G", &retry), retry);
        assert_eq!(RetryKind::None.topic_of("G", "T"), "T");
    }
}
