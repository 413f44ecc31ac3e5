//! For each promise a story in which it is kept, and the same story in which it is broken.

use gantry_checker::event::FaultClass;
use gantry_checker::{Answer, Bounds, Invariant, Note, Request};

use crate::script::{
    MS, Script, cursor, judge, locks, message, message_to_send, plain, popped, queue, sent, sent_by,
};

/// Tells the story both ways.
pub fn told(invariant: Invariant, story: impl Fn(&mut Script, bool)) {
    let bounds = Bounds {
        lease_ns: 100 * MS,
        skew_ns: MS,
        resume_ns: 50 * MS,
        catch_up_ns: 50 * MS,
        drain_ns: 50 * MS,
        late_ns: 50 * MS,
        ..Bounds::default()
    };
    let mut good = Script::default();
    story(&mut good, false);
    let report = judge(&good.events, &bounds);
    assert!(report.is_green(), "{invariant:?}: {:#?}", report.violations);
    assert!(
        report.judged.contains_key(&invariant),
        "{invariant:?} was not judged"
    );

    let mut bad = Script::default();
    story(&mut bad, true);
    let report = judge(&bad.events, &bounds);
    let found = report
        .violations
        .iter()
        .find(|violation| violation.invariant == invariant);
    let found = found.unwrap_or_else(|| panic!("{invariant:?}: {:#?}", report.violations));
    assert!(!found.text.is_empty());
    let last = bad.events.len() as u64;
    assert!(
        found.events.iter().all(|event| (1..=last).contains(event)),
        "{found:?}"
    );
}

fn pull(from: u64) -> Request {
    Request::Pull {
        queue: queue(0),
        from,
        filtered: false,
    }
}

fn pulled(offsets_and_ids: &[(u64, u64)], next: u64, max: u64) -> Answer {
    let messages = offsets_and_ids
        .iter()
        .map(|(offset, id)| message(&queue(0), *offset, *id));
    let node = Some("n1".to_string());
    Answer::Pulled {
        node,
        min: 0,
        max,
        next,
        messages: messages.collect(),
    }
}

fn end(offset: u64) -> Answer {
    Answer::End {
        node: Some("n1".to_string()),
        offset,
        current: true,
    }
}

fn fault(name: &str, class: FaultClass) -> Note {
    Note::Fault {
        name: name.to_string(),
        class,
        nodes: vec!["n1".to_string()],
    }
}

fn heal(name: &str) -> Note {
    Note::Heal {
        name: name.to_string(),
    }
}

#[test]
fn i1_an_acked_message_is_gone_from_one_replica() {
    told(Invariant::I1, |script, bad| {
        script.send("p", 1, 0);
        script.send("p", 2, 1);
        script.dump("n1", &[1, 2]);
        script.dump("n2", if bad { &[1] } else { &[1, 2] });
    });
}

#[test]
fn i1_another_message_has_the_offset_of_an_acked_one() {
    told(Invariant::I1, |script, bad| {
        script.send("p", 1, 0);
        script.send("p", 2, 1);
        script.dump("n1", if bad { &[2, 1] } else { &[1, 2] });
    });
}

#[test]
fn i1_the_beginning_may_go_only_with_retention() {
    let mut script = Script::default();
    script.send("p", 1, 0);
    let request = Request::Dump {
        node: "n1".to_string(),
        queue: queue(0),
    };
    script.call(
        "harness",
        request,
        Answer::Dumped {
            min: 1,
            next: 1,
            messages: Vec::new(),
        },
    );
    let report = judge(&script.events, &Bounds::default());
    assert_eq!(report.broken.keys().collect::<Vec<_>>(), [&Invariant::I1]);
    let report = judge(
        &script.events,
        &Bounds {
            retention: true,
            ..Bounds::default()
        },
    );
    assert!(report.is_green(), "{:?}", report.violations);
}

