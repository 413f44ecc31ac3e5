//! The log as a whole, on real files, with the writer driven by hand.

#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;

use super::*;
use crate::config::{Clock, FlushMode, LogConfig};
use crate::error::{LogError, OpenError, ReadError};
use crate::fs::{FileSystem, RealFs};
use crate::position::{LogIndex, PhysicalOffset};

const SEGMENT: u64 = 4096;
const LEADER: u64 = 7;

struct Fixture {
    dir: tempfile::TempDir,
    config: LogConfig,
    now: Arc<Mutex<Duration>>,
}

struct Open {
    log: CommitLog,
    writer: Writer,
    recovered: Recovered,
}

impl Fixture {
    fn new() -> Self {
        let now = Arc::new(Mutex::new(Duration::ZERO));
        let clock = now.clone();
        let config = LogConfig {
            segment_bytes: SEGMENT,
            clock: Clock::new(move || *clock.lock().unwrap()),
            ..LogConfig::default()
        };
        Self {
            dir: tempfile::tempdir().unwrap(),
            config,
            now,
        }
    }

    fn cold() -> Self {
        let mut fixture = Self::new();
        fixture.config.tail = MemoryBudget::new(0);
        fixture
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("group")
    }

    fn try_open(&self) -> Result<Open, OpenError> {
        let (log, writer, recovered) =
            CommitLog::open(Arc::new(RealFs), &self.path(), self.config.clone())?;
        Ok(Open {
            log,
            writer,
            recovered,
        })
    }

    fn open(&self) -> Open {
        self.try_open().unwrap()
    }

    /// Writes the mark that is due.
    fn let_the_mark_follow(&self, open: &mut Open) {
        *self.now.lock().unwrap() += self.config.mark_interval;
        open.writer.run_once();
    }

    fn files(&self) -> Vec<String> {
        RealFs.list(&self.path()).unwrap()
    }
}

impl Open {
    fn append(&self, records: Vec<Record>) -> Receiver<Result<(), LogError>> {
        let (send, receive) = channel();
        // Not every test keeps the receiver.
        self.log
            .append(records, Box::new(move |outcome| drop(send.send(outcome))))
            .unwrap();
        receive
    }

    fn done(&mut self, change: impl FnOnce(&CommitLog, Done) -> Result<(), LogError>) {
        let (send, receive) = channel();
        change(
            &self.log,
            Box::new(move |outcome| send.send(outcome).unwrap()),
        )
        .unwrap();
        self.writer.run_once();
        receive.try_recv().unwrap().unwrap();
    }

    fn write(&mut self, records: Vec<Record>) {
        let outcome = self.append(records);
        self.writer.run_once();
        outcome.try_recv().unwrap().unwrap();
    }

    fn last(&self) -> Option<u64> {
        self.log.bounds().last.map(|(index, _)| index.get())
    }

    /// Checks that the log holds exactly the records `from..=to` as `record` makes them for `term`.
    fn assert_holds(&self, from: u64, to: u64, term: u64) {
        let read = self.log.read(ix(from), ix(to + 1), usize::MAX).unwrap();
        let expected: Vec<Record> = (from..=to).map(|index| record(term, index)).collect();
        assert_eq!(
            read.iter().map(|l| l.record.clone()).collect::<Vec<_>>(),
            expected
        );
        for located in &read {
            assert_eq!(&self.log.record_at(located.offset).unwrap(), located);
            let payload = &located.record.payload;
            let bytes = self
                .log
                .read_bytes(located.payload_offset(), payload.len(), true)
                .unwrap();
            assert_eq!(&bytes, payload);
        }
    }
}

fn ix(index: u64) -> LogIndex {
    LogIndex::new(index)
}

fn tag(term: u64) -> LeaderTag {
    LeaderTag {
        term,
        leader: LEADER,
    }
}

