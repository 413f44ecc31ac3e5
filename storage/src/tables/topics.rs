//! Topics by name and by id.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Permission bit: consumers may read.
pub const PERM_READ: u8 = 4;
/// Permission bit: producers may write.
pub const PERM_WRITE: u8 = 2;
/// Permission bit: new topics may copy the settings of this one.
pub const PERM_INHERIT: u8 = 1;

/// How many tags a message of the topic may carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum FilterType {
    /// One. Default.
    #[default]
    SingleTag,
    /// Several.
    MultiTag,
}

/// Settings of a topic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopicConfig {
    /// Name, unique in the group of brokers.
    pub name: String,
    /// Queues that consumers are told of.
    pub read_queues: u16,
    /// Queues that producers are told of.
    pub write_queues: u16,
    /// [`PERM_READ`], [`PERM_WRITE`], [`PERM_INHERIT`].
    pub perm: u8,
    /// Whether the number of queues must not follow the set of live nodes.
    pub order: bool,
    /// Tags per message.
    pub filter_type: FilterType,
    /// Bits that only clients understand.
    pub sys_flag: u32,
    /// Named settings such as `message.type`.
    pub attributes: BTreeMap<String, String>,
}

impl TopicConfig {
    /// A readable and writable topic with `queues` queues.
    pub fn new(name: impl Into<String>, queues: u16) -> Self {
        Self {
            name: name.into(),
            read_queues: queues,
            write_queues: queues,
            perm: PERM_READ | PERM_WRITE,
            order: false,
            filter_type: FilterType::default(),
            sys_flag: 0,
            attributes: BTreeMap::new(),
        }
    }
}

/// A topic as applied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Topic {
    /// Its number in the group of brokers; never given to another topic, not even to one of the same name.
    pub id: u32,
    /// Its settings.
    pub config: TopicConfig,
}

impl Topic {
    /// How many queues may be written to or read from.
    pub fn queues(&self) -> u16 {
        self.config.read_queues.max(self.config.write_queues)
    }
}

/// All topics.
///
/// Invariant: both maps hold the same topics, and every id is below `next_id`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Image", into = "Image")]
pub(super) struct Topics {
    by_name: BTreeMap<String, Arc<Topic>>,
    by_id: HashMap<u32, Arc<Topic>>,
    next_id: u32,
}

/// The topics as they are stored.
#[derive(Serialize, Deserialize)]
struct Image {
    next_id: u32,
    topics: Vec<Topic>,
}

impl From<Topics> for Image {
    fn from(topics: Topics) -> Self {
        let next_id = topics.next_id;
        Self {
            next_id,
            topics: topics
                .by_name
                .values()
                .map(|topic| (**topic).clone())
                .collect(),
        }
    }
}

impl From<Image> for Topics {
    fn from(image: Image) -> Self {
        let mut topics = Self {
            next_id: image.next_id,
            ..Self::default()
        };
        for topic in image.topics {
            topics.insert(topic);
        }
        topics
    }
}

impl Topics {
    /// Creates or changes a topic and returns its id.
    pub(super) fn put(&mut self, config: TopicConfig) -> Result<u32, String> {
        if config.name.is_empty() {
            return Err("a topic needs a name".to_owned());
        }
        let known = self.by_name.get(&config.name).map(|topic| topic.id);
        let id = known.unwrap_or(self.next_id);
        if known.is_none() {
            let Some(next_id) = self.next_id.checked_add(1) else {
                return Err("topic ids are used up".to_owned());
            };
            self.next_id = next_id;
        }
        self.insert(Topic { id, config });
        Ok(id)
    }

    fn insert(&mut self, topic: Topic) {
        let topic = Arc::new(topic);
        self.by_id.insert(topic.id, Arc::clone(&topic));
        self.by_name.insert(topic.config.name.clone(), topic);
    }

    /// Forgets a topic.
    pub(super) fn remove(&mut self, name: &str) -> Option<Arc<Topic>> {
        let topic = self.by_name.remove(name)?;
        self.by_id.remove(&topic.id);
        Some(topic)
    }

    pub(super) fn by_name(&self, name: &str) -> Option<&Arc<Topic>> {
        self.by_name.get(name)
    }

    pub(super) fn by_id(&self, id: u32) -> Option<&Arc<Topic>> {
        self.by_id.get(&id)
    }

    /// Ordered by name.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Arc<Topic>> {
        self.by_name.values()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_never_given_twice() {
        let mut topics = Topics::default();
        let first = topics.put(TopicConfig::new("A", 4)).unwrap();
        assert_eq!(
            topics.put(TopicConfig::new("A", 8)).unwrap(),
            first,
            "changed, not created"
        );
        assert_eq!(topics.by_id(first).unwrap().queues(), 8);
        topics.remove("A");
        assert!(topics.by_id(first).is_none());
        assert_ne!(topics.put(TopicConfig::new("A", 4)).unwrap(), first);
        assert!(topics.put(TopicConfig::new("", 4)).is_err());
    }

    #[test]
    fn stored_topics_come_back_with_both_indexes() {
        let mut topics = Topics::default();
        topics.put(TopicConfig::new("B", 1)).unwrap();
        topics.put(TopicConfig::new("A", 2)).unwrap();
        topics.remove("B");
        let bytes = crate::codec::encode(&topics);
        let back: Topics = crate::codec::decode(&bytes).unwrap();
        assert_eq!(back, topics);
        assert_eq!(back.iter().count(), 1);
    }
}
