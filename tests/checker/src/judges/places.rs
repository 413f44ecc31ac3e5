//! What is at an offset: the same for all who look, without gaps, in all replicas (I1, I2, I3, I12, I16).

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

use super::Judge;
use crate::checker::{Bounds, Call, Invariant, Moment, Outcome, Report, Step};
use crate::event::{Answer, Message, Note, Queue, Request};

/// What was seen at one offset.
#[derive(Clone)]
struct Place {
    id: u64,
    crc: u32,
    physical: Option<u64>,
    /// The event that first showed it.
    first: u64,
    /// The ack of it, if there was one.
    acked: Option<u64>,
    /// A read of it by a client, if there was one.
    read: Option<u64>,
}

/// A full read of one replica.
struct Dump {
    node: String,
    begun: u64,
    ended: u64,
    min: u64,
    next: u64,
    /// Offsets between `min` and `next` that it does not have, ascending.
    missing: Vec<Range<u64>>,
}

#[derive(Default)]
struct QueuePlaces {
    places: BTreeMap<u64, Place>,
    dumps: Vec<Dump>,
}

/// A digest: its value, who had it, and the event.
type Digest = (u32, String, u64);

/// What was seen at all offsets of all queues.
pub(super) struct Places {
    retention: bool,
    queues: HashMap<Queue, QueuePlaces>,
    digests: HashMap<(String, u64), Digest>,
}

impl Places {
    pub(super) fn new(bounds: &Bounds) -> Self {
        Self {
            retention: bounds.retention,
            queues: HashMap::new(),
            digests: HashMap::new(),
        }
    }

    fn answered(&mut self, number: u64, call: &Call, answer: &Answer, report: &mut Report) {
        match (&call.request, answer) {
            (Request::Send(send), Answer::Sent(sent)) if send.is_plain() => {
                let message = Message {
                    offset: sent.offset,
                    physical: sent.physical,
                    id: send.id,
                    crc: send.crc,
                    times: 0,
                };
                let queue = queue_of(&mut self.queues, &sent.queue);
                match queue.at(&sent.queue, &message, number, report) {
                    Some(place) => {
                        place.acked.get_or_insert(number);
                    }
                    None => {
                        let text = format!(
                            "message {} is acked at {} {}, where it is not",
                            send.id, sent.queue, sent.offset
                        );
                        report.broken(Invariant::I1, &[call.number, number], text);
                    }
                }
            }
            (
                Request::Pull {
                    queue,
                    from,
                    filtered,
                },
                Answer::Pulled { min, messages, .. },
            ) => {
                if !filtered {
                    consecutive(queue, (*from).max(*min), messages, number, report);
                }
                self.read(queue, messages, number, report);
            }
            (Request::Lookup { .. }, Answer::Found(found)) => {
                for one in found {
                    let message = std::slice::from_ref(&one.message);
                    self.read(&one.queue, message, number, report);
                }
            }
            (Request::Pop { .. }, Answer::Popped(popped)) => {
                for one in popped {
                    let message = std::slice::from_ref(&one.message);
                    self.read(&one.queue, message, number, report);
                }
            }
            (
                Request::Dump { node, queue },
                Answer::Dumped {
                    min,
                    next,
                    messages,
                },
            ) => {
                let dump = Dump {
                    node: node.clone(),
                    begun: call.number,
                    ended: number,
                    min: *min,
                    next: *next,
                    missing: Vec::new(),
                };
                self.dumped(queue, dump, messages, report);
            }
            _ => {}
        }
    }

    fn read(&mut self, queue: &Queue, messages: &[Message], number: u64, report: &mut Report) {
        let places = queue_of(&mut self.queues, queue);
        for message in messages {
            if let Some(place) = places.at(queue, message, number, report) {
                place.read.get_or_insert(number);
            }
        }
    }

    fn dumped(&mut self, queue: &Queue, mut dump: Dump, messages: &[Message], report: &mut Report) {
        let places = queue_of(&mut self.queues, queue);
        let number = dump.ended;
        let mut expected = dump.min;
        for message in messages {
            places.at(queue, message, number, report);
            report.judged(Invariant::I3);
            if message.offset != expected {
                let text = format!(
                    "{} has {queue} {} where {expected} should be",
                    dump.node, message.offset
                );
                report.broken(Invariant::I3, &[number], text);
            }
            dump.missing.push(expected..message.offset);
            expected = expected.max(message.offset.saturating_add(1));
        }
        if expected != dump.next {
            let text = format!(
                "{} has {queue} up to {expected}, not {}",
                dump.node, dump.next
            );
            report.broken(Invariant::I3, &[number], text);
            dump.missing.push(expected..dump.next);
        }
        dump.missing.retain(|gap| !gap.is_empty());
        places.dumps.push(dump);
    }

