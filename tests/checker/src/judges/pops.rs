//! Popped messages: invisible for their time, gone once acked, given again once their time has passed,
//! with one more attempt counted; in order where that was asked for (I11).
//!
//! Who consumes in order goes on at the first message that is not done with, and gets all behind it again,
//! acked or not; messages that retention removed do not come. How often is counted surely only for that first
//! one: a batch that is smaller than the one before forgets it for what it leaves out.
//!
//! A message that is not acked in time comes again in the retry topic of its group, so it is known by its id,
//! unless it was sent more than once. What an ack that may have come too late has done is not known.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::Judge;
use super::clocks::Clocks;
use crate::checker::{Bounds, Call, Invariant, Moment, Outcome, Report, Step};
use crate::event::{Answer, Cursor, Popped, Queue, Request};

/// A message as a group gets it.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Key {
    Id(String, u64),
    Place(String, Queue, u64),
}

/// The last delivery of a message to a group.
struct Delivery {
    /// Who got it: what others ack is an earlier delivery, and ends nothing.
    by: String,
    place: (Queue, u64),
    begun: u64,
    begun_at: u64,
    ended: u64,
    /// Clock time before which it cannot be visible again.
    hidden_until: u64,
    attempt: u32,
    /// It was given behind another one: a smaller batch in between forgets how often.
    is_behind: bool,
    /// Somebody asked for an ack of it, whatever came of it.
    is_given_up: bool,
    /// A renewal is under way or of unknown outcome: an ack may be of no effect.
    is_doubtful: bool,
    acked: Option<u64>,
}

/// All deliveries.
pub(super) struct Pops {
    clocks: Clocks,
    retention: bool,
    sent: HashSet<u64>,
    sent_again: HashSet<u64>,
    deliveries: BTreeMap<Key, Delivery>,
    /// What lies at a place, by group and queue, and by offset.
    places: HashMap<Cursor, HashMap<u64, Key>>,
    /// Of groups that consume in order: what was given and nobody asked to be acked, with the event.
    open: HashMap<Cursor, BTreeMap<u64, u64>>,
    /// The last pop of a group that gave nothing.
    empty: HashMap<String, Moment>,
}

impl Pops {
    pub(super) fn new(bounds: &Bounds) -> Self {
        Self {
            clocks: Clocks::new(bounds),
            retention: bounds.retention,
            sent: HashSet::new(),
            sent_again: HashSet::new(),
            deliveries: BTreeMap::new(),
            places: HashMap::new(),
            open: HashMap::new(),
            empty: HashMap::new(),
        }
    }

    fn begun(&mut self, call: &Call) {
        match &call.request {
            Request::Send(send) if send.tries > 1 || !self.sent.insert(send.id) => {
                self.sent_again.insert(send.id);
            }
            Request::Ack { cursor, offset } => {
                if let Some(open) = self.open.get_mut(cursor) {
                    open.remove(offset);
                }
                let delivery = self.delivery(cursor, *offset);
                if let Some(delivery) = delivery.filter(|one| one.by == call.by) {
                    delivery.is_given_up = true;
                }
            }
            Request::Renew { cursor, offset, .. } => {
                let until = hidden_until(call);
                if let Some(delivery) = self.delivery(cursor, *offset) {
                    delivery.hidden_until = delivery.hidden_until.min(until);
                    delivery.is_doubtful = true;
                }
            }
            _ => {}
        }
    }

    /// The delivery of what lies at a place, if that is its last one.
    fn delivery(&mut self, cursor: &Cursor, offset: u64) -> Option<&mut Delivery> {
        let key = self.places.get(cursor)?.get(&offset)?;
        let delivery = self.deliveries.get_mut(key)?;
        let is_last = delivery.place.0 == cursor.queue && delivery.place.1 == offset;
        is_last.then_some(delivery)
    }

    fn answered(&mut self, moment: Moment, call: &Call, answer: &Answer, report: &mut Report) {
        let skewed_at = moment.at.saturating_add(self.clocks.skew_at(moment.at));
        match (&call.request, answer) {
            (Request::Pop { group, order, .. }, Answer::Popped(popped)) => {
                if popped.is_empty() {
                    let begun = Moment {
                        number: call.number,
                        at: call.at,
                    };
                    self.empty.insert(group.clone(), begun);
                }
                if *order {
                    self.in_order(moment, call, (group, popped), report);
                }
                for one in popped {
                    let behind = popped.iter().any(|other| {
                        other.queue == one.queue && other.message.offset < one.message.offset
                    });
                    // What was before it may have been removed.
                    let is_behind = *order && (behind || self.retention);
                    let delivered = (group.as_str(), one, is_behind);
                    self.popped(moment, call, delivered, report);
                }
            }
            (Request::Ack { cursor, offset }, _) => {
                let begun = self.delivery(cursor, *offset).map(|one| one.begun);
                // A clock that was set may have ended the wait before the ack came.
                let holds = begun.is_some_and(|begun| self.clocks.hold_since(begun));
                if let Some(delivery) = self.delivery(cursor, *offset) {
                    let in_time = skewed_at < delivery.hidden_until && holds;
                    let in_time = in_time && delivery.by == call.by;
                    if in_time && !delivery.is_doubtful && delivery.ended < call.number {
                        delivery.acked.get_or_insert(moment.number);
                    }
                }
            }
            (Request::Renew { cursor, offset, .. }, _) => {
                let until = hidden_until(call);
                if let Some(delivery) = self.delivery(cursor, *offset) {
                    delivery.hidden_until = until;
                    delivery.is_doubtful = false;
                }
            }
            _ => {}
        }
    }

