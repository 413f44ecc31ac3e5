//! Good histories with one thing changed: each change is noticed, and called by its name.

use gantry_checker::event::{FaultClass, Message, Popped, Sent};
use gantry_checker::{Answer, Event, Invariant, Note, Request, What};

use crate::script::{Script, judge};
use crate::simulated::{Random, bounds, good};

const SEEDS: u64 = 5;
const EVENTS: usize = 6_000;

/// Changes every seed's history and judges it.
fn caught(invariant: Invariant, change: impl Fn(&mut Vec<Event>, &mut Random)) {
    for seed in 0..SEEDS {
        let mut events = good(seed, EVENTS);
        let before = events.clone();
        change(&mut events, &mut Random(seed));
        assert!(events != before, "seed {seed}: nothing was changed");
        let report = judge(&events, &bounds());
        let broken = report.broken.contains_key(&invariant);
        assert!(
            broken,
            "seed {seed}: {invariant:?} is not among {:?}",
            report.broken
        );
    }
}

/// The place of one of the events that are of a kind.
fn any(events: &[Event], random: &mut Random, is_of_kind: impl Fn(&Event) -> bool) -> usize {
    let places: Vec<usize> = (0..events.len())
        .filter(|at| is_of_kind(&events[*at]))
        .collect();
    assert!(!places.is_empty(), "the history has no such event");
    places[random.below(places.len())]
}

fn sent(event: &mut Event) -> Option<&mut Sent> {
    match &mut event.what {
        // The offsets of delayed and half messages are not those of their queues.
        What::Ok {
            answer: Answer::Sent(sent),
            ..
        } if sent.offset < 1_000_000 => Some(sent),
        _ => None,
    }
}

fn is_sent(event: &Event) -> bool {
    sent(&mut event.clone()).is_some()
}

/// The messages that a pull or a dump found, and the offset after them.
fn rows(event: &mut Event) -> Option<(&mut Vec<Message>, &mut u64)> {
    match &mut event.what {
        What::Ok {
            answer: Answer::Pulled { messages, next, .. },
            ..
        }
        | What::Ok {
            answer: Answer::Dumped { messages, next, .. },
            ..
        } => Some((messages, next)),
        _ => None,
    }
}

fn has_rows(event: &Event, at_least: usize) -> bool {
    rows(&mut event.clone()).is_some_and(|(messages, _)| messages.len() >= at_least)
}

fn is_dump(event: &Event) -> bool {
    matches!(
        &event.what,
        What::Ok {
            answer: Answer::Dumped { .. },
            ..
        }
    )
}

/// The request that an event answers.
fn request_of(events: &[Event], at: usize) -> Option<(usize, Request)> {
    let What::Ok { call: ended, .. } = events[at].what else {
        return None;
    };
    let begun = events[..at]
        .iter()
        .rposition(|event| matches!(&event.what, What::Invoke { call, .. } if *call == ended))?;
    match &events[begun].what {
        What::Invoke { request, .. } => Some((begun, request.clone())),
        _ => None,
    }
}

/// Renames messages wherever they are seen in queues.
fn rename(events: &mut [Event], name: impl Fn(u64) -> u64) {
    for event in events {
        let messages: Vec<&mut Message> = match &mut event.what {
            What::Ok {
                answer: Answer::Popped(popped),
                ..
            } => popped
                .iter_mut()
                .map(|one: &mut Popped| &mut one.message)
                .collect(),
            _ => match rows(event) {
                Some((messages, _)) => messages.iter_mut().collect(),
                None => continue,
            },
        };
        for message in messages {
            message.id = name(message.id);
            message.crc = crate::script::crc(message.id);
        }
    }
}

#[test]
fn a_good_history_is_green_and_shows_everything() {
    for seed in 0..20 {
        let report = judge(&good(seed, 6_000), &bounds());
        assert!(report.is_green(), "seed {seed}: {:#?}", report.violations);
        // Nothing is handed back in these.
        let all = Invariant::ALL.into_iter();
        for invariant in all.filter(|one| *one != Invariant::Retry) {
            assert!(
                report.judged.contains_key(&invariant),
                "seed {seed}: {invariant:?} not judged"
            );
        }
        assert_eq!(report.faults.len(), 3, "seed {seed}");
    }
}

#[test]
fn a_replica_loses_its_last_message() {
    caught(Invariant::I1, |events, random| {
        // The last message that was acked: what follows it may have been unanswered.
        let dump = any(events, random, is_dump);
        let (_, request) = request_of(events, dump).unwrap();
        let Request::Dump { queue, .. } = request else {
            unreachable!();
        };
        let acks = events
            .iter()
            .cloned()
            .filter_map(|mut event| sent(&mut event).cloned());
        let last = acks
            .filter(|sent| sent.queue == queue)
            .map(|sent| sent.offset)
            .max()
            .unwrap();
        let (messages, next) = rows(&mut events[dump]).unwrap();
        messages.truncate(last as usize);
        *next = last;
    });
}

