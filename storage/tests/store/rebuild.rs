//! Every file that the store writes can be deleted, cut or spoilt, and comes back from the log.

use std::fs;
use std::path::{Path, PathBuf};

use gantry_storage::error::ReadError;
use gantry_storage::position::QueueOffset;
use gantry_storage::queue_offsets::QueueKey;
use gantry_storage::store::KeyQuery;
use gantry_storage::tables::{Command, OffsetCommit};

use crate::rig::{HOST, Rig};

/// What clients can see of a store.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    digest: u32,
    bodies: Vec<Vec<Vec<u8>>>,
    by_key: Vec<usize>,
}

fn see(rig: &Rig, topic: u32) -> Seen {
    let queue = |queue| {
        rig.bodies(QueueKey {
            topic_id: topic,
            queue,
        })
    };
    let by_key = |key: &str| {
        let query = KeyQuery {
            topic: "T",
            key,
            max_messages: 1_000,
            begin_ms: 0,
            end_ms: u64::MAX,
            store_host: HOST,
        };
        rig.store.query_keys(&query).unwrap().len()
    };
    Seen {
        digest: rig.store.digest(),
        bodies: (0..3).map(queue).collect(),
        by_key: ["k0", "k1", "k2", "all", "none"].map(by_key).to_vec(),
    }
}

/// Messages over several segments, written to files at some places and not at others.
fn filled(dir: &Path, copied: bool) -> (Rig, u32) {
    let mut rig = if copied {
        Rig::open_with_copy(dir)
    } else {
        Rig::open(dir)
    };
    let topic = rig.topic("T", 3);
    for number in 0..200u64 {
        let keys = format!("KEYS\x01k{} all\x02", number % 3);
        let body = vec![number as u8; 1_000];
        rig.send(("T", topic), (number % 3) as u16, &body, keys.as_bytes());
        if number % 50 == 20 {
            rig.store.flush_indexes().unwrap();
            rig.store.save_copy().unwrap();
        }
        let entry = OffsetCommit {
            group: "G".into(),
            topic: "T".into(),
            queue: 0,
            offset: QueueOffset::new(number),
        };
        rig.command(Command::CommitOffsets {
            entries: vec![entry],
            advance_only: true,
        });
    }
    assert!(
        rig.log.segments().len() > 3,
        "the test is about several segments"
    );
    (rig, topic)
}

/// All files of the store itself.
fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut dirs = vec![dir.join("state")];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                dirs.push(path)
            } else {
                found.push(path)
            }
        }
    }
    found.sort();
    found
}

/// Spoils one file after the other and expects to see the same.
fn survives(spoil: impl Fn(&Path)) {
    let dir = tempfile::tempdir().unwrap();
    let (mut rig, topic) = filled(dir.path(), false);
    let before = see(&rig, topic);
    assert_eq!(before.by_key, [67, 67, 66, 200, 0]);
    rig.store.save_copy().unwrap();
    let paths = files(dir.path());
    assert!(
        paths.len() > 8,
        "queues, key indexes and checkpoints: {paths:?}"
    );
    for path in paths {
        rig = rig.reopen_after(|_| {
            if path.exists() {
                spoil(&path);
            }
        });
        assert_eq!(see(&rig, topic), before, "{}", path.display());
        rig.store.save_copy().unwrap();
        assert_eq!(see(&rig, topic), before, "{}, flushed", path.display());
    }
}

#[test]
fn a_deleted_file_comes_back() {
    survives(|path| fs::remove_file(path).unwrap());
}

#[test]
fn a_file_that_was_cut_comes_back() {
    survives(|path| {
        let len = fs::metadata(path).unwrap().len();
        fs::OpenOptions::new()
            .write(true)
            .open(path)
            .unwrap()
            .set_len(len / 2)
            .unwrap();
    });
}

#[test]
fn the_whole_directory_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let (rig, topic) = filled(dir.path(), true);
    let before = see(&rig, topic);
    let rig = rig.reopen_after(|dir| fs::remove_dir_all(dir.join("state")).unwrap());
    assert_eq!(see(&rig, topic), before);
    let rig = rig.reopen_after(|dir| fs::remove_dir_all(dir.join("copy")).unwrap());
    assert_eq!(see(&rig, topic), before);
}