    /// A group that consumes in order gets a batch: all that came before must have been done with.
    fn in_order(
        &mut self,
        moment: Moment,
        call: &Call,
        (group, popped): (&str, &[Popped]),
        report: &mut Report,
    ) {
        for one in popped {
            let cursor = Cursor {
                group: group.to_string(),
                queue: one.queue.clone(),
            };
            let of_batch = popped.iter().filter(|other| other.queue == one.queue);
            let first = of_batch.map(|other| other.message.offset).min();
            let first = first.unwrap_or(one.message.offset);
            let open = self.open.entry(cursor).or_default();
            report.judged(Invariant::I11);
            let mut skipped = open.range(..first).filter(|(_, at)| **at < call.number);
            if let Some((offset, given)) = skipped.next().filter(|_| !self.retention) {
                let queue = &one.queue;
                let text = format!("{group} is given {queue} {first} before {offset} is done with");
                report.broken(Invariant::I11, &[*given, moment.number], text);
            }
            open.insert(one.message.offset, moment.number);
        }
    }

    fn popped(
        &mut self,
        moment: Moment,
        call: &Call,
        (group, one, is_behind): (&str, &Popped, bool),
        report: &mut Report,
    ) {
        let (offset, id) = (one.message.offset, one.message.id);
        let key = match self.sent_again.contains(&id) {
            true => Key::Place(group.to_string(), one.queue.clone(), offset),
            false => Key::Id(group.to_string(), id),
        };
        let cursor = Cursor {
            group: group.to_string(),
            queue: one.queue.clone(),
        };
        self.places
            .entry(cursor)
            .or_default()
            .insert(offset, key.clone());
        let delivery = Delivery {
            by: call.by.clone(),
            place: (one.queue.clone(), offset),
            begun: call.number,
            begun_at: call.at,
            ended: moment.number,
            hidden_until: hidden_until(call),
            attempt: one.attempt,
            is_behind,
            is_given_up: false,
            is_doubtful: false,
            acked: None,
        };
        report.judged(Invariant::I11);
        let Some(before) = self.deliveries.get_mut(&key) else {
            self.deliveries.insert(key, delivery);
            return;
        };
        let mut complain = |first: u64, what: &str| {
            let text = format!(
                "{group} is given message {id}, at {} {offset}, {what}",
                one.queue
            );
            report.broken(Invariant::I11, &[first, moment.number], text);
        };
        let acked = before.acked.filter(|acked| *acked < delivery.begun);
        if let Some(acked) = acked.filter(|_| !is_behind) {
            complain(acked, "after its ack");
        }
        let follows = before.ended < delivery.begun;
        // Two that overlap may have happened either way round.
        let hidden_until = if follows {
            before.hidden_until
        } else {
            before.hidden_until.min(delivery.hidden_until)
        };
        let skewed_at = moment.at.saturating_add(self.clocks.skew_at(moment.at));
        // Behind another one that comes again, an ack ends nothing but the wait.
        let is_over = is_behind && before.is_given_up;
        if skewed_at < hidden_until && !is_over && self.clocks.hold_since(before.begun) {
            complain(before.ended, "while it is invisible");
        }
        let is_counted = !is_behind && !before.is_behind;
        if follows && is_counted && delivery.attempt <= before.attempt {
            complain(before.ended, "without counting the attempt");
        }
        if follows || delivery.begun_at > before.begun_at {
            let acked = before.acked.filter(|_| !is_behind);
            *before = Delivery { acked, ..delivery };
        }
    }
}

/// Clock time until which a pop or a renewal hides a message at least.
fn hidden_until(call: &Call) -> u64 {
    match call.request {
        Request::Pop { invisible_ms, .. } | Request::Renew { invisible_ms, .. } => call
            .at
            .saturating_add(invisible_ms.saturating_mul(1_000_000)),
        _ => call.at,
    }
}

impl Judge for Pops {
    fn see(&mut self, moment: Moment, step: &Step<'_>, report: &mut Report) {
        match step {
            Step::Begun(call) => self.begun(call),
            Step::Ended {
                call,
                outcome: Outcome::Ok(answer),
            } => self.answered(moment, call, answer, report),
            Step::Ended { .. } => {}
            Step::Noted(note) => self.clocks.noted(moment, note),
        }
    }

    fn finish(&mut self, _moment: Moment, report: &mut Report) {
        if self.retention {
            return;
        }
        for (key, delivery) in &self.deliveries {
            let (Key::Id(group, _) | Key::Place(group, ..)) = key;
            let Some(empty) = self.empty.get(group).filter(|_| !delivery.is_given_up) else {
                continue;
            };
            if self.clocks.is_late(delivery.hidden_until, empty.at) {
                let (queue, offset) = &delivery.place;
                let text = format!("{queue} {offset} does not come again for {group}");
                report.broken(Invariant::I11, &[delivery.ended, empty.number], text);
            }
        }
    }
}
