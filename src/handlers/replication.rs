//! The replicas of a group as RocketMQ's tools ask for them: 901, 907, 1007.

use std::collections::BTreeMap;

use gantry_protocol::RemotingCommand;
use gantry_protocol::bodies::{Epoch, EpochCache, HaClient, HaConnection, HaStatus};
use gantry_raft::NodeNumber;
use gantry_storage::LogIndex;
use gantry_storage::commitlog::CommitLog;
use gantry_storage::error::ReadError;

use super::Handled;
use crate::broker::Broker;
use crate::catalog;
use crate::group::Group;
use crate::remoting::Request;

/// Terms in one answer to 1007, the newest.
const TERMS_MAX: usize = 256;

/// 901: the nodes of a group of brokers.
pub fn members(broker: &Broker, group: &Group, request: &Request) -> Handled {
    let data = broker.routes.broker(group, request.caller.listener);
    Ok(RemotingCommand::success_to(&request.command)
        .with_body(data.encode_member_group())
        .into())
}

/// 907: how far the followers are, from the leader; from a follower, whom it follows and how far it is.
pub async fn status(broker: &Broker, group: &Group, request: &Request) -> Handled {
    let addresses = addresses(broker, group, request);
    let status = group.replica.status();
    let end = group.log.bounds().end_offset.get() as i64;
    let body = if group.leads() {
        let log = group.log.clone();
        let matched = status.matched.clone();
        let asked = catalog::read_aside(group, move |_| {
            let ends = matched
                .iter()
                .map(|(node, index)| Ok((*node, end_of(&log, *index)?)));
            ends.collect::<Result<Vec<_>, ReadError>>()
        });
        let followers: Vec<HaConnection> = asked
            .await?
            .into_iter()
            .map(|(node, at)| connection(addresses.get(&node), at, end))
            .collect();
        HaStatus {
            in_sync_slave_nums: followers.iter().filter(|one| one.in_sync).count() as i32,
            ha_connection_info: followers,
            master: true,
            master_commit_log_max_offset: end,
            ..HaStatus::default()
        }
    } else {
        let leader = status.leadership.leader;
        let log = group.log.clone();
        let committed = status.committed;
        let agreed = catalog::read_aside(group, move |_| end_of(&log, committed)).await?;
        HaStatus {
            ha_client_runtime_info: HaClient {
                activated: leader.is_some(),
                master_addr: leader
                    .and_then(|leader| addresses.get(&leader).cloned())
                    .unwrap_or_default(),
                master_flush_offset: agreed,
                max_offset: end,
                ..HaClient::default()
            },
            ..HaStatus::default()
        }
    };
    Ok(RemotingCommand::success_to(&request.command)
        .with_body(body.encode())
        .into())
}

fn connection(address: Option<&String>, at: i64, end: i64) -> HaConnection {
    HaConnection {
        addr: address.cloned().unwrap_or_default(),
        diff: (end - at).max(0),
        in_sync: at >= end,
        slave_ack_offset: at,
        // Records go out as they come; what a second brought is in the metrics.
        transferred_byte_in_second: 0,
        transfer_from_where: at,
    }
}

/// Where the nodes of a group are, for clients of the caller's listener.
fn addresses(broker: &Broker, group: &Group, request: &Request) -> BTreeMap<NodeNumber, String> {
    let nodes = &broker.config.listeners[request.caller.listener].nodes;
    let address = |(number, node): (&NodeNumber, &crate::config::ListenerNode)| {
        let port = node.groups[usize::from(group.id)];
        (*number, format!("{}:{port}", node.host))
    };
    nodes.iter().map(address).collect()
}

/// The end of a record in the log, bytes; the start of the log where it is not in it.
fn end_of(log: &CommitLog, index: Option<u64>) -> Result<i64, ReadError> {
    let bounds = log.bounds();
    let in_log = bounds.purged.map_or(0, |(purged, _)| purged.get() + 1);
    let last = bounds.last.map(|(last, _)| last.get());
    match (index, last) {
        (Some(index), Some(last)) if index >= in_log => {
            let index = LogIndex::new(index.min(last));
            let read = log.read(index, index.next(), 1)?;
            let start = bounds.start_offset;
            let end = read.first().map_or(start, |located| located.end_offset());
            Ok(end.get() as i64)
        }
        _ => Ok(bounds.start_offset.get() as i64),
    }
}

/// 1007: the terms in this replica's log, as RocketMQ's epochs.
pub async fn epochs(broker: &Broker, group: &Group, request: &Request) -> Handled {
    let log = group.log.clone();
    let epoch_list = catalog::read_aside(group, move |_| terms(&log)).await?;
    let ids = broker
        .routes
        .broker(group, request.caller.listener)
        .broker_addrs;
    let own = addresses(broker, group, request).remove(&group.node);
    let id = ids
        .iter()
        .find(|(_, address)| Some(*address) == own.as_ref());
    let body = EpochCache {
        broker_id: id.map_or(-1, |(id, _)| *id),
        broker_name: group.name.clone(),
        cluster_name: broker.config.cluster.clone(),
        epoch_list,
        max_offset: group.log.bounds().end_offset.get() as i64,
    };
    Ok(RemotingCommand::success_to(&request.command)
        .with_body(body.encode())
        .into())
}

/// The newest terms in the log, oldest first. Records of a term stand together, so each begins where a search
/// by halves finds it.
fn terms(log: &CommitLog) -> Result<Vec<Epoch>, ReadError> {
    let bounds = log.bounds();
    let first = bounds
        .purged
        .map_or(LogIndex::ZERO, |(purged, _)| purged.next());
    let Some((mut last, _)) = bounds.last.filter(|(last, _)| *last >= first) else {
        return Ok(Vec::new());
    };
    let read = |index: LogIndex| log.read(index, index.next(), 1);
    let mut epochs = Vec::new();
    let mut end_offset = bounds.end_offset;
    while epochs.len() < TERMS_MAX {
        let Some(newest) = read(last)?.into_iter().next() else {
            break;
        };
        let term = newest.record.tag.term;
        let (mut low, mut high) = (first.get(), last.get());
        while low < high {
            let middle = low + (high - low) / 2;
            let found = read(LogIndex::new(middle))?;
            if found
                .first()
                .is_none_or(|found| found.record.tag.term < term)
            {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        let Some(begin) = read(LogIndex::new(low))?.into_iter().next() else {
            break;
        };
        epochs.push(Epoch {
            end_offset: end_offset.get() as i64,
            epoch: term as i64,
            start_offset: begin.offset.get() as i64,
        });
        if low == first.get() {
            break;
        }
        (last, end_offset) = (LogIndex::new(low - 1), begin.offset);
    }
    epochs.reverse();
    Ok(epochs)
}
