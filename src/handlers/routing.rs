//! The name server's answers about routes and topics: 105, 106, 206, 224, 304, 311 to 313.

use std::collections::BTreeSet;

use gantry_protocol::bodies::TopicList;
use gantry_protocol::headers::{RouteRequest, TopicsByClusterRequest};
use gantry_protocol::json::Dialect;
use gantry_protocol::version::route_keys_are_quoted;
use gantry_protocol::{RemotingCommand, RequestCode, topic as names};

use super::Handled;
use crate::catalog;
use crate::group::HOLD;
use crate::remoting::Request;
use crate::routes::Routes;

/// 105: where a topic's queues are.
pub async fn route(routes: &Routes, request: &Request) -> Handled {
    let header = RouteRequest::parse(&request.command.fields)?;
    // A name that no topic can have needs no look at the current state.
    names::check_topic(header.topic).map_err(|_| catalog::no_topic(header.topic))?;
    let deadline = request.caller.received + HOLD;
    let route = routes
        .topic_route(header.topic, request.caller.listener, deadline)
        .await?;
    let route = route.ok_or_else(|| catalog::no_topic(header.topic))?;
    let asked_for_standard_json = header.accept_standard_json_only.unwrap_or(false);
    let quoted = route_keys_are_quoted(request.command.version, asked_for_standard_json);
    let dialect = if quoted {
        Dialect::Quoted
    } else {
        Dialect::Unquoted
    };
    Ok(RemotingCommand::success_to(&request.command)
        .with_body(route.encode(dialect))
        .into())
}

/// 106: all groups of brokers and their addresses.
pub fn cluster(routes: &Routes, request: &Request) -> Handled {
    let body = routes
        .cluster_info(request.caller.listener)
        .encode(Dialect::Unquoted);
    Ok(RemotingCommand::success_to(&request.command)
        .with_body(body)
        .into())
}

/// 206: all topics.
pub fn all_topics(routes: &Routes, request: &Request) -> Handled {
    topic_list(request, routes.topic_names().into_iter().collect(), None)
}

/// 224: the topics of a cluster; there is one.
pub fn topics_of_cluster(routes: &Routes, request: &Request) -> Handled {
    let header = TopicsByClusterRequest::parse(&request.command.fields)?;
    let ours = header.cluster == routes.config().cluster;
    let names = if ours {
        routes.topic_names().into_iter().collect()
    } else {
        Vec::new()
    };
    topic_list(request, names, None)
}

/// 304: the topics that name the cluster and its groups of brokers, and the address of a broker to ask
/// for the others.
pub fn system_topics(routes: &Routes, request: &Request) -> Handled {
    let config = routes.config();
    let mut names = vec![config.cluster.clone()];
    names.extend(config.groups.iter().map(|group| group.name.clone()));
    names.dedup();
    let mut broker = routes.broker(&routes.groups()[0], request.caller.listener);
    topic_list(request, names, broker.broker_addrs.remove(&0))
}

/// Bits of a topic's flags: it is a unit's own; units subscribe to it.
const UNIT: u32 = 1;
const UNIT_SUB: u32 = 2;

/// 311 to 313: topics of units, as their flags say.
pub fn unit_topics(routes: &Routes, request: &Request) -> Handled {
    let code = request.code();
    let wanted = |flag: u32| match code {
        RequestCode::GET_UNIT_TOPIC_LIST => flag & UNIT != 0,
        RequestCode::GET_HAS_UNIT_SUB_TOPIC_LIST => flag & UNIT_SUB != 0,
        _ => flag & (UNIT | UNIT_SUB) == UNIT_SUB,
    };
    let mut names = BTreeSet::new();
    for group in routes.groups() {
        let tables = group.store.tables();
        let matching = tables
            .topics()
            .filter(|topic| wanted(topic.config.sys_flag));
        names.extend(matching.map(|topic| topic.config.name.clone()));
    }
    topic_list(request, names.into_iter().collect(), None)
}

fn topic_list(request: &Request, topic_list: Vec<String>, broker_addr: Option<String>) -> Handled {
    let body = TopicList {
        broker_addr,
        topic_list,
    }
    .encode();
    Ok(RemotingCommand::success_to(&request.command)
        .with_body(body)
        .into())
}
