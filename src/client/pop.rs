//! Messages as a consumer that pops gets them, with the handles that it makes for them.

use std::collections::HashMap;

use gantry_protocol::RemotingCommand;
use gantry_protocol::headers::{PopRequest, PopResponse};
use gantry_protocol::message::Message;
use gantry_protocol::properties::names;

use crate::pop::{Handle, RetryKind};

/// A popped message.
#[derive(Clone, Debug)]
pub struct Popped {
    /// The message.
    pub message: Message,
    /// The topic that it lies in: the one that was asked for, or the group's retry topic. Acknowledgements
    /// name it.
    pub topic: String,
    /// What it is acknowledged with.
    pub handle: Handle,
    /// How often it was given before.
    pub times: u32,
}

/// Parts of an answer's texts like `0 1 17;1 0 4`: what comes last, by the two that come first.
struct Parts<'a>(HashMap<(&'a str, &'a str), &'a str>);

impl<'a> Parts<'a> {
    fn new(text: Option<&'a str>) -> Self {
        let parts = text.unwrap_or_default().split(';');
        let named = parts.filter_map(|part| {
            let (retry, rest) = part.split_once(' ')?;
            let (queue, value) = rest.split_once(' ')?;
            Some(((retry, queue), value))
        });
        Self(named.collect())
    }

    fn number<N: std::str::FromStr>(&self, retry: &str, queue: &str) -> Option<N> {
        self.0.get(&(retry, queue))?.parse().ok()
    }
}

impl Popped {
    /// What a successful answer of a broker group to a pop brought.
    ///
    /// # Errors
    /// The answer is not what the protocol says; the text says where.
    pub fn of_answer(
        asked: &PopRequest<'_>,
        broker: &str,
        answer: &RemotingCommand,
    ) -> Result<Vec<Popped>, String> {
        let header = PopResponse::parse(&answer.fields).map_err(|error| error.to_string())?;
        let messages = Message::decode_all(answer.body.clone()).map_err(|e| e.to_string())?;
        let starts = Parts::new(header.start_offset_info);
        let counts = Parts::new(header.order_count_info);
        let popped = messages.into_iter().map(|message| {
            let handle = handle_of(&message, broker, &header, &starts)?;
            Ok(Popped {
                topic: handle.retry.topic_of(asked.consumer_group, asked.topic),
                times: match asked.order {
                    Some(true) => times_in_order(&message, handle.retry, &counts),
                    _ => message.reconsume_times.max(0) as u32,
                },
                handle,
                message,
            })
        });
        popped.collect()
    }
}

/// The handle that a broker has put into a message that comes again, or the one that the header gives.
fn handle_of(
    message: &Message,
    broker: &str,
    header: &PopResponse<'_>,
    starts: &Parts<'_>,
) -> Result<Handle, String> {
    if let Some(ready) = message.property(names::POP_CK) {
        return ready.parse();
    }
    let retry = RetryKind::None;
    let start = starts.number(retry.as_str(), &message.queue_id.to_string());
    Ok(Handle {
        start_offset: start.unwrap_or(message.queue_offset),
        pop_time: header.pop_time,
        invisible_time: header.invisible_time,
        revive_queue: header.revive_qid,
        retry,
        broker_name: broker.to_string(),
        queue_id: message.queue_id,
        offset: Some(message.queue_offset),
    })
}

/// Who consumes in order is told beside the messages: of one message, or of the first of its queue.
fn times_in_order(message: &Message, retry: RetryKind, counts: &Parts<'_>) -> u32 {
    let (queue, offset) = (message.queue_id, message.queue_offset);
    let of_message = counts.number(retry.as_str(), &format!("qo{queue}%{offset}"));
    let of_queue = || counts.number(retry.as_str(), &queue.to_string());
    of_message.or_else(of_queue).unwrap_or(0)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_found_by_their_first_two() {
        let parts = Parts::new(Some("0 1 17;1 0 4;0 qo1%5 2;0 2 5,6;junk"));
        assert_eq!(parts.number("0", "1"), Some(17));
        assert_eq!(parts.number("1", "0"), Some(4));
        assert_eq!(parts.number("0", "qo1%5"), Some(2));
        assert_eq!(parts.number::<u64>("0", "2"), None);
        assert_eq!(parts.number::<u64>("1", "1"), None);
        assert_eq!(Parts::new(None).number::<u64>("0", "0"), None);
    }
}
