//! Clients that want queues for themselves.

use std::time::Duration;

use gantry_checker::event::Locks;
use gantry_checker::{Answer, Queue, Request};
use gantry_protocol::bodies::{LockRequest, LockResponse, MessageQueue};
use gantry_protocol::{RemotingCommand, RequestCode};
use tokio::time::sleep;

use super::{Client, Stage, queue, request};
use crate::cluster::{BROKER, QUEUES, TOPICS};

const GROUP: &str = "lockers";
const LIMIT: Duration = Duration::from_secs(1);

/// Takes and gives up the queues of a topic. A clock that is set ends leases early; the checker knows.
pub(super) async fn run(mut client: Client) {
    while client.stage() == Stage::Load {
        let wanted: Vec<Queue> = (0..QUEUES).map(|number| queue(TOPICS[0], number)).collect();
        let granted = lock(&mut client, &wanted).await;
        if granted.is_empty() {
            let pause = client.rng.between(5, 150);
            sleep(Duration::from_millis(pause)).await;
            continue;
        }
        let pause = client.rng.between(5, 400);
        sleep(Duration::from_millis(pause)).await;
        unlock(&mut client, &granted).await;
    }
}

async fn lock(client: &mut Client, wanted: &[Queue]) -> Vec<Queue> {
    let node = client.node();
    let asked = locks_request(client, RequestCode::LOCK_BATCH_MQ, wanted);
    let what = Request::Lock(locks(client, wanted));
    let call = client.invoke(what);
    let Some(answer) = client.ask(call, node, asked, LIMIT).await else {
        return Vec::new();
    };
    let Ok(answer) = LockResponse::decode(&answer.body) else {
        panic!("an answer to a lock that cannot be read");
    };
    let granted: Vec<Queue> = answer
        .locked
        .iter()
        .map(|locked| queue(&locked.topic, locked.queue_id as u16))
        .collect();
    let shown = Answer::Locked(granted.clone());
    client.done(call, shown);
    granted
}

async fn unlock(client: &mut Client, granted: &[Queue]) {
    let node = client.node();
    let asked = locks_request(client, RequestCode::UNLOCK_BATCH_MQ, granted);
    let what = Request::Unlock(locks(client, granted));
    let call = client.invoke(what);
    if client.ask(call, node, asked, LIMIT).await.is_some() {
        client.done(call, Answer::Done);
    }
}

fn locks(client: &Client, queues: &[Queue]) -> Locks {
    Locks {
        group: GROUP.to_string(),
        owner: client.name.clone(),
        queues: queues.to_vec(),
    }
}

fn locks_request(client: &Client, code: RequestCode, queues: &[Queue]) -> RemotingCommand {
    let body = LockRequest {
        consumer_group: GROUP.to_string(),
        client_id: client.name.clone(),
        mq_set: queues
            .iter()
            .map(|queue| MessageQueue {
                broker_name: BROKER.to_string(),
                queue_id: i32::from(queue.queue),
                topic: queue.topic.clone(),
            })
            .collect(),
        only_this_broker: true,
    };
    request(code, |_| {}).with_body(body.encode())
}
