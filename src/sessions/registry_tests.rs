//! Tests of the registry, with times that nobody waits for.

#![allow(clippy::unwrap_used)]

use gantry_protocol::bodies::ProducerData;

use super::*;

fn channel(id: u64) -> Arc<Channel> {
    Arc::new(Channel::new(id, "10.0.0.9:4000".parse().unwrap()))
}

fn heartbeat(client_id: &str, group: &str, topics: &[(&str, i64)]) -> Heartbeat {
    let subscriptions = topics.iter().map(|(topic, sub_version)| Subscription {
        topic: (*topic).into(),
        sub_version: *sub_version,
        ..Subscription::default()
    });
    let consumer = ConsumerData {
        group_name: group.into(),
        subscription_data_set: subscriptions.collect(),
        ..ConsumerData::default()
    };
    Heartbeat {
        client_id: client_id.into(),
        consumer_data_set: vec![consumer],
        ..Heartbeat::default()
    }
}

fn beat(registry: &mut Registry, channel_id: u64, heartbeat: Heartbeat, now: Instant) -> bool {
    registry.heartbeat(&channel(channel_id), ("JAVA", 479), heartbeat, now)
}

fn changed(registry: &mut Registry) -> Vec<String> {
    registry.take_changed().into_iter().collect()
}

/// The connections on which members of group `g` are notified.
fn notified(registry: &Registry, now: Instant) -> Vec<u64> {
    let channels = registry.channels_to_notify("g", now);
    channels.iter().map(|channel| channel.id).collect()
}

/// `to` takes the table of `from`, a node of number `node`.
fn tell(from: &Registry, node: NodeNumber, to: &mut Registry, now: Instant) {
    assert!(to.merge(node, (1, from.version()), Some(from.table()), now));
}

#[test]
fn members_are_told_of_members_and_topics_but_not_of_versions() {
    let (mut registry, now) = (Registry::new(1), Instant::now());
    beat(&mut registry, 1, heartbeat("a", "g", &[("t", 1)]), now);
    assert_eq!(changed(&mut registry), ["g"]);
    assert_eq!(
        registry.take_news(),
        News {
            to_send: true,
            to_notify: false
        }
    );
    beat(&mut registry, 1, heartbeat("a", "g", &[("t", 1)]), now);
    assert_eq!(registry.take_news(), News::default(), "the same again");
    beat(&mut registry, 1, heartbeat("a", "g", &[("t", 2)]), now);
    assert_eq!(
        registry.take_news(),
        News {
            to_send: true,
            to_notify: false
        }
    );
    assert_eq!(registry.subscription("g", "t").unwrap().sub_version, 2);
    beat(
        &mut registry,
        1,
        heartbeat("a", "g", &[("t", 2), ("u", 3)]),
        now,
    );
    assert_eq!(changed(&mut registry), ["g"], "a topic was added");
    beat(
        &mut registry,
        2,
        heartbeat("a", "g", &[("t", 2), ("u", 3)]),
        now,
    );
    assert_eq!(
        changed(&mut registry),
        [""; 0],
        "the same client on another connection"
    );
    beat(
        &mut registry,
        3,
        heartbeat("b", "g", &[("t", 2), ("u", 3)]),
        now,
    );
    assert_eq!(changed(&mut registry), ["g"]);
    assert_eq!(registry.members("g"), ["a", "b"]);
    assert_eq!(
        notified(&registry, now),
        [2, 3],
        "each client once, where it connected last"
    );
}

#[test]
fn the_highest_version_of_a_subscription_counts_and_dropped_topics_go() {
    let (mut registry, now) = (Registry::new(1), Instant::now());
    beat(
        &mut registry,
        1,
        heartbeat("a", "g", &[("t", 5), ("old", 1)]),
        now,
    );
    beat(&mut registry, 2, heartbeat("b", "g", &[("t", 4)]), now);
    assert_eq!(registry.subscription("g", "t").unwrap().sub_version, 5);
    assert!(registry.subscription("g", "old").is_some());
    assert_eq!(registry.groups_of("old"), ["g"]);
    beat(&mut registry, 1, heartbeat("a", "g", &[("t", 5)]), now);
    assert!(registry.subscription("g", "old").is_none());
    assert_eq!(registry.groups_of("old"), [""; 0]);
}

