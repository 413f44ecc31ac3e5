//! Poppers: are handed messages out one by one, and ack them, change their times, or let these pass; some in
//! order.

use std::time::{SystemTime, UNIX_EPOCH};

use gantry::client;
use gantry::pop::{Handle, RetryKind};
use gantry_checker::event::{Cursor, Popped};
use gantry_checker::{Answer, Queue, Request};
use gantry_protocol::headers::{
    AckRequest, ChangeInvisibleRequest, ChangeInvisibleResponse, PopRequest,
};
use gantry_protocol::{RemotingCommand, RequestCode, ResponseCode};
use tokio::time::Instant;

use super::client::{Asker, Heard, command, seen};
use super::deeds::Deed;
use super::{DRAIN, Round, producer, queue_at};
use crate::node::GROUPS;
use crate::shell::{Outcome, while_doing};

/// Most messages of a pop.
const MOST: i32 = 3;

/// Who pops what, and how.
#[derive(Clone, Copy)]
pub struct Habit {
    /// Names the consumers.
    consumers: &'static str,
    /// Names the topic.
    pub topic: &'static str,
    order: bool,
}

/// In any order.
pub const FREELY: Habit = Habit {
    consumers: "poppers",
    topic: "popped",
    order: false,
};

/// Nothing before all that came earlier is done with.
pub const IN_ORDER: Habit = Habit {
    consumers: "orderly",
    topic: "ordered",
    order: true,
};

impl Habit {
    /// Where messages come again whose time has passed.
    pub fn retry_topic(&self, round: &Round, group: usize) -> String {
        let consumers = round.members(self.consumers, group);
        RetryKind::V1.topic_of(&consumers, &round.topic(self.topic))
    }
}

/// A popped message with what it is acknowledged with.
struct Held {
    queue: Queue,
    offset: u64,
    handle: Handle,
}

/// One who pops with a habit.
struct Popper<'a> {
    asker: &'a mut Asker,
    group: usize,
    habit: Habit,
    consumers: String,
    topic: String,
}

/// Sends, pops, and does one thing or another with what it gets; afterwards acks all that comes, for so long
/// that what does not come is late.
pub async fn run(mut asker: Asker, group: usize) -> Outcome {
    let mut drains_until = None;
    loop {
        let sends = asker.round.sends();
        if !sends {
            let until = *drains_until.get_or_insert(Instant::now() + DRAIN);
            if Instant::now() > until {
                return Ok(());
            }
        }
        asker.pause(50, 250).await;
        let habit = if asker.random.percent(30) {
            IN_ORDER
        } else {
            FREELY
        };
        let mut popper = Popper {
            consumers: asker.round.members(habit.consumers, group),
            topic: asker.round.topic(habit.topic),
            asker: &mut asker,
            group,
            habit,
        };
        if sends && popper.asker.random.percent(50) {
            popper.send().await?;
        }
        for held in popper.pop().await? {
            popper.dispose(held, sends).await?;
        }
    }
}

