//! Power cuts at every point of a workload: what was acknowledged is there, nothing else than what was
//! written is there, and the log works on.
//!
//! A seeded workload runs on a disk in memory that records each operation. For every prefix of that record
//! several disks are built that a power cut at this point may leave behind, and the log is opened on each.
//! Every change of the log has a state before and a state after it; what is found must lie between two
//! neighbouring states, the first of which is not older than the last acknowledged one.

#![allow(clippy::unwrap_used, missing_docs)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use gantry_storage::commitlog::{
    CommitLog, Done, LeaderTag, LogStart, MemoryBudget, Record, RecordKind, Turn, Writer,
    encoded_len,
};
use gantry_storage::config::{Clock, FlushMode, LogConfig};
use gantry_storage::error::{LogError, OpenError};
use gantry_storage::fs::FileSystem;
use gantry_storage::position::{LogIndex, PhysicalOffset};
use gantry_storage::testing::{Fault, FaultyFs};

const SEGMENT: u64 = 8192;
const STEPS: usize = 200;
const DIR: &str = "/data/group";

/// A small deterministic generator (xorshift).
struct Rng(u64);

impl Rng {
    fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % n
    }
}

/// What the log should hold at one moment.
#[derive(Clone, Default, Debug)]
struct Model {
    /// All records ever, also purged ones.
    records: BTreeMap<u64, Record>,
    /// The record before the first one: not zero only after a reset.
    start: u64,
    purged: u64,
    vote: Option<Vec<u8>>,
}

impl Model {
    fn last(&self) -> u64 {
        self.records
            .keys()
            .next_back()
            .copied()
            .unwrap_or(self.start)
    }
}

/// The workload while it runs.
struct Run {
    fs: FaultyFs,
    log: CommitLog,
    writer: Writer,
    now: Arc<Mutex<Duration>>,
    rng: Rng,
    term: u64,
    model: Model,
    /// State after each change.
    states: Vec<Model>,
    /// Length of the trace when the change was acknowledged; by number of change.
    acknowledged: Arc<Mutex<BTreeMap<usize, usize>>>,
    /// Length of the trace when the change was asked for.
    asked: Vec<usize>,
}

fn config(now: &Arc<Mutex<Duration>>) -> LogConfig {
    let now = now.clone();
    LogConfig {
        segment_bytes: SEGMENT,
        tail: MemoryBudget::new(2000),
        flush_mode: FlushMode::SyncFlush,
        clock: Clock::new(move || *now.lock().unwrap()),
        ..LogConfig::default()
    }
}

fn open(fs: &FaultyFs) -> Result<(CommitLog, Writer), OpenError> {
    let now = Arc::new(Mutex::new(Duration::ZERO));
    let (log, writer, _) = CommitLog::open(Arc::new(fs.clone()), Path::new(DIR), config(&now))?;
    Ok((log, writer))
}

impl Run {
    fn new(seed: u64) -> Self {
        let fs = FaultyFs::new();
        fs.record();
        let now = Arc::new(Mutex::new(Duration::ZERO));
        let (log, writer, _) =
            CommitLog::open(Arc::new(fs.clone()), Path::new(DIR), config(&now)).unwrap();
        Self {
            fs,
            log,
            writer,
            now,
            rng: Rng::new(seed),
            term: 1,
            model: Model::default(),
            states: vec![Model::default()],
            acknowledged: Arc::default(),
            asked: vec![0],
        }
    }

    fn workload(mut self) -> Self {
        for _ in 0..STEPS {
            for _ in 0..=self.rng.below(2) {
                self.change();
            }
            if self.rng.below(12) == 0 {
                *self.now.lock().unwrap() += Duration::from_millis(100);
            }
            // Also in front of the flush: index files may tell of records that are not durable.
            let save_at = self.rng.below(8);
            if save_at == 0 {
                self.log.save_indexes().unwrap();
            }
            self.writer.run_once();
            if save_at == 1 {
                self.log.save_indexes().unwrap();
            }
            let committed = self.model.purged + self.rng.below(4);
            self.log
                .set_committed(LogIndex::new(committed.min(self.model.last())));
            if self.rng.below(10) == 0 {
                self.log.prepare_next(u64::MAX).unwrap();
            }
        }
        self
    }

    fn change(&mut self) {
        match self.rng.below(100) {
            0..65 => self.append(),
            65..75 => self.vote(),
            75..86 => self.truncate(),
            86..98 => self.purge(),
            _ => self.reset(),
        }
    }

