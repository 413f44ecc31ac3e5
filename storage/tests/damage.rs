//! Damage of every kind to every file of a log, and its repair from a second replica: what was durable comes
//! back to the byte, and nothing else is ever served.

#![allow(clippy::unwrap_used, missing_docs)]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::channel;
use std::time::Duration;

use bytes::Bytes;
use gantry_storage::commitlog::{
    CommitLog, Hole, LeaderTag, MemoryBudget, MendError, Record, RecordKind, Withheld, Writer,
};
use gantry_storage::config::{Clock, LogConfig};
use gantry_storage::error::{Damage, OpenError, ReadError};
use gantry_storage::fs::FileSystem;
use gantry_storage::position::{LogIndex, PhysicalOffset};
use gantry_storage::testing::FaultyFs;

const SEGMENT: u64 = 64 << 10;
const DIR: &str = "/data/group";
const LAST: u64 = 120;

/// What is done to a file.
#[derive(Clone, Copy, Debug)]
enum Blow {
    Flip,
    ZeroPage,
    Truncate,
    Remove,
}

const BLOWS: [Blow; 4] = [Blow::Flip, Blow::ZeroPage, Blow::Truncate, Blow::Remove];

impl Blow {
    fn strike(self, fs: &FaultyFs, path: &Path, at: u64) {
        let file = fs.open(path).unwrap();
        match self {
            Blow::Flip => fs.rot(path, at),
            Blow::ZeroPage => file.write_all_at(&[0; 4096], at / 4096 * 4096).unwrap(),
            Blow::Truncate => file.set_len(at).unwrap(),
            Blow::Remove => fs.remove(path).unwrap(),
        }
    }
}

fn ix(index: u64) -> LogIndex {
    LogIndex::new(index)
}

/// A clock on which everything is due at once: the mark follows each record.
fn hasty_clock() -> Clock {
    let seconds = AtomicU64::new(0);
    Clock::new(move || Duration::from_secs(seconds.fetch_add(1, Ordering::Relaxed)))
}

fn config() -> LogConfig {
    LogConfig {
        segment_bytes: SEGMENT,
        tail: MemoryBudget::new(0),
        spare_segments: 0,
        clock: hasty_clock(),
        ..LogConfig::default()
    }
}

fn open(fs: &FaultyFs) -> Result<(CommitLog, Writer), OpenError> {
    let (log, writer, _) = CommitLog::open(Arc::new(fs.clone()), Path::new(DIR), config())?;
    Ok((log, writer))
}

/// Terms change now and then; sizes differ.
fn record(index: u64) -> Record {
    let term = 1 + index / 25;
    let tag = LeaderTag { term, leader: term };
    let payload = Bytes::from(vec![index as u8; 40 + (index as usize * 997) % 5_000]);
    Record::new(tag, ix(index), RecordKind::Batch, payload)
}

fn append(log: &CommitLog, writer: &mut Writer, indexes: std::ops::RangeInclusive<u64>) {
    for index in indexes {
        log.append(vec![record(index)], Box::new(|_| {})).unwrap();
        writer.run_once();
    }
}

/// A replica with records 0 to `LAST` in several segments, closed as a killed process leaves it.
fn replica(with_indexes: bool) -> FaultyFs {
    let fs = FaultyFs::new();
    let (log, mut writer) = open(&fs).unwrap();
    log.save_vote(b"voted".to_vec(), Box::new(|_| {})).unwrap();
    append(&log, &mut writer, 0..=LAST);
    if with_indexes {
        log.save_indexes().unwrap();
    }
    assert!(log.segments().len() >= 4, "{:?}", log.segments());
    fs
}

fn segment_path(base: u64) -> PathBuf {
    Path::new(DIR).join(format!("{base:020}.log"))
}

fn contents(fs: &FaultyFs) -> Vec<(String, Vec<u8>)> {
    let names = fs.list(Path::new(DIR)).unwrap().into_iter();
    let logs = names.filter(|name| name.ends_with(".log"));
    logs.map(|name| {
        let bytes = fs.contents(&Path::new(DIR).join(&name)).unwrap();
        (name, bytes)
    })
    .collect()
}

