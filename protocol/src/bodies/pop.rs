//! Popping: bodies of 200151, and of how groups ask for messages (400, 401, 402).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::MessageQueue;

/// Bits that one entry of a batch acknowledgement may have.
const ACK_BITS_MAX: usize = 4096;

/// Request body of `BATCH_ACK_MESSAGE` (200151).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct BatchAck {
    /// Broker group that handed the messages out.
    pub broker_name: String,
    /// Acknowledged messages, by what they were handed out with.
    pub acks: Vec<BatchAckEntry>,
}

/// Acknowledged messages that were handed out together.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BatchAckEntry {
    /// Consumer group.
    #[serde(rename = "c")]
    pub consumer_group: String,
    /// Topic that was asked for.
    #[serde(rename = "t")]
    pub topic: String,
    /// `1` or `2` if the messages came from the retry topic, else `0`.
    #[serde(rename = "r")]
    pub retry: String,
    /// First offset of the messages that were handed out.
    #[serde(rename = "so")]
    pub start_offset: i64,
    /// Their queue.
    #[serde(rename = "q")]
    pub queue_id: i32,
    /// 999 for messages that are consumed in order.
    #[serde(rename = "rq")]
    pub revive_queue_id: i32,
    /// When they were handed out, milliseconds since 1970.
    #[serde(rename = "pt")]
    pub pop_time: i64,
    /// For how long, milliseconds.
    #[serde(rename = "it")]
    pub invisible_time: i64,
    /// Base64 of a little-endian bit set: bit k is the message at `start_offset` + k.
    #[serde(rename = "b")]
    pub bits: String,
}

impl BatchAckEntry {
    /// Offsets of the acknowledged messages; `None` if the bits are no such text, or too many.
    pub fn offsets(&self) -> Option<Vec<i64>> {
        let bytes = decode_base64(&self.bits)?;
        if bytes.len() * 8 > ACK_BITS_MAX {
            return None;
        }
        let mut offsets = Vec::new();
        for (at, byte) in bytes.iter().enumerate() {
            for bit in (0..8).filter(|bit| byte >> bit & 1 == 1) {
                offsets.push(self.start_offset.checked_add((at * 8 + bit) as i64)?);
            }
        }
        Some(offsets)
    }

    /// The text of a bit set with these messages, which are not in front of `start_offset`.
    pub fn bits_of(start_offset: i64, offsets: &[i64]) -> String {
        let mut bytes = Vec::new();
        for offset in offsets {
            let bit = (offset - start_offset) as usize;
            if bytes.len() <= bit / 8 {
                bytes.resize(bit / 8 + 1, 0u8);
            }
            bytes[bit / 8] |= 1 << (bit % 8);
        }
        encode_base64(&bytes)
    }
}

const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

fn encode_base64(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let mut word = 0u32;
        for at in 0..3 {
            word = word << 8 | u32::from(chunk.get(at).copied().unwrap_or(0));
        }
        for at in 0..4 {
            let sextet = word >> (18 - 6 * at) & 63;
            let is_there = at <= chunk.len();
            text.push(if is_there {
                char::from(BASE64[sextet as usize])
            } else {
                '='
            });
        }
    }
    text
}

fn decode_base64(text: &str) -> Option<Vec<u8>> {
    let text = text.trim_end_matches('=').as_bytes();
    if text.len() % 4 == 1 {
        return None;
    }
    let mut bytes = Vec::with_capacity(text.len() * 3 / 4);
    for chunk in text.chunks(4) {
        let mut word = 0u32;
        for character in chunk {
            let sextet = BASE64.iter().position(|known| known == character)?;
            word = word << 6 | sextet as u32;
        }
        word <<= 6 * (4 - chunk.len() as u32);
        bytes.extend_from_slice(&word.to_be_bytes()[1..chunk.len()]);
    }
    Some(bytes)
}

/// How a group asks for messages, by name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum RequestModeName {
    /// It pulls. Default.
    #[default]
    #[serde(rename = "PULL")]
    Pull,
    /// It pops.
    #[serde(rename = "POP")]
    Pop,
}