/// A record with a payload that depends on term and index; between 0 and 1,000 bytes.
fn record(term: u64, index: u64) -> Record {
    let len = (index * 379 + term * 31) as usize % 1000;
    let payload: Vec<u8> = (0..len)
        .map(|at| (at as u64 * 7 + index + term) as u8)
        .collect();
    Record::new(
        tag(term),
        ix(index),
        RecordKind::Batch,
        Bytes::from(payload),
    )
    .at(1000 + index)
}

fn records(term: u64, range: std::ops::RangeInclusive<u64>) -> Vec<Record> {
    range.map(|index| record(term, index)).collect()
}

fn flip(path: &Path, at: u64) {
    let file = RealFs.open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[!byte[0]], at).unwrap();
}

fn ignore() -> Done {
    Box::new(|_| {})
}

#[test]
fn records_are_readable_before_they_are_durable_and_after_reopening() {
    let fixture = Fixture::new();
    let mut open = fixture.open();
    assert_eq!(open.recovered, Recovered::default());
    let outcome = open.append(records(1, 0..=20));
    open.assert_holds(0, 20, 1);
    assert_eq!(open.log.bounds().flushed, None);
    assert!(outcome.try_recv().is_err());
    assert!(open.log.unflushed_bytes() > 0);
    open.writer.run_once();
    outcome.try_recv().unwrap().unwrap();
    assert_eq!(open.log.bounds().flushed, Some(ix(20)));
    assert_eq!(open.log.unflushed_bytes(), 0);
    let before = open.log.bounds();
    let segments = open.log.segments();
    assert!(segments.len() >= 3, "the log rolled: {segments:?}");
    drop(open);

    let open = fixture.open();
    assert_eq!(open.log.bounds(), before);
    assert_eq!(open.log.segments(), segments);
    open.assert_holds(0, 20, 1);
}

#[test]
fn what_has_gathered_is_one_group_with_one_sync() {
    let fixture = Fixture::new();
    let mut open = fixture.open();
    let outcomes: Vec<_> = (0..5)
        .map(|index| open.append(records(1, index..=index)))
        .collect();
    let order = Arc::new(Mutex::new(Vec::new()));
    let groups = order.clone();
    open.log.observe_flushes(Box::new(move |group| {
        groups.lock().unwrap().push(group.records)
    }));
    open.writer.run_once();
    assert!(
        outcomes
            .iter()
            .all(|outcome| outcome.try_recv().unwrap().is_ok())
    );
    let stats = open.log.stats();
    assert_eq!((stats.groups, stats.records, stats.syncs), (1, 5, 1));
    assert_eq!(stats.bytes, open.log.bounds().end_offset.get());
    assert_eq!(*order.lock().unwrap(), [5]);
}

#[test]
fn cold_records_are_read_from_disk() {
    let fixture = Fixture::cold();
    let mut open = fixture.open();
    open.write(records(3, 1..=40));
    open.assert_holds(1, 40, 3);
    open.assert_holds(17, 23, 3);
    open.assert_holds(40, 40, 3);
    let limited = open.log.read(ix(5), ix(41), 1500).unwrap();
    let bytes: usize = limited.iter().map(|l| l.record.payload.len()).sum();
    assert!(!limited.is_empty() && bytes <= 1500 && limited.len() < 36);
    assert_eq!(open.log.read(ix(5), ix(41), 0).unwrap().len(), 1);
    assert!(matches!(
        open.log.read(ix(41), ix(42), 1),
        Err(ReadError::NotFound { .. })
    ));
    assert_eq!(open.log.read(ix(5), ix(5), 1).unwrap(), []);
}

#[test]
fn reads_span_disk_and_tail() {
    let mut fixture = Fixture::new();
    fixture.config.tail = MemoryBudget::new(3000);
    let mut open = fixture.open();
    open.write(records(1, 0..=30));
    let _pending = open.append(records(1, 31..=33));
    open.assert_holds(0, 33, 1);
    for from in 0..=33 {
        for max_bytes in [0, 700, 5000] {
            let read = open.log.read(ix(from), ix(34), max_bytes).unwrap();
            let bytes: usize = read.iter().map(|l| l.record.payload.len()).sum();
            assert!(
                read.len() == 1 || bytes <= max_bytes,
                "{from} {max_bytes} {bytes}"
            );
            assert_eq!(read[0].record, record(1, from));
        }
    }
}