/// Fills all holes of a log that does not open, a few records at a time.
fn mend_unopened(damage: &Damage, peer: &CommitLog) {
    for _ in 0..10_000 {
        let Some(hole) = damage.log.holes().first().copied() else {
            return;
        };
        let bytes = if hole.is_filler() {
            Bytes::new()
        } else {
            peer.records_for(hole.before, hole.last, 6_000).unwrap()
        };
        damage.log.fill_unopened(&hole, &bytes).unwrap();
    }
    panic!("it does not end: {:?}", damage.log.holes());
}

fn fill(log: &CommitLog, writer: &mut Writer, hole: Hole, bytes: Bytes) -> Result<u64, MendError> {
    let (tell, told) = channel();
    log.fill(
        hole,
        bytes,
        Box::new(move |outcome| tell.send(outcome).unwrap()),
    );
    writer.run_once();
    told.try_recv().unwrap()
}

fn mend_open(log: &CommitLog, writer: &mut Writer, peer: &CommitLog) {
    while let Some(hole) = log.holes().first().copied() {
        let bytes = peer.records_for(hole.before, hole.last, 6_000).unwrap();
        assert!(fill(log, writer, hole, bytes).unwrap() > 0);
    }
}

fn assert_whole(log: &CommitLog) {
    let mut next = 0;
    while next <= LAST {
        for located in log.read(ix(next), ix(LAST + 1), 100_000).unwrap() {
            assert_eq!(located.record, record(next));
            next += 1;
        }
    }
    assert_eq!(log.bounds().last, Some((ix(LAST), record(LAST).tag)));
}

/// Whatever a damaged log gives is what was written; the rest is refused as damaged.
fn assert_honest(log: &CommitLog) {
    for index in 0..=LAST {
        match log.read(ix(index), ix(index + 1), 1) {
            Ok(read) => assert_eq!(read[0].record, record(index)),
            Err(ReadError::Corrupt { .. }) => {
                assert!(log.holes().iter().any(|hole| hole.first() <= ix(index)));
            }
            Err(error) => panic!("record {index}: {error}"),
        }
    }
}

#[test]
fn segments_that_are_damaged_before_they_are_opened_come_back_to_the_byte() {
    for with_indexes in [false, true] {
        let good = replica(with_indexes);
        let (peer, _peer_writer) = open(&good).unwrap();
        let expected = contents(&good);
        for blow in BLOWS {
            for (name, bytes) in &expected {
                for at in [0, 40, 4_096, 20_000, 50_001] {
                    let fs = replica(with_indexes);
                    let path = Path::new(DIR).join(name);
                    if at >= bytes.len() as u64 {
                        continue;
                    }
                    blow.strike(&fs, &path, at);
                    let case = format!("{blow:?} of {name} at {at}, index {with_indexes}");
                    let before = fs.list(Path::new(DIR)).unwrap();
                    match open(&fs) {
                        // Behind the end, or vouched for by an index file.
                        Ok((log, mut writer)) => {
                            log.scrub(PhysicalOffset::ZERO, u64::MAX).unwrap();
                            assert_honest(&log);
                            mend_open(&log, &mut writer, &peer);
                            assert_whole(&log);
                        }
                        Err(OpenError::Damaged(damage)) => {
                            assert_eq!(fs.list(Path::new(DIR)).unwrap(), before, "{case}");
                            assert_honest(&damage.log);
                            mend_unopened(&damage, &peer);
                        }
                        Err(error) => panic!("{case}: {error}"),
                    }
                    let (log, mut writer) = open(&fs).unwrap();
                    assert_whole(&log);
                    let records_end = log.bounds().end_offset;
                    for (after, expected) in contents(&fs).iter().zip(&expected) {
                        assert_eq!(after.0, expected.0, "{case}");
                        let base: u64 = after.0[..20].parse().unwrap();
                        let used = records_end.get().saturating_sub(base).min(SEGMENT) as usize;
                        // Zeros behind the filler may differ from stale bytes; records may not.
                        assert!(after.1[..used] == expected.1[..used], "{case}: {}", after.0);
                    }
                    append(&log, &mut writer, LAST + 1..=LAST + 3);
                    drop((log, writer));
                    assert_eq!(open(&fs).unwrap().0.bounds().last.unwrap().0, ix(LAST + 3));
                }
            }
        }
    }
}

