//! Who is connected to this node, as the metrics count it.

use std::collections::BTreeMap;

use gantry_protocol::bodies::ConsumeType;
use gantry_protocol::topic as names;

use super::registry::{Client, Registry};
use crate::metrics::{ConsumerConnection, ProducerConnection};

/// Versions above this are not told apart: labels come from a bounded set whatever clients write.
const VERSION_MAX: i32 = 1000;

const REMOTING: &str = "remoting";

/// One item per client and producer group, one per client and consumer group.
pub(super) fn take(registry: &Registry) -> (Vec<ProducerConnection>, Vec<ConsumerConnection>) {
    let (mut producers, mut consumers) = (BTreeMap::new(), BTreeMap::new());
    for client in registry.local_clients() {
        let id = client.client_id.as_str();
        for group in &client.producer_groups {
            producers.insert((id, group.as_str()), producer(client));
        }
        for consumer in &client.consumers {
            let group = consumer.group_name.as_str();
            consumers.insert(
                (id, group),
                self::consumer(client, group, consumer.consume_type),
            );
        }
    }
    (
        producers.into_values().collect(),
        consumers.into_values().collect(),
    )
}

fn producer(client: &Client) -> ProducerConnection {
    let (language, version) = labels(client);
    ProducerConnection {
        language,
        version,
        protocol_type: REMOTING,
    }
}

fn consumer(client: &Client, group: &str, consume_type: ConsumeType) -> ConsumerConnection {
    let (language, version) = labels(client);
    ConsumerConnection {
        language,
        version,
        protocol_type: REMOTING,
        consumer_group: group.to_string(),
        consume_mode: match consume_type {
            ConsumeType::Actively => "pull",
            ConsumeType::Passively => "push",
            ConsumeType::Pop => "pop",
        },
        is_system: names::SYSTEM_GROUPS.contains(&group),
    }
}

fn labels(client: &Client) -> (String, String) {
    let version = match client.version {
        0..=VERSION_MAX => client.version.to_string(),
        _ => "other".to_string(),
    };
    (client.language.to_ascii_lowercase(), version)
}
