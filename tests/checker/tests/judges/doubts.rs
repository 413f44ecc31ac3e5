//! What may and what may not be concluded from operations of unknown outcome, and from clocks.

use gantry_checker::event::FaultClass;
use gantry_checker::{Answer, Invariant, Note, Request};

use crate::bad::told;
use crate::script::{Script, cursor, locks, queue};

fn commit(offset: u64) -> Request {
    let cursor = cursor("g", 0);
    Request::Commit { cursor, offset }
}

fn query(script: &mut Script, offset: u64) {
    let cursor = cursor("g", 0);
    script.call("c", Request::Query { cursor }, Answer::Offset(Some(offset)));
}

#[test]
fn a_commit_of_unknown_outcome_takes_effect_twice() {
    told(Invariant::I8, |script, bad| {
        script.call("a", commit(5), Answer::Done);
        let unknown = script.invoke("a", commit(10));
        if bad {
            query(script, 10);
        }
        script.info("a", unknown);
        script.call("b", commit(20), Answer::Done);
        // It may come now for the first time, but not if it was seen before.
        query(script, 10);
    });
}

#[test]
fn a_commit_that_overlaps_the_look_at_another_may_be_undone() {
    told(Invariant::I8, |script, bad| {
        let unknown = script.invoke("a", commit(10));
        let later = (!bad).then(|| script.invoke("b", commit(20)));
        query(script, 10);
        let later = later.unwrap_or_else(|| script.invoke("b", commit(20)));
        script.ok("b", later, Answer::Done);
        query(script, 10);
        script.info("a", unknown);
    });
}

#[test]
fn a_clock_that_is_set_ends_the_locks_of_before() {
    told(Invariant::Lock, |script, bad| {
        let lock = |script: &mut Script, owner: &str| {
            let granted = Answer::Locked(vec![queue(0)]);
            script.call(owner, Request::Lock(locks(owner)), granted);
        };
        lock(script, "x");
        let late = script.invoke("z", Request::Lock(locks("z")));
        if !bad {
            script.note(Note::Fault {
                name: "clock".to_string(),
                class: FaultClass::Clock,
                nodes: vec!["n1".to_string()],
            });
            lock(script, "y");
            script.note(Note::Heal {
                name: "clock".to_string(),
            });
        }
        // Asked before the clock was set: it may have been answered before, too.
        script.ok("z", late, Answer::Locked(vec![queue(0)]));
        lock(script, "w");
    });
    told(Invariant::Lock, |script, bad| {
        script.note(Note::Fault {
            name: "clock".to_string(),
            class: FaultClass::Clock,
            nodes: vec!["n1".to_string()],
        });
        script.note(Note::Heal {
            name: "clock".to_string(),
        });
        let granted = || Answer::Locked(vec![queue(0)]);
        script.call("x", Request::Lock(locks("x")), granted());
        let answer = if bad {
            granted()
        } else {
            Answer::Locked(Vec::new())
        };
        script.call("y", Request::Lock(locks("y")), answer);
    });
}