#[test]
fn rot_under_a_running_log_is_fenced_mended_and_never_served() {
    let good = replica(true);
    let (peer, _peer_writer) = open(&good).unwrap();
    for index in [0, 1, 24, 25, 60, 61, 100] {
        let fs = replica(true);
        let (log, mut writer) = open(&fs).unwrap();
        let located = log.read(ix(index), ix(index + 1), 1).unwrap()[0].clone();
        let base = located.offset.get() / SEGMENT * SEGMENT;
        let at = located.payload_offset().get() - base;
        fs.rot(&segment_path(base), at + 7);
        let len = located.record.payload.len();
        let (tell, told) = channel();
        log.observe_damage(Box::new(move || tell.send(()).unwrap()));
        let read = log.read_bytes(located.payload_offset(), len, true);
        assert!(matches!(read, Err(ReadError::Corrupt { .. })), "{read:?}");
        told.try_recv().expect("somebody is told");
        assert!(log.read(ix(index), ix(index + 1), 1).is_err());
        assert!(log.record_at(located.offset).is_err());
        assert_honest(&log);
        assert_eq!(log.damage().found, 1);

        // A peer that has a hole at the same place does not help.
        let own = log.holes()[0];
        assert_eq!(
            log.records_for(own.before, own.last, 1_000),
            Err(Withheld::Damaged)
        );
        mend_open(&log, &mut writer, &peer);
        assert_eq!((log.damage().mended, log.damage().holes), (1, vec![]));
        let read = log.read_bytes(located.payload_offset(), len, true);
        assert_eq!(read.unwrap(), located.record.payload);
        assert_whole(&log);
    }
}

#[test]
fn records_that_were_not_in_the_hole_are_not_written_into_it() {
    let fs = replica(false);
    let (peer, _peer_writer) = open(&replica(false)).unwrap();
    let base = SEGMENT;
    fs.rot(&segment_path(base), 5_000);
    let Err(OpenError::Damaged(damage)) = open(&fs) else {
        panic!("the damage was not noticed");
    };
    let hole = damage.log.holes()[0];
    let right = peer.records_for(hole.before, hole.last, 100_000).unwrap();
    let before = fs.contents(&segment_path(base)).unwrap();
    let refused = |bytes: &[u8]| {
        let filled = damage
            .log
            .fill_unopened(&hole, &Bytes::copy_from_slice(bytes));
        assert!(matches!(filled, Err(MendError::Foreign(_))), "{filled:?}");
        assert_eq!(fs.contents(&segment_path(base)).unwrap(), before);
    };
    refused(&[]);
    for cut in [1, 79, 80, right.len() - 1] {
        refused(&right[..cut]);
    }
    for bit in (0..right.len() * 8).step_by(101) {
        let mut wrong = right.to_vec();
        wrong[bit / 8] ^= 1 << (bit % 8);
        let padding_only = damage.log.records_for(hole.before, hole.last, 1).is_ok();
        assert!(!padding_only);
        // The padding of a record is not covered by its CRCs, and carries nothing.
        let last = peer.read(hole.last.0, hole.last.0.next(), 1).unwrap()[0].clone();
        let padding = last.end_offset().get()
            - last.payload_offset().get()
            - last.record.payload.len() as u64;
        if hole.first() == hole.last.0 && bit / 8 >= right.len() - padding as usize {
            continue;
        }
        refused(&wrong);
    }
    // Another history with the same indexes and sizes.
    let other = FaultyFs::new();
    let (stranger, mut writer) = open(&other).unwrap();
    for index in 0..=LAST {
        let tag = LeaderTag { term: 9, leader: 9 };
        let record = Record {
            tag,
            ..record(index)
        };
        stranger.append(vec![record], Box::new(|_| {})).unwrap();
        writer.run_once();
    }
    let asked = stranger.records_for(hole.before, hole.last, 1_000);
    assert_eq!(asked, Err(Withheld::Unknown));
    stranger.set_committed(ix(LAST));
    let asked = stranger.records_for(hole.before, hole.last, 1_000);
    assert_eq!(asked, Err(Withheld::Refuted));
    let theirs = (hole.last.0, LeaderTag { term: 9, leader: 9 });
    let before_theirs = hole.before.map(|(index, _)| (index, theirs.1));
    refused(
        &stranger
            .records_for(before_theirs, theirs, 100_000)
            .unwrap(),
    );

    damage.log.fill_unopened(&hole, &right).unwrap();
    assert_eq!(
        damage
            .log
            .fill_unopened(&hole, &right)
            .unwrap_err()
            .to_string(),
        "the hole is gone"
    );
    assert_whole(&open(&fs).unwrap().0);
}

