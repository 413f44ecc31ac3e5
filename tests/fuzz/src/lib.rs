//! Functions of arbitrary bytes that must never panic, hang, or take memory without bound.
//!
//! Each of [`TARGETS`] is run in two ways: by libFuzzer, with coverage (`run.sh`, `harness/`), and by
//! `tests/replay.rs`, an ordinary test without instrumentation that repeats the corpus and a bounded number
//! of seeded mutations of it. A target asserts more than that nothing panics: what it accepts must mean the
//! same after another trip, what is damaged must be noticed, and doing it twice must give the same.

#![allow(clippy::unwrap_used, reason = "test code: a failure is a finding")]

pub mod corpus;
mod filter;
mod frames;
mod input;
mod messages;
pub mod mutate;
mod node;
mod peers;
mod recovery;
mod requests;
mod round_trips;

/// Something that takes arbitrary bytes.
#[derive(Clone, Copy)]
pub struct Target {
    /// Name of its corpus, its dictionary and its binary.
    pub name: &'static str,
    /// Does it; panics on a finding.
    pub run: fn(&[u8]),
    /// How many mutations the replay tries: fewer where one costs more.
    pub mutations: u64,
}

/// All of them.
pub const TARGETS: &[Target] = &[
    Target {
        name: "frames",
        run: frames::run,
        mutations: 60_000,
    },
    Target {
        name: "messages",
        run: messages::run,
        mutations: 60_000,
    },
    Target {
        name: "filter",
        run: filter::run,
        mutations: 60_000,
    },
    Target {
        name: "requests",
        run: requests::run,
        mutations: 3_000,
    },
    Target {
        name: "peers",
        run: peers::run,
        mutations: 10_000,
    },
    Target {
        name: "recovery",
        run: recovery::run,
        mutations: 2_000,
    },
    Target {
        name: "round_trips",
        run: round_trips::run,
        mutations: 20_000,
    },
];

/// The target of that name.
///
/// # Panics
/// If there is none.
pub fn target(name: &str) -> Target {
    let found = TARGETS.iter().find(|target| target.name == name);
    *found.expect("a target of that name")
}
