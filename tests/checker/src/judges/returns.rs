//! Messages that consumers hand back: each comes again once in the retry topic, with one more attempt
//! counted, or becomes a dead letter when it has been handed back often enough.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::clocks::Clocks;
use super::{Judge, copies_for, each_read};
use crate::checker::{Bounds, Call, Invariant, Moment, Outcome, Report, Step};
use crate::event::{Answer, Message, Queue, Request};

/// A message as a consumer group has it: the group, the message, and how often it had been handed back.
type Held = (String, u64, u32);

/// All that was asked for one of these.
struct Return {
    first: u64,
    /// Hand-backs that may have had their effect.
    asked: u32,
    /// Those that were acked: the event, and when the last of them is due.
    acked: Option<(u64, u64)>,
    times_max: u32,
}

/// Copies that were seen: of which message, with which count; and where.
type Copies = HashMap<Held, HashSet<(Queue, u64)>>;

/// All messages that were handed back.
pub(super) struct Returns {
    clocks: Clocks,
    returns: BTreeMap<Held, Return>,
    groups: HashSet<String>,
    copies: Copies,
}

impl Returns {
    pub(super) fn new(bounds: &Bounds) -> Self {
        Self {
            clocks: Clocks::new(bounds),
            returns: BTreeMap::new(),
            groups: HashSet::new(),
            copies: HashMap::new(),
        }
    }

    fn begun(&mut self, call: &Call) {
        if let Request::SendBack {
            group,
            id,
            times,
            times_max,
            ..
        } = &call.request
        {
            self.groups.insert(group.clone());
            let fresh = Return {
                first: call.number,
                asked: 0,
                acked: None,
                times_max: *times_max,
            };
            let held = (group.clone(), *id, *times);
            self.returns.entry(held).or_insert(fresh).asked += 1;
        }
    }

    fn ended(&mut self, moment: Moment, call: &Call, is_ok: bool) {
        if let Request::SendBack {
            group,
            id,
            times,
            delay_ms,
            ..
        } = &call.request
        {
            let held = (group.clone(), *id, *times);
            let Some(known) = self.returns.get_mut(&held) else {
                return;
            };
            if is_ok {
                let due_at = moment.at.saturating_add(delay_ms.saturating_mul(1_000_000));
                known.acked = Some((moment.number, due_at));
            } else {
                known.asked -= 1;
            }
        }
    }

    /// The group whose copies a topic holds, and whether they are dead.
    fn group_of<'a>(&self, topic: &'a str) -> Option<(&'a str, bool)> {
        copies_for(topic).filter(|(group, _)| self.groups.contains(*group))
    }

    fn seen(&mut self, queue: &Queue, message: &Message, number: u64, report: &mut Report) {
        let Some((group, is_dead)) = self.group_of(&queue.topic) else {
            return;
        };
        report.judged(Invariant::Retry);
        let (id, times) = (message.id, message.times);
        let before = (group.to_string(), id, times.wrapping_sub(1));
        let at = format!("{queue} {}", message.offset);
        let Some(known) = self.returns.get(&before).filter(|known| known.asked > 0) else {
            let text =
                format!("{at} is message {id} for the time {times}, which nobody handed back");
            report.broken(Invariant::Retry, &[number], text);
            return;
        };
        let must_be_dead = before.2 >= known.times_max;
        if must_be_dead != is_dead {
            let text = format!(
                "{at} is message {id} for the time {times}, with at most {}",
                known.times_max
            );
            report.broken(Invariant::Retry, &[known.first, number], text);
        }
        let places = self.copies.entry(before).or_default();
        places.insert((queue.clone(), message.offset));
        if places.len() > known.asked as usize {
            let text = format!("{at} is message {id} for the time {times} once more");
            report.broken(Invariant::Retry, &[known.first, number], text);
        }
    }

    /// A full read of a queue: whether it has all that must have come there.
    fn late(&self, queue: &Queue, call: &Call, messages: &[Message], report: &mut Report) {
        let Some((group, is_dead)) = self.group_of(&queue.topic) else {
            return;
        };
        let there: HashSet<(u64, u32)> = messages.iter().map(|one| (one.id, one.times)).collect();
        let of_group = self
            .returns
            .iter()
            .filter(|(held, known)| held.0 == group && (held.2 >= known.times_max) == is_dead);
        for ((_, id, times), known) in of_group {
            let Some((acked, due_at)) = known.acked else {
                continue;
            };
            if !self.clocks.is_late(due_at, call.at) {
                continue;
            }
            report.judged(Invariant::Retry);
            if !there.contains(&(*id, times + 1)) {
                let text =
                    format!("{queue} does not have message {id}, handed back {times} times before");
                report.broken(Invariant::Retry, &[acked, call.number], text);
            }
        }
    }
}

impl Judge for Returns {
    fn see(&mut self, moment: Moment, step: &Step<'_>, report: &mut Report) {
        match step {
            Step::Begun(call) => self.begun(call),
            Step::Ended {
                call,
                outcome: Outcome::Ok(answer),
            } => {
                self.ended(moment, call, true);
                each_read(call, answer, |queue, message| {
                    self.seen(queue, message, moment.number, report);
                });
                if let (
                    Request::Dump { queue, .. },
                    Answer::Dumped {
                        min: 0, messages, ..
                    },
                ) = (&call.request, answer)
                {
                    self.late(queue, call, messages, report);
                }
            }
            Step::Ended {
                call,
                outcome: Outcome::Fail,
            } => self.ended(moment, call, false),
            Step::Noted(note) => self.clocks.noted(moment, note),
            Step::Ended { .. } => {}
        }
    }
}
