//! Settings of topics: what may be set, and how it is told.

use std::collections::BTreeMap;

use gantry_protocol::{ResponseCode, bodies, topic as names};
use gantry_storage::tables::{FilterType, TopicConfig};

use crate::catalog;
use crate::config::Config;
use crate::error::Failure;
use crate::idempotent;
use crate::message_types;

/// Queues that a topic may have: far below what the tables can number, and as much as clients bear.
const QUEUES_MAX: i32 = 4096;

/// Bits of a topic's permissions: read, write, inherit, and priority.
const PERM_MAX: i32 = 15;

const RESERVE_TIME: &str = "reserve.time";

const MULTI_TAG: &str = "MULTI_TAG";
const SINGLE_TAG: &str = "SINGLE_TAG";

/// Fails with code 29 for a name that clients cannot have a topic of.
pub(super) fn check_name(name: &str, config: &Config) -> Result<(), Failure> {
    let invalid = |reason: String| Failure::code(ResponseCode::INVALID_PARAMETER, reason);
    names::check_topic(name).map_err(|error| invalid(error.to_string()))?;
    if catalog::is_system_topic(config, name) {
        return Err(invalid(format!("{name} is a topic of the broker itself")));
    }
    Ok(())
}

/// The settings as they are stored, if they may be.
pub(super) fn checked(
    wanted: bodies::TopicConfig,
    config: &Config,
) -> Result<TopicConfig, Failure> {
    check_name(&wanted.topic_name, config)?;
    let name = wanted.topic_name;
    let invalid = |reason: String| Failure::code(ResponseCode::INVALID_PARAMETER, reason);
    let queues = |wanted: i32| {
        if (1..=QUEUES_MAX).contains(&wanted) {
            return Ok(wanted as u16);
        }
        Err(invalid(format!(
            "topic {name}: {wanted} queues, a topic has 1 to {QUEUES_MAX}"
        )))
    };
    let (read_queues, write_queues) = (
        queues(wanted.read_queue_nums)?,
        queues(wanted.write_queue_nums)?,
    );
    if !(0..=PERM_MAX).contains(&wanted.perm) {
        return Err(invalid(format!(
            "topic {name}: {} is not a permission",
            wanted.perm
        )));
    }
    let filter_type = match wanted.topic_filter_type.as_str() {
        "" | SINGLE_TAG => FilterType::SingleTag,
        MULTI_TAG => FilterType::MultiTag,
        other => {
            return Err(invalid(format!(
                "topic {name}: {other} is not a filter type"
            )));
        }
    };
    check_attributes(&wanted.attributes)
        .map_err(|(code, reason)| Failure::code(code, format!("topic {name}: {reason}")))?;
    Ok(TopicConfig {
        read_queues,
        write_queues,
        perm: wanted.perm as u8,
        order: wanted.order,
        filter_type,
        sys_flag: wanted.topic_sys_flag as u32,
        attributes: wanted.attributes,
        name,
    })
}

/// Attributes with a meaning here have values that make sense.
fn check_attributes(attributes: &BTreeMap<String, String>) -> Result<(), (ResponseCode, String)> {
    if let Some(kind) = attributes.get(message_types::ATTRIBUTE) {
        if kind == "MIXED" {
            let reason = "message.type MIXED is not supported".to_string();
            return Err((ResponseCode::INVALID_PARAMETER, reason));
        }
        if !message_types::VALUES.contains(&kind.as_str()) {
            let values = message_types::VALUES.join(", ");
            let reason = format!("message.type {kind} is none of {values}");
            return Err((ResponseCode::SYSTEM_ERROR, reason));
        }
    }
    if let Some(window) = attributes.get(idempotent::ATTRIBUTE) {
        let checked = idempotent::parse_window(window);
        checked.map_err(|reason| {
            let reason = format!("{}: {reason}", idempotent::ATTRIBUTE);
            (ResponseCode::INVALID_PARAMETER, reason)
        })?;
    }
    if attributes.contains_key(RESERVE_TIME) {
        let reason = format!(
            "{RESERVE_TIME} cannot be kept: all topics of a broker share one log, which goes in whole \
             segments; storage.retention is for all of them"
        );
        return Err((ResponseCode::SYSTEM_ERROR, reason));
    }
    Ok(())
}