    /// The callback of the change that leads to the current model.
    fn done(&mut self) -> Done {
        let number = self.states.len();
        self.states.push(self.model.clone());
        self.asked.push(self.fs.trace_len());
        let (fs, acknowledged) = (self.fs.clone(), self.acknowledged.clone());
        Box::new(move |outcome: Result<(), LogError>| {
            outcome.unwrap();
            acknowledged.lock().unwrap().insert(number, fs.trace_len());
        })
    }

    fn append(&mut self) {
        self.term += u64::from(self.rng.below(10) == 0);
        let mut records = Vec::new();
        for _ in 0..=self.rng.below(3) {
            let index = self.model.last() + 1;
            let len = [20, 100, 700, 2500, 5000][self.rng.below(5) as usize] as usize;
            let payload: Vec<u8> = (0..len).map(|_| self.rng.below(256) as u8).collect();
            let tag = LeaderTag {
                term: self.term,
                leader: 3,
            };
            let record = Record::new(
                tag,
                LogIndex::new(index),
                RecordKind::Batch,
                Bytes::from(payload),
            );
            self.model.records.insert(index, record.clone());
            records.push(record);
        }
        let done = self.done();
        self.log.append(records, done).unwrap();
    }

    fn vote(&mut self) {
        let vote: Vec<u8> = (0..20).map(|_| self.rng.below(256) as u8).collect();
        self.model.vote = Some(vote.clone());
        let done = self.done();
        self.log.save_vote(vote, done).unwrap();
    }

    fn truncate(&mut self) {
        let keep = self.model.last()
            - self
                .rng
                .below(12)
                .min(self.model.last() - self.model.purged);
        self.model.records.split_off(&(keep + 1));
        // As in Raft: a tail is only replaced by records of a newer leader.
        self.term += 1;
        let done = self.done();
        let keep = (keep > 0).then_some(LogIndex::new(keep));
        self.log.truncate_after(keep, done).unwrap();
    }

    fn purge(&mut self) {
        let room = self.model.last() - self.model.purged;
        let index = self.model.purged + self.rng.below(room + 1);
        if index == 0 {
            return;
        }
        self.model.purged = index;
        let done = self.done();
        self.log.purge_through(LogIndex::new(index), done).unwrap();
    }

    fn reset(&mut self) {
        self.term += 1;
        let last = self.model.last() + 5 + self.rng.below(20);
        let end = self.log.bounds().end_offset.get();
        let next = end + (encoded_len(0) * self.rng.below(300)).next_multiple_of(8);
        let tag = LeaderTag {
            term: self.term,
            leader: 3,
        };
        self.model.records.clear();
        self.model.start = last;
        self.model.purged = last;
        let done = self.done();
        let start = LogStart {
            last_index: Some(LogIndex::new(last)),
            last_tag: tag,
            next_offset: PhysicalOffset::new(next),
        };
        self.log.reset(start, done).unwrap();
    }

    /// Checks a disk that a power cut after `operations` left behind.
    fn check(&self, image: &FaultyFs, operations: usize) {
        let (log, writer) = open(image).unwrap_or_else(|error| {
            panic!("after {operations} operations: {error}");
        });
        let found = Found::new(&log);
        let acknowledged = self.acknowledged.lock().unwrap();
        let oldest = acknowledged
            .iter()
            .filter(|(_, at)| **at <= operations)
            .map(|(n, _)| *n)
            .max();
        let oldest = oldest.unwrap_or(0);
        let newest = self.asked.iter().filter(|at| **at <= operations).count() - 1;
        let possible = (oldest..=newest)
            .any(|at| found.is_between(&self.states[at], &self.states[(at + 1).min(newest)]));
        assert!(
            possible,
            "after {operations} operations: found {found:?}, expected one of changes \
             {oldest}..={newest}:\n{}",
            describe(&self.states[oldest..=newest])
        );
        self.check_that_it_works_on(image, log, writer, &found);
    }

