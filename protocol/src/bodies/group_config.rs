//! Settings of consumer groups: bodies of 200, 201, 225 and 352.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::DataVersion;
use crate::json::lenient;

/// Settings of one group. Absent members have the defaults of RocketMQ.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct GroupConfig {
    /// Free attributes.
    pub attributes: BTreeMap<String, String>,
    /// Broker id to read from.
    #[serde(deserialize_with = "lenient::long")]
    pub broker_id: i64,
    /// May broadcast.
    pub consume_broadcast_enable: bool,
    /// May consume at all.
    pub consume_enable: bool,
    /// May begin at the first message.
    pub consume_from_min_enable: bool,
    /// Consumes in order.
    pub consume_message_orderly: bool,
    /// How long a message may take, minutes.
    #[serde(deserialize_with = "lenient::int")]
    pub consume_timeout_minute: i32,
    /// Group.
    pub group_name: String,
    /// Delays between retries.
    pub group_retry_policy: RetryPolicy,
    /// Unit bits, passed through.
    #[serde(deserialize_with = "lenient::int")]
    pub group_sys_flag: i32,
    /// Members are told when others come or go.
    pub notify_consumer_ids_changed_enable: bool,
    /// Deliveries before a message is given up.
    #[serde(deserialize_with = "lenient::int")]
    pub retry_max_times: i32,
    /// Queues of the retry topic.
    #[serde(deserialize_with = "lenient::int")]
    pub retry_queue_nums: i32,
    /// Subscriptions fixed by an administrator.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub subscription_data_set: Vec<FixedSubscription>,
    /// Broker id to read from when far behind.
    #[serde(deserialize_with = "lenient::long")]
    pub which_broker_when_consume_slowly: i64,
}

impl Default for GroupConfig {
    fn default() -> Self {
        GroupConfig {
            attributes: BTreeMap::new(),
            broker_id: 0,
            consume_broadcast_enable: true,
            consume_enable: true,
            consume_from_min_enable: true,
            consume_message_orderly: false,
            consume_timeout_minute: 15,
            group_name: String::new(),
            group_retry_policy: RetryPolicy::default(),
            group_sys_flag: 0,
            notify_consumer_ids_changed_enable: true,
            retry_max_times: 16,
            retry_queue_nums: 1,
            subscription_data_set: Vec::new(),
            which_broker_when_consume_slowly: 1,
        }
    }
}

/// A subscription in a group's settings.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct FixedSubscription {
    /// The expression.
    pub expression: String,
    /// `TAG` or `SQL92`.
    pub expression_type: String,
    /// Topic.
    pub topic: String,
    /// Millisecond timestamp.
    #[serde(deserialize_with = "lenient::long")]
    pub version: i64,
}

/// Delays between retries: a list, or a growing delay.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RetryPolicy {
    /// The list, if one is set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub customized_retry_policy: Option<CustomizedRetry>,
    /// The growing delay, if one is set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exponential_retry_policy: Option<ExponentialRetry>,
    /// Which of them counts.
    #[serde(rename = "type")]
    pub kind: RetryKind,
}

/// Which retry policy of a group counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum RetryKind {
    /// The list.
    #[default]
    Customized,
    /// The growing delay.
    Exponential,
}

/// A list of delays; without one, the delay levels.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CustomizedRetry {
    /// Milliseconds, by retry.
    pub next: Vec<i64>,
}

/// A delay that grows up to a limit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ExponentialRetry {
    /// First delay, milliseconds.
    pub initial: i64,
    /// Longest delay, milliseconds.
    pub max: i64,
    /// Factor from one to the next.
    pub multiplier: i64,
}

impl Default for ExponentialRetry {
    fn default() -> Self {
        ExponentialRetry {
            initial: 5_000,
            max: 7_200_000,
            multiplier: 2,
        }
    }
}

/// Request body of 225.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct GroupConfigList {
    /// The groups to create or change.
    pub group_config_list: Vec<GroupConfig>,
}

/// Response body of 201.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AllGroupConfig {
    /// State of the table.
    pub data_version: DataVersion,
    /// Per group and topic, bits of what is forbidden.
    pub forbidden_table: BTreeMap<String, BTreeMap<String, i32>>,
    /// Settings by group.
    pub subscription_group_table: BTreeMap<String, GroupConfig>,
}

standard_body!(GroupConfig, GroupConfigList, AllGroupConfig);
