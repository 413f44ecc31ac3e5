//! Transactions: half messages that are committed, rolled back, or left open until somebody asks.

use std::collections::BTreeMap;
use std::time::Duration;

use gantry_checker::{Answer, Note, Request};
use gantry_protocol::bodies::{Heartbeat, ProducerData};
use gantry_protocol::headers::{CheckTransactionRequest, EndTransactionRequest};
use gantry_protocol::message::{Message, sys_flags};
use gantry_protocol::properties::names;
use gantry_protocol::{RemotingCommand, RequestCode, ResponseCode};
use tokio::time::Instant;

use super::{Client, Stage, consumers, queue, request, timed};
use crate::cluster::{NODES, Trouble};
use crate::steps::Step;

const GROUP: &str = "dealers";
const LIMIT: Duration = Duration::from_secs(3);
const HEARTBEAT: Duration = Duration::from_secs(1);

/// A half message, and where it waits.
struct Half {
    id: u64,
    offset: i64,
    physical: i64,
    /// Somebody has asked.
    asked: bool,
}

/// How often somebody must ask about an open message before there is an answer.
fn questions(id: u64) -> u32 {
    1 + (id % 3) as u32
}

/// Whether a message that was left open is committed in the end.
fn is_committed(id: u64) -> bool {
    id % 5 < 3
}

/// Sends half messages and ends them, and answers those who ask about them. Afterwards waits until nothing is
/// open.
pub(super) async fn run(mut client: Client) {
    let mut open: BTreeMap<u64, u32> = BTreeMap::new();
    let mut heartbeat_at = Instant::now();
    let mut drains_until = None;
    loop {
        match client.stage() {
            Stage::Load => {}
            Stage::Drain => {
                // A clock that was set back stands still for whoever waits.
                let clocks = client.around.shape.troubles.contains(&Trouble::Clock);
                let limit = Duration::from_secs(if clocks { 3 } else { 30 });
                let until = *drains_until.get_or_insert(Instant::now() + limit);
                if open.is_empty() || Instant::now() > until {
                    return;
                }
            }
            Stage::Over => return,
        }
        if Instant::now() >= heartbeat_at {
            heartbeat_at = Instant::now() + HEARTBEAT;
            heartbeat(&mut client).await;
        }
        if client.stage() == Stage::Load && client.rng.per_mille(500) {
            deal(&mut client, &mut open).await;
        }
        for node in NODES {
            let limit = Duration::from_millis(client.rng.between(20, 100));
            let link = client
                .links
                .get_mut(&node)
                .expect("there is a link to each node");
            for question in link.listen(limit).await {
                answer(&mut client, &mut open, &question).await;
            }
        }
    }
}

async fn heartbeat(client: &mut Client) {
    let producer = ProducerData {
        group_name: GROUP.to_string(),
    };
    let beat = Heartbeat {
        client_id: client.name.clone(),
        producer_data_set: vec![producer],
        ..Heartbeat::default()
    };
    let body = serde_json::to_vec(&beat).expect("a heartbeat is plain data");
    for node in NODES {
        let asked = request(RequestCode::HEART_BEAT, |_| {}).with_body(body.clone());
        // One that is not there hears the next one.
        drop(client.call(node, asked, Duration::from_millis(200)).await);
    }
}

/// One transaction.
async fn deal(client: &mut Client, open: &mut BTreeMap<u64, u32>) {
    let to = queue(timed::TOPIC, client.rng.below(2) as u16);
    let properties = [
        (names::TRANSACTION_PREPARED, "true"),
        (names::PRODUCER_GROUP, GROUP),
    ];
    client.around.steps.take(Step::Half);
    let Some(sent) = client.send_waiting(&to, (true, None), &properties).await else {
        return;
    };
    open.insert(sent.id, 0);
    let half = Half {
        id: sent.id,
        offset: sent.offset as i64,
        physical: sent.physical as i64,
        asked: false,
    };
    let commit = match client.rng.below(10) {
        0..4 => true,
        4..6 => false,
        _ => return,
    };
    client.pause(0, 300).await;
    // If nothing came of it, somebody will ask.
    open.remove(&half.id);
    end(client, &half, commit).await;
}

/// Ends a transaction.
async fn end(client: &mut Client, half: &Half, commit: bool) {
    let header = EndTransactionRequest {
        producer_group: GROUP,
        tran_state_table_offset: half.offset,
        commit_log_offset: half.physical,
        commit_or_rollback: match commit {
            true => sys_flags::TRANSACTION_COMMIT,
            false => sys_flags::TRANSACTION_ROLLBACK,
        },
        from_transaction_check: Some(half.asked),
        ..EndTransactionRequest::default()
    };
    let node = client.node();
    let asked = request(RequestCode::END_TRANSACTION, |fields| header.write(fields));
    let step = match (half.asked, commit) {
        (true, _) => Step::Question,
        (false, true) => Step::Commit,
        (false, false) => Step::RollBack,
    };
    client.around.steps.take(step);
    let call = client.invoke(Request::EndTransaction {
        id: half.id,
        commit,
    });
    match client.call(node, asked, LIMIT).await {
        Ok(answer) if answer.response_code() == ResponseCode::SUCCESS => {
            client.done(call, Answer::Done);
        }
        Ok(answer) => {
            let code = answer.response_code();
            match code {
                // It has ended, or waits elsewhere by now.
                ResponseCode::ILLEGAL_OPERATION => {
                    client.around.history.fail(&client.name, call, code.0);
                }
                _ => client.around.history.info(&client.name, call, Some(code.0)),
            }
        }
        Err(lost) => client.lost(call, lost).await,
    }
}

/// Somebody asks what became of a message.
async fn answer(client: &mut Client, open: &mut BTreeMap<u64, u32>, question: &RemotingCommand) {
    let header = CheckTransactionRequest::parse(&question.fields);
    let header = header.unwrap_or_else(|error| panic!("a question that cannot be read: {error}"));
    let message = Message::decode_all(question.body.clone());
    let message = message.unwrap_or_else(|error| panic!("a question about nothing: {error}"));
    let id = consumers::seen(&message[0]).id;
    client
        .around
        .history
        .note_by(&client.name, Note::Checked { id });
    // Of one whose send nobody has acked this hears for the first time.
    let times = open.entry(id).or_default();
    *times += 1;
    if *times < questions(id) {
        return;
    }
    let half = Half {
        id,
        offset: header.tran_state_table_offset,
        physical: header.commit_log_offset,
        asked: true,
    };
    open.remove(&id);
    end(client, &half, is_committed(id)).await;
}
