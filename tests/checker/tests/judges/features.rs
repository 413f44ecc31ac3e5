//! Transactions, timers, leases and hand-backs that go wrong.

use gantry_checker::event::{FaultClass, Message, Send};
use gantry_checker::{Answer, Invariant, Note, Queue, Request};

use crate::bad::told;
use crate::script::{Script, cursor, message, message_to_send, popped, queue, sent};

fn half(id: u64) -> Request {
    Request::Send(Send {
        half: true,
        ..message_to_send(id)
    })
}

fn end(commit: bool) -> Request {
    Request::EndTransaction { id: 1, commit }
}

#[test]
fn i9_a_rolled_back_message_is_visible() {
    told(Invariant::I9, |script, bad| {
        script.call("p", half(1), sent(&queue(0), 9));
        // A commit of unknown outcome may have come first, but not if the rollback is acked.
        let commit = script.invoke("p", end(true));
        script.info("p", commit);
        let rollback = script.invoke("p", end(false));
        if bad {
            script.ok("p", rollback, Answer::Done);
        } else {
            script.fail("p", rollback);
        }
        script.dump("n1", &[1]);
    });
}

#[test]
fn i9_a_message_is_committed_and_rolled_back() {
    told(Invariant::I9, |script, bad| {
        script.call("p", half(1), sent(&queue(0), 9));
        script.call("p", end(true), Answer::Done);
        script.call("p", end(!bad), Answer::Done);
        script.dump("n1", &[1]);
    });
}

#[test]
fn i9_a_commit_is_delivered_twice() {
    told(Invariant::I9, |script, bad| {
        script.call("p", half(1), sent(&queue(0), 9));
        script.call("p", end(true), Answer::Done);
        script.dump("n1", if bad { &[1, 1] } else { &[1] });
    });
}

#[test]
fn i9_a_producer_is_asked_about_what_has_ended() {
    told(Invariant::I9, |script, bad| {
        script.call("p", half(1), sent(&queue(0), 9));
        script.call("p", end(false), Answer::Done);
        // A question may have been under way.
        script.wait(if bad { 30_000 } else { 5 });
        script.note(Note::Checked { id: 1 });
    });
}

fn fault(script: &mut Script, class: FaultClass) {
    script.note(Note::Fault {
        name: "f1".to_string(),
        class,
        nodes: vec!["n1".to_string()],
    });
}

fn heal(script: &mut Script) {
    let name = "f1".to_string();
    script.note(Note::Heal { name });
}

#[test]
fn i9_a_fault_holds_a_question_up() {
    told(Invariant::I9, |script, bad| {
        script.call("p", half(1), sent(&queue(0), 9));
        script.call("p", end(false), Answer::Done);
        fault(script, FaultClass::Pause);
        script.wait(30_000);
        heal(script);
        script.wait(if bad { 30_000 } else { 5 });
        script.note(Note::Checked { id: 1 });
    });
}

#[test]
fn i9_nobody_is_asked_about_an_open_message() {
    told(Invariant::I9, |script, bad| {
        script.call("p", half(1), sent(&queue(0), 9));
        script.wait(50_000);
        script.note(Note::Checked { id: 1 });
        script.wait(if bad { 70_000 } else { 50_000 });
        script.note(Note::LoadEnds);
    });
}

fn delayed() -> Request {
    Request::Send(Send {
        delay_ms: Some(100),
        ..message_to_send(1)
    })
}

#[test]
fn i10_a_recalled_message_comes() {
    told(Invariant::I10, |script, bad| {
        script.call("p", delayed(), sent(&queue(0), 9));
        let recall = script.invoke("p", Request::Recall { id: 1 });
        if bad {
            script.ok("p", recall, Answer::Done);
        } else {
            script.info("p", recall);
        }
        script.wait(200);
        script.dump("n1", &[1]);
    });
}

#[test]
fn i10_a_recall_that_failed_has_its_effect() {
    told(Invariant::I10, |script, bad| {
        script.call("p", delayed(), sent(&queue(0), 9));
        let recall = script.invoke("p", Request::Recall { id: 1 });
        if bad {
            script.fail("p", recall);
        } else {
            script.ok("p", recall, Answer::Done);
        }
        script.wait(30_000);
        script.dump("n1", &[]);
    });
}

#[test]
fn i10_a_delayed_message_comes_twice() {
    told(Invariant::I10, |script, bad| {
        script.call("p", delayed(), sent(&queue(0), 9));
        script.wait(200);
        script.dump("n1", if bad { &[1, 1] } else { &[1] });
    });
}

#[test]
fn i10_what_a_clock_may_have_made_early_is_not_judged() {
    told(Invariant::I10, |script, bad| {
        let class = if bad {
            FaultClass::Kill
        } else {
            FaultClass::Clock
        };
        fault(script, class);
        heal(script);
        script.call("p", delayed(), sent(&queue(0), 9));
        script.wait(20);
        script.dump("n1", &[1]);
    });
}

fn retry_queue() -> Queue {
    Queue {
        topic: "%RETRY%g_t".to_string(),
        ..queue(0)
    }
}

fn pop(script: &mut Script, order: bool, answer: Vec<gantry_checker::event::Popped>) {
    let request = Request::Pop {
        group: "g".to_string(),
        invisible_ms: 100,
        order,
    };
    script.call("c", request, Answer::Popped(answer));
}

fn ack(script: &mut Script, offset: u64) {
    let cursor = cursor("g", 0);
    script.call("c", Request::Ack { cursor, offset }, Answer::Done);
}

