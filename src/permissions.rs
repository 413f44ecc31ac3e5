//! Permissions beyond those of a topic: what a whole group of brokers may do, and who may not read what. They
//! are in the group's key-value table, in a namespace that clients cannot write.

use std::collections::BTreeMap;

use gantry_storage::tables::{Command, PERM_READ, PERM_WRITE, Tables};

/// The namespace.
pub const NAMESPACE: &str = "gantry.permissions";

/// RocketMQ's name of the setting.
pub const BROKER_PERMISSION: &str = "brokerPermission";

const WRITE_WIPED: &str = "writeWiped";
const FORBIDDEN: &str = "forbidden:";

/// The bits that a group of brokers allows; both if nobody said otherwise.
pub fn of_broker(tables: &Tables) -> u8 {
    let stored = tables.kv(NAMESPACE, BROKER_PERMISSION);
    let bits = stored.and_then(|text| text.parse().ok());
    bits.unwrap_or(PERM_READ | PERM_WRITE)
}

/// Sets what a group of brokers allows; 2, 4 and 6 are all there is.
pub fn set_of_broker(text: &str) -> Result<Command, String> {
    match text {
        "2" | "4" | "6" => Ok(put(BROKER_PERMISSION, text)),
        other => Err(format!(
            "{BROKER_PERMISSION}={other}: it is 2 (write), 4 (read) or 6 (both)"
        )),
    }
}

/// Takes the permission to write out of the group's routes, or gives it back.
pub fn set_wiped(wiped: bool) -> Command {
    if wiped {
        put(WRITE_WIPED, "true")
    } else {
        delete(WRITE_WIPED)
    }
}

/// The bits of a topic's permissions that the group's routes show.
pub fn routed(tables: &Tables, perm: u8) -> u8 {
    let hidden = (PERM_READ | PERM_WRITE) & !of_broker(tables);
    let wiped = tables.kv(NAMESPACE, WRITE_WIPED).is_some();
    let hidden = if wiped { hidden | PERM_WRITE } else { hidden };
    perm & !hidden
}

/// Whether a consumer group may read a topic.
pub fn may_read(tables: &Tables, group: &str, topic: &str) -> bool {
    // Nearly always nothing is forbidden, and this is asked at every pull.
    let any = tables.kv_namespace(NAMESPACE).next().is_some();
    !any || tables.kv(NAMESPACE, &forbidden(group, topic)).is_none()
}

/// Forbids a consumer group to read a topic, or allows it again.
pub fn set_may_read(group: &str, topic: &str, may: bool) -> Command {
    let key = forbidden(group, topic);
    if may { delete(&key) } else { put(&key, "read") }
}

/// What is forbidden to whom: RocketMQ's bits, by consumer group and topic.
pub fn forbidden_reads(tables: &Tables) -> BTreeMap<String, BTreeMap<String, i32>> {
    let mut table: BTreeMap<String, BTreeMap<String, i32>> = BTreeMap::new();
    for (key, _) in tables.kv_namespace(NAMESPACE) {
        let named = key.strip_prefix(FORBIDDEN);
        if let Some((group, topic)) = named.and_then(|named| named.split_once('@')) {
            let topics = table.entry(group.to_string()).or_default();
            topics.insert(topic.to_string(), i32::from(PERM_READ));
        }
    }
    table
}

fn forbidden(group: &str, topic: &str) -> String {
    format!("{FORBIDDEN}{group}@{topic}")
}

fn put(key: &str, value: &str) -> Command {
    Command::PutKv {
        namespace: NAMESPACE.to_string(),
        key: key.to_string(),
        value: value.to_string(),
    }
}

fn delete(key: &str) -> Command {
    Command::DeleteKv {
        namespace: NAMESPACE.to_string(),
        key: key.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_permissions_can_be_set() {
        for wrong in ["", "0", "7", "1", "rw"] {
            assert!(set_of_broker(wrong).is_err(), "{wrong}");
        }
        assert!(set_of_broker("4").is_ok());
        let tables = Tables::default();
        assert_eq!(of_broker(&tables), PERM_READ | PERM_WRITE);
        assert_eq!(routed(&tables, PERM_WRITE), PERM_WRITE);
        assert!(may_read(&tables, "g", "t"));
        assert!(forbidden_reads(&tables).is_empty());
    }
}
