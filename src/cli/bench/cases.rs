//! The cases: which measurements each of them makes.

use std::time::Duration;

use super::consumers::Consumers;
use super::figures::Figures;
use super::frames::Selection;
use super::ground::Offsets;
use super::kinds::MessageKind;
use super::options::{
    ConsumeArgs, EndToEndArgs, FailoverArgs, From, LatencyArgs, OpenArgs, ProduceArgs, PullArgs,
    SendArgs, TimersArgs,
};
use super::popper::{Popper, Popping};
use super::reader::{Reader, Reading};
use super::sender::Load;
use super::stamp::Stamp;
use super::timers::TimerPlan;
use super::{Bench, Course, PaceOf, processes};
use crate::cli::failure::{Failure, Outcome};
use crate::cli::output::note;

/// Requests under way while messages are sent that are to be read.
const FILL_OUTSTANDING: usize = 256;
/// How late the last timer may be.
const LATE_MAX: Duration = Duration::from_secs(30);
/// The consumer group that pops.
const POP_GROUP: &str = "gantry-bench";

pub(super) async fn produce(args: ProduceArgs) -> Outcome {
    args.send.check(args.batch)?;
    let mut bench = Bench::prepare(args.ground.clone(), args.measure.clone()).await?;
    let outcome = produce_all(&mut bench, &args).await;
    bench.conclude(outcome)
}

async fn produce_all(bench: &mut Bench, args: &ProduceArgs) -> Outcome {
    for run in 1..=args.measure.repeat {
        for size in args.send.size.iter().copied() {
            for outstanding in args.outstanding.iter().copied() {
                if bench.is_interrupted() {
                    return Ok(());
                }
                let (kind, called) = args.kind.kind(args.batch);
                let figures = Figures {
                    batch: args.batch,
                    kind: called.map(str::to_string),
                    ..sending(bench, ("produce", run), &args.send, (size, outstanding))
                };
                let load = Load {
                    kind,
                    batch: args.batch,
                    producers: args.send.producers,
                    ..bench.load(size)
                };
                let pace = PaceOf::Closed {
                    outstanding,
                    messages_max: u64::MAX,
                };
                let course = Course {
                    figures,
                    load: Some((load, pace, false)),
                    ..Course::of(&args.time)
                };
                bench.measure(course).await?;
            }
        }
    }
    Ok(())
}

