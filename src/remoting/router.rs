//! Which handler answers which code: one match.

use std::sync::Arc;

use gantry_protocol::RequestCode;

use super::channel::Channel;
use super::request::Request;
use super::tools;
use crate::broker::Broker;
use crate::group::Group;
use crate::handlers::{
    Handled, assignment, end_transaction, groups, heartbeat, kv, leases, locks, offsets, pop,
    pop_status, pull, query, recall, routing, send, send_back, stats, topics,
};
use crate::metrics::Metrics;

/// The door through which every request of every port comes in.
pub struct Router {
    broker: Arc<Broker>,
}

impl Router {
    /// A router to the parts of `broker`.
    pub fn new(broker: Arc<Broker>) -> Self {
        Router { broker }
    }

    /// The parts that requests are answered from.
    pub fn broker(&self) -> &Arc<Broker> {
        &self.broker
    }

    /// What is measured.
    pub fn metrics(&self) -> &Metrics {
        &self.broker.metrics
    }

    /// A client's connection has ended.
    pub fn disconnected(&self, channel: &Channel) {
        self.broker.sessions.disconnected(channel.id);
    }

    /// Takes a request; it is answered later, from wherever its outcome becomes known. Waits only
    /// while a send has no room, so that the client's connection is not read meanwhile.
    pub async fn dispatch(&self, request: Request) {
        let group = self.broker.group_of(&request.command, &request.caller);
        self.dispatch_to(group, request).await;
    }

    /// The same for a group that another node has found out.
    pub async fn dispatch_to(&self, group: &Arc<Group>, request: Request) {
        let group = group.clone();
        match request.code() {
            RequestCode::SEND_MESSAGE
            | RequestCode::SEND_MESSAGE_V2
            | RequestCode::SEND_BATCH_MESSAGE => {
                send::handle(&self.broker, &group, request).await;
            }
            RequestCode::CONSUMER_SEND_MSG_BACK => {
                tokio::spawn(send_back::handle(self.broker.clone(), group, request));
            }
            RequestCode::END_TRANSACTION | RequestCode::RESUME_CHECK_HALF_MESSAGE => {
                tokio::spawn(end_transaction::handle(self.broker.clone(), group, request));
            }
            RequestCode::UPDATE_CONSUMER_OFFSET if request.command.is_oneway() => {
                // In the order in which they came, and without a task.
                if let Err(failure) = offsets::note(&group, &request) {
                    tracing::debug!(%failure, "an offset was not noted");
                }
            }
            RequestCode::HEART_BEAT => {
                // The session must stand before the next request of the connection is looked at.
                let handled = heartbeat::heartbeat(&self.broker, &request).await;
                finish(&group, request, handled);
            }
            _ => {
                let broker = self.broker.clone();
                tokio::spawn(async move {
                    let handled = handle(&broker, &group, &request).await;
                    finish(&group, request, handled);
                });
            }
        }
    }
}

fn finish(group: &Group, request: Request, handled: Handled) {
    match handled {
        Ok(response) => request.reply_with(response.command, &response.pieces),
        Err(failure) => {
            group.metrics.refused(&failure);
            let response = failure.to_response(&request.command);
            request.reply(response);
        }
    }
}

async fn handle(broker: &Arc<Broker>, group: &Arc<Group>, request: &Request) -> Handled {
    let (sessions, routes, config) = (&broker.sessions, &broker.routes, &broker.config);
    match request.code() {
        RequestCode::PULL_MESSAGE | RequestCode::LITE_PULL_MESSAGE => {
            pull::handle(broker, group, request).await
        }
        RequestCode::UNREGISTER_CLIENT => heartbeat::unregister(sessions, request),
        RequestCode::GET_CONSUMER_LIST_BY_GROUP => heartbeat::members(sessions, request).await,
        RequestCode::CHECK_CLIENT_CONFIG => heartbeat::check_subscription(&broker.filters, request),
        RequestCode::GET_ROUTEINFO_BY_TOPIC => routing::route(routes, request).await,
        RequestCode::GET_BROKER_CLUSTER_INFO => routing::cluster(routes, request),
        RequestCode::GET_ALL_TOPIC_LIST_FROM_NAMESERVER => routing::all_topics(routes, request),
        RequestCode::GET_TOPICS_BY_CLUSTER => routing::topics_of_cluster(routes, request),
        RequestCode::GET_SYSTEM_TOPIC_LIST_FROM_NS => routing::system_topics(routes, request),
        RequestCode::QUERY_CONSUMER_OFFSET => offsets::query(group, &config.broker, request).await,
        RequestCode::UPDATE_CONSUMER_OFFSET => {
            offsets::update(group, &config.broker, request).await
        }
        RequestCode::SEARCH_OFFSET_BY_TIMESTAMP => offsets::search(group, request).await,
        RequestCode::GET_MAX_OFFSET => offsets::max(group, request).await,
        RequestCode::GET_MIN_OFFSET => offsets::min(group, request).await,
        RequestCode::GET_EARLIEST_MSG_STORETIME => offsets::earliest_time(group, request).await,
        RequestCode::LOCK_BATCH_MQ => locks::lock(group, request).await,
        RequestCode::UNLOCK_BATCH_MQ => locks::unlock(group, request).await,
        RequestCode::QUERY_MESSAGE => query::by_key(group, routes, request).await,
        RequestCode::RECALL_MESSAGE => recall::recall(group, request).await,
        RequestCode::VIEW_MESSAGE_BY_ID => query::by_offset(group, routes, request).await,
        _ => hand_out(broker, group, request).await,
    }
}