#[test]
fn bad_offsets_are_refused() {
    let fixture = Fixture::cold();
    let mut open = fixture.open();
    open.write(records(1, 0..=20));
    let end = open.log.bounds().end_offset;
    for at in [end, end.plus(1 << 40), PhysicalOffset::new(u64::MAX)] {
        assert!(matches!(
            open.log.record_at(at),
            Err(ReadError::NotFound { .. })
        ));
        assert!(matches!(
            open.log.read_bytes(at, 8, true),
            Err(ReadError::NotFound { .. })
        ));
    }
    assert!(matches!(
        open.log.record_at(PhysicalOffset::new(8)),
        Err(ReadError::NotFound { .. })
    ));
    let huge = open
        .log
        .read_bytes(PhysicalOffset::new(80), usize::MAX, true);
    assert!(matches!(huge, Err(ReadError::NotFound { .. })));
}

#[test]
fn the_vote_is_durable_after_the_records_before_it() {
    let fixture = Fixture::new();
    let mut open = fixture.open();
    assert_eq!(open.log.vote(), None);
    let before = open.append(records(1, 0..=0));
    open.log.save_vote(b"vote".to_vec(), ignore()).unwrap();
    let after = open.append(records(1, 1..=1));
    open.writer.run_once();
    before.try_recv().unwrap().unwrap();
    after.try_recv().unwrap().unwrap();
    assert_eq!(open.log.stats().groups, 2);
    assert_eq!(open.log.vote().as_deref(), Some(&b"vote"[..]));
    drop(open);
    assert_eq!(fixture.open().log.vote().as_deref(), Some(&b"vote"[..]));
}

#[test]
fn a_truncated_tail_is_replaced() {
    for cut in 0..=30 {
        let fixture = Fixture::cold();
        let mut open = fixture.open();
        open.write(records(1, 0..=30));
        open.done(|log, done| log.truncate_after(Some(ix(cut)), done));
        assert_eq!(open.last(), Some(cut));
        open.assert_holds(0, cut, 1);
        drop(open);
        let mut open = fixture.open();
        assert_eq!(open.last(), Some(cut), "nothing comes back");
        open.write(records(2, cut + 1..=35));
        drop(open);
        let open = fixture.open();
        open.assert_holds(0, cut, 1);
        open.assert_holds(cut + 1, 35, 2);
        assert_eq!(open.log.tag_at(ix(cut)).unwrap(), Some(tag(1)));
        assert_eq!(open.log.tag_at(ix(cut + 1)).unwrap(), Some(tag(2)));
        assert_eq!(open.log.tag_at(ix(36)).unwrap(), None);
    }
}

#[test]
fn truncating_everything_starts_over() {
    let fixture = Fixture::new();
    let mut open = fixture.open();
    open.write(records(1, 1..=30));
    open.done(|log, done| log.truncate_after(None, done));
    assert_eq!(open.log.bounds().last, None);
    drop(open);
    let mut open = fixture.open();
    assert_eq!(open.log.bounds().last, None);
    open.write(records(2, 1..=9));
    drop(open);
    fixture.open().assert_holds(1, 9, 2);
}

#[test]
fn truncations_and_appends_may_queue_up() {
    let fixture = Fixture::new();
    let mut open = fixture.open();
    let _ = open.append(records(1, 0..=20));
    open.log.truncate_after(Some(ix(3)), ignore()).unwrap();
    let _ = open.append(records(2, 4..=30));
    open.log.truncate_after(Some(ix(10)), ignore()).unwrap();
    let last = open.append(records(3, 11..=25));
    open.writer.run_once();
    last.try_recv().unwrap().unwrap();
    assert_eq!(open.log.bounds().flushed, Some(ix(25)));
    drop(open);
    let open = fixture.open();
    open.assert_holds(0, 3, 1);
    open.assert_holds(4, 10, 2);
    open.assert_holds(11, 25, 3);
}

