//! The requests of POP as bytes, and the handles that its answers are made of.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use gantry_protocol::bodies::{BatchAck, BatchAckEntry};
use gantry_protocol::headers::{AckRequest, PopRequest, PopResponse};
use gantry_protocol::{RemotingCommand, RequestCode};

use super::frames::{Queue, encoded};
use super::popper::{AckKind, Popping};
use crate::pop::{Handle, RetryKind};

/// How long messages are nobody else's.
const INVISIBLE: Duration = Duration::from_secs(60);
/// What a stock consumer asks its broker to wait.
const POLL: Duration = Duration::from_secs(15);
/// The group begins where its offset is; this is for queues where it has none.
const FROM_THE_FIRST: i32 = 0;

/// Messages that were handed out together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Handed {
    /// Where they lay.
    retry: RetryKind,
    queue: i32,
    start: i64,
    pop_ms: i64,
    invisible_ms: i64,
    revive_queue: i32,
    pub(super) offsets: Vec<i64>,
}

impl Handed {
    /// Those of an answer, in the order of its messages.
    pub(super) fn all(header: &PopResponse<'_>) -> Result<Vec<Handed>, String> {
        let starts = header.start_offset_info.unwrap_or_default();
        let messages = header.msg_offset_info.unwrap_or_default();
        let parts = messages.split(';').filter(|part| !part.is_empty());
        let handed = parts.map(|part| Handed::one(header, starts, part));
        handed
            .map(|handed| handed.ok_or_else(|| format!("handles {starts:?} and {messages:?}")))
            .collect()
    }

    fn one(header: &PopResponse<'_>, starts: &str, part: &str) -> Option<Handed> {
        let (queue, offsets) = part.rsplit_once(' ')?;
        let of_queue = |start: &str| {
            let start = start.strip_prefix(queue)?.strip_prefix(' ')?;
            start.parse().ok()
        };
        let (retry, id) = queue.split_once(' ')?;
        let offsets: Result<Vec<i64>, _> = offsets.split(',').map(str::parse).collect();
        Some(Handed {
            retry: RetryKind::parse(retry)?,
            queue: id.parse().ok()?,
            start: starts.split(';').find_map(of_queue)?,
            pop_ms: header.pop_time,
            invisible_ms: header.invisible_time,
            revive_queue: header.revive_qid,
            offsets: offsets.ok()?,
        })
    }

    /// Whether they were handed out before.
    pub(super) fn is_retry(&self) -> bool {
        self.retry != RetryKind::None
    }

    /// What acknowledges one of them.
    fn handle(&self, broker: &str, offset: i64) -> Handle {
        Handle {
            start_offset: self.start,
            pop_time: self.pop_ms,
            invisible_time: self.invisible_ms,
            revive_queue: self.revive_queue,
            retry: self.retry,
            broker_name: broker.to_string(),
            queue_id: self.queue,
            offset: Some(offset),
        }
    }
}

/// A pop of a queue.
pub(super) fn pop(popping: &Popping, queue: &Queue, opaque: i32) -> Vec<u8> {
    let poll = if popping.waits { POLL } else { Duration::ZERO };
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let header = PopRequest {
        consumer_group: &popping.consumer,
        topic: &queue.topic,
        queue_id: queue.id,
        max_msg_nums: popping.batch,
        invisible_time: INVISIBLE.as_millis() as i64,
        poll_time: poll.as_millis() as i64,
        born_time: now.as_millis() as i64,
        init_mode: FROM_THE_FIRST,
        exp_type: Some("TAG"),
        exp: Some("*"),
        order: Some(false),
        attempt_id: None,
    };
    let mut request = RemotingCommand::request(RequestCode::POP_MESSAGE, opaque);
    request.encoding = popping.header.encoding();
    header.write(&mut request.fields);
    encoded(request)
}

/// Acknowledges messages of those that were handed out: one of them, unless they go in batches.
pub(super) fn ack(
    popping: &Popping,
    (queue, group): (&Queue, usize),
    opaque: i32,
    (handed, offsets): (&Handed, &[i64]),
) -> Vec<u8> {
    let broker = &popping.brokers[group];
    let code = match popping.acks {
        AckKind::One => RequestCode::ACK_MESSAGE,
        AckKind::Batch => RequestCode::BATCH_ACK_MESSAGE,
    };
    let mut request = RemotingCommand::request(code, opaque);
    request.encoding = popping.header.encoding();
    if popping.acks == AckKind::One {
        let header = AckRequest {
            consumer_group: &popping.consumer,
            topic: &queue.topic,
            queue_id: handed.queue,
            extra_info: &handed.handle(broker, offsets[0]).to_string(),
            offset: offsets[0],
        };
        header.write(&mut request.fields);
        return encoded(request);
    }
    let entry = BatchAckEntry {
        consumer_group: popping.consumer.clone(),
        topic: queue.topic.clone(),
        retry: handed.retry.as_str().to_string(),
        start_offset: handed.start,
        queue_id: handed.queue,
        revive_queue_id: handed.revive_queue,
        pop_time: handed.pop_ms,
        invisible_time: handed.invisible_ms,
        bits: BatchAckEntry::bits_of(handed.start, offsets),
    };
    let batch = BatchAck {
        broker_name: broker.clone(),
        acks: vec![entry],
    };
    encoded(request.with_body(batch.encode()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const HEADER: PopResponse<'_> = PopResponse {
        pop_time: 1_700_000_000_000,
        invisible_time: 60_000,
        revive_qid: 0,
        rest_num: 0,
        start_offset_info: Some("1 3 7;0 3 10"),
        msg_offset_info: Some("1 3 7;0 3 10,11,13"),
        order_count_info: None,
    };

    #[test]
    fn handles_are_those_that_a_stock_client_makes() {
        let handed = Handed::all(&HEADER).unwrap();
        let offsets: Vec<_> = handed.iter().map(|part| part.offsets.clone()).collect();
        assert_eq!(offsets, [vec![7], vec![10, 11, 13]]);
        assert_eq!(
            handed[1].handle("broker-a", 13).to_string(),
            "10 1700000000000 60000 0 0 broker-a 3 13"
        );
        assert!(handed[0].is_retry() && !handed[1].is_retry());
    }

    #[test]
    fn an_answer_that_makes_no_sense_is_refused() {
        for (starts, messages) in [("0 3 10", "0 4 10"), ("0 3 10", "0 3 x"), ("", "0 3 10")] {
            let header = PopResponse {
                start_offset_info: Some(starts),
                msg_offset_info: Some(messages),
                ..HEADER
            };
            assert!(Handed::all(&header).is_err(), "{starts} {messages}");
        }
        let nothing = PopResponse {
            start_offset_info: None,
            msg_offset_info: None,
            ..HEADER
        };
        assert_eq!(Handed::all(&nothing), Ok(Vec::new()));
    }
}
