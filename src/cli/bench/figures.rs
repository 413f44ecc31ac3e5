//! What a measurement came to: one JSON line, or one row of a table.

use serde::Serialize;

use super::reader::Reader;
use super::run::Measured;
use super::sender::Sender;
use super::tally::Tally;
use super::timers::Arrivals;

/// The figures of one run of a case. Unknown ones are null. Tools read these names: add, do not rename.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Figures {
    /// What was measured, as the user calls it.
    pub(super) system: Option<String>,
    pub(super) case: &'static str,
    /// What is special about the messages, or about how they are read.
    pub(super) kind: Option<String>,
    /// Counts the repetitions from 1.
    pub(super) run: u32,
    /// Bytes of a message's body.
    pub(super) size: Option<usize>,
    /// Requests under way; in an open loop the most that may be.
    pub(super) outstanding: usize,
    pub(super) connections: usize,
    pub(super) producers: Option<u32>,
    pub(super) batch: u32,
    pub(super) groups: usize,
    pub(super) topics: usize,
    /// Queues of all topics in all groups.
    pub(super) queues: usize,
    pub(super) header: &'static str,
    /// Messages a second that were to be sent.
    pub(super) rate: Option<f64>,
    /// Seconds that were measured.
    pub(super) seconds: f64,
    /// Messages that were acknowledged or received in that time.
    pub(super) messages: u64,
    pub(super) msgs_per_s: f64,
    /// Millions of bytes of bodies.
    pub(super) mb_per_s: f64,
    pub(super) p50_ms: Option<f64>,
    pub(super) p99_ms: Option<f64>,
    pub(super) p999_ms: Option<f64>,
    pub(super) max_ms: Option<f64>,
    pub(super) failed: u64,
    pub(super) first_failure: Option<String>,
    /// Attempts beyond the first, where messages are sent again.
    pub(super) retried: u64,
    /// Longest time in which a group acknowledged nothing.
    pub(super) longest_gap_ms: Option<f64>,
    pub(super) longest_gap_group: Option<String>,
    /// 100 is one core.
    pub(super) server_cpu_pct: Option<f64>,
    pub(super) client_cpu_pct: Option<f64>,
    /// Resident memory of the server that has most, in units of 2^20 bytes.
    pub(super) rss_mb: Option<f64>,
    /// CPU of all servers for a message.
    pub(super) cpu_us_per_msg: Option<f64>,
    /// How long refusals took, from when the request was written.
    pub(super) refused_p50_ms: Option<f64>,
    pub(super) refused_p99_ms: Option<f64>,
    pub(super) refused_max_ms: Option<f64>,
    /// Messages that brokers went through for a filter, selected or not.
    pub(super) scanned: Option<u64>,
    pub(super) scanned_per_s: Option<f64>,
    /// Timers that were acknowledged before the first of them was due.
    pub(super) pending: Option<u64>,
    /// Timers that came before they were due.
    pub(super) early: Option<u64>,
    /// Timers that came although they had come before.
    pub(super) again: Option<u64>,
    /// Timers that were acknowledged and did not come.
    pub(super) missing: Option<u64>,
}

const HEADINGS: [&str; 15] = [
    "case", "size", "outst.", "conns", "msgs/s", "MB/s", "p50 ms", "p99 ms", "p99.9 ms", "max ms",
    "failed", "server %", "client %", "RSS MB", "us/msg",
];
const GAP_HEADINGS: [&str; 2] = ["gap ms", "gap of"];
const SCAN_HEADINGS: [&str; 1] = ["scanned/s"];
const TIMER_HEADINGS: [&str; 4] = ["pending", "early", "again", "missing"];