/// The settings as clients read them.
pub(super) fn to_body(topic: &TopicConfig) -> bodies::TopicConfig {
    let filter_type = match topic.filter_type {
        FilterType::SingleTag => SINGLE_TAG,
        FilterType::MultiTag => MULTI_TAG,
    };
    bodies::TopicConfig {
        attributes: topic.attributes.clone(),
        order: topic.order,
        perm: i32::from(topic.perm),
        read_queue_nums: i32::from(topic.read_queues),
        topic_filter_type: filter_type.to_string(),
        topic_name: topic.name.clone(),
        topic_sys_flag: topic.sys_flag as i32,
        write_queue_nums: i32::from(topic.write_queues),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::config::ConfigFile;

    fn config() -> Config {
        let text = r#"
            cluster = "C"
            node = 1
            data = "d"
            peers = [{ node = 1, address = "127.0.0.1:10912" }]
            groups = [{ name = "broker-a" }]
            peer = { bind = "127.0.0.1:10912" }
            [[listener]]
            name = "local"
            bind = "127.0.0.1"
            nodes = [{ node = 1, host = "127.0.0.1", namesrv = 9876, groups = [10911] }]
        "#;
        ConfigFile::parse(text).unwrap().resolve().unwrap()
    }

    fn wanted() -> bodies::TopicConfig {
        bodies::TopicConfig {
            topic_name: "t".into(),
            ..bodies::TopicConfig::default()
        }
    }

    #[test]
    fn settings_survive_being_stored() {
        let multi = bodies::TopicConfig {
            topic_filter_type: MULTI_TAG.into(),
            order: true,
            ..wanted()
        };
        for wanted in [wanted(), multi] {
            assert_eq!(
                to_body(&checked(wanted.clone(), &config()).unwrap()),
                wanted
            );
        }
    }

    #[test]
    fn attributes_have_values_that_can_be_kept() {
        let with = |name: &str, value: &str| bodies::TopicConfig {
            attributes: [(name.to_string(), value.to_string())].into(),
            ..wanted()
        };
        for kind in message_types::VALUES {
            assert!(checked(with("message.type", kind), &config()).is_ok());
        }
        for (name, value) in [("message.type", "SOMETHING"), ("reserve.time", "1000")] {
            let failure = checked(with(name, value), &config()).unwrap_err();
            let is_code_1 = matches!(failure, Failure::Code(ResponseCode::SYSTEM_ERROR, _));
            assert!(is_code_1, "{name}: {failure}");
        }
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let wrong = [
            bodies::TopicConfig {
                topic_name: "a b".into(),
                ..wanted()
            },
            bodies::TopicConfig {
                topic_name: "TBW102".into(),
                ..wanted()
            },
            bodies::TopicConfig {
                topic_name: "broker-a".into(),
                ..wanted()
            },
            bodies::TopicConfig {
                topic_name: "C_REPLY_TOPIC".into(),
                ..wanted()
            },
            bodies::TopicConfig {
                read_queue_nums: 0,
                ..wanted()
            },
            bodies::TopicConfig {
                write_queue_nums: QUEUES_MAX + 1,
                ..wanted()
            },
            bodies::TopicConfig {
                perm: -1,
                ..wanted()
            },
            bodies::TopicConfig {
                perm: 16,
                ..wanted()
            },
            bodies::TopicConfig {
                topic_filter_type: "OTHER".into(),
                ..wanted()
            },
            bodies::TopicConfig {
                attributes: [("message.type".to_string(), "MIXED".to_string())].into(),
                ..wanted()
            },
            bodies::TopicConfig {
                attributes: [(idempotent::ATTRIBUTE.to_string(), "true".to_string())].into(),
                ..wanted()
            },
        ];
        for wanted in wrong {
            let failure = checked(wanted.clone(), &config()).unwrap_err();
            let is_code_29 = matches!(failure, Failure::Code(ResponseCode::INVALID_PARAMETER, _));
            assert!(is_code_29, "{wanted:?}: {failure}");
        }
    }
}
