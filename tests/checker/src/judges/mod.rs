//! The judges: one for each thing that promises are about.
//!
//! | Judge | Invariants |
//! |---|---|
//! | `places` | I1, I2, I3, I12 (what was read is in the end), I16 (places in the log, digests) |
//! | `lookups` | I1 (what was acked is found by its key) |
//! | `messages` | I4, I5, I13 |
//! | `order` | I6 |
//! | `ends` | I7, I12 (a pull is not sent back behind an ack) |
//! | `cursors` | I8 |
//! | `transactions` | I9 |
//! | `timers` | I10 |
//! | `pops` | I11 |
//! | `returns` | messages that are handed back |
//! | `nodes` | I14, I17 |
//! | `registers` | I15 |
//! | `locks` | locks of queues |
//! | `liveness` | L1, L2, L3 |
//!
//! Not covered: bounds on the staleness of followers (I12); deletion of definitions (I15); indexes rebuilt
//! from the log (I16), which a tool over the data directories must judge. A consumer group is taken to pop
//! from one topic of one broker group, and to hand back to one broker group: what it is not given although it
//! asks there is late.
//!
//! Memory: `places` and `messages` hold about 150 bytes for each message of the history, because only its
//! end tells whether a message is still there; the others hold what is open: a queue, a lock, a message
//! that is due.

mod clocks;
mod cursors;
mod ends;
mod liveness;
mod locks;
mod lookups;
mod messages;
mod nodes;
mod order;
mod places;
mod pops;
mod registers;
mod returns;
mod timers;
mod transactions;

use crate::checker::{Bounds, Call, Moment, Report, Step};
use crate::event::{Answer, Message, Queue, Request};

/// Follows a history and reports what breaks the promises it knows.
pub(crate) trait Judge {
    /// The next step.
    fn see(&mut self, moment: Moment, step: &Step<'_>, report: &mut Report);

    /// The end of the history; `moment` is that of its last event.
    fn finish(&mut self, _moment: Moment, _report: &mut Report) {}
}

/// All of them, having seen nothing.
pub(crate) fn all(bounds: &Bounds) -> Vec<Box<dyn Judge>> {
    vec![
        Box::new(places::Places::new(bounds)),
        Box::new(lookups::Lookups::new(bounds)),
        Box::new(messages::Messages::new(bounds)),
        Box::new(order::Orders::default()),
        Box::new(ends::Ends::default()),
        Box::new(cursors::Cursors::default()),
        Box::new(transactions::Transactions::new(bounds)),
        Box::new(timers::Timers::new(bounds)),
        Box::new(pops::Pops::new(bounds)),
        Box::new(returns::Returns::new(bounds)),
        Box::new(nodes::Nodes::default()),
        Box::new(registers::Registers::default()),
        Box::new(locks::Leases::new(bounds)),
        Box::new(liveness::Liveness::new(bounds)),
    ]
}

/// The consumer group that has had the messages before of which a topic holds copies, and whether these are
/// dead letters; `None` for any other topic.
fn copies_for(topic: &str) -> Option<(&str, bool)> {
    let retry = topic.strip_prefix("%RETRY%").map(|group| (group, false));
    retry.or_else(|| topic.strip_prefix("%DLQ%").map(|group| (group, true)))
}

fn holds_copies(topic: &str) -> bool {
    copies_for(topic).is_some()
}

/// Shows every message that an answer contains, with its queue.
fn each_read(call: &Call, answer: &Answer, mut show: impl FnMut(&Queue, &Message)) {
    match (&call.request, answer) {
        (Request::Pull { queue, .. }, Answer::Pulled { messages, .. })
        | (Request::Dump { queue, .. }, Answer::Dumped { messages, .. }) => {
            messages.iter().for_each(|message| show(queue, message));
        }
        (Request::Pop { .. }, Answer::Popped(popped)) => {
            popped.iter().for_each(|one| show(&one.queue, &one.message));
        }
        (Request::Lookup { .. }, Answer::Found(found)) => {
            found.iter().for_each(|one| show(&one.queue, &one.message));
        }
        _ => {}
    }
}
