//! What other nodes ask of this one, answered.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use gantry_raft::{BoxFuture, CallHandler, GroupId, NodeNumber};

use crate::client_calls;
use crate::error::Failure;
use crate::forward;
use crate::peer_calls::{Method, encode_raw_reply, encode_reply};
use crate::remoting::{Relayed, Router};
use crate::statistics;
use crate::transactions;
use crate::transfer;

/// Answers what other nodes ask, once this node has started.
pub(crate) fn call_handler(router: Arc<OnceLock<Arc<Router>>>) -> CallHandler {
    Arc::new(move |from, group, method, body| {
        let router = router.get().cloned();
        let answer: BoxFuture<'static, Result<Vec<Bytes>, String>> = Box::pin(async move {
            let router = router.ok_or("the node is starting")?;
            let method = Method::from_byte(method).ok_or("an unknown method")?;
            answer_call(&router, from, group, (method, body)).await
        });
        answer
    })
}

async fn answer_call(
    router: &Arc<Router>,
    from: NodeNumber,
    group: GroupId,
    (method, body): (Method, Bytes),
) -> Result<Vec<Bytes>, String> {
    let broker = router.broker();
    let hosted = broker
        .groups
        .get(usize::from(group))
        .ok_or("an unknown group")?;
    match method {
        Method::Execute => {
            let commands = gantry_storage::tables::decode_commands(&body);
            let commands = commands.map_err(|error| error.to_string())?;
            Ok(encode_reply(&hosted.appender.execute(commands).await))
        }
        Method::ReadIndex => Ok(encode_reply(&hosted.read_index().await)),
        Method::Forward => {
            let (request, answer) = forward::accept(from, broker.config.listeners.len(), body)?;
            router.dispatch_to(hosted, request).await;
            Ok(match answer.await {
                Ok(Relayed::Frame(frame)) => encode_raw_reply(Ok(frame)),
                Ok(Relayed::NotLeader) => encode_raw_reply(Err(Failure::NotLeader)),
                Err(_) => encode_raw_reply(Err(Failure::Unsettled)),
            })
        }
        Method::Sessions => broker.sessions.merge(from, &body),
        Method::Leaving => {
            for group in &broker.groups {
                group.replica.node_is_leaving(from);
            }
            Ok(encode_raw_reply(Ok(Vec::new())))
        }
        Method::AskProducer => Ok(encode_reply(&Ok(transactions::ask_here(
            broker, hosted, &body,
        )?))),
        Method::Prefer => {
            let node = body.first_chunk::<2>().ok_or("no node is named")?;
            transfer::prefer(hosted, NodeNumber::from_le_bytes(*node)).await;
            Ok(encode_raw_reply(Ok(Vec::new())))
        }
        Method::ClientCall => client_calls::accept(broker, body).await,
        Method::Counters => statistics::answer(broker, hosted, &body),
    }
}