#[test]
fn a_flush_does_not_vouch_for_records_that_replaced_what_it_wrote() {
    let fixture = Fixture::new();
    let open = fixture.open();
    let _ = open.append(records(1, 0..=5));
    open.log.truncate_after(Some(ix(2)), ignore()).unwrap();
    let _ = open.append(records(2, 3..=9));
    assert_eq!(open.log.bounds().flushed, None);
    assert!(matches!(
        open.log.truncate_after(Some(ix(9)), ignore()),
        Ok(())
    ));
    assert_eq!(
        open.last(),
        Some(9),
        "truncating at the end changes nothing"
    );
}

#[test]
fn purging_moves_the_start_and_reuses_files() {
    let fixture = Fixture::cold();
    let mut open = fixture.open();
    open.write(records(1, 0..=30));
    let segments = open.log.segments();
    let first_live = segments[2].first_index;
    open.done(|log, done| log.purge_through(first_live, done));
    let bounds = open.log.bounds();
    assert_eq!(bounds.purged, Some((first_live, tag(1))));
    assert_eq!(bounds.start_offset, segments[2].base);
    assert!(matches!(
        open.log.read(first_live, ix(31), 1),
        Err(ReadError::Purged { .. })
    ));
    assert!(matches!(
        open.log.read_bytes(segments[1].base, 8, true),
        Err(ReadError::Purged { .. })
    ));
    assert!(
        open.log.record_at(segments[2].base).is_ok(),
        "it shares a segment with a live record"
    );
    assert_eq!(open.log.tag_at(first_live).unwrap(), Some(tag(1)));
    assert!(open.log.tag_at(ix(first_live.get() - 1)).is_err());
    open.assert_holds(first_live.get() + 1, 30, 1);
    let spares = |fixture: &Fixture| {
        fixture
            .files()
            .iter()
            .filter(|name| name.ends_with(".spare"))
            .count()
    };
    assert_eq!(spares(&fixture), 1, "one is kept, the other one is gone");
    open.write(records(1, 31..=50));
    assert_eq!(spares(&fixture), 0, "it is in use again");
    open.done(|log, done| log.barrier(done));
    *fixture.now.lock().unwrap() += Duration::from_secs(1);
    open.writer.run_once();
    drop(open);
    let open = fixture.open();
    assert_eq!(open.log.bounds().purged, Some((first_live, tag(1))));
    assert_eq!(open.log.bounds().start_offset, segments[2].base);
    open.assert_holds(first_live.get() + 1, 50, 1);
}

#[test]
fn purging_beyond_the_end_is_refused_and_purging_twice_is_nothing() {
    let fixture = Fixture::new();
    let mut open = fixture.open();
    open.write(records(1, 0..=5));
    let refused = open.log.purge_through(ix(6), ignore());
    assert!(matches!(refused, Err(LogError::OutOfRange { .. })));
    open.done(|log, done| log.purge_through(ix(5), done));
    open.done(|log, done| log.purge_through(ix(2), done));
    assert_eq!(open.log.bounds().purged, Some((ix(5), tag(1))));
    assert_eq!(open.log.bounds().last, Some((ix(5), tag(1))));
    open.write(records(1, 6..=6));
    open.assert_holds(6, 6, 1);
    let refused = open.log.truncate_after(Some(ix(4)), ignore());
    assert!(matches!(refused, Err(LogError::OutOfRange { .. })));
    open.done(|log, done| log.truncate_after(Some(ix(5)), done));
    assert_eq!(open.last(), Some(5));
}

