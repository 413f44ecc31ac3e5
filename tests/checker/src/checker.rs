//! Goes over a history once and asks every judge.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::event::{Answer, Event, FaultClass, Note, Request, What};
use crate::judges::{self, Judge};

/// How many violations of one invariant are kept with their text; all are counted.
const KEPT_MAX: usize = 20;

/// A promise; the numbers are those of the judges' documentation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(
    missing_docs,
    reason = "`meaning` says it once, for readers of code and of reports"
)]
pub enum Invariant {
    I1,
    I2,
    I3,
    I4,
    I5,
    I6,
    I7,
    I8,
    I9,
    I10,
    I11,
    I12,
    I13,
    I14,
    I15,
    I16,
    I17,
    Retry,
    Lock,
    L1,
    L2,
    L3,
    History,
}

impl Invariant {
    /// All of them, in the order of reports.
    pub const ALL: [Self; 23] = [
        Self::I1,
        Self::I2,
        Self::I3,
        Self::I4,
        Self::I5,
        Self::I6,
        Self::I7,
        Self::I8,
        Self::I9,
        Self::I10,
        Self::I11,
        Self::I12,
        Self::I13,
        Self::I14,
        Self::I15,
        Self::I16,
        Self::I17,
        Self::Retry,
        Self::Lock,
        Self::L1,
        Self::L2,
        Self::L3,
        Self::History,
    ];

    /// What is promised, in a few words.
    pub fn meaning(self) -> &'static str {
        match self {
            Self::I1 => "an acked message is at its offset in every replica",
            Self::I2 => "one offset, one value",
            Self::I3 => "offsets have no gaps",
            Self::I4 => "what is read was sent",
            Self::I5 => "a message is there no more often than it was sent",
            Self::I6 => "offsets follow the order of a producer's sends",
            Self::I7 => "the end of a queue never goes back",
            Self::I8 => "a committed consumer offset never goes back",
            Self::I9 => "a half message is visible once it is committed, and only then",
            Self::I10 => "a delayed message is delivered once and not before it is due",
            Self::I11 => "a popped message is invisible for its time, and for ever once acked",
            Self::I12 => "a replica shows only what is committed",
            Self::I13 => "sends under one key give one offset",
            Self::I14 => "an isolated leader acks and answers nothing",
            Self::I15 => "definitions of topics and groups are linearizable",
            Self::I16 => "replicas are identical",
            Self::I17 => "a node whose disk failed acks nothing until it is restarted",
            Self::Retry => "a message that is handed back comes again once, and says how often",
            Self::Lock => "a queue is locked by one client at a time",
            Self::L1 => "sends succeed again after faults",
            Self::L2 => "replicas catch up after faults",
            Self::L3 => "consumers reach the end",
            Self::History => "each operation begins once and ends once",
        }
    }
}

/// Limits of what is judged.
#[derive(Debug, Clone)]
pub struct Bounds {
    /// Whether queues may lose their beginning to retention; default no.
    pub retention: bool,
    /// How long a lock of a queue holds, in nanoseconds; default 60 s.
    pub lease_ns: u64,
    /// How far the clocks of brokers and harness may disagree over a wait, in nanoseconds; default 50 ms.
    pub skew_ns: u64,
    /// How far two of those clocks drift apart, in millionths; default 0.
    pub drift_ppm: u64,
    /// Whether clocks agree but for that; default yes. If not, how long messages wait is not judged.
    pub clocks_agree: bool,
    /// From the end of the last fault to the first ack of each group, in nanoseconds; default 10 s.
    pub resume_ns: u64,
    /// From the end of the last fault until every replica has applied what was committed then, in
    /// nanoseconds; default 60 s.
    pub catch_up_ns: u64,
    /// From the end of the load, or of the last fault if that is later, until consumers have committed the
    /// end of each queue, in nanoseconds; default 60 s.
    pub drain_ns: u64,
    /// From the due time of a message that waits, or from the end of the last fault if that is later, until
    /// it must be delivered, in nanoseconds; default 10 s.
    pub late_ns: u64,
    /// From the ack of a half message, or the last question about it, or the end of the last fault if
    /// that is later, until its producer must be asked, in nanoseconds; default 60 s.
    pub asked_ns: u64,
}

impl Default for Bounds {
    fn default() -> Self {
        const SECOND: u64 = 1_000_000_000;
        Self {
            retention: false,
            lease_ns: 60 * SECOND,
            skew_ns: SECOND / 20,
            drift_ppm: 0,
            clocks_agree: true,
            resume_ns: 10 * SECOND,
            catch_up_ns: 60 * SECOND,
            drain_ns: 60 * SECOND,
            late_ns: 10 * SECOND,
            asked_ns: 60 * SECOND,
        }
    }
}

/// A broken promise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Which.
    pub invariant: Invariant,
    /// Numbers of the events that show it.
    pub events: Vec<u64>,
    /// What happened.
    pub text: String,
}

/// What the judges found.
#[derive(Debug, Default)]
pub struct Report {
    /// The first violations of each invariant.
    pub violations: Vec<Violation>,
    /// How many violations there are of each broken invariant.
    pub broken: BTreeMap<Invariant, u64>,
    /// How many facts each invariant was held against; what is missing here was not judged at all.
    pub judged: BTreeMap<Invariant, u64>,
    /// Kinds of faults that happened.
    pub faults: BTreeSet<FaultClass>,
    /// How many events there were.
    pub events: u64,
}

