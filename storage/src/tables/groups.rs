//! Consumer groups by name.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// When a message that a consumer could not handle is delivered again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum RetryPolicy {
    /// A list of waits in milliseconds, the last one repeating. Empty = the delay levels from the third on.
    Customized(Vec<u64>),
    /// `initial_ms * multiplier ^ times`, at most `max_ms`.
    Exponential {
        /// First wait; milliseconds.
        initial_ms: u64,
        /// Longest wait; milliseconds.
        max_ms: u64,
        /// Factor from one wait to the next.
        multiplier: u64,
    },
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self::Customized(Vec::new())
    }
}

/// Settings of a consumer group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubscriptionGroupConfig {
    /// Name, unique in the group of brokers.
    pub name: String,
    /// Whether the group may consume at all. Default true.
    pub consume_enable: bool,
    /// Whether a new group may start at the first offset. Default true.
    pub consume_from_min_enable: bool,
    /// Whether members may broadcast. Default true.
    pub consume_broadcast_enable: bool,
    /// Whether messages are handed out in order. Default false.
    pub consume_message_orderly: bool,
    /// Queues of the retry topic. Default 1.
    pub retry_queues: i32,
    /// Deliveries before a message goes to the dead letters. Default 16.
    pub retry_max_times: i32,
    /// Waits between deliveries.
    pub retry_policy: RetryPolicy,
    /// Broker id that members should read from. Default 0.
    pub broker_id: i64,
    /// Broker id that members should read from when they are far behind. Default 1.
    pub which_broker_when_consume_slowly: i64,
    /// Whether members are told when others come and go. Default true.
    pub notify_consumer_ids_changed_enable: bool,
    /// Bits that only clients understand. Default 0.
    pub group_sys_flag: i32,
    /// How long a consumer may work on a message; minutes. Default 15.
    pub consume_timeout_minutes: i32,
    /// Fixed subscriptions, as the JSON text that was given.
    pub subscription_data: Option<String>,
    /// Named settings.
    pub attributes: BTreeMap<String, String>,
}

impl SubscriptionGroupConfig {
    /// A group with default settings.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            consume_enable: true,
            consume_from_min_enable: true,
            consume_broadcast_enable: true,
            consume_message_orderly: false,
            retry_queues: 1,
            retry_max_times: 16,
            retry_policy: RetryPolicy::default(),
            broker_id: 0,
            which_broker_when_consume_slowly: 1,
            notify_consumer_ids_changed_enable: true,
            group_sys_flag: 0,
            consume_timeout_minutes: 15,
            subscription_data: None,
            attributes: BTreeMap::new(),
        }
    }
}

/// All consumer groups that were configured.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    from = "Vec<SubscriptionGroupConfig>",
    into = "Vec<SubscriptionGroupConfig>"
)]
pub(super) struct Groups {
    by_name: BTreeMap<String, Arc<SubscriptionGroupConfig>>,
}

impl From<Groups> for Vec<SubscriptionGroupConfig> {
    fn from(groups: Groups) -> Self {
        groups
            .by_name
            .values()
            .map(|config| (**config).clone())
            .collect()
    }
}

impl From<Vec<SubscriptionGroupConfig>> for Groups {
    fn from(configs: Vec<SubscriptionGroupConfig>) -> Self {
        let named = |config: SubscriptionGroupConfig| (config.name.clone(), Arc::new(config));
        Self {
            by_name: configs.into_iter().map(named).collect(),
        }
    }
}

impl Groups {
    /// Creates or changes a group.
    pub(super) fn put(&mut self, config: SubscriptionGroupConfig) -> Result<(), String> {
        if config.name.is_empty() {
            return Err("a consumer group needs a name".to_owned());
        }
        self.by_name.insert(config.name.clone(), Arc::new(config));
        Ok(())
    }

    pub(super) fn remove(&mut self, name: &str) {
        self.by_name.remove(name);
    }

    pub(super) fn get(&self, name: &str) -> Option<&Arc<SubscriptionGroupConfig>> {
        self.by_name.get(name)
    }

    /// Ordered by name.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Arc<SubscriptionGroupConfig>> {
        self.by_name.values()
    }
}
