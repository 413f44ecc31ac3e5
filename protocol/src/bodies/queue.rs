//! The queue identity that many bodies contain, also as a map key.

use std::collections::BTreeMap;

use serde::de::{Deserializer, Error};
use serde::{Deserialize, Serialize};

use crate::json::{self, lenient};

/// One queue of one broker, as every client names it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MessageQueue {
    /// Broker group.
    pub broker_name: String,
    /// Number of the queue, from 0.
    #[serde(deserialize_with = "lenient::int")]
    pub queue_id: i32,
    /// Topic.
    pub topic: String,
}

/// A map whose keys are queues: `{{"brokerName":..}:value}` on the wire.
pub type QueueMap<T> = BTreeMap<MessageQueue, T>;

/// Reads a [`QueueMap`]: the reader has turned each key into the text of its object.
pub(crate) fn queue_map<'de, D, T>(reader: D) -> Result<QueueMap<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    let mut map = QueueMap::new();
    for (key, value) in BTreeMap::<String, T>::deserialize(reader)? {
        let queue = json::read(key.as_bytes()).map_err(D::Error::custom)?;
        map.insert(queue, value);
    }
    Ok(map)
}