#[test]
fn i1_an_ack_after_the_dump_began_need_not_be_in_it() {
    let mut script = Script::default();
    let request = Request::Dump {
        node: "n1".to_string(),
        queue: queue(0),
    };
    let call = script.invoke("harness", request);
    script.send("p", 1, 0);
    let empty = Answer::Dumped {
        min: 0,
        next: 0,
        messages: Vec::new(),
    };
    script.ok("harness", call, empty);
    let report = judge(&script.events, &Bounds::default());
    assert!(report.is_green(), "{:?}", report.violations);
}

#[test]
fn i2_two_readers_see_two_messages_at_one_offset() {
    told(Invariant::I2, |script, bad| {
        script.invoke("p", plain(1));
        script.invoke("q", plain(2));
        script.call("c", pull(0), pulled(&[(0, 1)], 1, 1));
        script.call("d", pull(0), pulled(&[(0, if bad { 2 } else { 1 })], 1, 1));
    });
}

#[test]
fn i3_a_pull_leaves_a_message_out() {
    told(Invariant::I3, |script, bad| {
        for id in 1..=3 {
            script.send("p", id, id - 1);
        }
        let messages: &[_] = if bad {
            &[(0, 1), (2, 3)]
        } else {
            &[(0, 1), (1, 2), (2, 3)]
        };
        script.call("c", pull(0), pulled(messages, 3, 3));
    });
}

#[test]
fn i3_a_replica_has_a_hole() {
    told(Invariant::I3, |script, bad| {
        script.invoke("p", plain(1));
        script.invoke("p", plain(2));
        let mut messages = vec![message(&queue(0), 0, 1), message(&queue(0), 1, 2)];
        if bad {
            messages.remove(0);
        }
        let request = Request::Dump {
            node: "n1".to_string(),
            queue: queue(0),
        };
        script.call(
            "harness",
            request,
            Answer::Dumped {
                min: 0,
                next: 2,
                messages,
            },
        );
    });
}

#[test]
fn i4_a_message_is_read_that_nobody_sent() {
    told(Invariant::I4, |script, bad| {
        script.invoke("p", plain(1));
        script.call("c", pull(0), pulled(&[(0, if bad { 7 } else { 1 })], 1, 1));
    });
}

#[test]
fn i4_a_message_is_read_whose_send_failed() {
    told(Invariant::I4, |script, bad| {
        let call = script.invoke("p", plain(1));
        script.call("c", pull(0), pulled(&[(0, 1)], 1, 1));
        if bad {
            script.fail("p", call);
        } else {
            script.info("p", call);
        }
    });
}

#[test]
fn i5_a_message_sent_once_is_there_twice() {
    told(Invariant::I5, |script, bad| {
        script.send("p", 1, 0);
        if !bad {
            script.invoke("p", plain(1));
        }
        script.dump("n1", &[1, 1]);
    });
}

#[test]
fn i6_a_later_send_gets_an_earlier_offset() {
    told(Invariant::I6, |script, bad| {
        let first = script.invoke("p", plain(1));
        let mut second = None;
        if !bad {
            second = Some(script.invoke("p", plain(2)));
        }
        script.ok("p", first, sent(&queue(0), 1));
        let second = second.unwrap_or_else(|| script.invoke("p", plain(2)));
        script.ok("p", second, sent(&queue(0), 0));
    });
}

#[test]
fn i7_a_queue_ends_before_an_acked_message() {
    told(Invariant::I7, |script, bad| {
        script.send("p", 1, 0);
        script.call(
            "c",
            Request::MaxOffset { queue: queue(0) },
            end(u64::from(!bad)),
        );
    });
}

#[test]
fn i7_a_node_takes_back_what_it_showed() {
    told(Invariant::I7, |script, bad| {
        script.invoke("p", plain(1));
        script.call("c", pull(0), pulled(&[(0, 1)], 1, 1));
        script.call("c", pull(1), pulled(&[], 1, 1));
        if !bad {
            script.note(Note::Started {
                node: "n1".to_string(),
            });
        }
        script.call("c", pull(1), pulled(&[], 1, 0));
    });
}