    fn check_that_it_works_on(
        &self,
        image: &FaultyFs,
        log: CommitLog,
        mut writer: Writer,
        found: &Found,
    ) {
        let tag = LeaderTag {
            term: self.term + 1,
            leader: 1,
        };
        let index = LogIndex::new(found.last + 1);
        let record = Record::new(tag, index, RecordKind::Blank, Bytes::from_static(b"next"));
        let acknowledged = Arc::new(Mutex::new(false));
        let set = acknowledged.clone();
        let done: Done = Box::new(move |outcome| *set.lock().unwrap() = outcome.is_ok());
        log.append(vec![record.clone()], done).unwrap();
        writer.run_once();
        assert!(*acknowledged.lock().unwrap());
        drop((log, writer));
        let (log, _writer) = open(image).unwrap();
        let mut again = Found::new(&log);
        assert_eq!(again.records.remove(&index.get()), Some(record));
        assert_eq!(again.records, found.records);
    }
}

fn describe(states: &[Model]) -> String {
    let line = |state: &Model| {
        let tags: Vec<_> = state
            .records
            .values()
            .map(|r| (r.index.get(), r.tag.term))
            .collect();
        format!(
            "start {} purged {} records {tags:?}\n",
            state.start, state.purged
        )
    };
    states.iter().map(line).collect()
}

/// What was found on a disk.
struct Found {
    purged: u64,
    last: u64,
    records: BTreeMap<u64, Record>,
    vote: Option<Vec<u8>>,
}

impl std::fmt::Debug for Found {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let tags: Vec<_> = self
            .records
            .values()
            .map(|r| (r.index.get(), r.tag.term))
            .collect();
        write!(
            f,
            "purged {} last {} records {tags:?}",
            self.purged, self.last
        )
    }
}

impl Found {
    fn new(log: &CommitLog) -> Self {
        let bounds = log.bounds();
        let purged = bounds.purged.map_or(0, |(index, _)| index.get());
        let last = bounds.last.map_or(0, |(index, _)| index.get());
        assert_eq!(bounds.flushed, bounds.last.map(|(index, _)| index));
        assert!(log.recovered_committed().map_or(0, LogIndex::get) <= last);
        let mut records = BTreeMap::new();
        if last > purged {
            let (from, end) = (LogIndex::new(purged + 1), LogIndex::new(last + 1));
            for located in log.read(from, end, usize::MAX).unwrap() {
                records.insert(located.record.index.get(), located.record);
            }
        }
        assert_eq!(records.len() as u64, last - purged);
        Self {
            purged,
            last,
            records,
            vote: log.vote(),
        }
    }

    /// Whether the change from `before` to `after`, interrupted anywhere, can leave this.
    fn is_between(&self, before: &Model, after: &Model) -> bool {
        if self.vote != before.vote && self.vote != after.vote {
            return false;
        }
        if before.start != after.start {
            return self.is(before, before.last()) || self.is(after, after.last());
        }
        let (short, long) = if before.last() <= after.last() {
            (before, after)
        } else {
            (after, before)
        };
        self.last >= short.last() && self.is(long, self.last) && self.purged <= after.purged
    }

    /// Whether this is `model` up to `last`; the logical start may lag.
    fn is(&self, model: &Model, last: u64) -> bool {
        self.last == last
            && last <= model.last()
            && (model.start..=model.purged).contains(&self.purged)
            && self
                .records
                .iter()
                .all(|(index, record)| model.records.get(index) == Some(record))
    }
}

fn sweep(seed: u64) {
    let run = Run::new(seed).workload();
    let total = run.fs.trace_len();
    assert!(total > 2 * STEPS, "the workload did something");
    assert_eq!(run.acknowledged.lock().unwrap().len(), run.states.len() - 1);
    let mut rng = Rng::new(seed + 1000);
    for operations in 0..=total {
        // Everything pending lost; everything kept; three mixtures.
        run.check(&run.fs.crash_image(operations, &mut |_| 0), operations);
        run.check(&run.fs.crash_image(operations, &mut |n| 1 % n), operations);
        for _ in 0..3 {
            run.check(
                &run.fs.crash_image(operations, &mut |n| rng.below(n)),
                operations,
            );
        }
    }
}

#[test]
fn every_crash_point_of_a_workload_keeps_what_was_acknowledged() {
    for seed in [1, 2, 3] {
        sweep(seed);
    }
}

#[test]
fn every_crash_point_of_another_workload_keeps_what_was_acknowledged() {
    for seed in [4, 5, 6] {
        sweep(seed);
    }
}

