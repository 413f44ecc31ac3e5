//! The gate without a fuzzer: every input of the corpus, then seeded mutations of them, through the same
//! functions. Takes seconds, needs nothing installed, and repeats: a failure names its input, or its seed
//! and case.

#![allow(clippy::unwrap_used)]

use std::panic::{AssertUnwindSafe, catch_unwind};

use gantry_fuzz::mutate::{Random, mutated};
use gantry_fuzz::{Target, corpus, target};

/// Another one for each run of the fuzzer would find more, and find it only once.
const SEED: u64 = 1;

/// Longest input that is made.
const INPUT_BYTES_MAX: usize = 4096;

fn replay(name: &str) {
    let target = target(name);
    let inputs = corpus::read(name);
    assert!(!inputs.is_empty(), "{name} has no corpus");
    for (input, bytes) in &inputs {
        run(target, bytes, || format!("corpus/{name}/{input}"));
    }
    let mut random = Random::new(SEED);
    for case in 0..target.mutations {
        let (_, original) = &inputs[random.below(inputs.len())];
        let (_, other) = &inputs[random.below(inputs.len())];
        let mut bytes = mutated(original, other, &mut random);
        bytes.truncate(INPUT_BYTES_MAX);
        run(target, &bytes, || format!("seed {SEED}, case {case}"));
    }
}

fn run(target: Target, bytes: &[u8], what: impl Fn() -> String) {
    if catch_unwind(AssertUnwindSafe(|| (target.run)(bytes))).is_err() {
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        panic!("{}: {} fails on {hex}", target.name, what());
    }
}

#[test]
fn frames() {
    replay("frames");
}

#[test]
fn messages() {
    replay("messages");
}

#[test]
fn filter() {
    replay("filter");
}

#[test]
fn peers() {
    replay("peers");
}

#[test]
fn requests() {
    replay("requests");
}

#[test]
fn recovery() {
    replay("recovery");
}

#[test]
fn round_trips() {
    replay("round_trips");
}