#[test]
fn i8_a_committed_offset_goes_back() {
    told(Invariant::I8, |script, bad| {
        let commit = Request::Commit {
            cursor: cursor("g", 0),
            offset: 5,
        };
        script.call("c", commit, Answer::Done);
        if !bad {
            let reset = Request::Reset {
                cursor: cursor("g", 0),
                offset: 3,
            };
            script.call("admin", reset, Answer::Done);
        }
        script.call(
            "d",
            Request::Query {
                cursor: cursor("g", 0),
            },
            Answer::Offset(Some(3)),
        );
    });
}

#[test]
fn i8_only_the_lowest_of_overlapping_commits_is_promised() {
    told(Invariant::I8, |script, bad| {
        let commit = |offset| Request::Commit {
            cursor: cursor("g", 0),
            offset,
        };
        script.call("c", commit(2), Answer::Done);
        let low = script.invoke("c", commit(3));
        let high = script.invoke("d", commit(5));
        script.ok("d", high, Answer::Done);
        script.ok("c", low, Answer::Done);
        let offset = if bad { 2 } else { 3 };
        script.call(
            "d",
            Request::Query {
                cursor: cursor("g", 0),
            },
            Answer::Offset(Some(offset)),
        );
        let high = script.invoke("d", commit(9));
        script.call("c", commit(7), Answer::Done);
        script.ok("d", high, Answer::Done);
        script.call(
            "d",
            Request::Query {
                cursor: cursor("g", 0),
            },
            Answer::Offset(Some(7)),
        );
        // A client that commits a lower offset wants it so.
        script.call("c", commit(1), Answer::Done);
        script.call(
            "d",
            Request::Query {
                cursor: cursor("g", 0),
            },
            Answer::Offset(Some(1)),
        );
    });
}

/// A commit that its client has given up may come after a later one.
#[test]
fn i8_a_commit_without_an_answer_may_come_late() {
    told(Invariant::I8, |script, bad| {
        let commit = |offset| Request::Commit {
            cursor: cursor("g", 0),
            offset,
        };
        let low = script.invoke("c", commit(3));
        if bad {
            script.fail("c", low);
        } else {
            script.info("c", low);
        }
        script.call("c", commit(5), Answer::Done);
        let query = Request::Query {
            cursor: cursor("g", 0),
        };
        script.call("c", query, Answer::Offset(Some(3)));
    });
}

#[test]
fn i8_a_reset_without_an_answer_may_come_late() {
    let mut script = Script::default();
    let reset = Request::Reset {
        cursor: cursor("g", 0),
        offset: 3,
    };
    let call = script.invoke("admin", reset);
    script.info("admin", call);
    let commit = Request::Commit {
        cursor: cursor("g", 0),
        offset: 5,
    };
    script.call("c", commit, Answer::Done);
    script.call(
        "d",
        Request::Query {
            cursor: cursor("g", 0),
        },
        Answer::Offset(Some(3)),
    );
    let report = judge(&script.events, &Bounds::default());
    assert!(report.is_green(), "{:?}", report.violations);
    script.call(
        "d",
        Request::Query {
            cursor: cursor("g", 0),
        },
        Answer::Offset(Some(2)),
    );
    let report = judge(&script.events, &Bounds::default());
    assert!(report.broken.contains_key(&Invariant::I8));
}

fn half(id: u64) -> Request {
    Request::Send(gantry_checker::event::Send {
        half: true,
        ..message_to_send(id)
    })
}

#[test]
fn i9_a_half_message_is_visible_before_its_commit() {
    told(Invariant::I9, |script, bad| {
        script.call("p", half(1), sent(&queue(0), 9));
        script.invoke(
            "p",
            Request::EndTransaction {
                id: 1,
                commit: !bad,
            },
        );
        script.call("c", pull(0), pulled(&[(0, 1)], 1, 1));
    });
}

#[test]
fn i9_a_committed_message_is_not_there() {
    told(Invariant::I9, |script, bad| {
        script.call("p", half(1), sent(&queue(0), 9));
        script.call(
            "p",
            Request::EndTransaction {
                id: 1,
                commit: true,
            },
            Answer::Done,
        );
        script.dump("n1", if bad { &[] } else { &[1] });
    });
}

