//! Messages that are looked for by their keys.

use gantry_checker::event::Found;
use gantry_checker::{Answer, Invariant, Request};

use crate::bad::told;
use crate::script::{message, plain, queue, sent};

fn found(offset: u64, id: u64) -> Answer {
    let message = message(&queue(0), offset, id);
    let queue = queue(0);
    Answer::Found(vec![Found { queue, message }])
}

#[test]
fn an_acked_message_is_not_found_by_its_key() {
    told(Invariant::I1, |script, bad| {
        let early = script.invoke("s", Request::Lookup { id: 1 });
        script.send("p", 1, 0);
        // It was looked for before it was acked.
        script.ok("s", early, Answer::Found(Vec::new()));
        let answer = if bad {
            Answer::Found(Vec::new())
        } else {
            found(0, 1)
        };
        script.call("s", Request::Lookup { id: 1 }, answer);
    });
}

#[test]
fn a_lookup_gives_another_message() {
    told(Invariant::I1, |script, bad| {
        script.send("p", 1, 0);
        script.send("p", 2, 1);
        let answer = if bad { found(1, 2) } else { found(0, 1) };
        script.call("s", Request::Lookup { id: 1 }, answer);
    });
}

#[test]
fn a_lookup_gives_what_nobody_sent_or_has_another_place() {
    told(Invariant::I4, |script, bad| {
        let send = script.invoke("p", plain(1));
        if bad {
            script.fail("p", send);
        } else {
            script.ok("p", send, sent(&queue(0), 0));
        }
        script.call("s", Request::Lookup { id: 1 }, found(0, 1));
    });
    told(Invariant::I2, |script, bad| {
        script.send("p", 1, 0);
        script.send("p", 2, 1);
        script.call("s", Request::Lookup { id: 1 }, found(u64::from(bad), 1));
    });
}