impl Figures {
    /// The same with what was counted.
    pub(super) fn with(mut self, tally: &Tally, measured: &Measured) -> Figures {
        let seconds = measured.time.as_secs_f64();
        let used = |before: Option<f64>, after: Option<f64>| Some(after? - before?);
        let (before, after) = (measured.before, measured.after);
        let server_cpu = used(before.server_cpu, after.server_cpu);
        let client_cpu = used(before.client_cpu, after.client_cpu);
        let percent = |cpu: f64| round(cpu / seconds * 100.0, 1);
        let quantile = |at: f64| tally.latencies.quantile_ms(at).map(|ms| round(ms, 3));
        self.seconds = round(seconds, 6);
        self.messages = tally.messages;
        self.msgs_per_s = round(tally.messages as f64 / seconds, 1);
        self.mb_per_s = round(tally.bytes as f64 / seconds / 1e6, 3);
        self.p50_ms = quantile(0.5);
        self.p99_ms = quantile(0.99);
        self.p999_ms = quantile(0.999);
        self.max_ms = tally.latencies.max_ms().map(|ms| round(ms, 3));
        let refused = |at: f64| tally.refusals.quantile_ms(at).map(|ms| round(ms, 3));
        self.refused_p50_ms = refused(0.5);
        self.refused_p99_ms = refused(0.99);
        self.refused_max_ms = tally.refusals.max_ms().map(|ms| round(ms, 3));
        self.failed = tally.failed;
        self.first_failure = tally.first_failure.clone();
        self.retried = tally.retried;
        self.server_cpu_pct = server_cpu.map(percent);
        self.client_cpu_pct = client_cpu.map(percent);
        self.rss_mb = after
            .rss_bytes
            .map(|bytes| round(bytes as f64 / f64::from(1 << 20), 1));
        self.cpu_us_per_msg = server_cpu
            .filter(|_| tally.messages > 0)
            .map(|cpu| round(cpu * 1e6 / tally.messages as f64, 2));
        self
    }

    /// Adds what a filter made of the messages.
    pub(super) fn read_by(&mut self, reader: &Reader) {
        if reader.is_selective() {
            self.scanned = Some(reader.scanned);
            self.scanned_per_s = Some(round(reader.scanned as f64 / self.seconds, 1));
        }
    }

    /// Adds what became of timers.
    pub(super) fn timers(&mut self, arrivals: &Arrivals, sender: &Sender) {
        self.pending = Some(sender.pending);
        self.early = Some(arrivals.early);
        self.again = Some(arrivals.again);
        self.missing = Some(sender.tally.messages.saturating_sub(arrivals.came));
    }

    /// The case, and what is special about it.
    pub(super) fn what(&self) -> String {
        match &self.kind {
            Some(kind) => format!("{}, {kind}", self.case),
            None => self.case.to_string(),
        }
    }

    fn row(&self) -> Vec<String> {
        let number = |number: Option<f64>, digits: usize| match number {
            Some(number) => format!("{number:.digits$}"),
            None => "-".to_string(),
        };
        vec![
            self.what(),
            self.size.map_or("-".to_string(), |size| size.to_string()),
            self.outstanding.to_string(),
            self.connections.to_string(),
            number(Some(self.msgs_per_s), 0),
            number(Some(self.mb_per_s), 1),
            number(self.p50_ms, 2),
            number(self.p99_ms, 2),
            number(self.p999_ms, 2),
            number(self.max_ms, 1),
            self.failed.to_string(),
            number(self.server_cpu_pct, 0),
            number(self.client_cpu_pct, 0),
            number(self.rss_mb, 0),
            number(self.cpu_us_per_msg, 1),
        ]
    }

    fn gap_cells(&self) -> [String; 2] {
        let gap = self.longest_gap_ms.map(|gap| format!("{gap:.1}"));
        let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_string());
        [or_dash(gap), or_dash(self.longest_gap_group.clone())]
    }
}

/// Headings and rows; some have columns only where they were looked for.
pub(super) fn as_table(all: &[Figures]) -> (Vec<&'static str>, Vec<Vec<String>>) {
    let mut headings = HEADINGS.to_vec();
    let mut rows: Vec<Vec<String>> = all.iter().map(Figures::row).collect();
    if all.iter().any(|figures| figures.longest_gap_ms.is_some()) {
        headings.extend(GAP_HEADINGS);
        for (row, figures) in rows.iter_mut().zip(all) {
            row.extend(figures.gap_cells());
        }
    }
    let count = |count: Option<u64>| count.map_or("-".to_string(), |count| count.to_string());
    if all.iter().any(|figures| figures.scanned.is_some()) {
        headings.extend(SCAN_HEADINGS);
        for (row, figures) in rows.iter_mut().zip(all) {
            row.push(count(figures.scanned_per_s.map(|rate| rate as u64)));
        }
    }
    if all.iter().any(|figures| figures.pending.is_some()) {
        headings.extend(TIMER_HEADINGS);
        for (row, figures) in rows.iter_mut().zip(all) {
            let counts = [
                figures.pending,
                figures.early,
                figures.again,
                figures.missing,
            ];
            row.extend(counts.map(count));
        }
    }
    (headings, rows)
}

