//! One measurement: warm-up, the time that counts, and what was still under way.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::answers;
use super::connection::Connection;
use super::consumers::Consumers;
use super::driver::{Driver, Lost};
use super::processes::Usage;
use super::sender::Sender;
use crate::cli::failure::Failure;
use crate::cli::output::Progress;

/// How long answers are waited for after the end.
const DRAIN_MAX: Duration = Duration::from_secs(5);
/// How soon Ctrl-C is noticed.
const LOOK_UP: Duration = Duration::from_millis(100);
/// A little more than the second that a progress line lasts.
const SHOWN_EVERY: Duration = Duration::from_millis(1005);

/// What is done, and for how long.
pub(super) struct Plan<'a> {
    /// When the load begins; a schedule has the same beginning.
    pub(super) started: Instant,
    pub(super) warm_up: Duration,
    /// `None`: until everything is sent.
    pub(super) duration: Option<Duration>,
    /// Processes whose CPU and memory are accounted.
    pub(super) servers: &'a [u32],
    /// A process that is killed so long after the warm-up.
    pub(super) kill: Option<(u32, Duration)>,
    /// Says that the user wants an end.
    pub(super) interrupted: &'a AtomicBool,
    /// What the progress line begins with; none is shown without.
    pub(super) shown_as: Option<String>,
}

/// What came out of it; the rest is in the tallies.
#[derive(Clone, Copy, Debug)]
pub(super) struct Measured {
    /// How long was measured.
    pub(super) time: Duration,
    pub(super) before: Usage,
    pub(super) after: Usage,
    /// The longest time without an acknowledgement and the group that had it, if that was watched.
    pub(super) longest_gap: Option<(Duration, usize)>,
}

/// The parts of a measurement.
pub(super) struct Run<'a> {
    pub(super) plan: Plan<'a>,
    pub(super) driver: Driver,
    /// On the first connections.
    pub(super) sender: Option<Sender>,
    /// On the connections after the sender's.
    pub(super) consumers: Option<Consumers>,
    /// Number of the sender's connections.
    pub(super) senders: usize,
}

#[derive(Clone, Copy, Debug)]
enum Phase {
    WarmUp { until: Instant },
    Measuring { since: Instant, before: Usage },
    Draining { until: Instant },
}

/// What the progress line has shown.
struct Shown {
    progress: Progress,
    at: Instant,
    messages: u64,
}

