//! Sends that reach a node which does not lead the group go on to the leader from here, and wait
//! here while there is none (`design.md` D9): a stale route costs a hop, not an error.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use gantry_protocol::{RemotingCommand, RequestCode, frame};
use gantry_raft::{BoxFuture, GroupId, NodeNumber};
use gantry_storage::planted::{Bug, planted};
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::broker::Broker;
use crate::error::Failure;
use crate::group::{Group, HOLD, wait_for_change};
use crate::peer_calls::{Method, decode_raw_reply};
use crate::remoting::{Answer, Caller, Relayed, Request};

/// Sent-back messages have a longer time: their clients wait 5 s.
const HOLD_SEND_BACK: Duration = Duration::from_secs(4);

/// What the leader is told of a forwarded request, before its frame.
#[derive(Serialize, Deserialize)]
struct ForwardHead {
    listener: u16,
    port_group: Option<GroupId>,
    peer: SocketAddr,
    /// Time left until the client gives up.
    remaining_ms: u32,
}

/// How long a request may be held, from the moment it was read.
pub fn hold_budget(code: RequestCode) -> Duration {
    if code == RequestCode::CONSUMER_SEND_MSG_BACK {
        HOLD_SEND_BACK
    } else {
        HOLD
    }
}

/// Takes a request to the leader, wherever that is or comes to be. `submit` writes it on this node
/// and is called when this node leads; it takes over the request.
pub async fn relay(group: Arc<Group>, request: Request, submit: impl FnOnce(Request)) {
    let deadline = request.caller.received + hold_budget(request.code());
    let mut leadership = group.replica.leadership();
    let mut held = None;
    loop {
        let now = *leadership.borrow_and_update();
        if group.leads() && Instant::now() < deadline {
            drop(held);
            return submit(request);
        }
        if let Some(leader) = now.leader.filter(|leader| *leader != group.node) {
            match forward(&group, leader, &request, deadline).await {
                Ok(frame) => return request.reply_encoded(frame),
                Err(Failure::NotLeader) => {}
                Err(Failure::Unsettled) if planted(Bug::SentTwice) => {}
                Err(failure) => {
                    group.metrics.refused(&failure);
                    let response = failure.to_response(&request.command);
                    return request.reply(response);
                }
            }
        }
        held.get_or_insert_with(|| group.metrics.hold());
        if !wait_for_change(&mut leadership, deadline).await {
            group.metrics.refused(&Failure::NoLeader);
            let response = Failure::NoLeader.to_response(&request.command);
            return request.reply(response);
        }
    }
}

/// What only the leader does with a request, until a deadline. [`Failure::NotLeader`] means that nothing was
/// done.
pub type LeadersWork = for<'a> fn(
    &'a Broker,
    &'a Arc<Group>,
    &'a Request,
    Instant,
) -> BoxFuture<'a, Result<(), Failure>>;

/// Has a request done by the leader, wherever that is or comes to be, and answers it: with nothing but
/// success, or with the reason why not.
pub fn at_leader(
    broker: Arc<Broker>,
    group: Arc<Group>,
    request: Request,
    work: LeadersWork,
) -> BoxFuture<'static, ()> {
    Box::pin(async move {
        let deadline = request.caller.received + hold_budget(request.code());
        while group.leads() {
            match work(&broker, &group, &request, deadline).await {
                Ok(()) => return request.reply_ok(),
                Err(Failure::NotLeader) if Instant::now() < deadline => {
                    pause_after_refusal(&group, &request).await;
                }
                Err(failure) => {
                    group.metrics.refused(&failure);
                    let response = failure.to_response(&request.command);
                    return request.reply(response);
                }
            }
        }
        let Some(request) = request.refuse_if_forwarded() else {
            return;
        };
        let again = {
            let group = group.clone();
            move |request| drop(tokio::spawn(at_leader(broker, group, request, work)))
        };
        relay(group, request, again).await;
    })
}

/// Returns when it may help to try a request again that this node took for its leader and could not write:
/// a leader that does not hear from the others any more is one for a while yet, and refuses everything.
pub async fn pause_after_refusal(group: &Group, request: &Request) {
    let deadline = request.caller.received + hold_budget(request.code());
    let mut leadership = group.replica.leadership();
    leadership.mark_unchanged();
    wait_for_change(&mut leadership, deadline).await;
}

/// Hands a request to the leader; gives the encoded answer.
async fn forward(
    group: &Group,
    leader: NodeNumber,
    request: &Request,
    deadline: Instant,
) -> Result<Bytes, Failure> {
    let remaining = deadline.saturating_duration_since(Instant::now());
    let head = ForwardHead {
        listener: request.caller.listener as u16,
        port_group: request.caller.port_group,
        peer: request.caller.peer,
        remaining_ms: remaining.as_millis() as u32,
    };
    let mut bytes = BytesMut::new();
    let encoded = bincode::serialize(&head).expect("plain fields always encode");
    bytes.extend_from_slice(&(encoded.len() as u16).to_le_bytes());
    bytes.extend_from_slice(&encoded);
    let body = request.command.body.clone();
    request
        .command
        .encode_head_into(&mut bytes, body.len())
        .map_err(|error| {
            Failure::code(
                gantry_protocol::ResponseCode::MESSAGE_ILLEGAL,
                error.to_string(),
            )
        })?;
    group.metrics.forwarded.inc();
    let method = (group.id, Method::Forward as u8);
    let call = group
        .peers
        .call(leader, method, vec![bytes.freeze(), body], deadline);
    decode_raw_reply(&call.await?)
}

/// A forwarded request as the leader sees it, and where its answer will come out. Both nodes have the same
/// `listeners`, or one is configured wrong.
pub fn accept(
    from: NodeNumber,
    listeners: usize,
    mut body: Bytes,
) -> Result<(Request, oneshot::Receiver<Relayed>), String> {
    let length = body
        .split_first_chunk::<2>()
        .map(|(length, _)| u16::from_le_bytes(*length));
    let length = usize::from(length.ok_or("a forwarded request without a head")?);
    if body.len() < 2 + length {
        return Err("a forwarded request is cut short".to_string());
    }
    let head = body.split_to(2 + length);
    let head: ForwardHead = bincode::deserialize(&head[2..]).map_err(|e| e.to_string())?;
    if usize::from(head.listener) >= listeners {
        return Err("a forwarded request of a listener that this node does not have".to_string());
    }
    let mut buffer = BytesMut::from(body);
    let cut = frame::cut(&mut buffer).map_err(|e| e.to_string())?;
    let command = RemotingCommand::decode(cut.ok_or("a forwarded frame is cut short")?);
    let command = command.map_err(|e| e.to_string())?;
    let remaining = Duration::from_millis(u64::from(head.remaining_ms));
    // The deadline is what counts here: it is the time of receipt plus the budget of the code.
    let budget = hold_budget(command.request_code());
    let now = Instant::now();
    let received = (now + remaining).checked_sub(budget).unwrap_or(now);
    let caller = Caller {
        node: from,
        listener: usize::from(head.listener),
        port_group: head.port_group,
        peer: head.peer,
        received,
    };
    let (tell, answer) = oneshot::channel();
    Ok((
        Request {
            command,
            caller,
            answer: Answer::Forwarder(tell),
        },
        answer,
    ))
}
