//! `gantry bench`: measures any RocketMQ by its own protocol.
//!
//! One thread drives all connections ([`driver`]); requests are encoded beforehand ([`frames`]) and answers
//! read no further than needed ([`answers`]), so that on one machine the servers keep the CPU. What the
//! driver uses is part of the output.

mod answers;
mod cases;
mod connection;
mod consumers;
mod driver;
mod figures;
mod frames;
mod ground;
mod kinds;
mod options;
mod pacing;
mod popper;
mod pops;
mod processes;
mod reader;
mod reconnects;
mod run;
mod sender;
mod stamp;
mod tally;
mod timers;
mod turns;

use std::io::IsTerminal;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::dev::Interrupts;
use super::failure::{Failure, Outcome};
use super::output::{self, Format, note};
use consumers::Consumers;
use driver::Driver;
use figures::Figures;
use ground::{Ground, Offsets};
use kinds::MessageKind;
pub(super) use options::BenchCommand;
use options::{GroundArgs, MeasureArgs, PullArgs, TimeArgs};
use pacing::{Schedule, Walk};
use reader::ReadQueue;
use reconnects::Reconnects;
use run::{Measured, Plan, Run};
use sender::{Load, Pace, Sender};

/// Timers of the driver's thread may be late by this, not by the 50 us that threads usually allow.
const TIMER_SLACK_NS: u64 = 1_000;

pub(super) async fn run(command: BenchCommand) -> Outcome {
    match command {
        BenchCommand::Produce(args) => cases::produce(args).await,
        BenchCommand::Consume(args) => cases::consume(args).await,
        BenchCommand::Latency(args) => cases::latency(args).await,
        BenchCommand::Timers(args) => cases::timers(args).await,
        BenchCommand::EndToEnd(args) => cases::end_to_end(args).await,
        BenchCommand::Failover(args) => cases::failover(args).await,
    }
}

/// What all cases share: where to, how long, and the results so far.
struct Bench {
    ground: Arc<Ground>,
    ground_args: GroundArgs,
    measure: MeasureArgs,
    interrupted: Arc<AtomicBool>,
    results: Vec<Figures>,
}

/// What one measurement needs on the driver's thread.
struct Course {
    figures: Figures,
    /// The sender's part, and whether it sends until it is acknowledged.
    load: Option<(Load, PaceOf, bool)>,
    /// The consumers and the number of their connections.
    consumers: Option<(Consumers, usize)>,
    warm_up: Duration,
    duration: Option<Duration>,
    kill: Option<(u32, Duration)>,
}

/// A pace whose clock has not begun.
#[derive(Clone, Copy, Debug)]
enum PaceOf {
    Closed {
        outstanding: usize,
        messages_max: u64,
    },
    Open {
        rate: f64,
        outstanding: usize,
    },
}

impl Bench {
    async fn prepare(ground_args: GroundArgs, measure: MeasureArgs) -> Result<Bench, Failure> {
        if let Some(pid) = measure.pid.iter().find(|pid| !processes::exists(**pid)) {
            return Err(Failure::usage(format!(
                "--pid {pid}: there is no such process on this machine"
            )));
        }
        let mut interrupts = Interrupts::listen()?;
        let interrupted = Arc::new(AtomicBool::new(false));
        let ground = tokio::select! {
            ground = Ground::prepare(&ground_args) => ground?,
            () = interrupts.next() => return Err(Failure::new("interrupted before anything was measured")),
        };
        let flag = Arc::clone(&interrupted);
        tokio::spawn(async move {
            interrupts.next().await;
            flag.store(true, Ordering::Relaxed);
        });
        Ok(Bench {
            ground: Arc::new(ground),
            ground_args,
            measure,
            interrupted,
            results: Vec::new(),
        })
    }

    fn is_interrupted(&self) -> bool {
        self.interrupted.load(Ordering::Relaxed)
    }

    fn groups(&self) -> usize {
        self.ground.groups.len()
    }