#[test]
fn a_message_is_missing_in_the_middle_of_a_replica() {
    caught(Invariant::I3, |events, random| {
        let dump = any(events, random, |event| is_dump(event) && has_rows(event, 3));
        let (messages, _) = rows(&mut events[dump]).unwrap();
        messages.remove(messages.len() / 2);
    });
}

#[test]
fn an_acked_message_is_replaced_in_all_replicas() {
    caught(Invariant::I1, |events, random| {
        let first = any(events, random, is_sent);
        let Some((_, Request::Send(send))) = request_of(events, first) else {
            unreachable!();
        };
        rename(events, |id| if id == send.id { id + 1 } else { id });
    });
}

#[test]
fn a_pull_skips_a_message() {
    caught(Invariant::I3, |events, random| {
        let pull = any(events, random, |event| {
            !is_dump(event) && has_rows(event, 3)
        });
        rows(&mut events[pull]).unwrap().0.remove(1);
    });
}

#[test]
fn an_offset_is_moved() {
    caught(Invariant::I2, |events, random| {
        let ack = any(events, random, is_sent);
        let sent = sent(&mut events[ack]).unwrap();
        sent.offset = if sent.offset == 0 { 1 } else { sent.offset - 1 };
    });
}

#[test]
fn a_message_is_read_under_another_name() {
    caught(Invariant::I4, |events, random| {
        let pull = any(events, random, |event| has_rows(event, 1));
        rows(&mut events[pull]).unwrap().0[0].id = 1 << 60;
    });
}

#[test]
fn a_body_is_damaged() {
    caught(Invariant::I4, |events, random| {
        let pull = any(events, random, |event| has_rows(event, 1));
        rows(&mut events[pull]).unwrap().0[0].crc ^= 1;
    });
}

#[test]
fn a_message_is_there_twice() {
    caught(Invariant::I5, |events, _| {
        for event in events.iter_mut().filter(|event| is_dump(event)) {
            let (messages, next) = rows(event).unwrap();
            // Message 1 has no key and is sent once.
            if let Some(again) = messages.iter().find(|message| message.id % 4 == 1).cloned() {
                messages.push(Message {
                    offset: *next,
                    physical: None,
                    ..again
                });
                *next += 1;
            }
        }
    });
}

#[test]
fn a_send_under_a_key_gives_two_offsets() {
    caught(Invariant::I13, |events, _| {
        for event in events.iter_mut().filter(|event| is_dump(event)) {
            let (messages, next) = rows(event).unwrap();
            if let Some(again) = messages.iter().find(|message| message.id % 4 == 0).cloned() {
                messages.push(Message {
                    offset: *next,
                    physical: None,
                    ..again
                });
                *next += 1;
            }
        }
    });
}

#[test]
fn two_messages_of_a_producer_change_places() {
    caught(Invariant::I6, |events, random| {
        // A later ack of the same producer and queue.
        // Sends under a key may give an offset of old.
        let is_ordered = |events: &[Event], at: usize| {
            let request = request_of(events, at);
            request.is_some_and(
                |(_, request)| matches!(request, Request::Send(send) if send.once_ms.is_none()),
            )
        };
        let (first, second) = loop {
            let first = any(events, random, is_sent);
            let queue = sent(&mut events[first]).unwrap().queue.clone();
            let by = events[first].by.clone();
            let later = (first + 1..events.len()).find(|at| {
                let event = &mut events[*at].clone();
                let is_same = sent(event).is_some_and(|sent| sent.queue == queue);
                event.by == by && is_same && is_ordered(events, *at)
            });
            let offset = sent(&mut events[first]).unwrap().offset;
            if let Some(later) = later
                && is_ordered(events, first)
                && sent(&mut events[later]).unwrap().offset > offset
            {
                break (first, later);
            }
        };
        let (one, other) = (
            sent(&mut events[first]).unwrap().clone(),
            sent(&mut events[second]).unwrap().clone(),
        );
        *sent(&mut events[first]).unwrap() = other;
        *sent(&mut events[second]).unwrap() = one;
    });
}

#[test]
fn the_end_of_a_queue_goes_back() {
    caught(Invariant::I7, |events, _| {
        for event in events.iter_mut().rev() {
            if let What::Ok {
                answer: Answer::End { offset, .. },
                ..
            } = &mut event.what
            {
                *offset = 0;
                return;
            }
        }
    });
}

#[test]
fn a_consumer_offset_is_rolled_back() {
    caught(Invariant::I8, |events, _| {
        let mut script = Script::after(events);
        let cursor = crate::script::cursor("g", 0);
        script.call("late", Request::Query { cursor }, Answer::Offset(Some(0)));
        events.append(&mut script.events);
    });
}

#[test]
fn a_half_message_is_visible_though_nobody_commits() {
    caught(Invariant::I9, |events, _| {
        for event in events {
            if let What::Invoke {
                request: Request::EndTransaction { commit, .. },
                ..
            } = &mut event.what
            {
                *commit = false;
            }
        }
    });
}