impl Popper<'_> {
    async fn send(&mut self) -> Outcome {
        let queues = if self.habit.order { 1 } else { 2 };
        let queue = self.asker.random.below(queues) as u16;
        let place = (self.group, queue);
        producer::send_one(self.asker, &self.topic, place).await?;
        Ok(())
    }

    async fn pop(&mut self) -> Outcome<Vec<Held>> {
        let invisible_ms = draw_time(self.asker);
        let order = self.habit.order;
        let consumers = self.consumers.clone();
        let header = PopRequest {
            consumer_group: &consumers,
            topic: &self.topic,
            queue_id: -1,
            max_msg_nums: MOST,
            invisible_time: invisible_ms as i64,
            poll_time: *self.asker.random.pick(&[0, 300]),
            born_time: now_ms(),
            init_mode: 0,
            order: Some(order),
            ..PopRequest::default()
        };
        let request = command(RequestCode::POP_MESSAGE, |fields| header.write(fields));
        let node = self.asker.choose_node(self.group);
        let call = self.asker.begin(Request::Pop {
            group: consumers.clone(),
            invisible_ms,
            order,
        })?;
        let heard = self.asker.ask(node, self.group, request).await;
        let (popped, held) = match &heard {
            Heard::Answer(answer) if answer.response_code() == ResponseCode::SUCCESS => {
                self.read(&header, answer)?
            }
            Heard::Answer(answer) if answer.response_code() == ResponseCode::POLLING_TIMEOUT => {
                (Vec::new(), Vec::new())
            }
            _ => {
                self.asker.end(call, &heard)?;
                return Ok(Vec::new());
            }
        };
        for one in &popped {
            let again = (one.attempt > 1).then_some(Deed::LeaseEnd);
            let first = if order { Deed::PopInOrder } else { Deed::Pop };
            self.asker.did(again.unwrap_or(first));
        }
        self.asker.succeed(call, Answer::Popped(popped))?;
        Ok(held)
    }

    /// The messages of an answer, and what they are acknowledged with.
    fn read(
        &self,
        asked: &PopRequest<'_>,
        answer: &RemotingCommand,
    ) -> Outcome<(Vec<Popped>, Vec<Held>)> {
        let broker = GROUPS[self.group];
        let given = client::Popped::of_answer(asked, broker, answer);
        let (mut popped, mut held) = (Vec::new(), Vec::new());
        for one in given.map_err(while_doing("reading a pop"))? {
            let queue = queue_at(self.group, &one.topic, one.message.queue_id as u16);
            let message = seen(&one.message)?;
            held.push(Held {
                queue: queue.clone(),
                offset: message.offset,
                handle: one.handle,
            });
            popped.push(Popped {
                queue,
                message,
                attempt: one.times + 1,
            });
        }
        Ok((popped, held))
    }

    /// Acks a message, changes its time, or lets it go. When nothing is sent any more all are acked.
    async fn dispose(&mut self, mut held: Held, sends: bool) -> Outcome {
        let dice = self.asker.random.below(10);
        if sends && dice < 2 {
            return Ok(());
        }
        if sends && dice < 4 && !self.renew(&mut held).await? {
            return Ok(());
        }
        if sends && self.asker.random.percent(30) {
            self.asker.pause(0, 600).await;
        }
        let handle = held.handle.to_string();
        let header = AckRequest {
            consumer_group: &self.consumers,
            topic: &held.queue.topic,
            queue_id: i32::from(held.queue.queue),
            extra_info: &handle,
            offset: held.offset as i64,
        };
        let request = command(RequestCode::ACK_MESSAGE, |fields| header.write(fields));
        let what = Request::Ack {
            cursor: self.cursor(&held),
            offset: held.offset,
        };
        if self
            .asker
            .do_at(self.group, (what, request))
            .await?
            .is_some()
        {
            self.asker.did(Deed::Ack);
        }
        Ok(())
    }

    /// Changes when a message comes again; whether that is certain.
    async fn renew(&mut self, held: &mut Held) -> Outcome<bool> {
        let invisible_ms = draw_time(self.asker);
        let handle = held.handle.to_string();
        let header = ChangeInvisibleRequest {
            consumer_group: &self.consumers,
            topic: &held.queue.topic,
            queue_id: i32::from(held.queue.queue),
            extra_info: &handle,
            offset: held.offset as i64,
            invisible_time: invisible_ms as i64,
        };
        let code = RequestCode::CHANGE_MESSAGE_INVISIBLETIME;
        let request = command(code, |fields| header.write(fields));
        let what = Request::Renew {
            cursor: self.cursor(held),
            offset: held.offset,
            invisible_ms,
        };
        let Some(answer) = self.asker.do_at(self.group, (what, request)).await? else {
            return Ok(false);
        };
        self.asker.did(Deed::Renew);
        let header = ChangeInvisibleResponse::parse(&answer.fields);
        let header = header.map_err(while_doing("reading a changed time"))?;
        held.handle.pop_time = header.pop_time;
        held.handle.invisible_time = header.invisible_time;
        Ok(true)
    }

    fn cursor(&self, held: &Held) -> Cursor {
        Cursor {
            group: self.consumers.clone(),
            queue: held.queue.clone(),
        }
    }
}

/// For how long a message is handed out; milliseconds.
fn draw_time(asker: &mut Asker) -> u64 {
    asker.random.between(700, 3_000)
}

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.unwrap_or_default().as_millis() as i64
}