#[test]
fn a_reset_log_goes_on_where_the_snapshot_ends() {
    for offset in [
        50 * SEGMENT,
        50 * SEGMENT + 800,
        51 * SEGMENT - 8,
        51 * SEGMENT - 400,
    ] {
        let fixture = Fixture::new();
        let mut open = fixture.open();
        open.write(records(1, 0..=30));
        let start = LogStart {
            last_index: Some(ix(999)),
            last_tag: tag(4),
            next_offset: PhysicalOffset::new(offset),
        };
        open.done(|log, done| log.reset(start, done));
        assert_eq!(open.log.bounds().last, Some((ix(999), tag(4))));
        assert_eq!(open.log.bounds().purged, Some((ix(999), tag(4))));
        drop(open);
        let mut open = fixture.open();
        assert_eq!(open.recovered.end, start);
        assert_eq!(open.log.tag_at(ix(999)).unwrap(), Some(tag(4)));
        open.write(records(5, 1000..=1020));
        drop(open);
        let mut open = fixture.open();
        open.assert_holds(1000, 1020, 5);
        open.done(|log, done| log.truncate_after(Some(ix(999)), done));
        open.write(records(6, 1000..=1001));
        drop(open);
        fixture.open().assert_holds(1000, 1001, 6);
    }
}

#[test]
fn a_spare_segment_is_prepared_once() {
    let fixture = Fixture::new();
    let mut open = fixture.open();
    let spares = |name: &&String| name.ends_with(".spare");
    let step = LogConfig::SEGMENT_UNIT;
    let steps = open.log.segment_bytes() / step;
    for _ in 1..steps {
        open.log.prepare_next(step).unwrap();
        assert_eq!(fixture.files().iter().filter(spares).count(), 0);
    }
    open.log.prepare_next(step).unwrap();
    assert_eq!(fixture.files().iter().filter(spares).count(), 1);
    open.log.prepare_next(u64::MAX).unwrap();
    assert_eq!(fixture.files().iter().filter(spares).count(), 1);
    drop(open);
    open = fixture.open();
    open.write(records(1, 0..=3));
    assert_eq!(fixture.files().iter().filter(spares).count(), 0);
    open.assert_holds(0, 3, 1);
}

#[test]
fn a_torn_tail_is_cut_and_written_over() {
    let fixture = Fixture::new();
    let mut open = fixture.open();
    open.write(records(1, 0..=2));
    fixture.let_the_mark_follow(&mut open);
    let mark = std::fs::read(fixture.path().join("mark")).unwrap();
    open.write(records(1, 3..=30));
    let torn = open.log.read(ix(5), ix(6), 1).unwrap()[0].clone();
    drop(open);
    // As if the newer marks had never reached the disk.
    std::fs::write(fixture.path().join("mark"), mark).unwrap();
    let first = fixture
        .path()
        .join(format!("{:020}.log", torn.offset.get() / SEGMENT * SEGMENT));
    flip(&first, torn.payload_offset().get() % SEGMENT);

    let mut open = fixture.open();
    assert_eq!(open.recovered.torn, Some("payload CRC mismatch"));
    assert!(open.recovered.removed_segments > 0);
    assert_eq!(
        open.last(),
        Some(4),
        "whole records beyond the mark are kept"
    );
    open.write(records(1, 5..=12));
    drop(open);
    let open = fixture.open();
    assert_eq!(open.recovered.torn, None);
    open.assert_holds(0, 12, 1);
}

#[test]
fn damage_below_the_mark_is_refused_and_nothing_is_changed() {
    let fixture = Fixture::new();
    let mut open = fixture.open();
    open.write(records(1, 0..=30));
    fixture.let_the_mark_follow(&mut open);
    drop(open);
    let segment = fixture.path().join(format!("{:020}.log", SEGMENT));
    flip(&segment, 300);
    let before = std::fs::read(&segment).unwrap();
    let files = fixture.files();
    for _ in 0..2 {
        let Err(OpenError::Damaged(damage)) = fixture.try_open().map(|_| ()) else {
            panic!("a damaged log was opened");
        };
        assert_eq!(damage.path, segment);
    }
    assert_eq!(std::fs::read(&segment).unwrap(), before);
    assert_eq!(fixture.files(), files);
    std::fs::remove_file(&segment).unwrap();
    let error = fixture.try_open().map(|_| ()).unwrap_err();
    assert!(error.to_string().contains("missing"), "{error}");
}