/// What consumers ask that pop.
async fn hand_out(broker: &Arc<Broker>, group: &Arc<Group>, request: &Request) -> Handled {
    match request.code() {
        RequestCode::POP_MESSAGE => pop::handle(broker, group, request).await,
        RequestCode::ACK_MESSAGE => leases::ack(broker, group, request).await,
        RequestCode::BATCH_ACK_MESSAGE => leases::ack_batch(broker, group, request).await,
        RequestCode::CHANGE_MESSAGE_INVISIBLETIME => {
            leases::change_invisible(broker, group, request).await
        }
        RequestCode::NOTIFICATION => pop_status::notification(broker, group, request).await,
        RequestCode::PEEK_MESSAGE => pop_status::peek(broker, group, request).await,
        RequestCode::POLLING_INFO => pop_status::polling_info(group, request).await,
        RequestCode::QUERY_ASSIGNMENT => assignment::query(broker, group, request),
        RequestCode::SET_MESSAGE_REQUEST_MODE => assignment::set_mode(group, request).await,
        RequestCode::GET_ALL_MESSAGE_REQUEST_MODE => assignment::all_modes(group, request).await,
        _ => administer(broker, group, request).await,
    }
}

/// What administrators and their tools ask.
async fn administer(broker: &Arc<Broker>, group: &Arc<Group>, request: &Request) -> Handled {
    let (sessions, config) = (&broker.sessions, &broker.config);
    match request.code() {
        RequestCode::UPDATE_AND_CREATE_TOPIC => topics::create(group, config, request).await,
        RequestCode::UPDATE_AND_CREATE_TOPIC_LIST => {
            topics::create_list(group, config, request).await
        }
        RequestCode::DELETE_TOPIC_IN_BROKER => topics::delete(group, config, request).await,
        RequestCode::DELETE_TOPIC_IN_NAMESRV | RequestCode::REGISTER_TOPIC_IN_NAMESRV => {
            topics::nothing_to_do(request)
        }
        RequestCode::GET_ALL_TOPIC_CONFIG => topics::all(group, request).await,
        RequestCode::GET_TOPIC_CONFIG => topics::get(group, request).await,
        RequestCode::QUERY_TOPIC_CONSUME_BY_WHO => topics::consumed_by(group, sessions, request),
        RequestCode::QUERY_TOPICS_BY_CONSUMER => topics::of_group(group, request),
        RequestCode::GET_SYSTEM_TOPIC_LIST_FROM_BROKER => topics::system(group, config, request),
        RequestCode::UPDATE_AND_CREATE_SUBSCRIPTIONGROUP => groups::update(group, request).await,
        RequestCode::UPDATE_AND_CREATE_SUBSCRIPTIONGROUP_LIST => {
            groups::update_list(group, request).await
        }
        RequestCode::DELETE_SUBSCRIPTIONGROUP => groups::delete(group, request).await,
        RequestCode::GET_ALL_SUBSCRIPTIONGROUP_CONFIG => groups::all(group, request).await,
        RequestCode::GET_SUBSCRIPTIONGROUP_CONFIG => groups::get(group, request).await,
        RequestCode::QUERY_SUBSCRIPTION_BY_CONSUMER => groups::subscription(sessions, request),
        RequestCode::PUT_KV_CONFIG => kv::put(&broker.groups[0], request).await,
        RequestCode::GET_KV_CONFIG => kv::get(&broker.groups[0], request).await,
        RequestCode::DELETE_KV_CONFIG => kv::delete(&broker.groups[0], request).await,
        RequestCode::GET_KVLIST_BY_NAMESPACE => kv::list(&broker.groups[0], request).await,
        RequestCode::GET_TOPIC_STATS_INFO => stats::topic_stats(broker, group, request).await,
        RequestCode::GET_CONSUME_STATS => stats::consume_stats(broker, group, request).await,
        RequestCode::GET_CONSUMER_CONNECTION_LIST => stats::consumer_connections(sessions, request),
        RequestCode::GET_PRODUCER_CONNECTION_LIST => stats::producer_connections(sessions, request),
        RequestCode::GET_BROKER_RUNTIME_INFO => stats::runtime_info(group, broker, request).await,
        RequestCode::GET_BROKER_CONFIG => stats::broker_config(group, config, request),
        _ => tools::handle(broker, group, request).await,
    }
}