/// With so many decimals.
pub(super) fn round(number: f64, decimals: i32) -> f64 {
    let scale = 10f64.powi(decimals);
    (number * scale).round() / scale
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::time::Duration;

    use serde_json::{Value, json};

    use super::*;
    use crate::cli::bench::processes::Usage;

    fn measured(before: Option<f64>, after: Option<f64>) -> Measured {
        let usage = |server_cpu: Option<f64>| Usage {
            server_cpu,
            client_cpu: server_cpu.map(|cpu| cpu / 10.0),
            rss_bytes: server_cpu.map(|_| 50 << 20),
        };
        Measured {
            time: Duration::from_secs(2),
            before: usage(before),
            after: usage(after),
            longest_gap: None,
        }
    }

    fn tally() -> Tally {
        let mut tally = Tally::new();
        for ms in 1..=100 {
            tally.messages += 10;
            tally.bytes += 10 * 1000;
            tally.latencies.record(Duration::from_millis(ms), 10);
        }
        tally
    }

    #[test]
    fn a_json_line_has_the_promised_names_and_figures() {
        let blank = Figures {
            case: "produce",
            size: Some(1000),
            outstanding: 64,
            connections: 3,
            ..Figures::default()
        };
        let figures = blank.with(&tally(), &measured(Some(1.0), Some(4.0)));
        let line = serde_json::to_value(&figures).unwrap();
        for (name, wanted) in [
            ("system", Value::Null),
            ("case", json!("produce")),
            ("size", json!(1000)),
            ("outstanding", json!(64)),
            ("connections", json!(3)),
            ("msgs_per_s", json!(500.0)),
            ("mb_per_s", json!(0.5)),
            ("failed", json!(0)),
            ("server_cpu_pct", json!(150.0)),
            ("client_cpu_pct", json!(15.0)),
            ("rss_mb", json!(50.0)),
            ("cpu_us_per_msg", json!(3000.0)),
        ] {
            assert_eq!(line.get(name), Some(&wanted), "{name}");
        }
        for (name, wanted) in [
            ("p50_ms", 50.0),
            ("p99_ms", 99.0),
            ("p999_ms", 100.0),
            ("max_ms", 100.0),
        ] {
            let found = line[name].as_f64().unwrap();
            assert!((found - wanted).abs() < wanted / 500.0, "{name}: {found}");
        }
    }

    #[test]
    fn what_is_not_known_is_null_and_a_dash() {
        let figures = Figures::default().with(&Tally::new(), &measured(Some(1.0), None));
        let line = serde_json::to_value(&figures).unwrap();
        for name in [
            "p50_ms",
            "max_ms",
            "server_cpu_pct",
            "rss_mb",
            "cpu_us_per_msg",
            "size",
        ] {
            assert_eq!(line.get(name), Some(&Value::Null), "{name}");
        }
        let (headings, rows) = as_table(std::slice::from_ref(&figures));
        assert_eq!(headings.len(), rows[0].len());
        assert!(rows[0].contains(&"-".to_string()));
        let with_gap = Figures {
            longest_gap_ms: Some(12.0),
            ..figures.clone()
        };
        let (headings, rows) = as_table(&[figures, with_gap.clone()]);
        assert!(rows.iter().all(|row| row.len() == headings.len()));
        assert_eq!(rows[1][15], "12.0");
        let with_more = Figures {
            scanned_per_s: Some(7.4),
            scanned: Some(15),
            pending: Some(8),
            early: Some(0),
            ..Figures::default()
        };
        let (headings, rows) = as_table(&[with_gap, with_more]);
        assert!(rows.iter().all(|row| row.len() == headings.len()));
        assert_eq!(rows[1][15..], ["-", "-", "7", "8", "0", "-", "-"]);
    }
}
