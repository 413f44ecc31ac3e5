//! What a queue holds, row by row: response body of 321; offsets to correct: response body of 308.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Subscription;

/// Response body of `QUERY_CONSUME_QUEUE` (321).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ConsumeQueueRows {
    /// The expression of the group's filter, if it has one that is more than tags.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub filter_data: Option<String>,
    /// Next offset to be written.
    pub max_queue_index: i64,
    /// First offset held.
    pub min_queue_index: i64,
    /// The rows.
    pub queue_data: Vec<ConsumeQueueRow>,
    /// What the group subscribed to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subscription_data: Option<Subscription>,
}

/// One message as its queue has it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ConsumeQueueRow {
    /// Whether the group's filter matches it; true without a group.
    pub eval: bool,
    /// The message in short.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub msg: Option<String>,
    /// Its place in the log.
    pub physic_offset: i64,
    /// Its length, bytes.
    pub physic_size: i32,
    /// Hash of its tag.
    pub tags_code: i64,
}

/// Response body of `QUERY_CORRECTION_OFFSET` (308).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CorrectionOffsets {
    /// Offset by queue.
    pub correction_offsets: BTreeMap<i32, i64>,
}

impl CorrectionOffsets {
    /// Writes the body; its keys are bare numbers.
    pub fn encode(&self) -> Vec<u8> {
        let rows = self
            .correction_offsets
            .iter()
            .map(|(queue, offset)| format!("{queue}:{offset}"));
        let rows: Vec<String> = rows.collect();
        format!("{{\"correctionOffsets\":{{{}}}}}", rows.join(",")).into_bytes()
    }
}

standard_body!(ConsumeQueueRows);

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn golden_texts() {
        let rows = ConsumeQueueRows {
            max_queue_index: 3,
            queue_data: vec![ConsumeQueueRow {
                eval: true,
                physic_offset: 7,
                physic_size: 90,
                tags_code: -1,
                ..ConsumeQueueRow::default()
            }],
            ..ConsumeQueueRows::default()
        };
        let golden = "{\"maxQueueIndex\":3,\"minQueueIndex\":0,\"queueData\":[{\"eval\":true,\
                      \"physicOffset\":7,\"physicSize\":90,\"tagsCode\":-1}]}";
        assert_eq!(String::from_utf8(rows.encode()).unwrap(), golden);
        assert_eq!(ConsumeQueueRows::decode(golden.as_bytes()).unwrap(), rows);
        let corrections = CorrectionOffsets {
            correction_offsets: [(0, 5), (1, 6)].into(),
        };
        let golden = b"{\"correctionOffsets\":{0:5,1:6}}";
        assert_eq!(corrections.encode(), golden);
    }
}
