//! Recovery of damaged directories: segments, index files, vote, mark, checkpoints, consume queues, keys.
//!
//! An input is a list of edits of a good directory, made once. Whatever they did, opening neither panics nor
//! hangs; opening again gives the same; a record that is read is the record that was written, unless an edit
//! forged a checksum; a log that was refused is not touched; one that opened takes another record. If only
//! derived files were edited, the state is what it was before.

mod edits;
mod ground;

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use gantry_storage::commitlog::{Bounds, CommitLog, LeaderTag, Record, RecordKind, Turn, Writer};
use gantry_storage::error::{OpenError, ReadError};
use gantry_storage::testing::FaultyFs;
use gantry_storage::{LogIndex, QueueOffset, ReadRequest, Store, StoreConfig};

use crate::input::Input;
use edits::{Damage, apply_edits};
use ground::{DIRECTORY, Ground, config, directories};

/// Edits a good directory and opens what comes of it.
pub(crate) fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let grounds = directories();
    let ground = &grounds[input.below(grounds.len())];
    let mut files = ground.files.clone();
    let damage = apply_edits(&mut files, &mut input);
    let fs = Arc::new(ground::disk_of(&files));
    match open(&fs) {
        Err(error) => check_refusal(&fs, &files, &error),
        Ok((log, writer)) => check_log(&fs, ground, &damage, log, writer),
    }
}

fn open(fs: &Arc<FaultyFs>) -> Result<(CommitLog, Writer), OpenError> {
    let opened = CommitLog::open(fs.clone(), Path::new(DIRECTORY), config());
    opened.map(|(log, writer, _)| (log, writer))
}

/// A refused log keeps its records, and is refused again.
fn check_refusal(fs: &Arc<FaultyFs>, files: &ground::Files, error: &OpenError) {
    for (path, bytes) in files {
        if path.extension().is_some_and(|extension| extension == "log") {
            let now = fs.contents(path);
            assert_eq!(now.as_ref(), Some(bytes), "{error} changed {path:?}");
        }
    }
    let again = match open(fs) {
        Ok(_) => panic!("refused with {error}, then opened"),
        Err(again) => again,
    };
    assert_eq!(again.to_string(), error.to_string());
}

fn check_log(fs: &Arc<FaultyFs>, ground: &Ground, damage: &Damage, log: CommitLog, writer: Writer) {
    let bounds = log.bounds();
    let vote = log.vote();
    if !damage.forged {
        assert!(vote.is_none() || vote == ground.vote, "another vote");
    }
    check_records(&log, &bounds, ground, damage);
    if damage.only_derived {
        assert_eq!(
            bounds.last, ground.bounds.last,
            "a derived file moved the end"
        );
        // A forged checkpoint is another state, and may contradict the log.
        if !damage.forged {
            check_state(fs, ground, &log);
        }
    }
    drop((log, writer));

    let (log, writer) = open(fs).expect("what opened opens again");
    assert_eq!(log.bounds(), bounds, "another log at the second opening");
    assert_eq!(log.vote(), vote, "another vote at the second opening");
    check_append(fs, &log, writer, &bounds);
}

/// Every record that can be read is right.
fn check_records(log: &CommitLog, bounds: &Bounds, ground: &Ground, damage: &Damage) {
    let Some((last, _)) = bounds.last else {
        return;
    };
    let first = bounds.purged.map_or(1, |(index, _)| index.get() + 1);
    // A forged mark may let the log begin anywhere, but not hold more than there is room for.
    let count = (last.get() + 1).saturating_sub(first);
    assert!(
        count <= 10_000,
        "{count} records in a directory of some kilobytes"
    );
    for index in first..=last.get() {
        let index = LogIndex::new(index);
        match log.read(index, index.next(), usize::MAX) {
            Ok(found) => {
                assert_eq!(found.len(), 1, "record {index}");
                let record = &found[0].record;
                assert_eq!(record.index, index);
                assert_eq!(record.payload_crc, crc32fast::hash(&record.payload));
                if !damage.forged {
                    assert_eq!(Some(record), ground.records.get(&index.get()), "{index}");
                }
            }
            // Damage below what an index file vouches for is found when it is read.
            Err(ReadError::Corrupt { .. }) => {}
            // The first record of a log that was purged within a segment may only be known by offset.
            Err(error) => assert!(damage.forged, "record {index}: {error}"),
        }
    }
}

/// The state comes back whatever happened to the files that are made from the log.
fn check_state(fs: &Arc<FaultyFs>, ground: &Ground, log: &CommitLog) {
    let dir = Path::new(DIRECTORY);
    for turn in 0..2 {
        let store = Store::open(fs.clone(), dir, StoreConfig::default(), log.clone(), None);
        let store = match store {
            Ok(store) => store,
            // The one derived file that does not come back is the checkpoint at the start of a purged log.
            Err(error) => {
                assert!(bounds_purged(log), "{error}");
                return;
            }
        };
        let digest = store.digest();
        assert_eq!(digest, ground.digest, "another state, opening {turn}");
        for key in &ground.queues {
            let read = store.read_queue(&ReadRequest {
                key: *key,
                offset: QueueOffset::ZERO,
                max_messages: 64,
                max_bytes: 1 << 20,
                filter: &|_| true,
                properties: None,
                store_host: "192.0.2.1:1".parse().unwrap(),
                may_wait: true,
                whole: true,
            });
            // Units have no checksum: one that points at no message is an error, not a crash.
            drop(read);
        }
        drop(store.flush_indexes());
    }
}

fn bounds_purged(log: &CommitLog) -> bool {
    log.bounds().purged.is_some()
}

/// The log that was repaired is a log: it takes a record, which is there after another opening.
fn check_append(fs: &Arc<FaultyFs>, log: &CommitLog, mut writer: Writer, bounds: &Bounds) {
    let (last, tag) = bounds.last.unzip();
    let next = last.map_or(LogIndex::new(1), LogIndex::next);
    let term = tag.map_or(1, |tag: LeaderTag| tag.term);
    let tag = LeaderTag { term, leader: 9 };
    let record = Record::new(tag, next, RecordKind::Batch, Bytes::from_static(b"after"));
    let (told, outcome) = std::sync::mpsc::channel();
    log.append(
        vec![record.clone()],
        Box::new(move |done| told.send(done).unwrap()),
    )
    .unwrap();
    while writer.run_once() == Turn::Worked {}
    outcome.recv().unwrap().unwrap();
    drop(writer);
    let (log, _writer) = open(fs).expect("opens after an append");
    let found = log.read(next, next.next(), usize::MAX).unwrap();
    assert_eq!(found[0].record, record);
}
