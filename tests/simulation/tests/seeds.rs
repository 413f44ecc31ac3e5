//! Seeds that once failed pass, and a seed gives the same run twice.

#![allow(clippy::unwrap_used)]

use std::process::Command;
use std::sync::Mutex;
use std::{iter, thread};

const SEEDS: &str = include_str!("../seeds.txt");

fn simulation(arguments: &[&str]) -> (bool, String) {
    let run = Command::new(env!("CARGO_BIN_EXE_simulation"))
        .args(arguments)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&run.stdout).into_owned();
    (run.status.success(), text)
}

/// What a line of the list says failed, if it fails again.
fn failure_of(line: &str) -> Option<String> {
    let (seed, reason) = line.split_once(' ').unwrap();
    let (plain, reason) = match reason.strip_prefix("plain ") {
        Some(reason) => (Some("--plain"), reason),
        None => (None, reason),
    };
    let arguments: Vec<&str> = ["--seed", seed].into_iter().chain(plain).collect();
    let (passed, text) = simulation(&arguments);
    (!passed).then(|| format!("seed {seed}, which once failed because {reason}:\n{text}"))
}

#[test]
fn seeds_that_once_failed_pass() {
    let seeds = SEEDS.lines().filter(|line| !line.starts_with('#'));
    let seeds = Mutex::new(seeds.filter(|line| !line.trim().is_empty()));
    // A seed is one busy thread.
    let work = || -> Vec<String> {
        let next = || seeds.lock().unwrap().next();
        iter::from_fn(next).filter_map(failure_of).collect()
    };
    let workers = thread::available_parallelism().unwrap().get();
    let failed: Vec<String> = thread::scope(|scope| {
        let running: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
        let joined = running.into_iter().map(|worker| worker.join().unwrap());
        joined.flatten().collect()
    });
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

#[test]
fn a_seed_gives_the_same_run_twice() {
    let (same, text) = simulation(&["--replay-check", "4..5"]);
    assert!(same, "{text}");
    assert!(text.contains("1 replayed exactly"), "{text}");
}

#[test]
fn a_wrong_range_is_refused() {
    let (accepted, _) = simulation(&["--seeds", "7..7"]);
    assert!(!accepted);
}