#[test]
fn a_delayed_message_comes_before_its_time() {
    caught(Invariant::I10, |events, _| {
        for event in events {
            if let What::Invoke {
                request: Request::Send(send),
                ..
            } = &mut event.what
                && let Some(delay_ms) = &mut send.delay_ms
            {
                *delay_ms *= 1_000;
            }
        }
    });
}

#[test]
fn an_acked_message_is_popped_again() {
    caught(Invariant::I11, |events, random| {
        let ack = any(
            events,
            random,
            |event| matches!(&event.what, What::Ok { answer: Answer::Popped(one), .. } if !one.is_empty()),
        );
        let mut again = events[ack].what.clone();
        let mut script = Script::after(events);
        let (_, request) = request_of(events, ack).unwrap();
        for attempt in [100, 101] {
            if let What::Ok {
                answer: Answer::Popped(popped),
                ..
            } = &mut again
            {
                popped[0].attempt = attempt;
                script.call("late", request.clone(), Answer::Popped(popped.clone()));
            }
        }
        events.append(&mut script.events);
    });
}

#[test]
fn a_replica_forgets_what_was_read() {
    caught(Invariant::I12, |events, _| {
        for event in events.iter_mut().filter(|event| is_dump(event)) {
            let (messages, next) = rows(event).unwrap();
            messages.clear();
            *next = 0;
        }
    });
}

/// Lets the node that is hit by the first fault of a class answer while it is hit.
fn answered_by_the_victim(events: &mut [Event], of: FaultClass) {
    let hit = |event: &Event| match &event.what {
        What::Note(Note::Fault { class, nodes, .. }) if *class == of => Some(nodes[0].clone()),
        _ => None,
    };
    let start = events
        .iter()
        .position(|event| hit(event).is_some())
        .unwrap();
    let victim = hit(&events[start]).unwrap();
    for at in start..events.len() {
        let begun = request_of(events, at).map(|(begun, _)| begun);
        if let (Some(begun), Some(sent)) = (begun, sent(&mut events[at]))
            && begun > start
        {
            sent.node = Some(victim);
            return;
        }
    }
    panic!("nothing was acked after the fault");
}

#[test]
fn an_isolated_node_acks() {
    caught(Invariant::I14, |events, _| {
        answered_by_the_victim(events, FaultClass::Isolate)
    });
}

#[test]
fn a_node_acks_after_its_disk_failed() {
    caught(Invariant::I17, |events, _| {
        answered_by_the_victim(events, FaultClass::DiskFailure)
    });
}

#[test]
fn an_old_definition_comes_back() {
    caught(Invariant::I15, |events, _| {
        let is_value = |event: &Event| {
            matches!(
                &event.what,
                What::Ok {
                    answer: Answer::Value(Some(_)),
                    ..
                }
            )
        };
        let first = events.iter().position(is_value).unwrap();
        let last = events.iter().rposition(is_value).unwrap();
        let (What::Ok { answer: old, .. }, What::Ok { call, .. }) =
            (events[first].what.clone(), events[last].what.clone())
        else {
            unreachable!();
        };
        events[last].what = What::Ok { call, answer: old };
    });
}

#[test]
fn a_record_is_elsewhere_in_one_log() {
    caught(Invariant::I16, |events, random| {
        let dump = any(events, random, |event| is_dump(event) && has_rows(event, 1));
        let (messages, _) = rows(&mut events[dump]).unwrap();
        messages[0].physical = Some(1 << 40);
    });
}

#[test]
fn a_lock_is_granted_whoever_has_it() {
    caught(Invariant::Lock, |events, _| {
        for event in events {
            if let What::Ok {
                answer: Answer::Locked(queues),
                ..
            } = &mut event.what
            {
                *queues = vec![crate::script::queue(0)];
            }
        }
    });
}

#[test]
fn sends_stop_after_a_fault() {
    caught(Invariant::L1, |events, _| {
        let healed = events
            .iter()
            .position(|event| matches!(&event.what, What::Note(Note::Heal { .. })))
            .unwrap();
        for event in &mut events[healed..] {
            if let What::Ok {
                call,
                answer: Answer::Sent(_),
            } = event.what
            {
                event.what = What::Info { call, code: None };
            }
        }
    });
}

#[test]
fn a_replica_does_not_catch_up() {
    caught(Invariant::L2, |events, _| {
        for event in events {
            if let What::Note(Note::Progress { node, applied, .. }) = &mut event.what
                && node == "n3"
            {
                *applied = 0;
            }
        }
    });
}

#[test]
fn a_consumer_does_not_reach_the_end() {
    caught(Invariant::L3, |events, _| {
        let end = events
            .iter()
            .position(|event| matches!(&event.what, What::Note(Note::LoadEnds)))
            .unwrap();
        for event in &mut events[end..] {
            if let What::Invoke {
                request: Request::Commit { offset, .. },
                ..
            } = &mut event.what
            {
                *offset = 0;
            }
        }
    });
}