/// Request body of `SET_MESSAGE_REQUEST_MODE` (401), and a value in the response body of 402.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SetRequestMode {
    /// Consumer group.
    pub consumer_group: String,
    /// Its mode.
    pub mode: RequestModeName,
    /// How many queues each member pops beside its own share; 0 or less: any.
    pub pop_share_queue_num: i32,
    /// Topic.
    pub topic: String,
}

/// Response body of `GET_ALL_MESSAGE_REQUEST_MODE` (402).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RequestModeTable {
    /// By topic, then by group.
    pub message_request_mode_map: BTreeMap<String, BTreeMap<String, SetRequestMode>>,
}

/// Request body of `QUERY_ASSIGNMENT` (400).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct QueryAssignment {
    /// The member that asks.
    pub client_id: String,
    /// Its group.
    pub consumer_group: String,
    /// `BROADCASTING` or `CLUSTERING`.
    pub message_model: String,
    /// `AVG` or `AVG_BY_CIRCLE`.
    pub strategy_name: String,
    /// Topic.
    pub topic: String,
}

/// Response body of 400. Without a list the client keeps what it has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Assignments {
    /// The queues of the member that asks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message_queue_assignments: Option<Vec<Assignment>>,
}

/// One queue of a member.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Assignment {
    /// The queue; number -1 is any queue of the broker group.
    pub message_queue: MessageQueue,
    /// How it asks for messages.
    pub mode: RequestModeName,
}

standard_body!(
    BatchAck,
    SetRequestMode,
    RequestModeTable,
    QueryAssignment,
    Assignments
);

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_acknowledgement_as_clients_write_it() {
        let body = br#"{"acks":[{"b":"BQE=","c":"g","it":60000,"pt":1700000000000,"q":2,"r":"1",
            "rq":0,"so":100,"t":"t"}],"brokerName":"b"}"#;
        let batch = BatchAck::decode(body).unwrap();
        let entry = &batch.acks[0];
        assert_eq!((entry.queue_id, entry.retry.as_str()), (2, "1"));
        assert_eq!(entry.offsets().unwrap(), [100, 102, 108]);
        assert_eq!(BatchAckEntry::bits_of(100, &[100, 102, 108]), "BQE=");
        assert_eq!(BatchAck::decode(&batch.encode()).unwrap(), batch);
    }

    #[test]
    fn bits_of_any_length_come_back_and_others_are_refused() {
        let entry = |bits: String| BatchAckEntry {
            start_offset: 7,
            bits,
            ..BatchAckEntry::default()
        };
        for last in 7..80 {
            let offsets: Vec<i64> = (7..=last).step_by(3).collect();
            let bits = BatchAckEntry::bits_of(7, &offsets);
            assert_eq!(entry(bits).offsets().unwrap(), offsets);
        }
        for wrong in ["A", "AA!A", "\u{e9}A"] {
            assert_eq!(entry(wrong.to_owned()).offsets(), None, "{wrong}");
        }
        assert_eq!(entry("A".repeat(8 * ACK_BITS_MAX)).offsets(), None);
        assert_eq!(entry(String::new()).offsets(), Some(Vec::new()));
    }

    #[test]
    fn assignments_as_clients_read_them() {
        let assignment = Assignment {
            message_queue: MessageQueue {
                broker_name: "b".into(),
                queue_id: -1,
                topic: "t".into(),
            },
            mode: RequestModeName::Pop,
        };
        let text = Assignments {
            message_queue_assignments: Some(vec![assignment]),
        };
        let queue = r#"{"brokerName":"b","queueId":-1,"topic":"t"}"#;
        let golden =
            format!(r#"{{"messageQueueAssignments":[{{"messageQueue":{queue},"mode":"POP"}}]}}"#);
        assert_eq!(String::from_utf8(text.encode()).unwrap(), golden);
        assert_eq!(Assignments::default().encode(), b"{}");
        let set = br#"{"consumerGroup":"g","mode":"POP","popShareQueueNum":0,"topic":"t"}"#;
        let set = SetRequestMode::decode(set).unwrap();
        assert_eq!(set.mode, RequestModeName::Pop);
    }
}