#[test]
fn i11_a_message_comes_in_the_retry_topic_while_it_is_invisible() {
    told(Invariant::I11, |script, bad| {
        script.send("p", 1, 0);
        pop(script, false, vec![popped(&queue(0), 0, 1, 1)]);
        script.wait(if bad { 20 } else { 120 });
        pop(script, false, vec![popped(&retry_queue(), 0, 1, 2)]);
    });
}

#[test]
fn i11_an_acked_message_comes_in_the_retry_topic() {
    told(Invariant::I11, |script, bad| {
        script.send("p", 1, 0);
        pop(script, false, vec![popped(&queue(0), 0, 1, 1)]);
        // An ack that may have come too late says nothing.
        script.wait(if bad { 10 } else { 120 });
        ack(script, 0);
        script.wait(200);
        pop(script, false, vec![popped(&retry_queue(), 0, 1, 2)]);
    });
}

#[test]
fn i11_a_clock_may_have_ended_the_wait_before_an_ack() {
    told(Invariant::I11, |script, bad| {
        script.send("p", 1, 0);
        script.note(Note::LoadEnds);
        pop(script, false, vec![popped(&queue(0), 0, 1, 1)]);
        let class = if bad {
            FaultClass::Kill
        } else {
            FaultClass::Clock
        };
        fault(script, class);
        heal(script);
        ack(script, 0);
        script.wait(200);
        pop(script, false, vec![popped(&retry_queue(), 0, 1, 2)]);
    });
}

#[test]
fn i11_the_retry_topic_does_not_count() {
    told(Invariant::I11, |script, bad| {
        script.send("p", 1, 0);
        pop(script, false, vec![popped(&queue(0), 0, 1, 1)]);
        script.wait(200);
        pop(
            script,
            false,
            vec![popped(&retry_queue(), 0, 1, if bad { 1 } else { 2 })],
        );
    });
}

#[test]
fn i11_what_nobody_acked_does_not_come_again() {
    told(Invariant::I11, |script, bad| {
        script.send("p", 1, 0);
        pop(script, false, vec![popped(&queue(0), 0, 1, 1)]);
        script.wait(30_000);
        if !bad {
            pop(script, false, vec![popped(&retry_queue(), 0, 1, 2)]);
        }
        pop(script, false, Vec::new());
    });
}

#[test]
fn i11_a_later_message_comes_before_an_earlier_one_is_done_with() {
    told(Invariant::I11, |script, bad| {
        script.send("p", 1, 0);
        script.send("p", 2, 1);
        pop(script, true, vec![popped(&queue(0), 0, 1, 1)]);
        if !bad {
            ack(script, 0);
        }
        pop(script, true, vec![popped(&queue(0), 1, 2, 1)]);
    });
}

#[test]
fn i11_in_order_an_acked_message_comes_again_first() {
    told(Invariant::I11, |script, bad| {
        script.send("p", 1, 0);
        script.send("p", 2, 1);
        let both = |attempt| {
            let messages = [(0, 1), (1, 2)];
            messages.map(|(offset, id)| popped(&queue(0), offset, id, attempt))
        };
        pop(script, true, both(1).to_vec());
        ack(script, 1);
        if bad {
            ack(script, 0);
        }
        script.wait(200);
        // Behind one that is open, an acked one comes again.
        pop(script, true, both(2).to_vec());
    });
}

fn hand_back(script: &mut Script, times: u32) {
    let request = Request::SendBack {
        group: "g".to_string(),
        id: 1,
        times,
        times_max: 1,
        delay_ms: 100,
    };
    script.call("c", request, Answer::Done);
}

/// A full read of a topic of copies, which finds message 1 so often with these counts.
fn copies(script: &mut Script, topic: &str, times: &[u32]) {
    let queue = Queue {
        topic: topic.to_string(),
        ..queue(0)
    };
    let read = (0..).zip(times).map(|(offset, times)| Message {
        times: *times,
        ..message(&queue, offset, 1)
    });
    let messages: Vec<Message> = read.collect();
    let next = messages.len() as u64;
    let request = Request::Dump {
        node: "n1".to_string(),
        queue,
    };
    let answer = Answer::Dumped {
        min: 0,
        next,
        messages,
    };
    script.call("harness", request, answer);
}

#[test]
fn retry_a_message_does_not_come_again() {
    told(Invariant::Retry, |script, bad| {
        script.send("p", 1, 0);
        hand_back(script, 0);
        script.wait(30_000);
        copies(script, "%RETRY%g", if bad { &[] } else { &[1] });
    });
}

#[test]
fn retry_a_message_comes_again_twice() {
    told(Invariant::Retry, |script, bad| {
        script.send("p", 1, 0);
        hand_back(script, 0);
        script.wait(200);
        copies(script, "%RETRY%g", if bad { &[1, 1] } else { &[1] });
    });
}

#[test]
fn retry_a_message_says_a_wrong_count() {
    told(Invariant::Retry, |script, bad| {
        script.send("p", 1, 0);
        hand_back(script, 0);
        script.wait(200);
        copies(script, "%RETRY%g", if bad { &[0] } else { &[1] });
    });
}

#[test]
fn retry_a_dead_letter_comes_again() {
    told(Invariant::Retry, |script, bad| {
        script.send("p", 1, 0);
        hand_back(script, 1);
        script.wait(200);
        copies(script, if bad { "%RETRY%g" } else { "%DLQ%g" }, &[2]);
    });
    told(Invariant::Retry, |script, bad| {
        script.send("p", 1, 0);
        hand_back(script, 0);
        script.wait(200);
        copies(script, if bad { "%DLQ%g" } else { "%RETRY%g" }, &[1]);
    });
}
