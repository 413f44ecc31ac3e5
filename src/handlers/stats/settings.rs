//! Settings as properties text: 26, 318, 319.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use gantry_protocol::headers::BrokerConfigResponse;
use gantry_protocol::{RemotingCommand, ResponseCode, topic as names};
use gantry_storage::FlushMode;

use crate::config::Config;
use crate::error::Failure;
use crate::group::Group;
use crate::handlers::Handled;
use crate::permissions;
use crate::remoting::Request;

/// 318: nothing of the name server may be changed over the wire.
pub fn refuse_config() -> Handled {
    let reason = "settings are those of the configuration file; none may be changed by a request";
    Err(Failure::code(ResponseCode::NO_PERMISSION, reason))
}

/// 319: the settings of the name server, which every node is.
pub fn name_server_config(config: &Config, request: &Request) -> Handled {
    let listener = &config.listeners[request.caller.listener];
    let mut text = String::new();
    let port = listener
        .nodes
        .get(&config.node)
        .map_or(0, |node| node.namesrv);
    writeln!(text, "listenPort={port}").expect("writing to a string cannot fail");
    writeln!(text, "bindAddress={}", listener.bind).expect("writing to a string cannot fail");
    writeln!(text, "clusterTest=false").expect("writing to a string cannot fail");
    Ok(RemotingCommand::success_to(&request.command)
        .with_body(text)
        .into())
}

/// 26: the settings, as properties text.
pub fn broker_config(group: &Group, config: &Config, request: &Request) -> Handled {
    let mut text = String::new();
    for (name, value) in settings(group, config) {
        writeln!(text, "{name}={value}").expect("writing to a string cannot fail");
    }
    let version = group.applied.borrow().to_string();
    let mut response = RemotingCommand::success_to(&request.command).with_body(text);
    BrokerConfigResponse { version: &version }.write(&mut response.fields);
    Ok(response.into())
}

/// Settings by the names that tools know. Secrets and paths are not told.
fn settings(group: &Group, config: &Config) -> BTreeMap<&'static str, String> {
    let flush = match config.log.flush_mode {
        FlushMode::SyncFlush => "SYNC_FLUSH",
        FlushMode::AsyncFlush => "ASYNC_FLUSH",
    };
    let broker = &config.broker;
    let role = if group.leads() {
        "SYNC_MASTER"
    } else {
        "SLAVE"
    };
    let retention = &config.retention;
    BTreeMap::from([
        (
            "autoCreateSubscriptionGroup",
            broker.auto_create_group.to_string(),
        ),
        (
            "autoCreateTopicEnable",
            broker.auto_create_topic.to_string(),
        ),
        ("brokerClusterName", config.cluster.clone()),
        (
            "brokerId",
            if group.leads() { "0" } else { "1" }.to_string(),
        ),
        ("brokerName", group.name.clone()),
        (
            "brokerPermission",
            permissions::of_broker(&group.store.tables()).to_string(),
        ),
        ("brokerRole", role.to_string()),
        (
            "defaultTopicQueueNums",
            broker.auto_create_queues.to_string(),
        ),
        ("diskMaxUsedSpaceRatio", retention.warn_percent.to_string()),
        (
            "fileReservedTime",
            (retention.max_age.as_secs() / 3600).to_string(),
        ),
        ("flushDiskType", flush.to_string()),
        (
            "mappedFileSizeCommitLog",
            config.log.segment_bytes.to_string(),
        ),
        ("maxMessageSize", (4 * 1024 * 1024).to_string()),
        ("messageDelayLevel", level_names(&broker.delays.levels)),
        ("msgTraceTopicName", names::TRACE_TOPIC.to_string()),
        ("traceTopicEnable", true.to_string()),
        ("traceOn", true.to_string()),
        ("slaveReadEnable", true.to_string()),
        ("filterServerNums", 0.to_string()),
        ("useTLS", false.to_string()),
    ])
}

/// Delay levels as RocketMQ writes them: each in the largest unit that leaves no rest.
fn level_names(levels: &[Duration]) -> String {
    let name = |level: &Duration| {
        let seconds = level.as_secs();
        let units = [(86_400, 'd'), (3_600, 'h'), (60, 'm')];
        let whole = units
            .into_iter()
            .find(|(unit, _)| seconds > 0 && seconds.is_multiple_of(*unit));
        let (unit, letter) = whole.unwrap_or((1, 's'));
        format!("{}{letter}", seconds / unit)
    };
    levels.iter().map(name).collect::<Vec<_>>().join(" ")
}
