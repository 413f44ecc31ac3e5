//! Requests of RocketMQ's tools that have no meaning here, or are not in this version: each is answered with
//! what to do instead.

use std::ops::RangeInclusive;

use gantry_protocol::{RequestCode, ResponseCode};

use crate::error::Failure;

/// What to do instead, by code.
const ADVICE: &[(&[i32], &str)] = &[
    (
        &[13, 22, 23, 209, 210, 211, 212, 213, 214, 301, 302],
        "it is obsolete in RocketMQ itself",
    ),
    (
        &[27],
        "retention runs by itself, see storage.retention in the configuration",
    ),
    (
        &[39, 40, 220, 221, 326],
        "brokers ask it of clients, not clients of brokers",
    ),
    (
        &[43, 45, 60, 61, 322],
        "replicas are fed by the group's Raft log and by nothing else; query single offsets with 14, topics \
         with 21, groups with 201",
    ),
    (
        &[103, 104, 904, 905, 906],
        "brokers do not register: routes come from the state of the Raft groups",
    ),
    (
        &[354, 355],
        "there is no RocksDB; consume queues are derived from the log and checked on the way",
    ),
    (
        &[513],
        "static topics are not needed: the queues of a topic stay with their broker group, whose leader may \
         move; create an ordinary topic",
    ),
    (
        &[902, 903],
        "nodes are those of the configuration file; start a node of that configuration, or stop one",
    ),
    (
        &[908],
        "a replica's position is its log; stop the node, remove the group's directory, and it joins anew",
    ),
    (
        &[1001, 1003, 1004, 1008, 1012, 1013],
        "there is no controller: each group elects its leader by Raft",
    ),
    (
        &[1002],
        "there is no controller: a leader that is stopped (SIGTERM) hands leadership over first",
    ),
    (
        &[1005, 1006],
        "there is no controller: gantry status shows leader, voters and lag, 907 the followers",
    ),
    (
        &[1009, 1010],
        "there is no controller; the settings of a node are in its configuration file, 26 shows them",
    ),
    (
        &[1011],
        "there is no controller; a lost node's directory is removed, and the node joins anew",
    ),
    (
        &[2001, 2002, 2003],
        "reads of cold data are bounded by the node itself, for no group in particular",
    ),
    (
        &[2004],
        "the log is not mapped into memory; it is read ahead where it is read in order",
    ),
    (
        &[200_056],
        "POP has one store of its state, the Raft log; there is nothing to move back to",
    ),
];

/// What this version does not have, and what to do meanwhile, by first and last code.
const MISSING: &[(RangeInclusive<i32>, &str)] = &[
    (
        3001..=3010,
        "it has no users and no ACL, and asks no client who it is; let only those in who may send, by the \
         addresses of the listeners and by the network",
    ),
    (
        200_070..=200_079,
        "it has no lite topics; use ordinary topics",
    ),
];

/// The answer to a code that nothing handles.
pub fn refusal(code: RequestCode) -> Failure {
    let mut missing = MISSING.iter();
    let missing = missing.find(|(codes, _)| codes.contains(&code.0));
    let reason = match (advice(code), missing) {
        (Some(advice), _) => format!("{code} is not applicable under Raft: {advice}"),
        (None, Some((_, advice))) => {
            format!("{code} is not supported by this version of the broker: {advice}")
        }
        (None, None) => {
            format!("request code {code} is not supported by this version of the broker")
        }
    };
    Failure::code(ResponseCode::REQUEST_CODE_NOT_SUPPORTED, reason)
}

/// What to do instead of a request that has no meaning here.
pub fn advice(code: RequestCode) -> Option<&'static str> {
    let found = ADVICE.iter().find(|(codes, _)| codes.contains(&code.0));
    found.map(|(_, advice)| *advice)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_code_has_two_answers() {
        let mut codes: Vec<i32> = ADVICE
            .iter()
            .flat_map(|(codes, _)| *codes)
            .copied()
            .collect();
        let all = codes.len();
        codes.sort_unstable();
        codes.dedup();
        assert_eq!(codes.len(), all);
    }

    #[test]
    fn a_refusal_says_what_to_do() {
        let Failure::Code(code, reason) = refusal(RequestCode(1005)) else {
            panic!("a refusal has a code");
        };
        assert_eq!(code, ResponseCode::REQUEST_CODE_NOT_SUPPORTED);
        assert!(reason.contains("gantry status"), "{reason}");
        for code in 3001..=3010 {
            let text = refusal(RequestCode(code)).to_string();
            assert!(
                text.contains("no ACL") && text.contains("listeners"),
                "{text}"
            );
            assert!(text.contains(&code.to_string()), "{text}");
        }
        assert!(refusal(RequestCode(9999)).to_string().contains("9999"));
    }
}
