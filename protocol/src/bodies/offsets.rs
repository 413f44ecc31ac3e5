//! Offsets by queue: bodies of 220, 221, 222, 223.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::queue::queue_map;
use super::{MessageQueue, QueueMap};
use crate::json::{self, JsonError};

/// Offsets to go to: request body of 220, response body of 222.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ResetOffsets {
    /// Next offset by queue.
    #[serde(deserialize_with = "queue_map")]
    pub offset_table: QueueMap<i64>,
}

impl ResetOffsets {
    /// Reads the body.
    ///
    /// # Errors
    /// [`JsonError`].
    pub fn decode(body: &[u8]) -> Result<Self, JsonError> {
        json::read(body)
    }

    /// Writes the body, for every client but those written in C++.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = b"{\"offsetTable\":".to_vec();
        json::write_object_map(&self.offset_table, &mut out);
        out.push(b'}');
        out
    }

    /// Writes the body of 220 for a client whose language is C++: a list instead of a map.
    pub fn encode_for_cpp(&self) -> Vec<u8> {
        #[derive(Serialize)]
        struct Row<'a> {
            #[serde(flatten)]
            queue: &'a MessageQueue,
            offset: i64,
        }
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Body<'a> {
            offset_table: Vec<Row<'a>>,
        }
        let rows = self.offset_table.iter().map(|(queue, offset)| Row {
            queue,
            offset: *offset,
        });
        json::to_vec(&Body {
            offset_table: rows.collect(),
        })
    }
}

/// Where one member is: its response body to 221.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ClientOffsets {
    /// Next offset by queue.
    #[serde(deserialize_with = "queue_map")]
    pub message_queue_table: QueueMap<i64>,
}

impl ClientOffsets {
    /// Reads the body.
    ///
    /// # Errors
    /// [`JsonError`].
    pub fn decode(body: &[u8]) -> Result<Self, JsonError> {
        json::read(body)
    }

    /// Writes the body.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = b"{\"messageQueueTable\":".to_vec();
        json::write_object_map(&self.message_queue_table, &mut out);
        out.push(b'}');
        out
    }
}

/// Where every member is: response body of 223.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupOffsets {
    /// Next offset by queue, by client id.
    pub consumer_table: BTreeMap<String, QueueMap<i64>>,
}

impl GroupOffsets {
    /// Writes the body.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = b"{\"consumerTable\":{".to_vec();
        for (position, (client, offsets)) in self.consumer_table.iter().enumerate() {
            if position > 0 {
                out.push(b',');
            }
            json::write(client, &mut out);
            out.push(b':');
            json::write_object_map(offsets, &mut out);
        }
        out.extend_from_slice(b"}}");
        out
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn table() -> QueueMap<i64> {
        let queue = |queue_id| MessageQueue {
            broker_name: "b".into(),
            queue_id,
            topic: "t".into(),
        };
        [(queue(0), 5), (queue(1), 9)].into()
    }

    #[test]
    fn golden_texts_and_back() {
        let reset = ResetOffsets {
            offset_table: table(),
        };
        let golden = "{\"offsetTable\":{{\"brokerName\":\"b\",\"queueId\":0,\"topic\":\"t\"}:5,\
                      {\"brokerName\":\"b\",\"queueId\":1,\"topic\":\"t\"}:9}}";
        assert_eq!(String::from_utf8(reset.encode()).unwrap(), golden);
        assert_eq!(ResetOffsets::decode(golden.as_bytes()).unwrap(), reset);
        let cpp = "{\"offsetTable\":[{\"brokerName\":\"b\",\"queueId\":0,\"topic\":\"t\",\
                   \"offset\":5},{\"brokerName\":\"b\",\"queueId\":1,\"topic\":\"t\",\
                   \"offset\":9}]}";
        assert_eq!(String::from_utf8(reset.encode_for_cpp()).unwrap(), cpp);
        let client = ClientOffsets {
            message_queue_table: table(),
        };
        assert_eq!(ClientOffsets::decode(&client.encode()).unwrap(), client);
        let group = GroupOffsets {
            consumer_table: [("c".to_string(), table())].into(),
        };
        let inner = golden.strip_prefix("{\"offsetTable\":").unwrap();
        let expected = format!("{{\"consumerTable\":{{\"c\":{inner}}}");
        assert_eq!(String::from_utf8(group.encode()).unwrap(), expected);
    }

    #[test]
    fn a_key_that_is_no_queue_is_an_error() {
        for body in [
            "{\"offsetTable\":{\"x\":1}}",
            "{\"offsetTable\":{{\"topic\":\"t\"}:1}}",
        ] {
            let error = ResetOffsets::decode(body.as_bytes()).unwrap_err();
            assert!(matches!(error, JsonError::Shape(_)), "{error}");
        }
    }
}
