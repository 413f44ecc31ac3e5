//! What is said about a run in the end.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use gantry_checker::Invariant;

use crate::failover::Gaps;
use crate::load::{self, Counts};
use crate::node::GROUPS;
use crate::run::{Plan, RunReport};
use crate::schedule::Class;
use crate::shell::{Outcome, while_doing};

/// Prints the summary, adds a line to `results`, and says whether the run is accepted: everything green, and
/// every class that was asked for really happened.
pub fn print(
    plan: &Plan,
    report: &RunReport,
    skipped: &[(Class, String)],
    results: Option<&Path>,
) -> Outcome<bool> {
    let mut passed = 0;
    let mut failed = 0;
    let mut check = |name: &str, is_right: bool, detail: &str| {
        let verdict = if is_right { "ok" } else { "FAILED" };
        println!("{verdict:<7} {name}: {detail}");
        if is_right {
            passed += 1;
        } else {
            failed += 1;
        }
    };
    println!("\nseed {}", plan.seed);
    for (class, _) in &plan.mix {
        let count = report.counts.get(class).copied().unwrap_or_default();
        let detail = format!("in effect {} times of {}", count.done, count.tried);
        check(class.name(), count.done > 0, &detail);
    }
    for (class, reason) in skipped {
        println!("SKIPPED {}: {reason}", class.name());
    }
    for invariant in Invariant::ALL {
        let sum = |of: &dyn Fn(&crate::run::RoundReport) -> Option<u64>| -> u64 {
            report.rounds.iter().filter_map(of).sum()
        };
        let judged = sum(&|round| round.verdict.report.judged.get(&invariant).copied());
        let broken = sum(&|round| round.verdict.report.broken.get(&invariant).copied());
        let name = format!("{invariant:?}");
        if judged > 0 || broken > 0 {
            let detail = format!("{}: {judged} judged, {broken} broken", invariant.meaning());
            check(&name, broken == 0, &detail);
        } else {
            println!("-       {name}: {}: nothing to judge", invariant.meaning());
        }
    }
    let missing = missing_load(report);
    let all = "every kind of it";
    check(
        "load of features",
        missing.is_empty(),
        if missing.is_empty() { all } else { &missing },
    );
    if let Some(failure) = &report.failure {
        check("the run", false, &failure.to_string());
    }
    let acked: u64 = report.rounds.iter().map(|round| round.acked).sum();
    let lasted: Duration = report.rounds.iter().map(|round| round.lasted).sum();
    let rate = acked as f64 / lasted.as_secs_f64().max(1.0);
    println!(
        "\n{acked} messages acked and verified in {:.1} min under faults, {rate:.0} a second",
        lasted.as_secs_f64() / 60.0
    );
    println!("{}", deeds_text(&deeds(report)));
    print_windows(report);
    if let Some(gaps) = &report.gaps {
        print_gaps(plan, gaps);
    }
    if let Some(path) = results {
        add_line(path, plan, report, (acked, lasted), failed)?;
    }
    println!("{passed} passed, {failed} failed");
    Ok(failed == 0)
}

fn print_gaps(plan: &Plan, gaps: &Gaps) {
    println!(
        "{} leaders hit at {:.0} % of {} messages a second: first ack of a new send after p50 {:.0} ms, \
         p90 {:.0} ms, p99 {:.0} ms, longest {:.0} ms",
        gaps.gaps_ms.len(),
        plan.failover.map_or(0.0, |failover| failover.load * 100.0),
        gaps.peak,
        gaps.percentile(50.0),
        gaps.percentile(90.0),
        gaps.percentile(99.0),
        gaps.percentile(100.0)
    );
}

/// What should have been done with messages that wait or come again, and was not; nothing if all was.
fn missing_load(report: &RunReport) -> String {
    let clock = report.counts.get(&Class::Clock);
    let clock_was_set = clock.is_some_and(|count| count.done > 0);
    let missing = load::missing(&deeds(report), clock_was_set);
    let missing = missing
        .into_iter()
        .map(|deed| format!("no {}", deed.name()));
    missing.collect::<Vec<_>>().join(", ")
}

/// What all rounds did with messages that wait or come again.
fn deeds(report: &RunReport) -> Counts {
    let mut sum = Counts::new();
    for (deed, count) in report.rounds.iter().flat_map(|round| &round.deeds) {
        *sum.entry(*deed).or_default() += count;
    }
    sum
}

fn deeds_text(deeds: &Counts) -> String {
    let words = deeds
        .iter()
        .map(|(deed, count)| format!("{count} {}", deed.name()));
    words.collect::<Vec<_>>().join(", ")
}

fn print_windows(report: &RunReport) {
    for (group, name) in GROUPS.iter().enumerate() {
        let windows = report.rounds.iter().flat_map(|round| &round.windows);
        let mut lengths: Vec<u128> = windows
            .filter(|window| window.group == group)
            .map(|window| window.length.as_millis())
            .collect();
        lengths.sort_unstable();
        let at = |percent: usize| {
            lengths.get((lengths.len() * percent / 100).min(lengths.len().max(1) - 1))
        };
        println!(
            "{name}: {} times without an ack for over 250 ms: p50 {} ms, p99 {} ms, longest {} ms",
            lengths.len(),
            at(50).copied().unwrap_or(0),
            at(99).copied().unwrap_or(0),
            lengths.last().copied().unwrap_or(0)
        );
    }
}

/// One JSON object for each run, so that runs can be added up.
fn add_line(
    path: &Path,
    plan: &Plan,
    report: &RunReport,
    (acked, lasted): (u64, Duration),
    failed: u32,
) -> Outcome {
    let counts: serde_json::Map<String, serde_json::Value> = report
        .counts
        .iter()
        .map(|(class, count)| (class.name().to_string(), count.done.into()))
        .collect();
    let flips: serde_json::Map<String, serde_json::Value> = report
        .flipped
        .iter()
        .map(|(kind, count)| (format!("{kind:?}"), (*count).into()))
        .collect();
    let features: serde_json::Map<String, serde_json::Value> = deeds(report)
        .iter()
        .map(|(deed, count)| (deed.name().to_string(), (*count).into()))
        .collect();
    let line = serde_json::json!({
        "seed": plan.seed,
        "minutes": lasted.as_secs_f64() / 60.0,
        "acked": acked,
        "rounds": report.rounds.len(),
        "failed": failed,
        "failure": report.failure.as_ref().map(ToString::to_string),
        "faults": counts,
        "flips": flips,
        "features": features,
        "failover_ms": report.gaps.as_ref().map(|gaps| &gaps.gaps_ms),
    });
    let file = OpenOptions::new().create(true).append(true).open(path);
    let mut file = file.map_err(while_doing("opening the results"))?;
    writeln!(file, "{line}").map_err(while_doing("writing the results"))
}