#[test]
fn a_crash_during_recovery_loses_nothing_either() {
    let run = Run::new(7).workload();
    let mut rng = Rng::new(77);
    let mut crashes = 0;
    for operations in (0..=run.fs.trace_len()).step_by(7) {
        let image = run.fs.crash_image(operations, &mut |n| rng.below(n));
        image.record();
        drop(open(&image).unwrap());
        for during in 0..=image.trace_len() {
            let again = image.crash_image(during, &mut |n| rng.below(n));
            run.check(&again, operations);
            crashes += 1;
        }
    }
    assert!(crashes > 500, "{crashes}");
}

#[test]
fn rot_below_the_mark_is_noticed() {
    let mut run = Run::new(8).workload();
    while run.model.last() - run.model.purged < 30 {
        run.append();
        run.writer.run_once();
    }
    run.log.shutdown();
    run.writer.run_once();
    let everything = run.fs.trace_len();
    let first = run
        .log
        .bounds()
        .purged
        .map_or(1, |(index, _)| index.get() + 1);
    let end = LogIndex::new(run.model.last() + 1);
    let records = run.log.read(LogIndex::new(first), end, usize::MAX).unwrap();
    let mut rng = Rng::new(88);
    for located in records {
        let used = encoded_len(located.record.payload.len()) - 7;
        for _ in 0..4 {
            let at = located.offset.get()
                + rng.below(used.min(80 + located.record.payload.len() as u64));
            let path = PathBuf::from(DIR).join(format!("{:020}.log", at / SEGMENT * SEGMENT));
            let image = run.fs.crash_image(everything, &mut |n| 1 % n);
            image.rot(&path, at % SEGMENT);
            assert_rot_is_found(&image, &path);
        }
    }
}

/// An index file may spare a synced record the check when the log is opened, not when it is read.
fn assert_rot_is_found(image: &FaultyFs, path: &Path) {
    let names = image.list(Path::new(DIR)).unwrap();
    let in_segment = |named: &Path| assert_eq!(named, path);
    match open(image) {
        Err(OpenError::Damaged(damage)) => in_segment(&damage.path),
        Err(error) => panic!("another error: {error}"),
        Ok((log, _writer)) => {
            log.scrub(PhysicalOffset::ZERO, u64::MAX).unwrap();
            let holes = log.holes();
            let [hole] = holes[..] else {
                panic!("the damage was not noticed, or too much of it: {holes:?}");
            };
            let base = hole.from.get() / SEGMENT * SEGMENT;
            in_segment(&Path::new(DIR).join(format!("{base:020}.log")));
        }
    }
    for name in names.iter().filter(|name| name.ends_with(".idx")) {
        image.remove(&Path::new(DIR).join(name)).unwrap();
    }
    let names = image.list(Path::new(DIR)).unwrap();
    let error = open(image)
        .map(|_| ())
        .expect_err("the damage was not noticed");
    let OpenError::Damaged(damage) = &error else {
        panic!("another error: {error}");
    };
    in_segment(&damage.path);
    assert!(error.to_string().contains("Remedy"), "{error}");
    assert_eq!(
        image.list(Path::new(DIR)).unwrap(),
        names,
        "nothing was removed"
    );
}

/// Appends one record of a fixed size and runs the writer.
fn write_one(log: &CommitLog, writer: &mut Writer, term: u64, index: u64) -> Record {
    let tag = LeaderTag { term, leader: term };
    let payload = Bytes::from(vec![term as u8; 400]);
    let record = Record::new(tag, LogIndex::new(index), RecordKind::Batch, payload);
    log.append(vec![record.clone()], Box::new(|_| {})).unwrap();
    writer.run_once();
    record
}

#[test]
fn records_behind_a_torn_one_do_not_follow_what_replaces_it() {
    let fs = FaultyFs::new();
    let (log, mut writer) = open(&fs).unwrap();
    let first = write_one(&log, &mut writer, 5, 1);
    // The mark reaches the first record and no further; the rest was never confirmed.
    let mark = Path::new(DIR).join("mark");
    let old_mark = fs.contents(&mark).unwrap();
    for index in 2..=4 {
        write_one(&log, &mut writer, 5, index);
    }
    let torn = log.read(LogIndex::new(2), LogIndex::new(3), 1).unwrap()[0].clone();
    drop((log, writer));
    fs.open(&mark).unwrap().write_all_at(&old_mark, 0).unwrap();
    fs.rot(
        &Path::new(DIR).join(format!("{:020}.log", 0)),
        torn.offset.get() + 100,
    );

    // Another leader's record of the same size takes the place of the torn one. Term 5 follows term 5,
    // the indexes fit, the bytes are whole, and still record 3 is not its successor.
    let (log, mut writer) = open(&fs).unwrap();
    assert_eq!(Found::new(&log).last, 1);
    let tag = LeaderTag { term: 5, leader: 9 };
    let payload = torn.record.payload.clone();
    let other = Record::new(tag, LogIndex::new(2), RecordKind::Batch, payload);
    log.append(vec![other.clone()], Box::new(|_| {})).unwrap();
    writer.run_once();
    drop((log, writer));
    let (log, _writer) = open(&fs).unwrap();
    let found: Vec<Record> = Found::new(&log).records.into_values().collect();
    assert_eq!(found, [first, other]);
}

