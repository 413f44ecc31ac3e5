//! Has a history judged.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use gantry_checker::{Bounds, Checker, Merged, Report, verdict};

use crate::shell::{Outcome, while_doing};

/// From when a producer may be asked about a transaction until it must have been.
const ASKED: Duration = Duration::from_secs(12);

/// What the checker said, and what that took.
pub struct Verdict {
    /// The report.
    pub report: Report,
    /// How long it took.
    pub took: Duration,
}

/// Judges history files; the verdict is also written beside the first of them, as `verdict.txt`. Where a
/// disk was full, a replica may have removed the beginning of its queues. Producers are asked about open
/// transactions every 3 s.
pub fn judge(files: &[PathBuf], retention: bool) -> Outcome<Verdict> {
    let started = Instant::now();
    let mut history = Merged::open(files).map_err(while_doing("reading the history"))?;
    let mut checker = Checker::new(&Bounds {
        retention,
        asked_ns: ASKED.as_nanos() as u64,
        ..Bounds::default()
    });
    for entry in &mut history {
        checker.see(entry.map_err(while_doing("reading the history"))?.event);
    }
    let report = checker.finish();
    let took = started.elapsed();
    let directory = files[0].parent().unwrap_or(Path::new("."));
    let path = directory.join("verdict.txt");
    let file = File::create(&path).map_err(while_doing("writing the verdict"))?;
    let mut out = BufWriter::new(file);
    verdict::print(&report, files, &mut out).map_err(while_doing("writing the verdict"))?;
    out.flush().map_err(while_doing("writing the verdict"))?;
    Ok(Verdict { report, took })
}
