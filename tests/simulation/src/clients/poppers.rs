//! Consumers that pop: they ack, change times, or let them pass; some in order.

use std::time::Duration;

use gantry::client;
use gantry::pop::Handle;
use gantry_checker::event::{Cursor, Popped};
use gantry_checker::{Answer, Queue, Request};
use gantry_protocol::headers::{
    AckRequest, ChangeInvisibleRequest, ChangeInvisibleResponse, PopRequest,
};
use gantry_protocol::{RemotingCommand, RequestCode, ResponseCode};
use tokio::time::Instant;

use super::{Client, Stage, consumers, queue, request};
use crate::cluster::BROKER;
use crate::steps::Step;

const LIMIT: Duration = Duration::from_secs(3);

/// How long everybody goes on when nothing is sent any more: what was let go comes again.
const DRAIN: Duration = Duration::from_secs(9);

/// Who pops what, and how.
#[derive(Clone, Copy)]
struct Habit {
    group: &'static str,
    topic: &'static str,
    order: bool,
}

const FREELY: Habit = Habit {
    group: "poppers",
    topic: "popped",
    order: false,
};
const IN_ORDER: Habit = Habit {
    group: "orderly",
    topic: "ordered",
    order: true,
};

/// A popped message with what it is acknowledged with.
struct Held {
    queue: Queue,
    offset: u64,
    handle: Handle,
}

/// Sends, pops, and does one thing or another with what it gets.
pub(super) async fn run(mut client: Client) {
    let mut drains_until = None;
    loop {
        let loads = match client.stage() {
            Stage::Load => true,
            Stage::Drain => {
                let until = *drains_until.get_or_insert(Instant::now() + DRAIN);
                if Instant::now() > until {
                    return;
                }
                false
            }
            Stage::Over => return,
        };
        client.pause(50, 250).await;
        let habit = if client.rng.per_mille(300) {
            IN_ORDER
        } else {
            FREELY
        };
        if loads && client.rng.per_mille(500) {
            let number = if habit.order {
                0
            } else {
                client.rng.below(2) as u16
            };
            let (node, message) = (client.node(), client.message());
            client
                .send(node, &queue(habit.topic, number), vec![message])
                .await;
        }
        let held = pop(&mut client, habit).await;
        for one in held {
            dispose(&mut client, habit, one, loads).await;
        }
    }
}

async fn pop(client: &mut Client, habit: Habit) -> Vec<Held> {
    let invisible_ms = client.rng.between(700, 2_000);
    let poll_time = *client.rng.pick(&[0, 300]);
    let header = PopRequest {
        consumer_group: habit.group,
        topic: habit.topic,
        queue_id: -1,
        max_msg_nums: 3,
        invisible_time: invisible_ms as i64,
        poll_time,
        // Clocks of brokers are no measure for what is late here.
        born_time: i64::MAX / 2,
        init_mode: 0,
        order: Some(habit.order),
        ..PopRequest::default()
    };
    let node = client.node();
    let asked = request(RequestCode::POP_MESSAGE, |fields| header.write(fields));
    let step = if habit.order {
        Step::PopInOrder
    } else {
        Step::Pop
    };
    client.around.steps.take(step);
    let call = client.invoke(Request::Pop {
        group: habit.group.to_string(),
        invisible_ms,
        order: habit.order,
    });
    let answer = match client.call(node, asked, LIMIT).await {
        Ok(answer) => answer,
        Err(lost) => {
            client.lost(call, lost).await;
            return Vec::new();
        }
    };
    match answer.response_code() {
        ResponseCode::SUCCESS => {
            let (popped, held) = read(&header, &answer);
            client.done(call, Answer::Popped(popped));
            if !held.is_empty() {
                client.around.steps.take_in(Step::LeaseEnd, invisible_ms);
            }
            held
        }
        ResponseCode::POLLING_TIMEOUT => {
            client.done(call, Answer::Popped(Vec::new()));
            Vec::new()
        }
        code => {
            client.around.history.info(&client.name, call, Some(code.0));
            client.pause(20, 20).await;
            Vec::new()
        }
    }
}

/// The messages of an answer, and what they are acknowledged with.
fn read(asked: &PopRequest<'_>, answer: &RemotingCommand) -> (Vec<Popped>, Vec<Held>) {
    let given = client::Popped::of_answer(asked, BROKER, answer);
    let given = given.unwrap_or_else(|error| panic!("a pop that cannot be read: {error}"));
    let (mut popped, mut held) = (Vec::new(), Vec::new());
    for one in given {
        let at = queue(&one.topic, one.message.queue_id as u16);
        let message = consumers::seen(&one.message);
        held.push(Held {
            queue: at.clone(),
            offset: message.offset,
            handle: one.handle,
        });
        popped.push(Popped {
            queue: at,
            message,
            attempt: one.times + 1,
        });
    }
    (popped, held)
}

/// Acks a message, changes its time, or lets it go.
async fn dispose(client: &mut Client, habit: Habit, mut held: Held, loads: bool) {
    let dice = client.rng.below(10);
    if loads && dice < 2 {
        return;
    }
    if loads && dice < 4 && !renew(client, habit, &mut held).await {
        return;
    }
    if loads && client.rng.per_mille(300) {
        client.pause(0, 600).await;
    }
    let handle = held.handle.to_string();
    let header = AckRequest {
        consumer_group: habit.group,
        topic: &held.queue.topic,
        queue_id: i32::from(held.queue.queue),
        extra_info: &handle,
        offset: held.offset as i64,
    };
    let node = client.node();
    let asked = request(RequestCode::ACK_MESSAGE, |fields| header.write(fields));
    client.around.steps.take(Step::Ack);
    let call = client.invoke(Request::Ack {
        cursor: cursor(habit, &held),
        offset: held.offset,
    });
    if client.ask(call, node, asked, LIMIT).await.is_some() {
        client.done(call, Answer::Done);
    }
}

/// Changes when a message comes again; whether that is certain.
async fn renew(client: &mut Client, habit: Habit, held: &mut Held) -> bool {
    let invisible_ms = client.rng.between(700, 2_000);
    let handle = held.handle.to_string();
    let header = ChangeInvisibleRequest {
        consumer_group: habit.group,
        topic: &held.queue.topic,
        queue_id: i32::from(held.queue.queue),
        extra_info: &handle,
        offset: held.offset as i64,
        invisible_time: invisible_ms as i64,
    };
    let node = client.node();
    let asked = request(RequestCode::CHANGE_MESSAGE_INVISIBLETIME, |f| {
        header.write(f)
    });
    client.around.steps.take(Step::Renew);
    let call = client.invoke(Request::Renew {
        cursor: cursor(habit, held),
        offset: held.offset,
        invisible_ms,
    });
    let Some(answer) = client.ask(call, node, asked, LIMIT).await else {
        return false;
    };
    client.done(call, Answer::Done);
    let header = ChangeInvisibleResponse::parse(&answer.fields);
    let header =
        header.unwrap_or_else(|error| panic!("a changed time that cannot be read: {error}"));
    held.handle.pop_time = header.pop_time;
    held.handle.invisible_time = header.invisible_time;
    client.around.steps.take_in(Step::LeaseEnd, invisible_ms);
    true
}

fn cursor(habit: Habit, held: &Held) -> Cursor {
    Cursor {
        group: habit.group.to_string(),
        queue: held.queue.clone(),
    }
}