    fn digest(&mut self, number: u64, note: &Note, report: &mut Report) {
        let Note::Digest {
            broker,
            node,
            index,
            crc,
        } = note
        else {
            return;
        };
        let seen = (*crc, node.clone(), number);
        let first = self.digests.entry((broker.clone(), *index)).or_insert(seen);
        report.judged(Invariant::I16);
        if first.0 != *crc {
            let text = format!(
                "the logs of {node} and {} of {broker} differ at or before index {index}",
                first.1
            );
            report.broken(Invariant::I16, &[first.2, number], text);
        }
    }
}

impl Judge for Places {
    fn see(&mut self, moment: Moment, step: &Step<'_>, report: &mut Report) {
        match step {
            Step::Ended {
                call,
                outcome: Outcome::Ok(answer),
            } => {
                self.answered(moment.number, call, answer, report);
            }
            Step::Noted(note) => self.digest(moment.number, note, report),
            _ => {}
        }
    }

    fn finish(&mut self, _moment: Moment, report: &mut Report) {
        for (queue, places) in &self.queues {
            for dump in &places.dumps {
                places.held_against(queue, dump, self.retention, report);
            }
        }
    }
}

impl QueuePlaces {
    /// Notes that a message was seen at an offset.
    fn at(
        &mut self,
        queue: &Queue,
        message: &Message,
        number: u64,
        report: &mut Report,
    ) -> Option<&mut Place> {
        let Message {
            id, crc, physical, ..
        } = *message;
        let fresh = Place {
            id,
            crc,
            physical,
            first: number,
            acked: None,
            read: None,
        };
        let place = self.places.entry(message.offset).or_insert(fresh);
        report.judged(Invariant::I2);
        if (place.id, place.crc) != (id, crc) {
            let text = format!(
                "{queue} {} is message {id} (crc {crc:08x}), and was message {} (crc {:08x})",
                message.offset, place.id, place.crc
            );
            report.broken(Invariant::I2, &[place.first, number], text.clone());
            if let Some(acked) = place.acked {
                report.broken(Invariant::I1, &[acked, number], text);
            }
            return None;
        }
        if let (Some(before), Some(now)) = (place.physical, physical) {
            report.judged(Invariant::I16);
            if before != now {
                let text = format!(
                    "{queue} {} is at {now} in the log, and was at {before}",
                    message.offset
                );
                report.broken(Invariant::I16, &[place.first, number], text);
            }
        }
        place.physical = place.physical.or(physical);
        Some(place)
    }

    /// Asks whether a replica has everything that was acked or read before it was dumped.
    fn held_against(&self, queue: &Queue, dump: &Dump, retention: bool, report: &mut Report) {
        let mut missing = dump.missing.iter().peekable();
        for (offset, place) in &self.places {
            while missing.next_if(|gap| gap.end <= *offset).is_some() {}
            let is_gone = missing.peek().is_some_and(|gap| gap.contains(offset))
                || *offset >= dump.next
                || (*offset < dump.min && !retention);
            let id = place.id;
            if let Some(acked) = place.acked.filter(|acked| *acked < dump.begun) {
                report.judged(Invariant::I1);
                if is_gone {
                    let text = format!(
                        "{} does not have {queue} {offset}, acked as {id}",
                        dump.node
                    );
                    report.broken(Invariant::I1, &[acked, dump.ended], text);
                }
            }
            if let Some(read) = place.read.filter(|read| *read < dump.begun) {
                report.judged(Invariant::I12);
                if is_gone {
                    let text =
                        format!("{} does not have {queue} {offset}, read as {id}", dump.node);
                    report.broken(Invariant::I12, &[read, dump.ended], text);
                }
            }
        }
    }
}

/// The messages of one pull follow each other, and begin where it asked.
fn consecutive(
    queue: &Queue,
    mut expected: u64,
    messages: &[Message],
    number: u64,
    report: &mut Report,
) {
    for message in messages {
        report.judged(Invariant::I3);
        if message.offset != expected {
            let text = format!(
                "a pull of {queue} gives {} where {expected} should be",
                message.offset
            );
            report.broken(Invariant::I3, &[number], text);
        }
        expected = message.offset.saturating_add(1);
    }
}

fn queue_of<'a>(queues: &'a mut HashMap<Queue, QueuePlaces>, queue: &Queue) -> &'a mut QueuePlaces {
    if !queues.contains_key(queue) {
        queues.insert(queue.clone(), QueuePlaces::default());
    }
    queues.get_mut(queue).expect("the queue was just put in")
}