impl Run<'_> {
    /// Goes through all phases; `None` if there was no time to measure anything.
    pub(super) fn go(&mut self) -> Result<Option<Measured>, Failure> {
        let started = self.plan.started;
        let mut phase = Phase::WarmUp {
            until: started + self.plan.warm_up,
        };
        let mut shown = Shown {
            progress: Progress::new(),
            at: started,
            messages: 0,
        };
        let mut measured = None;
        let (mut ready, mut lost) = (Vec::new(), Vec::new());
        let mut now = Instant::now();
        loop {
            phase = match phase {
                Phase::WarmUp { until } if now >= until => self.begin(until, now),
                Phase::Measuring { since, before } if self.is_over(since, now) => {
                    measured = Some(self.end(since, before, now));
                    let until = now + DRAIN_MAX;
                    Phase::Draining { until }
                }
                Phase::WarmUp { .. } if self.is_interrupted() => return Ok(None),
                Phase::Draining { until } if now >= until || self.has_drained() => break,
                same => same,
            };
            if let Phase::Measuring { since, .. } = phase {
                self.kill_if_due(since, now)?;
            }
            self.show(&phase, now, &mut shown);
            if let Some(sender) = &mut self.sender {
                sender.send_due(now, &mut self.driver);
            }
            if let Some(consumers) = &mut self.consumers {
                consumers.ask_due(now, &mut self.driver);
            }
            self.driver.flush(&mut lost)?;
            if lost.is_empty() {
                let until = self.wake_at(&phase, now);
                self.driver.wait(until, &mut ready, &mut lost)?;
            }
            now = Instant::now();
            for index in ready.drain(..) {
                self.look_at(index, now, &mut lost);
            }
            self.mend(&mut lost, now)?;
        }
        if let Some(sender) = &mut self.sender {
            sender.give_up(now, &mut self.driver);
        }
        if let Some(name) = &self.plan.shown_as {
            shown.progress.finish(&format!("{name}: done"));
        }
        Ok(measured)
    }

    fn is_interrupted(&self) -> bool {
        self.plan.interrupted.load(Ordering::Relaxed)
    }

    /// What has a schedule is measured by it, and not from when this thread got round to it.
    fn begin(&mut self, planned: Instant, now: Instant) -> Phase {
        let since = if self.has_schedule() { planned } else { now };
        if let Some(sender) = &mut self.sender {
            sender.begin_counting(since);
        }
        if let Some(consumers) = &mut self.consumers {
            consumers.begin_counting(since);
        }
        Phase::Measuring {
            since,
            before: Usage::now(self.plan.servers),
        }
    }

    fn has_schedule(&self) -> bool {
        self.sender.as_ref().is_some_and(Sender::has_schedule)
    }

    fn is_over(&self, since: Instant, now: Instant) -> bool {
        let is_time = self
            .plan
            .duration
            .is_some_and(|duration| now >= since + duration);
        let is_sent =
            self.plan.duration.is_none() && self.sender.as_ref().is_some_and(Sender::is_finished);
        let consumers = self.consumers.as_ref();
        let is_read = consumers.is_some_and(|consumers| consumers.is_finished(now));
        is_time || is_sent || is_read || self.is_interrupted()
    }

    fn end(&mut self, since: Instant, before: Usage, now: Instant) -> Measured {
        let after = Usage::now(self.plan.servers);
        let ended = match self.plan.duration {
            Some(duration) if self.has_schedule() => now.min(since + duration),
            _ => now,
        };
        let mut longest_gap = None;
        if let Some(sender) = &mut self.sender {
            sender.end_counting(ended);
            longest_gap = sender.gaps.as_ref().map(|gaps| gaps.longest(now));
        }
        if let Some(consumers) = &mut self.consumers {
            consumers.end_counting();
        }
        Measured {
            time: ended - since,
            before,
            after,
            longest_gap,
        }
    }

    /// Nothing is waited for: every send has its answer, and what was acknowledged has been read.
    fn has_drained(&self) -> bool {
        match (&self.sender, &self.consumers) {
            (Some(sender), Some(consumers)) => {
                sender.is_finished() && consumers.tally().messages >= sender.tally.messages
            }
            (Some(sender), None) => sender.is_finished(),
            (None, Some(consumers)) => consumers.has_drained(),
            (None, None) => true,
        }
    }

    fn kill_if_due(&mut self, since: Instant, now: Instant) -> Result<(), Failure> {
        let Some((pid, _)) = self.plan.kill.take_if(|(_, after)| now >= since + *after) else {
            return Ok(());
        };
        let target = i32::try_from(pid).ok().and_then(Pid::from_raw);
        let target = target.ok_or_else(|| Failure::usage(format!("{pid} is not a process id")))?;
        kill_process(target, Signal::KILL)
            .map_err(|error| Failure::new(format!("cannot kill process {pid}: {error}")))
    }

    fn wake_at(&self, phase: &Phase, now: Instant) -> Instant {
        let mut at = now + LOOK_UP;
        if let Some(sender) = &self.sender {
            at = at.min(sender.next_due());
        }
        if let Some(due) = self.consumers.as_ref().and_then(Consumers::next_due) {
            at = at.min(due);
        }
        let ends = match phase {
            Phase::WarmUp { until } | Phase::Draining { until } => Some(*until),
            Phase::Measuring { since, .. } => self.plan.duration.map(|duration| *since + duration),
        };
        let kills = match (phase, &self.plan.kill) {
            (Phase::Measuring { since, .. }, Some((_, after))) => Some(*since + *after),
            _ => None,
        };
        [ends, kills].into_iter().flatten().fold(at, Instant::min)
    }

    /// Hands the whole frames of a connection to whom they belong.
    fn look_at(&mut self, index: usize, now: Instant, lost: &mut Vec<Lost>) {
        let Connection {
            group,
            received,
            flights,
            ..
        } = &mut self.driver.connections[index];
        let mut at = 0;
        let broken = loop {
            let answer = match answers::cut(&received[at..]) {
                Ok(Some(answer)) => answer,
                Ok(None) => break None,
                Err(reason) => break Some(reason),
            };
            at += answer.length;
            let booked = match (&mut self.sender, &mut self.consumers) {
                (Some(sender), _) if index < self.senders => {
                    sender.answered((index, *group), flights, &answer, now)
                }
                (_, Some(consumers)) => consumers.answered(*group, &answer, now),
                _ => Ok(()),
            };
            if let Err(reason) = booked {
                break Some(reason);
            }
        };
        received.drain(..at);
        if let Some(reason) = broken {
            self.driver.lose(index, reason, lost);
        }
    }

    /// Takes note of connections that broke and of those that are there again.
    fn mend(&mut self, lost: &mut Vec<Lost>, now: Instant) -> Result<(), Failure> {
        if let Some(sender) = &mut self.sender {
            for index in sender.silent(now, &self.driver) {
                self.driver
                    .lose(index, "no answer within 3 s".to_string(), lost);
            }
        }
        for lost in lost.drain(..) {
            let reason = self.driver.first_break.as_deref().unwrap_or_default();
            match (&mut self.sender, &mut self.consumers) {
                (Some(sender), _) if lost.connection < self.senders => {
                    sender.lost(lost, reason, now);
                }
                (_, Some(consumers)) => consumers.lost(lost.connection, reason),
                _ => {}
            }
        }
        for index in self.driver.reconnected()? {
            match (&mut self.sender, &mut self.consumers) {
                (Some(sender), _) if index < self.senders => {
                    sender.reconnected(index, &mut self.driver);
                }
                (_, Some(consumers)) => consumers.reconnected(index),
                _ => {}
            }
        }
        Ok(())
    }

    fn show(&self, phase: &Phase, now: Instant, shown: &mut Shown) {
        let Some(name) = &self.plan.shown_as else {
            return;
        };
        let since_shown = now.saturating_duration_since(shown.at);
        if since_shown < SHOWN_EVERY {
            return;
        }
        let tally = match (&self.consumers, &self.sender) {
            (Some(consumers), _) => consumers.tally(),
            (None, Some(sender)) => &sender.tally,
            (None, None) => return,
        };
        let text = match phase {
            Phase::WarmUp { .. } => "warming up".to_string(),
            Phase::Draining { .. } => "waiting for the last answers".to_string(),
            Phase::Measuring { since, .. } => {
                let new = tally.messages.saturating_sub(shown.messages);
                format!(
                    "{} s, {:.0} msgs/s, p99 {:.2} ms, {} failed",
                    now.saturating_duration_since(*since).as_secs(),
                    new as f64 / since_shown.as_secs_f64(),
                    tally.latencies.quantile_ms(0.99).unwrap_or_default(),
                    tally.failed
                )
            }
        };
        shown.progress.show(&format!("{name}: {text}"));
        (shown.at, shown.messages) = (now, tally.messages);
    }
}