#[test]
fn a_client_is_a_member_as_long_as_one_connection_stands() {
    let (mut registry, now) = (Registry::new(1), Instant::now());
    beat(&mut registry, 1, heartbeat("a", "g", &[("t", 1)]), now);
    beat(&mut registry, 2, heartbeat("a", "g", &[("t", 1)]), now);
    changed(&mut registry);
    registry.disconnected(1);
    assert_eq!(
        (registry.members("g").len(), changed(&mut registry).len()),
        (1, 0)
    );
    registry.disconnected(2);
    assert_eq!(registry.members("g"), [""; 0]);
    assert_eq!(changed(&mut registry), ["g"]);
    assert!(registry.consumers("g").is_none());
}

#[test]
fn a_client_that_leaves_leaves_on_all_connections() {
    let (mut registry, now) = (Registry::new(1), Instant::now());
    let mut both = heartbeat("a", "g", &[("t", 1)]);
    both.producer_data_set = vec![ProducerData {
        group_name: "p".into(),
    }];
    beat(&mut registry, 1, both.clone(), now);
    beat(&mut registry, 2, both, now);
    registry.unregister("a", None, Some("g"));
    assert_eq!(registry.members("g"), [""; 0]);
    assert_eq!(
        registry.producers("p").connection_set.len(),
        1,
        "one client, two connections"
    );
    registry.unregister("a", Some("p"), None);
    assert!(registry.producers("p").connection_set.is_empty());
    let version = registry.version();
    registry.unregister("a", Some("p"), Some("g"));
    assert_eq!(registry.version(), version, "nothing left to leave");
}

#[test]
fn subscriptions_left_out_are_kept_where_they_are_known() {
    let (mut registry, now) = (Registry::new(1), Instant::now());
    let with = |hash| Heartbeat {
        heartbeat_fingerprint: hash,
        ..heartbeat("a", "g", &[("t", 1)])
    };
    let without = |hash| Heartbeat {
        heartbeat_fingerprint: hash,
        without_sub: true,
        ..heartbeat("a", "g", &[])
    };
    assert!(
        beat(&mut registry, 1, heartbeat("a", "g", &[("t", 1)]), now),
        "always from old clients"
    );
    assert!(!beat(&mut registry, 1, with(5), now));
    assert!(!beat(&mut registry, 1, without(5), now));
    assert!(registry.subscription("g", "t").is_some());
    assert!(
        beat(&mut registry, 1, without(6), now),
        "not the subscriptions that are known"
    );
    assert!(beat(&mut registry, 1, without(5), now), "nor sure any more");
    assert!(
        beat(&mut registry, 2, without(5), now),
        "a connection that never had them"
    );
    assert_eq!(registry.members("g"), ["a"], "it is a member all the same");
}

#[test]
fn clients_of_all_nodes_are_members() {
    let now = Instant::now();
    let (mut first, mut second) = (Registry::new(1), Registry::new(2));
    beat(&mut first, 1, heartbeat("a", "g", &[("t", 1)]), now);
    beat(&mut second, 1, heartbeat("b", "g", &[("t", 1)]), now);
    beat(&mut second, 2, heartbeat("b", "g", &[("t", 1)]), now);
    assert_eq!(second.table().len(), 1, "one client, two connections");
    changed(&mut first);
    tell(&second, 2, &mut first, now);
    assert_eq!(first.members("g"), ["a", "b"]);
    assert_eq!(changed(&mut first), ["g"]);
    assert_eq!(notified(&first, now), [1], "only its own clients");
    assert_eq!(first.consumers("g").unwrap().connection_set.len(), 2);
    tell(&second, 2, &mut first, now);
    assert_eq!(changed(&mut first), [""; 0]);
    second.disconnected(1);
    second.disconnected(2);
    tell(&second, 2, &mut first, now);
    assert_eq!(first.members("g"), ["a"]);
}

#[test]
fn a_client_of_several_nodes_is_notified_by_the_first_that_lives() {
    let now = Instant::now();
    let (mut first, mut second) = (Registry::new(1), Registry::new(2));
    for node in [&mut first, &mut second] {
        beat(node, 1, heartbeat("a", "g", &[("t", 1)]), now);
    }
    beat(&mut second, 2, heartbeat("b", "g", &[("t", 1)]), now);
    tell(&second, 2, &mut first, now);
    tell(&first, 1, &mut second, now);
    assert_eq!(notified(&first, now), [1]);
    assert_eq!(notified(&second, now), [2]);
    assert_eq!(
        notified(&second, now + NODE_TRUST),
        [1, 2],
        "node 1 has gone silent"
    );
}