#[test]
fn a_torn_tail_is_still_cut_and_what_is_below_the_mark_is_not() {
    let fs = replica(false);
    let mark = fs.contents(&Path::new(DIR).join("mark")).unwrap();
    let (log, mut writer) = open(&fs).unwrap();
    append(&log, &mut writer, LAST + 1..=LAST + 2);
    let torn = log.read(ix(LAST + 1), ix(LAST + 2), 1).unwrap()[0].clone();
    drop((log, writer));
    // The mark that was there before: the two records were never vouched for.
    let file = fs.open(&Path::new(DIR).join("mark")).unwrap();
    file.write_all_at(&mark, 0).unwrap();
    let base = torn.offset.get() / SEGMENT * SEGMENT;
    fs.rot(&segment_path(base), torn.offset.get() - base + 90);
    let (log, _writer) = open(&fs).unwrap();
    assert_whole(&log);
}

#[test]
fn a_vote_that_is_lost_is_never_taken_for_none() {
    let vote = Path::new(DIR).join("vote");
    for blow in BLOWS {
        let fs = replica(false);
        // One slot: healed.
        if !matches!(blow, Blow::Truncate | Blow::Remove) {
            for slot in [0, 4096] {
                blow.strike(&fs, &vote, slot + 10);
                let (log, _writer) = open(&fs).unwrap();
                assert_eq!(log.vote().as_deref(), Some(&b"voted"[..]), "{blow:?}");
            }
        }
        // Both.
        match blow {
            Blow::Truncate => blow.strike(&fs, &vote, 0),
            Blow::Remove => blow.strike(&fs, &vote, 0),
            Blow::Flip | Blow::ZeroPage => {
                blow.strike(&fs, &vote, 22);
                blow.strike(&fs, &vote, 4096 + 22);
            }
        }
        for _ in 0..2 {
            let error = open(&fs).map(drop).unwrap_err();
            assert!(matches!(error, OpenError::Lost { .. }), "{blow:?}: {error}");
            assert!(error.to_string().contains("Remedy"), "{error}");
        }
    }
}

#[test]
fn a_replica_that_never_voted_is_not_lost() {
    let fs = FaultyFs::new();
    drop(open(&fs).unwrap());
    let (log, _writer) = open(&fs).unwrap();
    assert_eq!(log.vote(), None);
}

#[test]
fn a_mark_that_is_lost_comes_back_from_a_log_without_doubt_and_only_then() {
    let mark = Path::new(DIR).join("mark");
    for blow in BLOWS {
        let lose = |fs: &FaultyFs| match blow {
            Blow::Truncate | Blow::Remove => blow.strike(fs, &mark, 0),
            Blow::Flip | Blow::ZeroPage => {
                blow.strike(fs, &mark, 30);
                blow.strike(fs, &mark, 4096 + 30);
            }
        };
        let fs = replica(false);
        lose(&fs);
        let (log, mut writer) = open(&fs).unwrap();
        assert_whole(&log);
        append(&log, &mut writer, LAST + 1..=LAST + 2);
        drop((log, writer));
        assert_eq!(open(&fs).unwrap().0.bounds().last.unwrap().0, ix(LAST + 2));

        // With anything else amiss nobody knows where the log ended.
        for (base, at) in [(0, 100), (SEGMENT, 9_000), (3 * SEGMENT, 50)] {
            let fs = replica(false);
            fs.rot(&segment_path(base), at);
            lose(&fs);
            let error = open(&fs).map(drop).unwrap_err();
            assert!(
                matches!(error, OpenError::Lost { .. }),
                "{blow:?} {base}: {error}"
            );
        }
        let fs = replica(false);
        fs.remove(&segment_path(SEGMENT)).unwrap();
        lose(&fs);
        assert!(matches!(open(&fs).map(drop), Err(OpenError::Lost { .. })));
    }
}

