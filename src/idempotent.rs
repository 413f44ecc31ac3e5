//! Topics that keep one copy of a message: the attribute that makes a topic one, what a copy is, and the
//! group of brokers that all copies go to (ADR 18).
//!
//! Whether a message is a copy is decided where it is applied (`storage/src/tables/recent_sends.rs`), so it
//! does not matter which node or which leader took it. What must not differ is the group: a client that
//! tries again chooses another one.

use std::sync::Arc;
use std::time::Duration;

use gantry_protocol::properties::{self, names};
use gantry_storage::tables::{Once, SendId, Topic, TopicConfig};
use sha2::{Digest, Sha256};

use crate::group::Group;
use crate::units;

/// The attribute; its value is the time for which a message is known, such as `10m`.
pub const ATTRIBUTE: &str = "idempotent.window";

const WINDOW_MIN: Duration = Duration::from_secs(1);
const WINDOW_MAX: Duration = Duration::from_secs(24 * 3600);

/// Reads a value of the attribute; says what is wrong with it.
pub fn parse_window(text: &str) -> Result<Duration, String> {
    let window = units::parse_duration(text)?;
    if (WINDOW_MIN..=WINDOW_MAX).contains(&window) {
        return Ok(window);
    }
    Err(format!("{text} is not between 1s and 24h"))
}

/// For how long the topic knows a message; `None` if it is an ordinary one.
pub fn window(topic: &TopicConfig) -> Option<Duration> {
    parse_window(topic.attributes.get(ATTRIBUTE)?).ok()
}

/// What makes the broker keep one copy of a message, if its topic is of that kind and the message has a
/// unique key. `queue` is the one that its sender is told.
pub fn once(topic: &Topic, queue: u16, properties: &str, body: &[u8]) -> Option<Once> {
    let window = window(&topic.config)?;
    let unique_key = properties::get(properties, names::UNIQ_KEY)?;
    Some(Once {
        row: 0,
        id: send_id(topic.id, unique_key, body),
        queue,
        window_ms: window.as_millis() as u64,
    })
}

fn send_id(topic_id: u32, unique_key: &str, body: &[u8]) -> SendId {
    let mut digest = Sha256::new();
    digest.update(topic_id.to_le_bytes());
    digest.update((unique_key.len() as u64).to_le_bytes());
    digest.update(unique_key.as_bytes());
    digest.update(body);
    let whole = digest.finalize();
    let (first, _) = whole.split_first_chunk().expect("32 bytes");
    SendId(*first)
}

/// The group that takes the sends of such a topic, by the configuration alone: every node finds the same. A
/// new group becomes the home of its share of topics, and the others stay where they are.
pub fn home<'g>(groups: &'g [Arc<Group>], topic: &str) -> &'g Arc<Group> {
    let names = groups.iter().map(|group| group.name.as_str());
    &groups[place_of_home(names, topic)]
}

fn place_of_home<'a>(groups: impl Iterator<Item = &'a str>, topic: &str) -> usize {
    let weight = |group: &str| {
        let mut digest = Sha256::new();
        digest.update((group.len() as u64).to_le_bytes());
        digest.update(group.as_bytes());
        digest.update(topic.as_bytes());
        <[u8; 32]>::from(digest.finalize())
    };
    let heaviest = groups.enumerate().max_by_key(|(_, group)| weight(group));
    heaviest.map_or(0, |(place, _)| place)
}

/// The group that takes the sends of a topic if that is another one than `group`, which has the topic so.
pub fn elsewhere<'g>(
    groups: &'g [Arc<Group>],
    group: &Group,
    topic: &TopicConfig,
) -> Option<&'g Arc<Group>> {
    window(topic)?;
    let home = home(groups, &topic.name);
    (home.id != group.id).then_some(home)
}

/// The settings of such a topic as any of the groups has it: a group where it is missing takes them over.
pub fn settings(groups: &[Arc<Group>], name: &str) -> Option<TopicConfig> {
    groups.iter().find_map(|group| {
        let topic = group.store.tables().topic(name)?;
        window(&topic.config).map(|_| topic.config.clone())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topic(id: u32, window: Option<&str>) -> Topic {
        let mut config = TopicConfig::new("t", 1);
        let attribute = window.map(|window| (ATTRIBUTE.to_string(), window.to_string()));
        config.attributes.extend(attribute);
        Topic { id, config }
    }

    const KEY: &str = "UNIQ_KEY\u{1}k\u{2}";

    #[test]
    fn a_message_is_known_by_topic_key_and_body() {
        let of = |topic: &Topic, properties: &str, body: &str| {
            once(topic, 3, properties, body.as_bytes()).map(|once| once.id)
        };
        let known = topic(1, Some("10m"));
        let one = of(&known, KEY, "body");
        assert!(one.is_some());
        assert_eq!(
            of(&known, "TAGS\u{1}a\u{2}UNIQ_KEY\u{1}k\u{2}", "body"),
            one
        );
        assert_ne!(of(&known, KEY, "other"), one);
        assert_ne!(of(&known, "UNIQ_KEY\u{1}kb\u{2}", "ody"), one);
        assert_ne!(of(&topic(2, Some("10m")), KEY, "body"), one);
        assert_eq!(of(&known, "TAGS\u{1}a\u{2}", "body"), None, "no unique key");
        assert_eq!(of(&topic(1, None), KEY, "body"), None);
        assert_eq!(
            once(&known, 3, KEY, b"x").map(|once| once.window_ms),
            Some(600_000)
        );
    }

    #[test]
    fn a_window_has_bounds() {
        for good in ["1s", "10m", "24h", "1d"] {
            assert!(parse_window(good).is_ok(), "{good}");
        }
        for bad in ["999ms", "25h", "10", "true", ""] {
            assert!(parse_window(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn topics_spread_over_groups_and_stay_when_one_is_added() {
        let three = ["broker-a", "broker-b", "broker-c"];
        let four = ["broker-a", "broker-b", "broker-c", "broker-d"];
        let mut homes = [0; 3];
        for number in 0..300 {
            let topic = format!("topic-{number}");
            let home = place_of_home(three.into_iter(), &topic);
            homes[home] += 1;
            let later = place_of_home(four.into_iter(), &topic);
            assert!(later == home || later == 3, "{topic}");
        }
        assert!(homes.iter().all(|count| *count > 60), "{homes:?}");
    }
}