fn delayed(id: u64, delay_ms: u64) -> Request {
    let delay_ms = Some(delay_ms);
    Request::Send(gantry_checker::event::Send {
        delay_ms,
        ..message_to_send(id)
    })
}

#[test]
fn i10_a_delayed_message_comes_early() {
    told(Invariant::I10, |script, bad| {
        script.call("p", delayed(1, 100), sent(&queue(0), 9));
        script.wait(if bad { 90 } else { 100 });
        script.call("c", pull(0), pulled(&[(0, 1)], 1, 1));
    });
}

#[test]
fn i10_a_delayed_message_does_not_come() {
    told(Invariant::I10, |script, bad| {
        script.call("p", delayed(1, 100), sent(&queue(0), 9));
        script.wait(200);
        script.dump("n1", if bad { &[] } else { &[1] });
    });
}

fn pop(script: &mut Script, attempt: u32) {
    let request = Request::Pop {
        group: "g".to_string(),
        invisible_ms: 100,
        order: false,
    };
    let answer = Answer::Popped(vec![popped(&queue(0), 0, 1, attempt)]);
    script.call("c", request, answer);
}

#[test]
fn i11_a_popped_message_comes_again_too_soon() {
    told(Invariant::I11, |script, bad| {
        script.send("p", 1, 0);
        pop(script, 1);
        script.wait(if bad { 50 } else { 100 });
        pop(script, 2);
    });
}

#[test]
fn i11_a_renewed_message_comes_at_its_first_time() {
    told(Invariant::I11, |script, bad| {
        script.send("p", 1, 0);
        pop(script, 1);
        script.wait(50);
        let renew = Request::Renew {
            cursor: cursor("g", 0),
            offset: 0,
            invisible_ms: 100,
        };
        script.call("c", renew, Answer::Done);
        script.wait(if bad { 60 } else { 100 });
        pop(script, 2);
    });
}

#[test]
fn i11_an_acked_message_comes_again() {
    told(Invariant::I11, |script, bad| {
        script.send("p", 1, 0);
        pop(script, 1);
        let ack = Request::Ack {
            cursor: cursor("g", 0),
            offset: 0,
        };
        let call = script.invoke("c", ack);
        if bad {
            script.ok("c", call, Answer::Done);
        } else {
            script.info("c", call);
        }
        script.wait(200);
        pop(script, 2);
    });
}

#[test]
fn i11_an_attempt_is_not_counted() {
    told(Invariant::I11, |script, bad| {
        script.send("p", 1, 0);
        pop(script, 1);
        script.wait(200);
        pop(script, if bad { 1 } else { 2 });
    });
}

#[test]
fn i12_a_replica_showed_what_was_never_committed() {
    told(Invariant::I12, |script, bad| {
        script.invoke("p", plain(1));
        script.call("c", pull(0), pulled(&[(0, 1)], 1, 1));
        script.dump("n1", if bad { &[] } else { &[1] });
    });
}

#[test]
fn i12_a_pull_is_sent_back_behind_an_ack() {
    told(Invariant::I12, |script, bad| {
        script.send("p", 1, 0);
        script.call("c", pull(1), pulled(&[], u64::from(!bad), 1));
    });
}

#[test]
fn i14_an_isolated_node_acks() {
    told(Invariant::I14, |script, bad| {
        script.note(fault("cut", FaultClass::Isolate));
        let node = if bad { "n1" } else { "n2" };
        script.call("p", plain(1), sent_by(node, &queue(0), 0));
    });
}

#[test]
fn i14_what_was_asked_before_may_be_answered() {
    let mut script = Script::default();
    let call = script.invoke("p", plain(1));
    script.note(fault("cut", FaultClass::Isolate));
    script.ok("p", call, sent(&queue(0), 0));
    script.note(heal("cut"));
    script.send("p", 2, 1);
    let report = judge(&script.events, &Bounds::default());
    assert!(report.is_green(), "{:?}", report.violations);
}

