//! Requests of ours to clients, through whichever node holds the client's connection. Which node that
//! is comes from the shared table of sessions; the client's answer is relayed.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use gantry_protocol::{RemotingCommand, ResponseCode, frame};
use gantry_raft::NodeNumber;
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, timeout_at};

use crate::broker::Broker;
use crate::error::Failure;
use crate::peer_calls::{Method, decode_raw_reply, encode_raw_reply};
use crate::sessions::Whom;

/// How much longer than the client the node that it is connected to is waited for.
const RELAY_ALLOWANCE: Duration = Duration::from_millis(500);

/// What the other node is told of a request, before its frame.
#[derive(Serialize, Deserialize)]
struct CallHead {
    whom: Whom,
    /// How long the client's answer is waited for.
    patience_ms: u32,
}

/// Why there is no answer, at one node.
enum Miss {
    /// The client is not connected to it.
    NotThere,
    /// The client had the request, and `patience` is over.
    Silent,
}

impl From<(&Whom, Miss)> for Failure {
    fn from((whom, miss): (&Whom, Miss)) -> Failure {
        let client = &whom.client_id;
        let role = match &whom.consumer_group {
            Some(group) => format!("consumer {client} of group {group}"),
            None => format!("producer {client}"),
        };
        match miss {
            Miss::NotThere => {
                Failure::code(ResponseCode::SYSTEM_ERROR, format!("{role} is not online"))
            }
            Miss::Silent => Failure::code(
                ResponseCode::CONSUME_MSG_TIMEOUT,
                format!("{role} did not answer in time"),
            ),
        }
    }
}

/// Asks a client, wherever it is connected, and waits for its answer. Code 1 if it is nowhere, 207 if it does
/// not answer in time.
///
/// A client that had the request once is not asked again: what it does may not be doable twice.
pub async fn ask(
    broker: &Broker,
    whom: &Whom,
    request: &RemotingCommand,
    patience: Duration,
) -> Result<RemotingCommand, Failure> {
    match ask_here(broker, whom, request, patience).await {
        Ok(answer) => return Ok(answer),
        Err(Miss::Silent) => return Err((whom, Miss::Silent).into()),
        Err(Miss::NotThere) => {}
    }
    for node in broker.sessions.nodes_with(whom) {
        match ask_at(broker, node, (whom, request), patience).await {
            Err(Failure::Code(ResponseCode::CONSUMER_NOT_ONLINE, _) | Failure::NotLeader) => {}
            Err(Failure::Unsettled) => return Err((whom, Miss::Silent).into()),
            settled => return settled,
        }
    }
    Err((whom, Miss::NotThere).into())
}

/// Sends a client a request that wants no answer, wherever it is connected. Whether it arrives is not known.
pub async fn tell(broker: &Broker, whom: &Whom, notice: &RemotingCommand) {
    if let Some(channel) = broker.sessions.channel_of(whom) {
        return channel.notify(notice.clone());
    }
    let notice = notice.clone().into_oneway();
    for node in broker.sessions.nodes_with(whom) {
        match ask_at(broker, node, (whom, &notice), Duration::ZERO).await {
            Ok(_) => return,
            Err(error) => {
                let client = &whom.client_id;
                tracing::debug!(node, client, %error, "a client was not told through this node");
            }
        }
    }
}

/// Asks a client of this node.
async fn ask_here(
    broker: &Broker,
    whom: &Whom,
    request: &RemotingCommand,
    patience: Duration,
) -> Result<RemotingCommand, Miss> {
    let channel = broker.sessions.channel_of(whom).ok_or(Miss::NotThere)?;
    let answer = channel.call(request.clone());
    match timeout_at(Instant::now() + patience, answer).await {
        Ok(Ok(answer)) => Ok(answer),
        // The connection ended under the request: it may have been carried out.
        Ok(Err(_)) | Err(_) => Err(Miss::Silent),
    }
}