#[test]
fn a_log_whose_first_segment_is_missing_is_refused() {
    let fixture = Fixture::cold();
    let mut open = fixture.open();
    for index in 1..=100 {
        open.write(records(1, index..=index));
    }
    open.log.shutdown();
    while open.writer.run_once() != Turn::Stopped {}
    drop(open);
    std::fs::remove_file(fixture.path().join(format!("{:020}.log", 0))).unwrap();
    let error = fixture.try_open().err().unwrap();
    assert!(matches!(error, OpenError::Damaged(_)), "{error}");
}

#[test]
fn a_spare_with_an_impossible_number_is_left_alone() {
    let fixture = Fixture::new();
    drop(fixture.open());
    let name = format!("{}.spare", u64::MAX);
    std::fs::write(fixture.path().join(&name), "foreign").unwrap();
    drop(fixture.open());
    assert!(fixture.files().contains(&name));
}

#[test]
fn another_segment_size_is_refused_and_a_lost_mark_is_made_anew() {
    let mut fixture = Fixture::new();
    let mut open = fixture.open();
    open.write(records(1, 0..=3));
    drop(open);
    fixture.config.segment_bytes = 2 * SEGMENT;
    assert!(matches!(
        fixture.try_open().map(|_| ()),
        Err(OpenError::Mismatch { .. })
    ));
    fixture.config.segment_bytes = SEGMENT;
    std::fs::remove_file(fixture.path().join("mark")).unwrap();
    let open = fixture.open();
    open.assert_holds(0, 3, 1);
}

#[test]
fn rot_under_a_running_log_is_reported_by_reads() {
    let fixture = Fixture::cold();
    let mut open = fixture.open();
    open.write(records(1, 0..=5));
    let located = open.log.read(ix(1), ix(2), 1).unwrap()[0].clone();
    flip(
        &fixture.path().join(format!("{:020}.log", 0)),
        located.payload_offset().get() + 3,
    );
    assert!(matches!(
        open.log.read(ix(1), ix(2), 1),
        Err(ReadError::Corrupt { .. })
    ));
    assert!(matches!(
        open.log.record_at(located.offset),
        Err(ReadError::Corrupt { .. })
    ));
}

#[test]
fn committed_rides_along_and_comes_back() {
    let fixture = Fixture::new();
    let mut open = fixture.open();
    open.write(records(1, 0..=5));
    open.log.set_committed(ix(3));
    open.write(records(1, 6..=6));
    fixture.let_the_mark_follow(&mut open);
    drop(open);
    let mut open = fixture.open();
    assert_eq!(open.log.recovered_committed(), Some(ix(3)));
    open.log.set_committed(ix(5));
    open.log.shutdown();
    assert_eq!(open.writer.run_once(), Turn::Stopped);
    assert!(matches!(
        open.log.append(records(1, 7..=7), ignore()),
        Err(LogError::Closed)
    ));
    assert_eq!(fixture.open().log.recovered_committed(), Some(ix(5)));
}

#[test]
fn the_mark_is_synced_after_its_interval_and_then_there_is_nothing_due() {
    let fixture = Fixture::new();
    let mut open = fixture.open();
    open.write(records(1, 0..=5));
    let syncs = open.log.stats().syncs;
    assert_eq!(
        open.writer.run_once(),
        Turn::Idle(Some(Duration::from_millis(100)))
    );
    assert_eq!(open.log.stats().syncs, syncs);
    *fixture.now.lock().unwrap() += Duration::from_millis(100);
    assert_eq!(open.writer.run_once(), Turn::Idle(None));
    assert_eq!(open.log.stats().syncs, syncs + 1);
}

#[test]
fn asynchronous_flush_calls_back_first_and_syncs_in_time() {
    let mut fixture = Fixture::new();
    fixture.config.flush_mode = FlushMode::AsyncFlush;
    let mut open = fixture.open();
    open.write(records(1, 0..=2));
    assert_eq!(open.log.stats().syncs, 0);
    *fixture.now.lock().unwrap() += Duration::from_millis(500);
    open.writer.run_once();
    assert_eq!(open.log.stats().syncs, 2, "the segment and the mark");
    open.write(records(1, 3..=4));
    open.done(|log, done| log.barrier(done));
    assert_eq!(open.log.stats().syncs, 3, "a barrier does not wait");
}