/// The figures of a case that sends.
fn sending(
    bench: &Bench,
    (case, run): (&'static str, u32),
    send: &SendArgs,
    (size, outstanding): (usize, usize),
) -> Figures {
    Figures {
        size: Some(size),
        outstanding,
        connections: send.connections(outstanding, bench.groups()),
        producers: Some(send.producers),
        ..bench.figures(case, run)
    }
}

/// The figures and the load of a case that sends by the clock.
fn open_loop(
    bench: &Bench,
    case: (&'static str, u32),
    (send, open): (&SendArgs, &OpenArgs),
    size: usize,
) -> (Figures, (Load, PaceOf, bool)) {
    let OpenArgs { rate, outstanding } = *open;
    let figures = Figures {
        rate: Some(rate),
        ..sending(bench, case, send, (size, outstanding))
    };
    let pace = PaceOf::Open { rate, outstanding };
    let load = Load {
        producers: send.producers,
        ..bench.load(size)
    };
    (figures, (load, pace, false))
}

pub(super) async fn latency(args: LatencyArgs) -> Outcome {
    args.send.check(1)?;
    let mut bench = Bench::prepare(args.ground.clone(), args.measure.clone()).await?;
    let outcome = latency_all(&mut bench, &args).await;
    bench.conclude(outcome)
}

async fn latency_all(bench: &mut Bench, args: &LatencyArgs) -> Outcome {
    for run in 1..=args.measure.repeat {
        for size in args.send.size.iter().copied() {
            if bench.is_interrupted() {
                return Ok(());
            }
            let by_the_clock = (&args.send, &args.open);
            let (figures, load) = open_loop(bench, ("latency", run), by_the_clock, size);
            let course = Course {
                figures,
                load: Some(load),
                ..Course::of(&args.time)
            };
            bench.measure(course).await?;
        }
    }
    Ok(())
}

pub(super) async fn end_to_end(args: EndToEndArgs) -> Outcome {
    args.send.check_stamped()?;
    let mut bench = Bench::prepare(args.ground.clone(), args.measure.clone()).await?;
    bench.check_consumers(&args.pull)?;
    let outcome = end_to_end_all(&mut bench, &args).await;
    bench.conclude(outcome)
}

async fn end_to_end_all(bench: &mut Bench, args: &EndToEndArgs) -> Outcome {
    for run in 1..=args.measure.repeat {
        for size in args.send.size.iter().copied() {
            if bench.is_interrupted() {
                return Ok(());
            }
            let by_the_clock = (&args.send, &args.open);
            let (figures, (mut load, pace, retries)) =
                open_loop(bench, ("end-to-end", run), by_the_clock, size);
            load.stamp = Some(Stamp::new());
            let reading = Reading {
                stamp: load.stamp,
                ..from_the_tail(bench, &args.pull)
            };
            let consumers = readers_of_new(bench, &args.pull, figures.connections, reading).await?;
            let course = Course {
                figures,
                load: Some((load, pace, retries)),
                consumers: Some(consumers),
                ..Course::of(&args.time)
            };
            bench.measure(course).await?;
        }
    }
    Ok(())
}

/// Reads all messages, and waits for more.
fn from_the_tail(bench: &Bench, pull: &PullArgs) -> Reading {
    Reading {
        header: bench.ground_args.header,
        selection: Selection::All,
        pull_batch: pull.pull_batch as i32,
        waits: true,
        stamp: None,
        timers: None,
    }
}

/// Consumers of what is sent from now on, on the connections after the first ones.
async fn readers_of_new(
    bench: &Bench,
    pull: &PullArgs,
    first: usize,
    reading: Reading,
) -> Result<(Consumers, usize), Failure> {
    let tail = bench.ground.offsets(true).await?;
    let bounds = (tail.clone(), tail);
    let (queues, connections) = bench.read_queues(first, pull.consumers, bounds);
    let reader = Reader::new(reading, queues);
    Ok((Consumers::Pulling(reader), connections))
}

pub(super) async fn timers(args: TimersArgs) -> Outcome {
    args.send.check_stamped()?;
    let mut bench = Bench::prepare(args.ground.clone(), args.measure.clone()).await?;
    bench.check_consumers(&args.pull)?;
    let outcome = timers_all(&mut bench, &args).await;
    bench.conclude(outcome)
}

async fn timers_all(bench: &mut Bench, args: &TimersArgs) -> Outcome {
    for run in 1..=args.measure.repeat {
        for size in args.send.size.iter().copied() {
            if bench.is_interrupted() {
                return Ok(());
            }
            let under_way = (size, args.outstanding);
            let figures = sending(bench, ("timers", run), &args.send, under_way);
            let plan = TimerPlan::new(args.count, args.after, args.within);
            let load = Load {
                kind: MessageKind::Timed,
                timers: Some(plan),
                producers: args.send.producers,
                ..bench.load(size)
            };
            let pace = PaceOf::Closed {
                outstanding: args.outstanding,
                messages_max: args.count,
            };
            let reading = Reading {
                timers: Some(plan),
                ..from_the_tail(bench, &args.pull)
            };
            let consumers = readers_of_new(bench, &args.pull, figures.connections, reading).await?;
            let course = Course {
                figures,
                load: Some((load, pace, false)),
                consumers: Some(consumers),
                warm_up: Duration::ZERO,
                duration: Some(args.after + args.within + LATE_MAX),
                kill: None,
            };
            bench.measure(course).await?;
            let pending = bench.results.last().and_then(|figures| figures.pending);
            if let Some(pending) = pending.filter(|pending| *pending < args.count) {
                note(&format!(
                    "only {pending} of {} timers were parked when the first one was due: choose a \
                     longer --after",
                    args.count
                ));
            }
        }
    }
    Ok(())
}

pub(super) async fn consume(args: ConsumeArgs) -> Outcome {
    args.check()?;
    let mut bench = Bench::prepare(args.ground.clone(), args.measure.clone()).await?;
    bench.check_consumers(&args.pull)?;
    let outcome = consume_all(&mut bench, &args).await;
    bench.conclude(outcome)
}

async fn consume_all(bench: &mut Bench, args: &ConsumeArgs) -> Outcome {
    for run in 1..=args.measure.repeat {
        for size in args.size.iter().copied() {
            let before = bench
                .ground
                .offsets(args.fill > 0 || args.from == From::Tail)
                .await?;
            if args.fill > 0 {
                fill(bench, size, args.fill).await?;
            }
            if bench.is_interrupted() {
                return Ok(());
            }
            let bounds = (before, bench.ground.offsets(true).await?);
            let waits = args.from == From::Tail;
            let (consumers, connections) = consumers_of(bench, args, bounds).await?;
            let figures = Figures {
                size: (args.fill > 0).then_some(size),
                kind: args.how.name().map(str::to_string),
                outstanding: bench.ground.queue_count(),
                connections,
                ..bench.figures("consume", run)
            };
            let course = Course {
                figures,
                consumers: Some((consumers, connections)),
                // What is read while warming up could not be read again.
                warm_up: if waits {
                    args.time.warm_up
                } else {
                    Duration::ZERO
                },
                ..Course::of(&args.time)
            };
            bench.measure(course).await?;
        }
    }
    Ok(())
}

/// Consumers of what lies between these offsets, and the number of their connections.
async fn consumers_of(
    bench: &Bench,
    args: &ConsumeArgs,
    bounds: (Offsets, Offsets),
) -> Result<(Consumers, usize), Failure> {
    let waits = args.from == From::Tail;
    if args.how.pop {
        let ground = &bench.ground;
        ground.put_group(POP_GROUP, &bounds.0).await?;
        let names = ground.groups.iter().map(|ground| ground.group.name.clone());
        let popping = Popping {
            header: args.ground.header,
            batch: args.pull.pull_batch as i32,
            acks: args.how.acks,
            waits,
            consumer: POP_GROUP.to_string(),
            brokers: names.collect(),
        };
        let (queues, connections) = bench.read_queues(0, args.pull.consumers, bounds);
        let popper = Popper::new(popping, queues);
        return Ok((Consumers::Popping(popper), connections));
    }
    let selection = args.how.selection();
    if let Selection::Sql(sql) = &selection {
        bench.ground.try_filter(sql).await?;
    }
    let (queues, connections) = bench.read_queues(0, args.pull.consumers, bounds);
    let reading = Reading {
        selection,
        waits,
        ..from_the_tail(bench, &args.pull)
    };
    let reader = Reader::new(reading, queues);
    Ok((Consumers::Pulling(reader), connections))
}

/// Sends the messages that are to be read.
async fn fill(bench: &Bench, size: usize, messages: u64) -> Outcome {
    let figures = Figures {
        size: Some(size),
        outstanding: FILL_OUTSTANDING,
        connections: bench.groups(),
        ..bench.figures("fill", 1)
    };
    let pace = PaceOf::Closed {
        outstanding: FILL_OUTSTANDING,
        messages_max: messages,
    };
    let load = Load {
        kind: MessageKind::Labelled,
        ..bench.load(size)
    };
    let course = Course {
        figures,
        load: Some((load, pace, true)),
        consumers: None,
        warm_up: Duration::ZERO,
        duration: None,
        kill: None,
    };
    let (_, figures) = bench.drive(course).await?;
    if figures.messages < messages && !bench.is_interrupted() {
        let reason = figures.first_failure.unwrap_or_default();
        return Err(Failure::new(format!(
            "only {} of {messages} messages could be sent: {reason}",
            figures.messages
        )));
    }
    Ok(())
}

pub(super) async fn failover(args: FailoverArgs) -> Outcome {
    args.send.check(1)?;
    if let Some(pid) = args.kill_pid.filter(|pid| !processes::exists(*pid)) {
        return Err(Failure::usage(format!(
            "--kill-pid {pid}: there is no such process on this machine"
        )));
    }
    if args.kill_pid.is_some() && (args.measure.repeat > 1 || args.send.size.len() > 1) {
        return Err(Failure::usage(
            "a process is killed once: --kill-pid goes with one --size and without --repeat",
        ));
    }
    if args.kill_pid.is_some() && args.kill_after >= args.time.duration {
        return Err(Failure::usage("--kill-after must be within --duration"));
    }
    let mut bench = Bench::prepare(args.ground.clone(), args.measure.clone()).await?;
    let outcome = failover_all(&mut bench, &args).await;
    bench.conclude(outcome)
}

async fn failover_all(bench: &mut Bench, args: &FailoverArgs) -> Outcome {
    for run in 1..=args.measure.repeat {
        for size in args.send.size.iter().copied() {
            if bench.is_interrupted() {
                return Ok(());
            }
            let connections = args
                .send
                .connections(args.outstanding.unwrap_or(1), bench.groups());
            // With fewer, all of them would end up waiting for the group that has no leader.
            let outstanding = args.outstanding.unwrap_or(0).max(connections);
            let figures = Figures {
                connections,
                ..sending(bench, ("failover", run), &args.send, (size, outstanding))
            };
            let pace = PaceOf::Closed {
                outstanding,
                messages_max: u64::MAX,
            };
            if args.kill_pid.is_none() {
                note("kill a leader now, with kill -9 for instance");
            }
            let load = Load {
                producers: args.send.producers,
                ..bench.load(size)
            };
            let course = Course {
                figures,
                load: Some((load, pace, true)),
                kill: args.kill_pid.map(|pid| (pid, args.kill_after)),
                ..Course::of(&args.time)
            };
            bench.measure(course).await?;
        }
    }
    Ok(())
}
