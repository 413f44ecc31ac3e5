//! Lockers: want some queues for themselves, as consumers in order do.

use std::time::Duration;

use gantry_checker::event::Locks;
use gantry_checker::{Answer, Queue, Request};
use gantry_protocol::bodies::{LockRequest, LockResponse, MessageQueue};
use gantry_protocol::{RemotingCommand, RequestCode};
use tokio::time::sleep;

use super::client::{Asker, group_of, is_success, parsed};
use crate::node::GROUPS;
use crate::shell::Outcome;

/// Locks, keeps and gives back until the round ends. Who does not know what became of an unlock goes on under
/// another name: the unlock may still come.
pub async fn run(mut asker: Asker) -> Outcome {
    let mut names = 1;
    while asker.round.sends() {
        let group = asker.random.below(GROUPS.len());
        let all = asker.round.queues();
        let of_group = all.into_iter().filter(|queue| group_of(queue) == group);
        let locks = Locks {
            group: format!("chaos-ordered-{}", asker.round.number),
            owner: format!("{}-{names}", asker.by),
            queues: of_group.take(4).collect(),
        };
        for _ in 0..asker.random.between(1, 3) {
            lock(&mut asker, group, &locks).await?;
            sleep(Duration::from_millis(asker.random.between(50, 400))).await;
        }
        names += u32::from(!unlock(&mut asker, group, &locks).await?);
        sleep(Duration::from_millis(asker.random.between(10, 300))).await;
    }
    Ok(())
}

fn request(code: RequestCode, locks: &Locks) -> RemotingCommand {
    let body = LockRequest {
        consumer_group: locks.group.clone(),
        client_id: locks.owner.clone(),
        mq_set: locks.queues.iter().map(to_wire).collect(),
        only_this_broker: false,
    };
    RemotingCommand::request(code, 0).with_body(body.encode())
}

fn to_wire(queue: &Queue) -> MessageQueue {
    MessageQueue {
        broker_name: queue.broker.clone(),
        queue_id: i32::from(queue.queue),
        topic: queue.topic.clone(),
    }
}

async fn lock(asker: &mut Asker, group: usize, locks: &Locks) -> Outcome {
    let node = asker.choose_node(group);
    let call = asker.begin(Request::Lock(locks.clone()))?;
    let heard = asker
        .ask(node, group, request(RequestCode::LOCK_BATCH_MQ, locks))
        .await;
    let Some(answer) = is_success(&heard) else {
        return asker.end(call, &heard);
    };
    let granted = parsed(LockResponse::decode(&answer.body))?.locked;
    let is_granted = |queue: &&Queue| granted.contains(&to_wire(queue));
    let queues = locks.queues.iter().filter(is_granted).cloned().collect();
    asker.succeed(call, Answer::Locked(queues))
}

/// Whether it is certain that the locks are free.
async fn unlock(asker: &mut Asker, group: usize, locks: &Locks) -> Outcome<bool> {
    let node = asker.choose_node(group);
    let call = asker.begin(Request::Unlock(locks.clone()))?;
    let heard = asker
        .ask(node, group, request(RequestCode::UNLOCK_BATCH_MQ, locks))
        .await;
    match is_success(&heard) {
        Some(_) => asker.succeed(call, Answer::Done)?,
        None => asker.end(call, &heard)?,
    }
    Ok(is_success(&heard).is_some())
}