#[test]
fn what_recovery_reports_is_durable_although_the_dead_process_never_synced_it() {
    let fs = FaultyFs::new();
    fs.create_dir(Path::new(DIR)).unwrap();
    fs.record();
    let (log, mut writer) = open(&fs).unwrap();
    write_one(&log, &mut writer, 1, 1);
    let (_, syncs, _) = fs.counts();
    fs.inject(Fault::Sync(syncs, std::io::ErrorKind::Other));
    write_one(&log, &mut writer, 1, 2);
    assert_eq!(log.bounds().flushed, Some(LogIndex::new(1)));
    drop((log, writer));
    // The process died, the machine did not: the page cache still has the record.
    let (log, writer) = open(&fs).unwrap();
    assert_eq!(log.bounds().flushed, Some(LogIndex::new(2)));
    let image = fs.crash_image(fs.trace_len(), &mut |_| 0);
    drop((log, writer));
    let (log, _writer) = open(&image).unwrap();
    assert_eq!(log.bounds().flushed, Some(LogIndex::new(2)));
}

/// Runs a workload of appends against one failure and checks that it is final and honest.
fn fails_for_ever(fault: Fault, expected: impl Fn(&LogError) -> bool) {
    let fs = FaultyFs::new();
    let (log, mut writer) = open(&fs).unwrap();
    fs.record();
    fs.inject(fault);
    let outcomes = Arc::new(Mutex::new(Vec::new()));
    let mut refused = None;
    // Two groups in each turn: the second one must not be tried after the first one failed.
    for index in (1..100).step_by(2) {
        let append = |index: u64| {
            let tag = LeaderTag { term: 1, leader: 1 };
            let payload = Bytes::from(vec![index as u8; 500]);
            let record = Record::new(tag, LogIndex::new(index), RecordKind::Batch, payload);
            let results = outcomes.clone();
            log.append(
                vec![record],
                Box::new(move |outcome| results.lock().unwrap().push(outcome)),
            )
        };
        if let Err(error) = append(index) {
            refused = Some(error);
            break;
        }
        log.save_vote(vec![index as u8], Box::new(|_| {})).unwrap();
        append(index + 1).unwrap();
        writer.run_once();
    }
    assert!(expected(&refused.expect("the fault was met")));
    let operations = fs.trace_len();
    log.shutdown();
    assert_eq!(writer.run_once(), Turn::Stopped, "the writer's thread ends");
    assert_eq!(
        fs.trace_len(),
        operations,
        "nothing is written after a failure"
    );
    let outcomes = outcomes.lock().unwrap();
    let good = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
    assert!(
        outcomes[good..]
            .iter()
            .all(|outcome| expected(outcome.as_ref().unwrap_err()))
    );
    let image = fs.crash_image(operations, &mut |_| 0);
    let (log, _writer) = open(&image).unwrap();
    assert!(
        Found::new(&log).last as usize >= good,
        "acknowledged records are there"
    );
}

#[test]
fn a_failed_write_sync_or_allocation_closes_the_log() {
    let count = FaultyFs::new();
    drop(open(&count).unwrap());
    let (writes, syncs, allocations) = count.counts();
    let other = std::io::ErrorKind::Other;
    let full = std::io::ErrorKind::StorageFull;
    for nth in [0, 1, 2, 7, 30, 31, 32, 33, 34, 35] {
        let poisoned = |error: &LogError| matches!(error, LogError::Poisoned { .. });
        fails_for_ever(Fault::Write(writes + nth, other), poisoned);
        fails_for_ever(Fault::Sync(syncs + nth / 2 + 1, other), poisoned);
    }
    for nth in 0..3 {
        fails_for_ever(Fault::Allocate(allocations + nth, full), |error| {
            matches!(error, LogError::NoSpace { .. })
        });
    }
}