impl Report {
    /// Whether nothing was broken.
    pub fn is_green(&self) -> bool {
        self.broken.is_empty()
    }

    pub(crate) fn judged(&mut self, invariant: Invariant) {
        *self.judged.entry(invariant).or_default() += 1;
    }

    pub(crate) fn broken(&mut self, invariant: Invariant, events: &[u64], text: String) {
        let count = self.broken.entry(invariant).or_default();
        *count += 1;
        if *count <= KEPT_MAX as u64 {
            self.violations.push(Violation {
                invariant,
                // Number 0 is what was there before the first event.
                events: events
                    .iter()
                    .copied()
                    .filter(|number| *number > 0)
                    .collect(),
                text,
            });
        }
    }
}

/// The beginning of an operation.
#[derive(Debug)]
pub(crate) struct Call {
    /// Number of its first event; names the operation.
    pub number: u64,
    pub at: u64,
    pub by: String,
    pub request: Request,
}

/// How an operation ended.
#[derive(Debug)]
pub(crate) enum Outcome<'a> {
    Ok(&'a Answer),
    Fail,
    Info,
}

/// What a judge is shown.
#[derive(Debug)]
pub(crate) enum Step<'a> {
    Begun(&'a Call),
    Ended {
        call: &'a Call,
        outcome: Outcome<'a>,
    },
    Noted(&'a Note),
}

/// When a step happened.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moment {
    /// Number of the event.
    pub number: u64,
    pub at: u64,
}

/// Judges events in their order.
pub struct Checker {
    judges: Vec<Box<dyn Judge>>,
    open: HashMap<(String, u64), Call>,
    report: Report,
    last_at: u64,
}

impl Checker {
    /// Nothing seen yet.
    pub fn new(bounds: &Bounds) -> Self {
        Self {
            judges: judges::all(bounds),
            open: HashMap::new(),
            report: Report::default(),
            last_at: 0,
        }
    }

    /// The next event; its number is one more than that of the last one, the first is 1.
    pub fn see(&mut self, event: Event) {
        self.report.events += 1;
        self.last_at = event.at;
        let moment = Moment {
            number: self.report.events,
            at: event.at,
        };
        match event.what {
            What::Invoke { call, request } => {
                let begun = Call {
                    number: moment.number,
                    at: event.at,
                    by: event.by,
                    request,
                };
                self.show(moment, &Step::Begun(&begun));
                self.report.judged(Invariant::History);
                let twice = self.open.insert((begun.by.clone(), call), begun);
                if let Some(first) = twice {
                    let text = format!("{} begins operation {call} twice", first.by);
                    self.report
                        .broken(Invariant::History, &[first.number, moment.number], text);
                }
            }
            What::Ok { call, answer } => {
                self.end(moment, (event.by, call), Outcome::Ok(&answer));
            }
            What::Fail { call, .. } => self.end(moment, (event.by, call), Outcome::Fail),
            What::Info { call, .. } => self.end(moment, (event.by, call), Outcome::Info),
            What::Note(note) => {
                if let Note::Fault { class, .. } = &note {
                    self.report.faults.insert(*class);
                }
                self.show(moment, &Step::Noted(&note));
            }
        }
    }

    /// What was found, after the last event.
    pub fn finish(mut self) -> Report {
        let end = Moment {
            number: self.report.events,
            at: self.last_at,
        };
        for judge in &mut self.judges {
            judge.finish(end, &mut self.report);
        }
        let violations = &mut self.report.violations;
        violations.sort_by(|a, b| (a.invariant, &a.events).cmp(&(b.invariant, &b.events)));
        self.report
    }

    fn end(&mut self, moment: Moment, key: (String, u64), outcome: Outcome<'_>) {
        let Some(call) = self.open.remove(&key) else {
            let text = format!("{} ends operation {}, which is not under way", key.0, key.1);
            self.report
                .broken(Invariant::History, &[moment.number], text);
            return;
        };
        if let Outcome::Ok(answer) = &outcome
            && !fits(&call.request, answer)
        {
            let text = "the answer is of another kind than the request".to_string();
            self.report
                .broken(Invariant::History, &[call.number, moment.number], text);
            return;
        }
        self.show(
            moment,
            &Step::Ended {
                call: &call,
                outcome,
            },
        );
    }

    fn show(&mut self, moment: Moment, step: &Step<'_>) {
        for judge in &mut self.judges {
            judge.see(moment, step, &mut self.report);
        }
    }
}

fn fits(request: &Request, answer: &Answer) -> bool {
    match request {
        Request::Send(_) => matches!(answer, Answer::Sent(_)),
        Request::Pull { .. } => matches!(answer, Answer::Pulled { .. }),
        Request::MaxOffset { .. } => matches!(answer, Answer::End { .. }),
        Request::Query { .. } => matches!(answer, Answer::Offset(_)),
        Request::Lock(_) => matches!(answer, Answer::Locked(_)),
        Request::Pop { .. } => matches!(answer, Answer::Popped(_)),
        Request::Get { .. } => matches!(answer, Answer::Value(_)),
        Request::Lookup { .. } => matches!(answer, Answer::Found(_)),
        Request::Dump { .. } => matches!(answer, Answer::Dumped { .. }),
        _ => matches!(answer, Answer::Done),
    }
}