#[test]
fn a_record_larger_than_a_segment_is_refused() {
    let fixture = Fixture::new();
    let open = fixture.open();
    let fits = SEGMENT as usize - RECORD_HEADER_BYTES;
    let sized = |len| {
        vec![Record::new(
            tag(1),
            ix(0),
            RecordKind::Batch,
            Bytes::from(vec![1; len]),
        )]
    };
    let refused = open.log.append(sized(fits + 1), ignore());
    assert!(matches!(refused, Err(LogError::TooLarge { bytes, .. }) if bytes > SEGMENT));
    assert_eq!(open.log.bounds().last, None);
    open.log.append(sized(fits), ignore()).unwrap();
    assert_eq!(open.log.bounds().end_offset.get(), SEGMENT);
}

#[test]
fn records_that_fill_segments_exactly_leave_no_gap() {
    let fixture = Fixture::cold();
    let mut open = fixture.open();
    let full = |index| {
        let payload = Bytes::from(vec![index as u8; SEGMENT as usize - RECORD_HEADER_BYTES]);
        Record::new(tag(1), ix(index), RecordKind::Batch, payload)
    };
    open.write((0..4).map(full).collect());
    assert_eq!(open.log.bounds().end_offset.get(), 4 * SEGMENT);
    open.done(|log, done| log.truncate_after(Some(ix(1)), done));
    open.write((2..6).map(full).collect());
    drop(open);
    let mut open = fixture.open();
    assert_eq!(open.log.read(ix(0), ix(6), usize::MAX).unwrap().len(), 6);
    open.write(vec![full(6)]);
    assert_eq!(open.log.segments().len(), 7);
}

#[test]
#[should_panic(expected = "appended after")]
fn a_gap_in_the_indexes_is_a_bug_of_the_caller() {
    let fixture = Fixture::new();
    let open = fixture.open();
    let _ = open.append(records(1, 0..=0));
    let _ = open.append(records(1, 2..=2));
}

#[test]
fn a_writer_that_goes_away_answers_what_is_queued() {
    let fixture = Fixture::new();
    let open = fixture.open();
    let outcome = open.append(records(1, 0..=0));
    drop(open.writer);
    assert!(matches!(outcome.try_recv().unwrap(), Err(LogError::Closed)));
    assert!(matches!(open.log.barrier(ignore()), Err(LogError::Closed)));
}

#[test]
fn the_writer_runs_on_its_own_thread_next_to_readers() {
    let mut fixture = Fixture::new();
    fixture.config.tail = MemoryBudget::new(2000);
    fixture.config.clock = Clock::monotonic();
    let Open { log, writer, .. } = fixture.open();
    let thread = CommitLog::spawn_writer(writer, "log").unwrap();
    let reader = log.clone();
    let (stop, stopped) = channel::<()>();
    let reading = std::thread::spawn(move || {
        let mut seen = 0;
        while stopped.try_recv().is_err() {
            let Some((last, _)) = reader.bounds().last else {
                continue;
            };
            for located in reader.read(ix(0), last.next(), usize::MAX).unwrap() {
                assert_eq!(located.record, record(1, located.record.index.get()));
                seen += 1;
            }
        }
        seen
    });
    let (send, receive) = channel();
    for index in 0..300 {
        let send = send.clone();
        log.append(
            records(1, index..=index),
            Box::new(move |r| send.send(r).unwrap()),
        )
        .unwrap();
    }
    for _ in 0..300 {
        receive.recv().unwrap().unwrap();
    }
    stop.send(()).unwrap();
    assert!(reading.join().unwrap() > 0);
    log.shutdown();
    thread.join().unwrap();
    fixture.open().assert_holds(0, 299, 1);
}