    /// What is known of a measurement before it begins.
    fn figures(&self, case: &'static str, run: u32) -> Figures {
        Figures {
            system: self.measure.system.clone(),
            case,
            run,
            batch: 1,
            groups: self.groups(),
            topics: self.ground.topics.len(),
            queues: self.ground.queue_count(),
            header: self.ground_args.header.name(),
            ..Figures::default()
        }
    }

    /// Plain messages of a size, one in each request, of one producer.
    fn load(&self, size: usize) -> Load {
        Load {
            header: self.ground_args.header,
            kind: MessageKind::Plain,
            timers: None,
            size,
            batch: 1,
            producers: 1,
            stamp: None,
            queues: self
                .ground
                .groups
                .iter()
                .map(|ground| ground.queues.clone())
                .collect(),
        }
    }

    /// Spreads the queues over `consumers` connections that follow `first` others.
    fn read_queues(
        &self,
        first: usize,
        consumers: u32,
        bounds: (Offsets, Offsets),
    ) -> (Vec<ReadQueue>, usize) {
        let groups = self.groups();
        let connections = (consumers as usize).next_multiple_of(groups);
        let mut queues = Vec::new();
        for (position, ground) in self.ground.groups.iter().enumerate() {
            for (turn, queue) in ground.queues.iter().enumerate() {
                queues.push(ReadQueue {
                    queue: queue.clone(),
                    connection: first + position + groups * (turn % (connections / groups)),
                    next: bounds.0[position][turn],
                    end: bounds.1[position][turn],
                    asked: None,
                });
            }
        }
        (queues, connections)
    }

    fn check_consumers(&self, pull: &PullArgs) -> Outcome {
        let queues = self.ground.queue_count();
        if pull.consumers as usize > queues {
            return Err(Failure::usage(format!(
                "--consumers {}: there are {queues} queues, and a queue has one consumer; see --queues and \
                 --topics",
                pull.consumers
            )));
        }
        Ok(())
    }

    /// Measures once; keeps and prints the figures.
    async fn measure(&mut self, course: Course) -> Outcome {
        let (measured, figures) = self.drive(course).await?;
        if measured.is_some() {
            if self.measure.output == Format::Json {
                output::json(&figures)?;
            }
            self.results.push(figures);
        }
        Ok(())
    }

    async fn drive(&self, course: Course) -> Result<(Option<Measured>, Figures), Failure> {
        let places = self.ground.places()?;
        let group_names = places.groups.clone();
        let servers = self.measure.pid.clone();
        let interrupted = Arc::clone(&self.interrupted);
        let shows = self.measure.progress || std::io::stderr().is_terminal();
        let driven = tokio::task::spawn_blocking(move || {
            let mut course = course;
            let mut run = course.begin(Reconnects::new(places), (&servers, &interrupted, shows))?;
            let measured = run.go()?;
            let mut figures = course.figures;
            if let Some(measured) = &measured {
                figures = complete(figures, &run, measured, &group_names);
            }
            Ok((measured, figures))
        });
        driven.await.expect("the driver does not panic")
    }

    /// Prints the table, if that was asked for, and then why the work ended early.
    fn conclude(self, outcome: Outcome) -> Outcome {
        if self.measure.output == Format::Table && !self.results.is_empty() {
            let (headings, rows) = figures::as_table(&self.results);
            output::table(&headings, &rows)?;
        }
        let failures = self.results.iter().filter_map(|figures| {
            let reason = figures.first_failure.as_ref()?;
            (figures.failed + figures.retried > 0).then_some(reason)
        });
        if let Some(reason) = failures.into_iter().next() {
            note(&format!("the first failure: {reason}"));
        }
        outcome?;
        if self.results.is_empty() {
            return Err(Failure::new("interrupted before anything was measured"));
        }
        Ok(())
    }
}

impl Course {
    /// Measures what the arguments say, and does nothing yet.
    fn of(time: &TimeArgs) -> Course {
        Course {
            figures: Figures::default(),
            load: None,
            consumers: None,
            warm_up: time.warm_up,
            duration: Some(time.duration),
            kill: None,
        }
    }

