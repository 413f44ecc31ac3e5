//! How long a million events take, from the file and from memory.

#![allow(clippy::unwrap_used, dead_code)]

use std::fs::File;
use std::io::{BufWriter, Write};

use gantry_checker::{Checker, Event, Merged, Report};

#[path = "../tests/judges/script.rs"]
mod script;
#[path = "../tests/judges/simulated.rs"]
mod simulated;

const EVENTS: usize = 1_000_000;

fn main() {
    divan::main();
}

/// Judging alone.
#[divan::bench(sample_count = 3, sample_size = 1)]
fn million_events(bencher: divan::Bencher<'_, '_>) {
    let events = simulated::good(1, EVENTS);
    let judge = |events: Vec<Event>| -> Report {
        let mut checker = Checker::new(&simulated::bounds());
        events.into_iter().for_each(|event| checker.see(event));
        checker.finish()
    };
    bencher.with_inputs(|| events.clone()).bench_values(judge);
}

/// Reading and judging.
#[divan::bench(sample_count = 3, sample_size = 1)]
fn million_lines(bencher: divan::Bencher<'_, '_>) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("history");
    let mut file = BufWriter::new(File::create(&path).unwrap());
    for event in simulated::good(1, EVENTS) {
        serde_json::to_writer(&mut file, &event).unwrap();
        file.write_all(b"\n").unwrap();
    }
    file.flush().unwrap();
    bencher.bench(|| {
        let mut checker = Checker::new(&simulated::bounds());
        for entry in Merged::open(&[&path]).unwrap() {
            checker.see(entry.unwrap().event);
        }
        let report = checker.finish();
        assert!(report.is_green(), "{:?}", report.violations);
        report
    });
}
