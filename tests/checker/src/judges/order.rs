//! The order of a producer's sends is the order of their offsets (I6). Sends of which the broker keeps one
//! copy are left out: the answer to a second one is an old offset.

use std::collections::{BTreeSet, HashMap, VecDeque};

use super::Judge;
use crate::checker::{Call, Invariant, Moment, Outcome, Report, Step};
use crate::event::{Answer, Queue, Request, Sent};

#[derive(Default)]
struct Producer {
    /// Numbers of the sends under way.
    open: BTreeSet<u64>,
    /// For each queue, the acks that raised the highest offset: the event, and the offset.
    queues: HashMap<Queue, VecDeque<(u64, u64)>>,
}

/// All producers.
#[derive(Default)]
pub(super) struct Orders {
    producers: HashMap<String, Producer>,
}

impl Judge for Orders {
    fn see(&mut self, moment: Moment, step: &Step<'_>, report: &mut Report) {
        match step {
            Step::Begun(call) if is_plain_send(call) => {
                let producer = self.producers.entry(call.by.clone()).or_default();
                producer.open.insert(call.number);
            }
            Step::Ended { call, outcome } if is_plain_send(call) => {
                let Some(producer) = self.producers.get_mut(&call.by) else {
                    return;
                };
                if let Outcome::Ok(Answer::Sent(sent)) = outcome {
                    producer.acked(moment.number, call, sent, report);
                }
                producer.open.remove(&call.number);
            }
            _ => {}
        }
    }
}

impl Producer {
    fn acked(&mut self, number: u64, call: &Call, sent: &Sent, report: &mut Report) {
        let acks = self.queues.entry(sent.queue.clone()).or_default();
        report.judged(Invariant::I6);
        let before = acks.partition_point(|(ack, _)| *ack < call.number);
        if let Some((ack, offset)) = before.checked_sub(1).map(|last| acks[last])
            && offset >= sent.offset
        {
            let text = format!(
                "{} got {} of {} for a send that began after its ack of {offset}",
                call.by, sent.offset, sent.queue
            );
            report.broken(Invariant::I6, &[ack, call.number, number], text);
        }
        if acks
            .back()
            .is_none_or(|(_, highest)| *highest < sent.offset)
        {
            acks.push_back((number, sent.offset));
        }
        // Only the last ack before the oldest send under way can still matter.
        let oldest = self.open.first().copied().unwrap_or(number);
        while acks.get(1).is_some_and(|(ack, _)| *ack < oldest) {
            acks.pop_front();
        }
    }
}

fn is_plain_send(call: &Call) -> bool {
    matches!(&call.request, Request::Send(send) if send.is_plain() && send.once_ms.is_none())
}
