//! Which handler answers what only administrators and their tools ask: the rest of the router's match.

use std::sync::Arc;

use gantry_protocol::{RemotingCommand, RequestCode};

use super::request::Request;
use crate::broker::Broker;
use crate::group::Group;
use crate::handlers::{
    Handled, counters, members, permissions, progress, replication, reply, resets, routing, stats,
    unsupported,
};

pub(super) async fn handle(broker: &Arc<Broker>, group: &Arc<Group>, request: &Request) -> Handled {
    match request.code() {
        RequestCode::GET_CONSUMER_RUNNING_INFO => members::running_info(broker, request).await,
        RequestCode::CONSUME_MESSAGE_DIRECTLY => {
            members::consume_directly(broker, group, request).await
        }
        RequestCode::INVOKE_BROKER_TO_GET_CONSUMER_STATUS => {
            members::offsets(broker, request).await
        }
        RequestCode::INVOKE_BROKER_TO_RESET_OFFSET => resets::reset(broker, group, request).await,
        RequestCode::CLONE_GROUP_OFFSET => resets::copy(broker, group, request).await,
        RequestCode::QUERY_CONSUME_QUEUE => progress::queue(broker, group, request).await,
        RequestCode::QUERY_CONSUME_TIME_SPAN => progress::time_span(broker, group, request).await,
        RequestCode::GET_BROKER_CONSUME_STATS => progress::all_groups(broker, group, request).await,
        RequestCode::QUERY_CORRECTION_OFFSET => progress::corrections(group, request).await,
        RequestCode::VIEW_BROKER_STATS_DATA => counters::view(broker, group, request).await,
        RequestCode::GET_ALL_PRODUCER_INFO => counters::producers(broker, request),
        RequestCode::SEND_REPLY_MESSAGE | RequestCode::SEND_REPLY_MESSAGE_V2 => {
            reply::handle(broker, group, request).await
        }
        RequestCode::UPDATE_BROKER_CONFIG => permissions::update_settings(group, request).await,
        RequestCode::WIPE_WRITE_PERM_OF_BROKER => permissions::wipe_write(broker, request).await,
        RequestCode::ADD_WRITE_PERM_OF_BROKER => permissions::add_write(broker, request).await,
        RequestCode::UPDATE_AND_GET_GROUP_FORBIDDEN => permissions::forbidden(group, request).await,
        RequestCode::GET_UNIT_TOPIC_LIST
        | RequestCode::GET_HAS_UNIT_SUB_TOPIC_LIST
        | RequestCode::GET_HAS_UNIT_SUB_UNUNIT_TOPIC_LIST => {
            routing::unit_topics(&broker.routes, request)
        }
        RequestCode::GET_NAMESRV_CONFIG => stats::name_server_config(&broker.config, request),
        RequestCode::UPDATE_NAMESRV_CONFIG => stats::refuse_config(),
        RequestCode::GET_BROKER_MEMBER_GROUP => replication::members(broker, group, request),
        RequestCode::GET_BROKER_HA_STATUS => replication::status(broker, group, request).await,
        RequestCode::GET_BROKER_EPOCH_CACHE => replication::epochs(broker, group, request).await,
        // Retention runs every second, and queues have nothing but what the log has.
        RequestCode::CLEAN_EXPIRED_CONSUMEQUEUE
        | RequestCode::CLEAN_UNUSED_TOPIC
        | RequestCode::DELETE_EXPIRED_COMMITLOG => {
            Ok(RemotingCommand::success_to(&request.command).into())
        }
        code => Err(unsupported::refusal(code)),
    }
}