    /// Opens the connections. Must be called on the thread that drives them.
    fn begin<'a>(
        &mut self,
        reconnects: Reconnects,
        (servers, interrupted, shows): (&'a [u32], &'a AtomicBool, bool),
    ) -> Result<Run<'a>, Failure> {
        // Late timers would count as latency of the broker. Where this is refused they do, by 50 us.
        if let Err(error) = rustix::thread::set_current_timer_slack(NonZeroU64::new(TIMER_SLACK_NS))
        {
            tracing::debug!(%error, "timers are less exact");
        }
        let (consumers, readers) = match self.consumers.take() {
            Some((consumers, connections)) => (Some(consumers), connections),
            None => (None, 0),
        };
        let senders = if self.load.is_some() {
            self.figures.connections
        } else {
            0
        };
        allow_files(senders + readers)?;
        let driver = Driver::connect(reconnects, senders + readers)?;
        let started = Instant::now();
        let sender = match self.load.take() {
            Some((load, pace, retries)) => {
                let pace = self.pace(pace, senders, started);
                let sender = Sender::new(load, pace, senders, retries);
                Some(sender.map_err(Failure::usage)?)
            }
            None => None,
        };
        let figures = &self.figures;
        let size = figures
            .size
            .map_or(String::new(), |size| format!(" {size} B"));
        let what = figures.what();
        let name = format!("{what}{size}, {} under way", figures.outstanding);
        Ok(Run {
            plan: Plan {
                started,
                warm_up: self.warm_up,
                duration: self.duration,
                servers,
                kill: self.kill,
                interrupted,
                shown_as: shows.then_some(name),
            },
            driver,
            sender,
            consumers,
            senders,
        })
    }

    fn pace(&self, pace: PaceOf, connections: usize, start: Instant) -> Pace {
        match pace {
            PaceOf::Closed {
                outstanding,
                messages_max,
            } => Pace::Closed {
                walk: Walk {
                    requests: outstanding,
                    connections,
                },
                messages_max,
            },
            PaceOf::Open { rate, outstanding } => {
                let end = start + self.warm_up + self.duration.unwrap_or_default();
                Pace::Open {
                    schedule: Schedule::new(start, end, rate),
                    requests: outstanding,
                }
            }
        }
    }
}

/// The figures of a run that has ended.
fn complete(figures: Figures, run: &Run<'_>, measured: &Measured, groups: &[String]) -> Figures {
    let mut figures = match (&run.consumers, &run.sender) {
        (Some(consumers), Some(sender)) => {
            let mut tally = consumers.tally().clone();
            let missing = sender.tally.messages.saturating_sub(tally.messages);
            tally.failed += sender.tally.failed + missing;
            tally.first_failure = sender.tally.first_failure.clone().or(tally.first_failure);
            if missing > 0 && tally.first_failure.is_none() {
                tally.first_failure = Some("acknowledged and not received".to_string());
            }
            figures.with(&tally, measured)
        }
        (Some(consumers), None) => figures.with(consumers.tally(), measured),
        (None, Some(sender)) => figures.with(&sender.tally, measured),
        (None, None) => figures,
    };
    if let Some(Consumers::Pulling(reader)) = &run.consumers {
        figures.read_by(reader);
        if let (Some(arrivals), Some(sender)) = (&reader.arrivals, &run.sender) {
            figures.timers(arrivals, sender);
        }
    }
    if let Some((gap, group)) = measured.longest_gap {
        figures.longest_gap_ms = Some(figures::round(gap.as_secs_f64() * 1e3, 1));
        figures.longest_gap_group = groups.get(group).cloned();
    }
    figures
}

/// Makes room for so many sockets.
fn allow_files(sockets: usize) -> Outcome {
    const OTHERS: u64 = 64;
    let needed = sockets as u64 + OTHERS;
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|current| current >= needed) {
        return Ok(());
    }
    let wanted = Rlimit {
        current: Some(needed),
        ..limit
    };
    setrlimit(Resource::Nofile, wanted).map_err(|error| {
        Failure::new(format!(
            "{sockets} connections need {needed} open files, and this system does not allow them: {error}"
        ))
    })
}
