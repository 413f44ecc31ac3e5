//! Settings of topics: bodies of 18, 21 and 351.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::json::lenient;

/// Settings of one topic.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TopicConfig {
    /// `message.type` and others.
    pub attributes: BTreeMap<String, String>,
    /// The queue order matters to producers.
    pub order: bool,
    /// Bits of [`super::perm`].
    #[serde(deserialize_with = "lenient::int")]
    pub perm: i32,
    /// Queues that can be read.
    #[serde(deserialize_with = "lenient::int")]
    pub read_queue_nums: i32,
    /// `SINGLE_TAG` or `MULTI_TAG`.
    pub topic_filter_type: String,
    /// Topic.
    pub topic_name: String,
    /// Unit bits, passed through.
    #[serde(deserialize_with = "lenient::int")]
    pub topic_sys_flag: i32,
    /// Queues that can be written.
    #[serde(deserialize_with = "lenient::int")]
    pub write_queue_nums: i32,
}

impl Default for TopicConfig {
    fn default() -> Self {
        TopicConfig {
            attributes: BTreeMap::new(),
            order: false,
            perm: super::perm::READ | super::perm::WRITE,
            read_queue_nums: 16,
            topic_filter_type: "SINGLE_TAG".into(),
            topic_name: String::new(),
            topic_sys_flag: 0,
            write_queue_nums: 16,
        }
    }
}

/// Request body of 18.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TopicConfigList {
    /// The topics to create or change.
    pub topic_config_list: Vec<TopicConfig>,
}

/// Which state of a table this is. It only grows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DataVersion {
    /// Number of changes.
    #[serde(deserialize_with = "lenient::long")]
    pub counter: i64,
    /// Epoch of the counter.
    #[serde(deserialize_with = "lenient::long")]
    pub state_version: i64,
    /// Time of the last change, milliseconds since 1970.
    #[serde(deserialize_with = "lenient::long")]
    pub timestamp: i64,
}

/// Response body of 21.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AllTopicConfig {
    /// State of the table.
    pub data_version: DataVersion,
    /// Settings by topic.
    pub topic_config_table: BTreeMap<String, TopicConfig>,
}

standard_body!(TopicConfig, TopicConfigList, AllTopicConfig);