#[test]
fn a_restart_without_a_word_finds_everything() {
    let dir = tempfile::tempdir().unwrap();
    let (mut rig, topic) = filled(dir.path(), true);
    let before = see(&rig, topic);
    for _ in 0..3 {
        rig = rig.reopen_after(|_| {});
        assert_eq!(see(&rig, topic), before);
    }
    rig.send(("T", topic), 0, b"more", b"KEYS\x01all\x02");
    let after = see(&rig, topic);
    assert_eq!(after.by_key[3], 201);
    rig.store.save_copy().unwrap();
    let rig = rig.reopen_after(|_| {});
    assert_eq!(see(&rig, topic), after);
}

#[test]
fn a_copy_that_does_not_open_is_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let (rig, topic) = filled(dir.path(), true);
    let before = see(&rig, topic);
    let rig = rig.reopen_after(|dir| {
        let copy = dir.join("copy");
        fs::write(copy.join("snap.0000000000000000.generating"), "half").unwrap();
        fs::write(copy.join("conf"), "not a configuration").unwrap();
    });
    assert_eq!(see(&rig, topic), before);
    assert!(
        dir.path().join("copy.broken-0").exists(),
        "kept for a look at it"
    );
}

#[test]
fn files_of_a_deleted_topic_go_and_stay_away() {
    let dir = tempfile::tempdir().unwrap();
    let (mut rig, topic) = filled(dir.path(), true);
    let queue = dir.path().join(format!("state/consume_queue/{topic}-0"));
    assert!(queue.exists());
    rig.command(Command::DeleteTopic { name: "T".into() });
    rig.store.flush_indexes().unwrap();
    assert!(!queue.exists());
    rig.store.save_copy().unwrap();
    let digest = rig.store.digest();
    let rig = rig.reopen_after(|_| {});
    assert_eq!(rig.store.digest(), digest);
    assert_eq!(
        rig.store.queue_bounds(QueueKey {
            topic_id: topic,
            queue: 0
        }),
        None
    );
}

/// Damages the files of the queues of an open store, and expects that nothing wrong is read, and that the
/// next maintenance brings everything back.
fn queues_are_mended(spoil: impl Fn(&Path)) {
    for at_queue in 0..3u16 {
        let dir = tempfile::tempdir().unwrap();
        let (rig, topic) = filled(dir.path(), false);
        let before = see(&rig, topic);
        rig.store.save_copy().unwrap();
        let rig = rig.reopen_after(|_| {});
        let queue = format!("state/consume_queue/{topic}-{at_queue}");
        let queue = dir.path().join(queue);
        for entry in fs::read_dir(queue).unwrap() {
            spoil(&entry.unwrap().path());
        }
        let key = QueueKey {
            topic_id: topic,
            queue: at_queue,
        };
        let expected = &before.bodies[usize::from(at_queue)];
        let mut refused = 0;
        for round in 0..100 {
            let mut damaged = 0;
            for (offset, body) in expected.iter().enumerate() {
                match rig.try_read(key, offset as u64, 1) {
                    Ok(read) => assert_eq!(&rig.bodies_in(&read)[0], body, "offset {offset}"),
                    Err(ReadError::Corrupt { .. }) => damaged += 1,
                    Err(error) => panic!("offset {offset}: {error}"),
                }
            }
            refused += damaged;
            if damaged == 0 {
                break;
            }
            assert!(round < 99, "{damaged} of {} stay damaged", expected.len());
            rig.store.flush_indexes().unwrap();
        }
        assert!(refused > 0, "the damage was not met");
        assert_eq!(see(&rig, topic), before);
    }
}

#[test]
fn flipped_bits_in_a_consume_queue_are_never_believed_and_are_mended() {
    for bit in [0, 5, 63, 64, 95, 96, 159, 160, 191] {
        queues_are_mended(|path| {
            let mut bytes = fs::read(path).unwrap();
            for unit in [0, 3, 20] {
                bytes[unit * 24 + bit / 8] ^= 1 << (bit % 8);
            }
            let file = fs::OpenOptions::new().write(true).open(path).unwrap();
            std::os::unix::fs::FileExt::write_all_at(&file, &bytes, 0).unwrap();
        });
    }
}

#[test]
fn zeros_in_a_consume_queue_and_the_loss_of_its_end_are_mended() {
    queues_are_mended(|path| {
        let file = fs::OpenOptions::new().write(true).open(path).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&file, &[0; 500], 240).unwrap();
    });
    queues_are_mended(|path| {
        let file = fs::OpenOptions::new().write(true).open(path).unwrap();
        file.set_len(24 * 10 + 7).unwrap();
    });
}
