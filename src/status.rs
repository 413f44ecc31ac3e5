//! What a node tells about itself over HTTP.

use std::sync::Arc;

use gantry_raft::ReplicaStatus;
use gantry_storage::commitlog::{DamageStats, Hole};
use serde_json::{Value, json};

use crate::broker::Broker;
use crate::catalog;
use crate::group::Group;
use crate::held_up;
use crate::http::HttpHandlers;
use crate::node::Parts;
use crate::transactions;
use crate::transfer::{NotMoved, transfer};

/// The answers of the HTTP port.
pub(crate) fn handlers(parts: &Arc<Parts>) -> HttpHandlers {
    let (for_metrics, for_status, for_ready) = (parts.clone(), parts.clone(), parts.clone());
    let for_transactions = parts.clone();
    let for_transfer = parts.clone();
    HttpHandlers {
        metrics: Box::new(move || {
            if let Some(broker) = for_metrics.broker.get() {
                crate::samples::take(&for_metrics, broker);
            }
            for_metrics.metrics.render()
        }),
        status: Box::new(move || status(&for_status)),
        transactions: Box::new(move || match for_transactions.broker.get() {
            Some(broker) => transactions::open(broker).into(),
            None => json!([]),
        }),
        ready: Box::new(move || ready(&for_ready)),
        transfer: Box::new(move |group, node| {
            let broker = for_transfer.broker.get().cloned();
            Box::pin(async move {
                let starting = || NotMoved::Impossible("the node is starting".to_string());
                let broker = broker.ok_or_else(starting)?;
                transfer(&broker, &group, node).await
            })
        }),
    }
}

fn status(parts: &Parts) -> Value {
    let groups: Vec<Value> = match parts.broker.get() {
        Some(broker) => broker
            .groups
            .iter()
            .map(|group| group_status(group))
            .collect(),
        None => Vec::new(),
    };
    json!({
        "node": parts.config.node,
        "cluster": parts.config.cluster,
        "version": env!("CARGO_PKG_VERSION"),
        "ready": ready(parts).is_ok(),
        "uptime_seconds": parts.started.elapsed().as_secs(),
        "groups": groups,
        "catching_up": catching_up(parts),
    })
}

/// The replicas that this node brings up to date now, and how far they are.
fn catching_up(parts: &Parts) -> Vec<Value> {
    let progress = parts.catch_up.progress().into_iter();
    let progress = progress.map(|((group, node), at)| {
        let name = &parts.config.groups[usize::from(group)].name;
        json!({ "group": name, "node": node, "sent": at.sent, "last": at.last })
    });
    progress.collect()
}

fn group_status(group: &Group) -> Value {
    let status: ReplicaStatus = group.replica.status();
    let replicas: Vec<Value> = status
        .matched
        .iter()
        .map(|(node, matched)| json!({ "node": node, "matched": matched }))
        .collect();
    json!({
        "name": group.name,
        "role": status.role,
        "term": status.leadership.term,
        "leader": status.leadership.leader,
        "ready": status.leadership.ready,
        "last": status.last,
        "committed": status.committed,
        "applied": status.applied,
        "voters": status.voters,
        "learners": status.learners,
        "replicas": replicas,
        "disk_bytes": disk_bytes(group),
        "damage": damage(group),
        "waiting": held_up::waiting(group),
        "refuses_sends": group.disk.refusal(),
    })
}

/// What of the log is damaged, and what was.
fn damage(group: &Group) -> Value {
    let DamageStats {
        holes,
        found,
        mended,
        scrubbed_bytes,
    } = group.log.damage();
    let hole = |hole: &Hole| json!({ "first": hole.first().get(), "last": hole.last.0.get() });
    json!({
        "holes": holes.iter().map(hole).collect::<Vec<_>>(),
        "found": found,
        "mended": mended,
        "scrubbed_bytes": scrubbed_bytes,
    })
}

/// Bytes of log that the replica keeps.
pub(crate) fn disk_bytes(group: &Group) -> u64 {
    let bounds = group.log.bounds();
    bounds.end_offset.get() - bounds.start_offset.get()
}

/// Whether this node serves all of its groups: each has a leader, and this replica is close to it.
fn ready(parts: &Parts) -> Result<(), String> {
    let broker: &Arc<Broker> = parts
        .broker
        .get()
        .ok_or("the groups are not formed or not started yet")?;
    for group in &broker.groups {
        let status = group.replica.status();
        if status.leadership.leader.is_none() {
            return Err(format!("group {} has no leader", group.name));
        }
        if !status.voters.contains(&group.node) {
            return Err(format!("group {}: this replica is catching up", group.name));
        }
        let tables = group.store.tables();
        let own_topics = catalog::system_topics(&parts.config, &group.name);
        if own_topics
            .iter()
            .any(|topic| tables.topic(&topic.name).is_none())
        {
            return Err(format!(
                "group {}: its own topics are being created",
                group.name
            ));
        }
        drop(tables);
        if status.committed.unwrap_or(0) > status.applied.unwrap_or(0) + 1000 {
            return Err(format!(
                "group {}: committed records are being applied",
                group.name
            ));
        }
    }
    Ok(())
}