fn put(value: &str) -> Request {
    Request::Put {
        register: "topic/t".to_string(),
        value: value.to_string(),
    }
}

fn get(script: &mut Script, by: &str, value: Option<&str>) {
    let request = Request::Get {
        register: "topic/t".to_string(),
    };
    script.call(by, request, Answer::Value(value.map(str::to_string)));
}

#[test]
fn i15_an_acked_definition_is_not_visible() {
    told(Invariant::I15, |script, bad| {
        script.call("admin", put("4 queues"), Answer::Done);
        get(script, "c", if bad { None } else { Some("4 queues") });
    });
}

#[test]
fn i15_a_definition_is_seen_and_then_not() {
    told(Invariant::I15, |script, bad| {
        script.invoke("admin", put("4 queues"));
        get(script, "c", None);
        get(script, "c", Some("4 queues"));
        get(script, "d", if bad { None } else { Some("4 queues") });
    });
}

#[test]
fn i15_an_overwritten_definition_comes_back() {
    told(Invariant::I15, |script, bad| {
        script.call("admin", put("4 queues"), Answer::Done);
        script.call("admin", put("8 queues"), Answer::Done);
        get(script, "c", Some(if bad { "4 queues" } else { "8 queues" }));
    });
}

#[test]
fn i15_a_refused_definition_is_seen() {
    told(Invariant::I15, |script, bad| {
        let call = script.invoke("admin", put("4 queues"));
        get(script, "c", Some("4 queues"));
        if bad {
            script.fail("admin", call);
        } else {
            script.info("admin", call);
        }
    });
}

#[test]
fn i16_logs_differ() {
    told(Invariant::I16, |script, bad| {
        for (node, crc) in [("n1", 17), ("n2", if bad { 18 } else { 17 })] {
            let (broker, node) = ("a".to_string(), node.to_string());
            script.note(Note::Digest {
                broker,
                node,
                index: 9,
                crc,
            });
        }
    });
}

#[test]
fn i16_a_message_is_elsewhere_in_another_log() {
    told(Invariant::I16, |script, bad| {
        script.send("p", 1, 0);
        let mut one = message(&queue(0), 0, 1);
        if bad {
            one.physical = Some(4096);
        }
        let request = Request::Dump {
            node: "n2".to_string(),
            queue: queue(0),
        };
        let answer = Answer::Dumped {
            min: 0,
            next: 1,
            messages: vec![one],
        };
        script.call("harness", request, answer);
    });
}

#[test]
fn i17_a_node_acks_after_its_disk_failed() {
    told(Invariant::I17, |script, bad| {
        script.note(fault("disk", FaultClass::DiskFailure));
        script.call("p", plain(1), sent_by("n2", &queue(0), 0));
        if !bad {
            script.note(Note::Started {
                node: "n1".to_string(),
            });
        }
        script.call("p", plain(2), sent_by("n1", &queue(0), 1));
    });
}

#[test]
fn two_clients_have_one_lock() {
    told(Invariant::Lock, |script, bad| {
        script.call(
            "x",
            Request::Lock(locks("x")),
            Answer::Locked(vec![queue(0)]),
        );
        if !bad {
            script.call("y", Request::Lock(locks("y")), Answer::Locked(Vec::new()));
            script.invoke("x", Request::Unlock(locks("x")));
        }
        script.call(
            "y",
            Request::Lock(locks("y")),
            Answer::Locked(vec![queue(0)]),
        );
    });
}

/// An unlock that was given up by its client may come late, and free what the client was given since.
#[test]
fn an_unlock_comes_late() {
    told(Invariant::Lock, |script, bad| {
        let lock = |script: &mut Script, owner: &str| {
            let request = Request::Lock(locks(owner));
            script.call(owner, request, Answer::Locked(vec![queue(0)]));
        };
        lock(script, "x");
        let unlock = script.invoke("x", Request::Unlock(locks("x")));
        if bad {
            script.ok("x", unlock, Answer::Done);
        } else {
            script.info("x", unlock);
        }
        lock(script, "x");
        lock(script, "y");
    });
}

