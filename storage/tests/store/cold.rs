//! Reading a queue whose messages are on the disk only, between those of another queue.

use gantry_storage::error::ReadError;
use gantry_storage::position::QueueOffset;
use gantry_storage::queue_offsets::QueueKey;
use gantry_storage::store::{PropertiesFilter, QueueRead, ReadRequest, ReadStatus};

use crate::rig::{HOST, Rig, split};

const MESSAGES: u64 = 400;

/// An answer may wait for the disk, but not again and again.
const ONCE: (bool, bool) = (true, false);

/// One message of a kilobyte in each record, in turn for one queue and the other; every fourth of a queue is
/// wanted.
fn filled(dir: &std::path::Path) -> (Rig, QueueKey) {
    let mut rig = Rig::open_with_segments(dir, 16 << 20);
    let topic_id = rig.topic("T", 2);
    for number in 0..2 * MESSAGES {
        let mut body = vec![b'.'; 1 << 10];
        body[..8].copy_from_slice(&number.to_be_bytes());
        let wanted = number / 2 % 4 == 1;
        let properties: &[u8] = if wanted { b"a\x011\x02" } else { b"a\x012\x02" };
        rig.send(("T", topic_id), (number % 2) as u16, &body, properties);
    }
    (rig, QueueKey { topic_id, queue: 1 })
}

/// From now on everything is on the disk only.
fn forget(rig: &Rig) {
    let last = rig.log.bounds().last.unwrap().0;
    // What was wanted since the last time stays once.
    rig.log.forget_through(last);
    rig.log.forget_through(last);
}

fn read(
    rig: &Rig,
    key: QueueKey,
    (offset, max_messages): (QueueOffset, usize),
    properties: Option<&PropertiesFilter<'_>>,
    (may_wait, whole): (bool, bool),
) -> Result<QueueRead, ReadError> {
    rig.store.read_queue(&ReadRequest {
        key,
        offset,
        max_messages,
        max_bytes: 1 << 20,
        filter: &|_| true,
        properties,
        store_host: HOST,
        may_wait,
        whole,
    })
}

/// The wanted messages, one answer after the other, and how many answers there were.
fn all(
    rig: &Rig,
    key: QueueKey,
    max_messages: usize,
    properties: Option<&PropertiesFilter<'_>>,
) -> (Vec<u64>, usize) {
    let (mut found, mut answers) = (Vec::new(), 0);
    let mut next = QueueOffset::ZERO;
    while next.get() < MESSAGES {
        let answer = read(rig, key, (next, max_messages), properties, ONCE).unwrap();
        assert!(answer.next_offset > next, "{answer:?}");
        let views = split(&answer.body);
        assert_eq!(views.len(), answer.count);
        for view in views {
            assert!(view.queue_offset() >= next && view.queue_offset() < answer.next_offset);
            found.push(view.queue_offset().get());
        }
        next = answer.next_offset;
        answers += 1;
    }
    (found, answers)
}

#[test]
fn an_answer_waits_for_the_disk_as_often_as_it_may() {
    let dir = tempfile::tempdir().unwrap();
    let (rig, key) = filled(dir.path());
    let start = (QueueOffset::ZERO, MESSAGES as usize);
    for wanted in [None, Some(&(|_: &[u8]| true) as &PropertiesFilter<'_>)] {
        forget(&rig);
        let in_memory = read(&rig, key, start, wanted, (false, false));
        assert!(
            matches!(in_memory, Err(ReadError::NotInMemory)),
            "{in_memory:?}"
        );
        let once = read(&rig, key, start, wanted, ONCE).unwrap();
        assert_eq!(once.status, ReadStatus::Found);
        assert!(once.count > 1 && once.count < 100, "{}", once.count);
        assert_eq!(once.next_offset.get(), once.count as u64);
        let again = read(&rig, key, start, wanted, (false, false)).unwrap();
        assert_eq!(again, once, "what is in memory is given without a wait");
        let whole = read(&rig, key, start, wanted, (false, true));
        assert!(matches!(whole, Err(ReadError::NotInMemory)), "{whole:?}");
        let often = read(&rig, key, start, wanted, (true, true)).unwrap();
        assert_eq!(often.next_offset.get(), MESSAGES);
    }
}

#[test]
fn answers_that_end_early_leave_nothing_out() {
    let dir = tempfile::tempdir().unwrap();
    let (rig, key) = filled(dir.path());
    let every: Vec<u64> = (0..MESSAGES).collect();
    let fourth: Vec<u64> = (0..MESSAGES).filter(|number| number % 4 == 1).collect();
    let wanted = |text: &[u8]| text == b"a\x011\x02";
    for max_messages in [1, 7, 32] {
        assert_eq!(all(&rig, key, max_messages, None).0, every);
        assert_eq!(all(&rig, key, max_messages, Some(&wanted)).0, fourth);
    }
    forget(&rig);
    let (nothing, answers) = all(&rig, key, 32, Some(&|_| false));
    assert!(nothing.is_empty());
    assert!(answers > 1, "the disk is waited for more than once in all");
}
