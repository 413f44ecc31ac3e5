//! What the producers saw: messages acked, second by second, and the times in which a group acked nothing.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::Round;
use super::deeds::Deeds;
use crate::node::GROUPS;
use crate::shell::Outcome;

/// A group without an ack for longer than this was not available. Each group gets more than a hundred
/// requests a second.
pub const WINDOW_MIN: Duration = Duration::from_millis(250);

/// A time in which a group acked nothing.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    /// The group.
    pub group: usize,
    /// When it began, since the round did.
    pub since: Duration,
    /// How long it was.
    pub length: Duration,
}

/// Waits for a group's first ack of a send that began after a moment.
struct Probe {
    group: usize,
    since: Instant,
    gap: Option<Duration>,
}

/// Counters of a round.
pub struct Tally {
    started: Instant,
    probe: Mutex<Option<Probe>>,
    acked: [AtomicU64; GROUPS.len()],
    /// Sends that certainly had no effect.
    pub refused: AtomicU64,
    /// Sends of which nobody knows.
    pub unknown: AtomicU64,
    /// Messages read.
    pub read: AtomicU64,
    /// What was done with messages that wait or come again.
    pub deeds: Deeds,
    last: Mutex<[Option<Instant>; GROUPS.len()]>,
    windows: Mutex<Vec<Window>>,
    seconds: Mutex<String>,
}

impl Tally {
    /// Nothing counted yet.
    pub fn new() -> Self {
        Self {
            started: Instant::now(),
            probe: Mutex::default(),
            acked: Default::default(),
            refused: AtomicU64::new(0),
            unknown: AtomicU64::new(0),
            read: AtomicU64::new(0),
            deeds: Deeds::default(),
            last: Mutex::default(),
            windows: Mutex::default(),
            seconds: Mutex::new(
                "second,broker-a,broker-b,broker-c,refused,unknown,read\n".to_string(),
            ),
        }
    }

    /// From here on the group's next ack of a new send is waited for.
    pub fn expect_ack(&self, group: usize, since: Instant) {
        let probe = Probe {
            group,
            since,
            gap: None,
        };
        *self
            .probe
            .lock()
            .expect("nothing panics while it holds this") = Some(probe);
    }

    /// How long that took, once it has come.
    pub fn gap(&self) -> Option<Duration> {
        let probe = self
            .probe
            .lock()
            .expect("nothing panics while it holds this");
        probe.as_ref().and_then(|probe| probe.gap)
    }

    /// A group has acked messages whose send began at a moment.
    pub fn acked(&self, group: usize, messages: u64, begun: Instant) {
        self.acked[group].fetch_add(messages, Ordering::Relaxed);
        let now = Instant::now();
        if let Some(probe) = &mut *self
            .probe
            .lock()
            .expect("nothing panics while it holds this")
            && probe.group == group
            && begun > probe.since
        {
            probe.gap.get_or_insert(now.duration_since(probe.since));
        }
        let before = {
            let mut last = self
                .last
                .lock()
                .expect("nothing panics while it holds this");
            let before = last[group];
            last[group] = Some(now);
            before
        };
        let since = before.unwrap_or(self.started);
        let length = now.saturating_duration_since(since);
        if length > WINDOW_MIN {
            let since = since.duration_since(self.started);
            let window = Window {
                group,
                since,
                length,
            };
            self.windows
                .lock()
                .expect("nothing panics while it holds this")
                .push(window);
        }
    }

    /// Messages acked by all groups.
    pub fn acked_in_all(&self) -> u64 {
        self.acked
            .iter()
            .map(|acked| acked.load(Ordering::Relaxed))
            .sum()
    }

    /// When no group acked anything for too long.
    pub fn windows(&self) -> Vec<Window> {
        self.windows
            .lock()
            .expect("nothing panics while it holds this")
            .clone()
    }

    /// The same as CSV.
    pub fn windows_text(&self) -> String {
        let mut text = "group,since_ms,length_ms\n".to_string();
        for Window {
            group,
            since,
            length,
        } in self.windows()
        {
            let (name, since, length) = (GROUPS[group], since.as_millis(), length.as_millis());
            // Writing to a string does not fail.
            let _ = writeln!(text, "{name},{since},{length}");
        }
        text
    }

    /// A line for each second, as CSV.
    pub fn seconds(&self) -> String {
        self.seconds
            .lock()
            .expect("nothing panics while it holds this")
            .clone()
    }

    /// How long the round has lasted.
    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    fn totals(&self) -> [u64; 6] {
        let [a, b, c] = [0, 1, 2].map(|group| self.acked[group].load(Ordering::Relaxed));
        let others = [&self.refused, &self.unknown, &self.read];
        let [refused, unknown, read] = others.map(|counter| counter.load(Ordering::Relaxed));
        [a, b, c, refused, unknown, read]
    }
}

/// Writes down each second.
pub async fn tick(round: Arc<Round>) -> Outcome {
    let mut before = [0; 6];
    let mut interval = tokio::time::interval(Duration::from_secs(1));
    while round.reads() {
        interval.tick().await;
        let now = round.tally.totals();
        let mut line = round.tally.elapsed().as_secs().to_string();
        for (now, before) in now.iter().zip(before) {
            // Writing to a string does not fail.
            let _ = write!(line, ",{}", now - before);
        }
        line.push('\n');
        round
            .tally
            .seconds
            .lock()
            .expect("nothing panics while it holds this")
            .push_str(&line);
        before = now;
    }
    Ok(())
}