#[test]
fn a_restarted_node_is_sent_the_table_and_asked_for_its_own() {
    let now = Instant::now();
    let mut registry = Registry::new(1);
    assert!(!registry.merge(2, (1, 4), None, now), "never heard of");
    assert!(registry.take_news().to_send);
    assert!(registry.merge(2, (1, 4), Some(Vec::new()), now));
    registry.take_news();
    assert!(registry.merge(2, (1, 4), None, now) && !registry.take_news().to_send);
    assert!(
        !registry.merge(2, (1, 5), None, now),
        "a version that was missed"
    );
    assert!(!registry.merge(2, (9, 4), None, now), "another process");
    assert!(registry.take_news().to_send);
}

#[test]
fn the_silent_are_dropped() {
    let now = Instant::now();
    let (mut registry, mut other) = (Registry::new(1), Registry::new(2));
    beat(&mut registry, 1, heartbeat("a", "g", &[("t", 1)]), now);
    beat(&mut other, 1, heartbeat("b", "g", &[("t", 1)]), now);
    tell(&other, 2, &mut registry, now);
    let second = Duration::from_secs(1);
    registry.expire(now + NODE_SILENCE_MAX - second);
    assert_eq!(registry.members("g"), ["a", "b"]);
    assert!(registry.merge(
        2,
        (1, other.version()),
        None,
        now + NODE_SILENCE_MAX - second
    ));
    registry.expire(now + NODE_SILENCE_MAX);
    assert_eq!(registry.members("g"), ["a", "b"], "a sign of life came");
    registry.expire(now + 2 * NODE_SILENCE_MAX);
    assert_eq!(registry.members("g"), ["a"]);
    assert!(!registry.has_heard(2));
    registry.expire(now + CLIENT_SILENCE_MAX - second);
    assert_eq!(registry.members("g"), ["a"]);
    changed(&mut registry);
    registry.expire(now + CLIENT_SILENCE_MAX);
    assert_eq!(registry.members("g"), [""; 0]);
    assert_eq!(changed(&mut registry), ["g"]);
}

#[test]
fn metrics_count_a_client_once_for_each_group() {
    let (mut registry, now) = (Registry::new(1), Instant::now());
    beat(&mut registry, 1, heartbeat("a", "g", &[("t", 1)]), now);
    beat(&mut registry, 2, heartbeat("a", "g", &[("t", 1)]), now);
    beat(&mut registry, 3, heartbeat("b", "TOOLS_CONSUMER", &[]), now);
    let (producers, consumers) = super::super::census::take(&registry);
    assert!(producers.is_empty());
    let seen: Vec<_> = consumers
        .iter()
        .map(|c| (c.consumer_group.as_str(), c.is_system))
        .collect();
    assert_eq!(seen, [("g", false), ("TOOLS_CONSUMER", true)]);
    assert_eq!(
        (
            consumers[0].language.as_str(),
            consumers[0].version.as_str()
        ),
        ("java", "479")
    );
}

#[test]
fn a_producer_is_found_on_the_port_of_the_group_and_on_other_nodes() {
    let (mut here, mut there, now) = (Registry::new(1), Registry::new(2), Instant::now());
    let producer = Heartbeat {
        client_id: "p".into(),
        producer_data_set: vec![ProducerData {
            group_name: "P".into(),
        }],
        ..Heartbeat::default()
    };
    assert!(here.producer_channel("P", 0).is_none());
    for (id, port_group) in [(1, Some(0)), (2, Some(1)), (3, None)] {
        let channel = Channel::new(id, "10.0.0.9:4000".parse().unwrap());
        let channel = Arc::new(channel.on_port_of(port_group));
        here.heartbeat(&channel, ("JAVA", 479), producer.clone(), now);
    }
    let found = |registry: &Registry, group| {
        let channel = registry.producer_channel("P", group);
        channel.map(|channel| channel.id)
    };
    assert_eq!(found(&here, 0), Some(1));
    assert_eq!(found(&here, 1), Some(2));
    assert_eq!(found(&here, 2), Some(3), "any is better than none");
    assert_eq!(there.nodes_of_producer("P"), [0; 0]);
    tell(&here, 1, &mut there, now);
    assert_eq!(there.nodes_of_producer("P"), [1]);
    assert_eq!(found(&there, 0), None, "not connected there");
    here.disconnected(1);
    assert_eq!(found(&here, 0), Some(3));
}
