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
    use bytes::BytesMut;
    use gantry_protocol::ResponseCode;
    use gantry_storage::message::NewMessage;

    use super::*;

    fn stored(reconsume_times: i32, properties: &str, out: &mut BytesMut) {
        let message = NewMessage {
            topic: "T",
            queue_id: 1,
            flag: 0,
            sys_flag: 0,
            born_timestamp: 0,
            born_host: "1.2.3.4:5".parse().unwrap(),
            reconsume_times,
            prepared_offset: 0,
            body: b"hello",
            properties: properties.as_bytes(),
        };
        message.encode(out).unwrap();
    }

    #[test]
    fn an_answer_gives_handles_or_parts_of_them() {
        let mut body = BytesMut::new();
        stored(0, "", &mut body);
        stored(2, "POP_CK\u{1}7 50 60 0 1 a 0 9\u{2}", &mut body);
        let header = PopResponse {
            pop_time: 100,
            invisible_time: 200,
            revive_qid: 3,
            start_offset_info: Some("0 1 0"),
            order_count_info: Some("0 1 5"),
            ..PopResponse::default()
        };
        let request = RemotingCommand::request(gantry_protocol::RequestCode::POP_MESSAGE, 0);
        let mut answer = RemotingCommand::response_to(&request, ResponseCode::SUCCESS, "");
        header.write(&mut answer.fields);
        let answer = answer.with_body(body.freeze());
        let mut asked = PopRequest {
            consumer_group: "G",
            topic: "T",
            ..PopRequest::default()
        };
        let freely = Popped::of_answer(&asked, "a", &answer).unwrap();
        let seen = freely.iter().map(|one| {
            let handle = one.handle.to_string();
            (one.topic.as_str(), handle, one.times)
        });
        let expected = [
            ("T", "0 100 200 3 0 a 1 0".to_string(), 0),
            ("%RETRY%G_T", "7 50 60 0 1 a 0 9".to_string(), 2),
        ];
        assert_eq!(seen.collect::<Vec<_>>(), expected);
        asked.order = Some(true);
        let in_order = Popped::of_answer(&asked, "a", &answer).unwrap();
        assert_eq!(in_order[0].times, 5);
    }

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