#[test]
fn one_bad_slot_of_the_mark_changes_nothing() {
    for slot in [0, 4096] {
        let fs = replica(false);
        fs.rot(&Path::new(DIR).join("mark"), slot + 25);
        assert_whole(&open(&fs).unwrap().0);
    }
}

#[test]
fn index_files_are_never_believed_when_they_are_damaged() {
    for blow in BLOWS {
        for at in [0, 17, 40] {
            let fs = replica(true);
            for name in fs.list(Path::new(DIR)).unwrap() {
                let path = Path::new(DIR).join(&name);
                if name.ends_with(".idx") && fs.contents(&path).unwrap().len() as u64 > at {
                    blow.strike(&fs, &path, at);
                }
            }
            assert_whole(&open(&fs).unwrap().0);
        }
    }
}

#[test]
fn scrubbing_goes_through_the_whole_log_in_steps_and_finds_all_rot() {
    let good = replica(true);
    let (peer, _peer_writer) = open(&good).unwrap();
    let fs = replica(true);
    let (log, mut writer) = open(&fs).unwrap();
    for base in [0, SEGMENT] {
        for at in [3_000, 45_000] {
            fs.rot(&segment_path(base), at);
        }
    }
    fs.remove(&segment_path(2 * SEGMENT)).unwrap();
    let pass = |log: &CommitLog| {
        let (mut at, mut bytes, mut steps) = (PhysicalOffset::ZERO, 0, 0);
        loop {
            let step = log.scrub(at, 20_000).unwrap();
            assert!(step.bytes < 20_000 + 50_000, "{step:?}");
            bytes += step.bytes;
            steps += 1;
            match step.next {
                Some(next) => at = next,
                None => return (bytes, steps),
            }
        }
    };
    let (bytes, steps) = pass(&log);
    assert!(steps > 4 && bytes > 2 * SEGMENT, "{bytes} in {steps}");
    assert_eq!(log.damage().scrubbed_bytes, bytes);
    let holes = log.holes();
    assert_eq!(holes.len(), 5, "{holes:?}");
    assert_honest(&log);
    mend_open(&log, &mut writer, &peer);
    pass(&log);
    assert_eq!(log.holes(), []);
    assert_whole(&log);
    drop((log, writer));
    assert_whole(&open(&fs).unwrap().0);
}

#[test]
fn a_cut_or_a_purge_takes_the_holes_along() {
    let good = replica(true);
    let (peer, _peer_writer) = open(&good).unwrap();
    let fs = replica(true);
    let (log, mut writer) = open(&fs).unwrap();
    fs.rot(&segment_path(0), 3_000);
    fs.rot(&segment_path(SEGMENT), 55_000);
    log.scrub(PhysicalOffset::ZERO, u64::MAX).unwrap();
    let [first, second] = log.holes()[..] else {
        panic!("{:?}", log.holes());
    };
    let records = |hole: Hole| peer.records_for(hole.before, hole.last, 100_000).unwrap();
    let keep = log.segments()[1].first_index;
    log.purge_through(keep, Box::new(|_| {})).unwrap();
    assert_eq!(log.holes(), [second]);
    assert!(matches!(
        fill(&log, &mut writer, first, records(first)),
        Err(MendError::Gone)
    ));
    let kept = second.before.unwrap().0;
    log.truncate_after(Some(LogIndex::new(kept.get())), Box::new(|_| {}))
        .unwrap();
    assert_eq!(log.holes(), []);
    // Queued behind the cut: it must not bring back what was cut.
    let gone = fill(&log, &mut writer, second, records(second));
    assert!(matches!(gone, Err(MendError::Gone)), "{gone:?}");
    assert_eq!(log.bounds().last.unwrap().0, kept);
}
