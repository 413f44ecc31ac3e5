//! The cases: which measurements each of them makes.

use std::time::Duration;

use super::figures::Figures;
use super::options::{
    ConsumeArgs, EndToEndArgs, FailoverArgs, From, LatencyArgs, OpenArgs, ProduceArgs, SendArgs,
};
use super::reader::Reading;
use super::sender::Load;
use super::stamp::Stamp;
use super::{Bench, Course, PaceOf, processes};
use crate::cli::failure::{Failure, Outcome};
use crate::cli::output::note;

/// Requests under way while messages are sent that are to be read.
const FILL_OUTSTANDING: usize = 256;

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
                let figures = Figures {
                    batch: args.batch,
                    ..sending(bench, ("produce", run), &args.send, (size, outstanding))
                };
                let load = Load {
                    keyed: args.unique_keys,
                    ..bench.load(size, args.batch, args.send.producers)
                };
                let pace = PaceOf::Closed {
                    outstanding,
                    messages_max: u64::MAX,
                };
                let course = Course {
                    figures,
                    load: Some((load, pace, false)),
                    ..Course::of(&args.measure)
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
    (figures, (bench.load(size, 1, send.producers), pace, false))
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
                ..Course::of(&args.measure)
            };
            bench.measure(course).await?;
        }
    }
    Ok(())
}

pub(super) async fn end_to_end(args: EndToEndArgs) -> Outcome {
    args.check()?;
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
            let (figures, load) = open_loop(bench, ("end-to-end", run), by_the_clock, size);
            let tail = bench.ground.offsets(true).await?;
            let bounds = (tail.clone(), tail);
            let (queues, readers) =
                bench.read_queues(figures.connections, args.pull.consumers, bounds);
            let reading = Reading {
                header: args.ground.header,
                pull_batch: args.pull.pull_batch as i32,
                waits: true,
                stamp: Some(Stamp::new()),
            };
            let course = Course {
                figures,
                load: Some(load),
                reading: Some((reading, queues, readers)),
                ..Course::of(&args.measure)
            };
            bench.measure(course).await?;
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
            let (queues, connections) = bench.read_queues(0, args.pull.consumers, bounds);
            let waits = args.from == From::Tail;
            let figures = Figures {
                size: (args.fill > 0).then_some(size),
                outstanding: queues.len(),
                connections,
                ..bench.figures("consume", run)
            };
            let reading = Reading {
                header: args.ground.header,
                pull_batch: args.pull.pull_batch as i32,
                waits,
                stamp: None,
            };
            let course = Course {
                figures,
                reading: Some((reading, queues, connections)),
                // What is read while warming up could not be read again.
                warm_up: if waits {
                    args.measure.warm_up
                } else {
                    Duration::ZERO
                },
                ..Course::of(&args.measure)
            };
            bench.measure(course).await?;
        }
    }
    Ok(())
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
    let course = Course {
        figures,
        load: Some((bench.load(size, 1, 1), pace, true)),
        warm_up: Duration::ZERO,
        duration: None,
        ..Course::of(&bench.measure)
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
    if args.kill_pid.is_some() && args.kill_after >= args.measure.duration {
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
            let course = Course {
                figures,
                load: Some((bench.load(size, 1, args.send.producers), pace, true)),
                kill: args.kill_pid.map(|pid| (pid, args.kill_after)),
                ..Course::of(&args.measure)
            };
            bench.measure(course).await?;
        }
    }
    Ok(())
}
