//! Seeds that once failed pass, and a seed gives the same run twice.

#![allow(clippy::unwrap_used)]

use std::process::Command;

const SEEDS: &str = include_str!("../seeds.txt");

fn simulation(arguments: &[&str]) -> (bool, String) {
    let run = Command::new(env!("CARGO_BIN_EXE_simulation"))
        .args(arguments)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&run.stdout).into_owned();
    (run.status.success(), text)
}

#[test]
fn seeds_that_once_failed_pass() {
    let mut failed = Vec::new();
    let seeds = SEEDS.lines().filter(|line| !line.starts_with('#'));
    for line in seeds.filter(|line| !line.trim().is_empty()) {
        let (seed, reason) = line.split_once(' ').unwrap();
        let (plain, reason) = match reason.strip_prefix("plain ") {
            Some(reason) => (Some("--plain"), reason),
            None => (None, reason),
        };
        let arguments: Vec<&str> = ["--seed", seed].into_iter().chain(plain).collect();
        let (passed, text) = simulation(&arguments);
        if !passed {
            failed.push(format!(
                "seed {seed}, which once failed because {reason}:\n{text}"
            ));
        }
    }
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