/// Asks a client of another node. Code 206 if that node does not have it either.
async fn ask_at(
    broker: &Broker,
    node: NodeNumber,
    (whom, request): (&Whom, &RemotingCommand),
    patience: Duration,
) -> Result<RemotingCommand, Failure> {
    let head = CallHead {
        whom: whom.clone(),
        patience_ms: patience.as_millis() as u32,
    };
    let encoded = bincode::serialize(&head).expect("plain fields always encode");
    let mut bytes = BytesMut::new();
    bytes.extend_from_slice(&(encoded.len() as u32).to_le_bytes());
    bytes.extend_from_slice(&encoded);
    let body = request.body.clone();
    let fits = request.encode_head_into(&mut bytes, body.len());
    fits.map_err(|error| Failure::code(ResponseCode::SYSTEM_ERROR, error.to_string()))?;
    let deadline = Instant::now() + patience + RELAY_ALLOWANCE;
    let method = (0, Method::ClientCall as u8);
    let call = broker
        .peers
        .call(node, method, vec![bytes.freeze(), body], deadline);
    let raw = decode_raw_reply(&call.await?)?;
    if raw.is_empty() && request.is_oneway() {
        return Ok(RemotingCommand::success_to(request));
    }
    let garbled = |reason: String| Failure::code(ResponseCode::SYSTEM_ERROR, reason);
    decode_frame(raw).map_err(garbled)
}

/// Another node's request to a client of this one; gives the reply to that node, or what is wrong with it.
pub async fn accept(broker: &Broker, body: Bytes) -> Result<Vec<Bytes>, String> {
    let (head, request) = decode(body)?;
    let not_here = || {
        let reason = "the client is not connected to this node";
        encode_raw_reply(Err(Failure::code(
            ResponseCode::CONSUMER_NOT_ONLINE,
            reason,
        )))
    };
    if request.is_oneway() {
        let Some(channel) = broker.sessions.channel_of(&head.whom) else {
            return Ok(not_here());
        };
        channel.notify(request);
        return Ok(encode_raw_reply(Ok(Vec::new())));
    }
    let patience = Duration::from_millis(u64::from(head.patience_ms));
    match ask_here(broker, &head.whom, &request, patience).await {
        Ok(answer) => {
            let mut frame = BytesMut::new();
            let body = answer.body.clone();
            answer
                .encode_head_into(&mut frame, body.len())
                .map_err(|error| error.to_string())?;
            Ok(encode_raw_reply(Ok(vec![frame.freeze(), body])))
        }
        Err(Miss::NotThere) => Ok(not_here()),
        Err(Miss::Silent) => Ok(encode_raw_reply(Err((&head.whom, Miss::Silent).into()))),
    }
}

fn decode(mut body: Bytes) -> Result<(CallHead, RemotingCommand), String> {
    let length = body.split_first_chunk::<4>().map(|(length, _)| *length);
    let length = u32::from_le_bytes(length.ok_or("a call to a client without a head")?) as usize;
    if body.len() - 4 < length {
        return Err("a call to a client is cut short".to_string());
    }
    let head = body.split_to(4 + length);
    let head: CallHead = bincode::deserialize(&head[4..]).map_err(|error| error.to_string())?;
    Ok((head, decode_frame(body)?))
}

fn decode_frame(bytes: Bytes) -> Result<RemotingCommand, String> {
    let mut buffer = BytesMut::from(bytes);
    let cut = frame::cut(&mut buffer).map_err(|error| error.to_string())?;
    let cut = cut.ok_or("a relayed frame is cut short")?;
    RemotingCommand::decode(cut).map_err(|error| error.to_string())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use gantry_protocol::RequestCode;

    use super::*;

    #[test]
    fn calls_survive_the_way_between_nodes_and_damaged_ones_are_refused() {
        let head = CallHead {
            whom: Whom {
                client_id: "c".into(),
                consumer_group: Some("g".into()),
            },
            patience_ms: 5,
        };
        let encoded = bincode::serialize(&head).unwrap();
        let mut bytes = BytesMut::new();
        bytes.extend_from_slice(&(encoded.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&encoded);
        let request = RemotingCommand::request(RequestCode::GET_CONSUMER_RUNNING_INFO, 1);
        request.with_body("body").encode_into(&mut bytes).unwrap();
        let whole = bytes.freeze();
        let (back, request) = decode(whole.clone()).unwrap();
        assert_eq!((back.whom, back.patience_ms), (head.whom, 5));
        assert_eq!(request.body, "body");
        for length in 0..whole.len() {
            assert!(decode(whole.slice(..length)).is_err(), "{length} bytes");
        }
    }
}
