//! Messages of topics that keep one copy.

use gantry_checker::event::{FaultClass, Send};
use gantry_checker::{Answer, Bounds, Invariant, Note, Request};

use crate::bad::told;
use crate::script::{MS, Script, judge, message, message_to_send, queue, sent};

const WINDOW_MS: u64 = 100;

fn once() -> Request {
    Request::Send(Send {
        once_ms: Some(WINDOW_MS),
        ..message_to_send(1)
    })
}

/// A send of which nobody knows what became of it.
fn unanswered(script: &mut Script) {
    let call = script.invoke("p", once());
    script.info("p", call);
}

fn pull(script: &mut Script, ids: &[u64]) {
    let messages = (0..).zip(ids);
    let messages = messages.map(|(offset, id)| message(&queue(0), offset, *id));
    let request = Request::Pull {
        queue: queue(0),
        from: 0,
        filtered: false,
    };
    let end = ids.len() as u64;
    let answer = Answer::Pulled {
        node: Some("n1".to_string()),
        min: 0,
        max: end,
        next: end,
        messages: messages.collect(),
    };
    script.call("c", request, answer);
}

#[test]
fn i13_a_key_gives_two_offsets() {
    told(Invariant::I13, |script, bad| {
        script.call("p", once(), sent(&queue(0), 0));
        script.call("p", once(), sent(&queue(0), u64::from(bad)));
    });
}

#[test]
fn i13_a_send_of_unknown_outcome_is_stored_again() {
    told(Invariant::I13, |script, bad| {
        unanswered(script);
        unanswered(script);
        script.call("p", once(), sent(&queue(0), 0));
        pull(script, if bad { &[1, 1] } else { &[1] });
    });
}

#[test]
fn i13_an_ack_names_one_copy_and_readers_find_two() {
    told(Invariant::I13, |script, bad| {
        unanswered(script);
        script.call("p", once(), sent(&queue(0), u64::from(bad)));
        pull(script, if bad { &[1, 1] } else { &[1] });
    });
}

#[test]
fn i13_a_copy_within_the_window_is_stored_and_one_behind_it_may_be() {
    told(Invariant::I13, |script, bad| {
        script.call("p", once(), sent(&queue(0), 0));
        // Four events are as many milliseconds, and clocks may be one apart.
        script.wait(if bad { WINDOW_MS - 8 } else { WINDOW_MS });
        script.call("p", once(), sent(&queue(0), 1));
    });
}

/// Two copies of one message, after what a test says happened.
fn violations(bounds: &Bounds, story: impl Fn(&mut Script)) -> usize {
    let mut script = Script::default();
    script.call("p", once(), sent(&queue(0), 0));
    story(&mut script);
    script.call("p", once(), sent(&queue(0), 1));
    let report = judge(&script.events, bounds);
    let violations = report.violations.iter();
    let of_keys = violations.filter(|one| one.invariant == Invariant::I13);
    assert_eq!(of_keys.clone().count(), report.violations.len());
    of_keys.count()
}

#[test]
fn i13_a_window_is_not_judged_by_clocks_that_are_set() {
    let bounds = Bounds {
        skew_ns: MS,
        ..Bounds::default()
    };
    let jump = |script: &mut Script| {
        script.note(Note::Fault {
            name: "jump".to_string(),
            class: FaultClass::Clock,
            nodes: vec!["n1".to_string()],
        });
    };
    assert_eq!(violations(&bounds, |_| {}), 1);
    assert_eq!(violations(&bounds, jump), 0);
    let apart = Bounds {
        clocks_agree: false,
        ..bounds
    };
    assert_eq!(violations(&apart, |_| {}), 0);
}