/// A log of some segments of 256 KiB each, closed properly.
fn large() -> (Fixture, Bounds, Vec<SegmentInfo>) {
    let mut fixture = Fixture::cold();
    fixture.config.segment_bytes = 256 << 10;
    let mut open = fixture.open();
    for index in 0..1500 {
        open.append(records(1 + index / 400, index..=index));
    }
    open.log.shutdown();
    assert_eq!(open.writer.run_once(), Turn::Stopped);
    let (bounds, segments) = (open.log.bounds(), open.log.segments());
    assert!(segments.len() >= 3, "{segments:?}");
    (fixture, bounds, segments)
}

fn assert_same_as_written(open: &Open, bounds: &Bounds, segments: &[SegmentInfo]) {
    assert_eq!(open.log.bounds(), *bounds);
    assert_eq!(open.log.segments(), segments);
    for index in 0..1500 {
        assert_eq!(
            open.log.tag_at(ix(index)).unwrap(),
            Some(tag(1 + index / 400))
        );
    }
    for (from, to) in [(0, 399), (390, 399), (400, 799), (1199, 1199), (1200, 1499)] {
        open.assert_holds(from, to, 1 + from / 400);
    }
}

#[test]
fn index_files_spare_the_walk_and_change_nothing() {
    let (fixture, bounds, segments) = large();
    let open = fixture.open();
    assert_same_as_written(&open, &bounds, &segments);
    let walked = open.recovered.walked_bytes;
    assert!(
        walked < 40_000 * segments.len() as u64,
        "{walked} bytes were walked"
    );
    drop(open);
    let indexes: Vec<String> = fixture
        .files()
        .into_iter()
        .filter(|name| name.ends_with(".idx"))
        .collect();
    assert_eq!(indexes.len(), segments.len());
    for (at, name) in indexes.iter().enumerate() {
        let path = fixture.path().join(name);
        if at % 2 == 0 {
            flip(&path, 40)
        } else {
            std::fs::remove_file(path).unwrap()
        }
    }
    let open = fixture.open();
    assert_same_as_written(&open, &bounds, &segments);
    assert_eq!(open.recovered.walked_bytes, total_len());
    open.log.save_indexes().unwrap();
    drop(open);
    let open = fixture.open();
    assert_same_as_written(&open, &bounds, &segments);
    assert!(
        open.recovered.walked_bytes < 300_000,
        "sealed segments have index files again"
    );
}

/// Bytes of all records.
fn total_len() -> u64 {
    (0..1500)
        .map(|index| record(1 + index / 400, index).encoded_len())
        .sum()
}

#[test]
fn an_index_file_that_tells_of_truncated_records_is_not_believed() {
    let (fixture, _, segments) = large();
    let cut = segments[1].first_index.get() + 3;
    let name = format!("{:020}.idx", segments[1].base.get());
    let stale = std::fs::read(fixture.path().join(&name)).unwrap();
    let mut open = fixture.open();
    open.done(|log, done| log.truncate_after(Some(ix(cut)), done));
    let old_term = open.log.tag_at(ix(cut)).unwrap().unwrap().term;
    open.write(records(9, cut + 1..=cut + 300));
    drop(open);
    std::fs::write(fixture.path().join(&name), stale).unwrap();
    let open = fixture.open();
    assert_eq!(open.last(), Some(cut + 300));
    open.assert_holds(cut - 2, cut, old_term);
    open.assert_holds(cut + 1, cut + 300, 9);
}

#[test]
fn retired_segments_take_their_index_files_along() {
    let (fixture, _, segments) = large();
    let mut open = fixture.open();
    open.done(|log, done| log.purge_through(ix(1499), done));
    let indexes = |fixture: &Fixture| {
        fixture
            .files()
            .iter()
            .filter(|name| name.ends_with(".idx"))
            .count()
    };
    assert_eq!(indexes(&fixture), 1);
    drop(open);
    let orphan = fixture
        .path()
        .join(format!("{:020}.idx", segments[0].base.get()));
    std::fs::write(&orphan, b"left behind").unwrap();
    let _open = fixture.open();
    assert!(!orphan.exists());
}
