//! Single messages: by key (12) and by their place in the log (33).

use std::net::SocketAddrV4;

use bytes::Bytes;
use gantry_protocol::headers::{
    QueryMessageRequest, QueryMessageResponse, ViewMessageRequest, is_unique_key_query,
};
use gantry_protocol::{RemotingCommand, ResponseCode};
use gantry_storage::PhysicalOffset;
use gantry_storage::store::KeyQuery;

use super::{Handled, Response};
use crate::catalog;
use crate::error::Failure;
use crate::group::{Group, HOLD};
use crate::remoting::Request;
use crate::routes::Routes;

/// Messages that one query by key gives at most.
const MESSAGES_MAX: i32 = 64;

/// What RocketMQ's broker gives for a unique key.
const MESSAGES_OF_UNIQUE_KEY: i32 = 32;

/// Bytes of messages in one answer, safely below the limit of a frame.
const ANSWER_BYTES_MAX: usize = 8 * 1024 * 1024;

/// What to look for, free of the request.
#[derive(Clone)]
struct Wanted {
    topic: String,
    key: String,
    max_messages: usize,
    begin_ms: u64,
    end_ms: u64,
}

/// 12: messages that carry a key, newest first.
pub async fn by_key(group: &Group, routes: &Routes, request: &Request) -> Handled {
    let header = QueryMessageRequest::parse(&request.command.fields)?;
    let is_unique = is_unique_key_query(&request.command.fields);
    let wanted = Wanted {
        topic: header.topic.to_string(),
        key: header.key.to_string(),
        max_messages: if is_unique {
            MESSAGES_OF_UNIQUE_KEY as usize
        } else {
            header.max_num.clamp(1, MESSAGES_MAX) as usize
        },
        begin_ms: header.begin_timestamp.max(0) as u64,
        end_ms: header.end_timestamp.max(0) as u64,
    };
    let store_host = store_host(group, routes, request);
    let mut found = find(group, wanted.clone(), store_host).await?;
    if found.is_empty() {
        group.catch_up(request.caller.received + HOLD).await?;
        found = find(group, wanted, store_host).await?;
    }
    let pieces = within(found, ANSWER_BYTES_MAX);
    if pieces.is_empty() {
        let reason = format!("no message of topic {} has that key", header.topic);
        return Err(Failure::code(ResponseCode::QUERY_NOT_FOUND, reason));
    }
    let mut command = RemotingCommand::success_to(&request.command);
    let header = QueryMessageResponse {
        index_last_update_timestamp: group.store.tables().clock_ms() as i64,
        index_last_update_phyoffset: group.log.bounds().end_offset.get() as i64,
    };
    header.write(&mut command.fields);
    Ok(Response { command, pieces })
}

/// 33: the message at an offset of the log, on any node.
pub async fn by_offset(group: &Group, routes: &Routes, request: &Request) -> Handled {
    let header = ViewMessageRequest::parse(&request.command.fields)?;
    let gone = || {
        let reason = format!("there is no message at offset {}", header.offset);
        Failure::code(ResponseCode::SYSTEM_ERROR, reason)
    };
    let offset = PhysicalOffset::new(u64::try_from(header.offset).map_err(|_| gone())?);
    let store_host = store_host(group, routes, request);
    let mut found = catalog::message_at(group, offset, store_host).await?;
    if found.is_none() {
        group.catch_up(request.caller.received + HOLD).await?;
        found = catalog::message_at(group, offset, store_host).await?;
    }
    let message = found.ok_or_else(gone)?;
    Ok(RemotingCommand::success_to(&request.command)
        .with_body(message)
        .into())
}

fn store_host(group: &Group, routes: &Routes, request: &Request) -> SocketAddrV4 {
    routes.store_host(request.caller.listener, request.caller.node, group.id)
}

async fn find(
    group: &Group,
    wanted: Wanted,
    store_host: SocketAddrV4,
) -> Result<Vec<Bytes>, Failure> {
    let looking = catalog::read_aside(group, move |store| {
        store.query_keys(&KeyQuery {
            topic: &wanted.topic,
            key: &wanted.key,
            max_messages: wanted.max_messages,
            begin_ms: wanted.begin_ms,
            end_ms: wanted.end_ms,
            store_host,
        })
    });
    looking.await
}

/// As many of the first messages as fit.
fn within(messages: Vec<Bytes>, bytes_max: usize) -> Vec<Bytes> {
    let mut bytes = 0;
    let fits = |message: &Bytes| {
        bytes += message.len();
        bytes <= bytes_max
    };
    messages.into_iter().take_while(fits).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_ends_before_it_is_too_large() {
        let messages = vec![Bytes::from_static(b"123"), Bytes::from_static(b"45")];
        assert_eq!(within(messages.clone(), 5).len(), 2);
        assert_eq!(within(messages.clone(), 4).len(), 1);
        assert_eq!(within(messages, 2).len(), 0);
    }
}
