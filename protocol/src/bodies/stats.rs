//! Statistics: bodies of 202, 208, 303, 315 and 317.

use serde::{Deserialize, Serialize};

use super::queue::queue_map;
use super::{MessageQueue, QueueMap};
use crate::json::{self, JsonError};

/// Response body of 202: what a topic's queues hold.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TopicStats {
    /// Bounds by queue.
    #[serde(deserialize_with = "queue_map")]
    pub offset_table: QueueMap<QueueBounds>,
    /// Messages per second.
    pub topic_put_tps: f64,
}

/// Bounds of one queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct QueueBounds {
    /// Store time of the last message, milliseconds since 1970.
    pub last_update_timestamp: i64,
    /// Next offset to be written.
    pub max_offset: i64,
    /// First offset held.
    pub min_offset: i64,
}

impl TopicStats {
    /// Reads the body.
    ///
    /// # Errors
    /// [`JsonError`].
    pub fn decode(body: &[u8]) -> Result<Self, JsonError> {
        json::read(body)
    }

    /// Writes the body.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = b"{\"offsetTable\":".to_vec();
        json::write_object_map(&self.offset_table, &mut out);
        out.extend_from_slice(b",\"topicPutTps\":");
        json::write(&self.topic_put_tps, &mut out);
        out.push(b'}');
        out
    }
}

/// Response body of 208: where a group is.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ConsumeStats {
    /// Messages per second.
    pub consume_tps: f64,
    /// Progress by queue.
    #[serde(deserialize_with = "queue_map")]
    pub offset_table: QueueMap<QueueProgress>,
}

/// A group's progress in one queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct QueueProgress {
    /// Next offset to be written.
    pub broker_offset: i64,
    /// Next offset of the group.
    pub consumer_offset: i64,
    /// Store time of the last consumed message, milliseconds since 1970.
    pub last_timestamp: i64,
    /// Next offset to be handed out.
    pub pull_offset: i64,
}

impl ConsumeStats {
    /// Reads the body.
    ///
    /// # Errors
    /// [`JsonError`].
    pub fn decode(body: &[u8]) -> Result<Self, JsonError> {
        json::read(body)
    }

    /// Writes the body.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(64 + 192 * self.offset_table.len());
        self.write(&mut out);
        out
    }

    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"consumeTps\":");
        json::write(&self.consume_tps, out);
        out.extend_from_slice(b",\"offsetTable\":");
        json::write_object_map(&self.offset_table, out);
        out.push(b'}');
    }
}

/// Response body of 317: where every group of a broker is.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct BrokerConsumeStats {
    /// Address of the broker.
    pub broker_addr: String,
    /// Group name and its stats per topic.
    pub groups: Vec<(String, Vec<ConsumeStats>)>,
    /// Messages written but not consumed.
    pub total_diff: i64,
    /// Messages handed out but not consumed.
    pub total_inflight_diff: i64,
}

impl BrokerConsumeStats {
    /// Writes the body.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = b"{\"brokerAddr\":".to_vec();
        json::write(&self.broker_addr, &mut out);
        out.extend_from_slice(b",\"consumeStatsList\":[");
        for (position, (group, stats)) in self.groups.iter().enumerate() {
            if position > 0 {
                out.push(b',');
            }
            out.push(b'{');
            json::write(group, &mut out);
            out.extend_from_slice(b":[");
            for (position, stats) in stats.iter().enumerate() {
                if position > 0 {
                    out.push(b',');
                }
                stats.write(&mut out);
            }
            out.extend_from_slice(b"]}");
        }
        out.extend_from_slice(b"],\"totalDiff\":");
        json::write(&self.total_diff, &mut out);
        out.extend_from_slice(b",\"totalInflightDiff\":");
        json::write(&self.total_inflight_diff, &mut out);
        out.push(b'}');
        out
    }
}

/// Response body of 303: how old the messages are that a group has and has not consumed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ConsumeTimeSpans {
    /// One row per queue.
    pub consume_time_span_set: Vec<ConsumeTimeSpan>,
}

/// Ages in one queue; times in milliseconds since 1970.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ConsumeTimeSpan {
    /// Store time of the last consumed message.
    pub consume_time_stamp: i64,
    /// Age of the last consumed message if there are newer ones, milliseconds.
    pub delay_time: i64,
    /// Store time of the last message.
    pub max_time_stamp: i64,
    /// The queue.
    pub message_queue: MessageQueue,
    /// Store time of the first message.
    pub min_time_stamp: i64,
}

/// Response body of 315: one counter over three windows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CounterStats {
    /// The last day.
    pub stats_day: CounterWindow,
    /// The last hour.
    pub stats_hour: CounterWindow,
    /// The last minute.
    pub stats_minute: CounterWindow,
}

/// A counter over one window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct CounterWindow {
    /// Average per call.
    pub avgpt: f64,
    /// Sum.
    pub sum: i64,
    /// Sum per second.
    pub tps: f64,
}

standard_body!(ConsumeTimeSpans, CounterStats);

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn queue() -> MessageQueue {
        MessageQueue {
            broker_name: "b".into(),
            queue_id: 2,
            topic: "t".into(),
        }
    }

    #[test]
    fn topic_stats_golden_and_back() {
        let bounds = QueueBounds {
            last_update_timestamp: 1,
            max_offset: 9,
            min_offset: 0,
        };
        let table = [(queue(), bounds)].into();
        let stats = TopicStats {
            offset_table: table,
            topic_put_tps: 1.5,
        };
        let golden = "{\"offsetTable\":{{\"brokerName\":\"b\",\"queueId\":2,\"topic\":\"t\"}:\
                      {\"lastUpdateTimestamp\":1,\"maxOffset\":9,\"minOffset\":0}},\
                      \"topicPutTps\":1.5}";
        assert_eq!(String::from_utf8(stats.encode()).unwrap(), golden);
        assert_eq!(TopicStats::decode(golden.as_bytes()).unwrap(), stats);
    }

    #[test]
    fn consume_stats_golden_and_back() {
        let progress = QueueProgress {
            broker_offset: 9,
            consumer_offset: 4,
            last_timestamp: 77,
            pull_offset: 5,
        };
        let stats = ConsumeStats {
            consume_tps: 0.0,
            offset_table: [(queue(), progress)].into(),
        };
        let golden = "{\"consumeTps\":0.0,\"offsetTable\":{{\"brokerName\":\"b\",\"queueId\":2,\
                      \"topic\":\"t\"}:{\"brokerOffset\":9,\"consumerOffset\":4,\
                      \"lastTimestamp\":77,\"pullOffset\":5}}}";
        assert_eq!(String::from_utf8(stats.encode()).unwrap(), golden);
        assert_eq!(ConsumeStats::decode(golden.as_bytes()).unwrap(), stats);
        let broker = BrokerConsumeStats {
            broker_addr: "h:1".into(),
            groups: vec![("g".into(), vec![stats.clone(), stats])],
            total_diff: 10,
            total_inflight_diff: 2,
        };
        let expected = format!(
            "{{\"brokerAddr\":\"h:1\",\"consumeStatsList\":[{{\"g\":[{golden},{golden}]}}],\
             \"totalDiff\":10,\"totalInflightDiff\":2}}"
        );
        assert_eq!(String::from_utf8(broker.encode()).unwrap(), expected);
    }
}