#[test]
fn two_clients_are_given_one_lock_at_the_same_time() {
    told(Invariant::Lock, |script, bad| {
        let one = script.invoke("x", Request::Lock(locks("x")));
        let other = script.invoke("y", Request::Lock(locks("y")));
        script.ok("x", one, Answer::Locked(vec![queue(0)]));
        // A request that took longer than the lease may have come after it.
        script.wait(if bad { 50 } else { 100 });
        script.ok("y", other, Answer::Locked(vec![queue(0)]));
    });
}

#[test]
fn an_unlock_of_unknown_outcome_may_free_a_later_lock() {
    told(Invariant::Lock, |script, bad| {
        let granted = || Answer::Locked(vec![queue(0)]);
        script.call("x", Request::Lock(locks("x")), granted());
        let unlock = script.invoke("x", Request::Unlock(locks("x")));
        if bad {
            script.ok("x", unlock, Answer::Done);
        } else {
            script.info("x", unlock);
        }
        script.call("x", Request::Lock(locks("x")), granted());
        script.call("y", Request::Lock(locks("y")), granted());
    });
}

#[test]
fn l1_sends_do_not_resume() {
    told(Invariant::L1, |script, bad| {
        script.send("p", 1, 0);
        script.note(fault("kill", FaultClass::Kill));
        script.note(heal("kill"));
        script.wait(if bad { 60 } else { 10 });
        script.send("p", 2, 1);
    });
}

#[test]
fn l1_sends_never_resume() {
    told(Invariant::L1, |script, bad| {
        script.send("p", 1, 0);
        script.note(fault("kill", FaultClass::Kill));
        script.note(heal("kill"));
        if !bad {
            script.send("p", 2, 1);
        }
        script.wait(60);
        script.invoke("p", plain(3));
    });
}

#[test]
fn l2_a_replica_stays_behind() {
    told(Invariant::L2, |script, bad| {
        let nodes = vec!["n1".to_string(), "n2".to_string()];
        script.note(Note::Cluster {
            broker: "a".to_string(),
            nodes,
        });
        let progress = |node: &str, applied| {
            let (broker, node) = ("a".to_string(), node.to_string());
            Note::Progress {
                broker,
                node,
                committed: applied,
                applied,
            }
        };
        script.note(progress("n1", 100));
        script.note(fault("kill", FaultClass::Kill));
        script.note(heal("kill"));
        script.note(progress("n1", 101));
        script.note(progress("n2", if bad { 99 } else { 100 }));
        script.wait(60);
        script.note(progress("n1", 102));
    });
}

#[test]
fn l3_a_consumer_stays_behind() {
    told(Invariant::L3, |script, bad| {
        let commit = |offset| Request::Commit {
            cursor: cursor("g", 0),
            offset,
        };
        script.send("p", 1, 0);
        script.send("p", 2, 1);
        script.call("c", commit(1), Answer::Done);
        script.note(Note::LoadEnds);
        script.call("c", commit(if bad { 1 } else { 2 }), Answer::Done);
        script.wait(60);
        script.call("c", pull(2), pulled(&[], 2, 2));
    });
}

#[test]
fn an_operation_ends_twice() {
    told(Invariant::History, |script, bad| {
        let call = script.invoke("p", plain(1));
        script.ok("p", call, sent(&queue(0), 0));
        if bad {
            script.info("p", call);
        }
    });
}

#[test]
fn what_is_not_in_a_history_is_not_judged() {
    let mut script = Script::default();
    script.send("p", 1, 0);
    let report = judge(&script.events, &Bounds::default());
    assert!(report.is_green());
    assert!(
        !report.judged.contains_key(&Invariant::I1),
        "nothing was dumped"
    );
    assert!(!report.judged.contains_key(&Invariant::Lock));
    assert!(report.faults.is_empty());
}
