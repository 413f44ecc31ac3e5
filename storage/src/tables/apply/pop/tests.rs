//! Leases as commands make and end them.

use super::super::super::{LEASES_PER_QUEUE_MAX, Leases};
use super::super::super::{RequestMode, SubscriptionGroupConfig, TopicConfig};
use super::*;
use crate::codec;

const KEY: QueueKey = QueueKey {
    topic_id: 0,
    queue: 1,
};

fn tables() -> Tables {
    let mut tables = Tables::default();
    let config = TopicConfig::new("T", 2);
    tables.apply(Command::PutTopic { config });
    tables.advance_clock(1_000);
    tables
}

fn at(offset: u64) -> QueueOffset {
    QueueOffset::new(offset)
}

fn grant(expected: Option<u64>, offsets: &[u64], next: u64) -> Grant {
    Grant {
        expected: expected.map(at),
        next: at(next),
        offsets: offsets.iter().copied().map(at).collect(),
        invisible_ms: 500,
        in_order: None,
    }
}

fn in_order(expected: Option<u64>, offsets: &[u64], next: u64, attempt: &str) -> Grant {
    Grant {
        in_order: Some(attempt.to_owned()),
        ..grant(expected, offsets, next)
    }
}

fn pop(tables: &mut Tables, grant: Grant) -> CommandResult {
    let (group, key) = ("G".to_owned(), KEY);
    tables.apply(Command::Pop { group, key, grant }).0
}

fn popped(pop_ms: u64, times: &[u32]) -> CommandResult {
    let times = times.to_vec();
    CommandResult::Popped { pop_ms, times }
}

fn name(offset: u64, pop_ms: u64) -> LeaseName {
    let offset = at(offset);
    LeaseName {
        key: KEY,
        offset,
        pop_ms,
    }
}

fn ack(tables: &mut Tables, names: &[LeaseName]) -> CommandResult {
    let (group, leases) = ("G".to_owned(), names.to_vec());
    tables.apply(Command::Ack { group, leases }).0
}

fn ack_in_order(tables: &mut Tables, name: LeaseName) -> CommandResult {
    let (group, leases) = ("G".to_owned(), vec![name]);
    tables.apply(Command::AckInOrder { group, leases }).0
}

fn change(
    tables: &mut Tables,
    lease: LeaseName,
    invisible_ms: u64,
    in_order: bool,
) -> CommandResult {
    let group = "G".to_owned();
    let change = Command::ChangeInvisible {
        group,
        lease,
        invisible_ms,
        in_order,
    };
    tables.apply(change).0
}

fn redeliver(tables: &mut Tables, names: &[LeaseName]) -> Vec<u32> {
    let numbered = names.iter().zip(0..);
    let leases = numbered.map(|(name, row)| Redelivery {
        group: "G".to_owned(),
        name: *name,
        row: Some(row),
    });
    let leases = leases.collect();
    match tables.apply(Command::Redeliver { leases }).0 {
        CommandResult::Redelivered { unwanted } => unwanted,
        other => panic!("{other:?}"),
    }
}

fn position(tables: &Tables) -> Option<u64> {
    tables.consumer_offset("G", "T", 1).map(QueueOffset::get)
}

#[test]
fn messages_are_handed_out_once_and_only_from_where_the_group_is() {
    let mut tables = tables();
    assert_eq!(
        pop(&mut tables, grant(None, &[3, 5], 7)),
        popped(1_000, &[])
    );
    assert_eq!(position(&tables), Some(7));
    let lease = Lease {
        pop_ms: 1_000,
        visible_ms: 1_500,
    };
    assert_eq!(tables.leases().get("G", KEY, at(5)), Some(lease));
    assert_eq!(
        tables.leases().get("G", KEY, at(4)),
        None,
        "it did not match"
    );
    let before = tables.clone();
    for wrong in [
        grant(None, &[3], 7),
        grant(Some(6), &[6], 7),
        grant(Some(7), &[8, 8], 9),
        grant(Some(7), &[9], 9),
    ] {
        let result = pop(&mut tables, wrong.clone());
        assert!(matches!(result, CommandResult::Refused(_)), "{wrong:?}");
    }
    assert_eq!(tables, before);
}

#[test]
fn a_lease_ends_once_and_only_by_its_name() {
    let mut tables = tables();
    pop(&mut tables, grant(None, &[0, 1], 2));
    let wrong = ack(&mut tables, &[name(0, 999), name(2, 1_000)]);
    assert_eq!(wrong, CommandResult::Ended(vec![false, false]));
    let both = [name(0, 1_000), name(1, 1_000)];
    assert_eq!(
        ack(&mut tables, &both),
        CommandResult::Ended(vec![true, true])
    );
    assert_eq!(
        ack(&mut tables, &both),
        CommandResult::Ended(vec![false, false])
    );
    assert_eq!(
        tables.leases(),
        &Leases::default(),
        "nothing is left behind"
    );
    assert_eq!(position(&tables), Some(2));
}

#[test]
fn a_changed_lease_has_a_new_name_and_a_new_time() {
    let mut tables = tables();
    pop(&mut tables, grant(None, &[0], 1));
    tables.advance_clock(1_200);
    assert_eq!(
        change(&mut tables, name(0, 1_000), 900, false),
        popped(1_200, &[])
    );
    assert_eq!(tables.leases().first_due_ms(), Some(2_100));
    let stale = change(&mut tables, name(0, 1_000), 900, false);
    assert_eq!(stale, CommandResult::Ended(vec![false]));
    assert_eq!(
        ack(&mut tables, &[name(0, 1_000)]),
        CommandResult::Ended(vec![false])
    );
    assert_eq!(
        ack(&mut tables, &[name(0, 1_200)]),
        CommandResult::Ended(vec![true])
    );
}

#[test]
fn what_is_due_is_redelivered_once() {
    let mut tables = tables();
    pop(&mut tables, grant(None, &[0, 1, 2], 3));
    ack(&mut tables, &[name(1, 1_000)]);
    assert_eq!(tables.leases().span("G", KEY, at(3)), (at(0), at(3)));
    let all = [0, 1, 2].map(|offset| name(offset, 1_000));
    tables.advance_clock(1_499);
    assert_eq!(
        redeliver(&mut tables, &all),
        [0, 1, 2],
        "their time has not passed"
    );
    tables.advance_clock(1_500);
    let due: Vec<u64> = tables
        .leases()
        .due()
        .map(|due| due.name.offset.get())
        .collect();
    assert_eq!(due, [0, 2]);
    assert_eq!(
        redeliver(&mut tables, &all),
        [1],
        "that one was acknowledged"
    );
    assert_eq!(redeliver(&mut tables, &all), [0, 1, 2]);
    assert_eq!(
        ack(&mut tables, &[name(0, 1_000)]),
        CommandResult::Ended(vec![false])
    );
    assert_eq!(tables.leases(), &Leases::default());
}

#[test]
fn a_group_that_went_back_replaces_its_leases() {
    let mut tables = tables();
    pop(&mut tables, grant(None, &[0, 1], 2));
    let back = OffsetCommit {
        group: "G".to_owned(),
        topic: "T".to_owned(),
        queue: 1,
        offset: at(0),
    };
    tables.apply(Command::CommitOffsets {
        entries: vec![back],
        advance_only: false,
    });
    tables.advance_clock(1_100);
    assert_eq!(
        pop(&mut tables, grant(Some(0), &[0], 1)),
        popped(1_100, &[])
    );
    assert_eq!(
        ack(&mut tables, &[name(0, 1_000)]),
        CommandResult::Ended(vec![false])
    );
    assert_eq!(tables.leases().count(), 2);
    tables.advance_clock(9_000);
    assert_eq!(
        redeliver(&mut tables, &[name(0, 1_100), name(1, 1_000)]),
        [0; 0]
    );
}

#[test]
fn a_queue_has_so_many_leases_and_no_more() {
    let mut tables = tables();
    let full: Vec<u64> = (0..LEASES_PER_QUEUE_MAX as u64).collect();
    let next = full.len() as u64;
    assert_eq!(
        pop(&mut tables, grant(None, &full, next)),
        popped(1_000, &[])
    );
    assert_eq!(tables.leases().room("G", KEY), 0);
    let more = pop(&mut tables, grant(Some(next), &[next], next + 1));
    assert!(matches!(more, CommandResult::Refused(_)));
    ack(&mut tables, &[name(5, 1_000)]);
    assert_eq!(tables.leases().room("G", KEY), 1);
    let more = pop(&mut tables, grant(Some(next), &[next], next + 1));
    assert_eq!(more, popped(1_000, &[]));
}

#[test]
fn in_order_one_batch_is_out_and_the_group_stays_at_its_first_open_message() {
    let mut tables = tables();
    assert_eq!(
        pop(&mut tables, in_order(None, &[0, 2, 3], 5, "a")),
        popped(1_000, &[0, 0, 0])
    );
    assert_eq!(position(&tables), Some(0));
    assert!(matches!(
        pop(&mut tables, in_order(Some(0), &[0], 1, "b")),
        CommandResult::Refused(_)
    ));
    assert!(matches!(
        pop(&mut tables, in_order(Some(0), &[0], 1, "")),
        CommandResult::Refused(_)
    ));
    assert_eq!(
        ack_in_order(&mut tables, name(2, 1_000)),
        CommandResult::Ended(vec![true])
    );
    assert_eq!(position(&tables), Some(0));
    assert_eq!(
        ack_in_order(&mut tables, name(0, 1_000)),
        CommandResult::Ended(vec![true])
    );
    assert_eq!(position(&tables), Some(3), "2 was acknowledged before");
    tables.advance_clock(1_100);
    let again = pop(&mut tables, in_order(Some(3), &[3], 5, "a"));
    assert_eq!(
        again,
        popped(1_100, &[0]),
        "the same attempt does not count"
    );
    assert_eq!(
        ack_in_order(&mut tables, name(3, 1_000)),
        CommandResult::Ended(vec![false])
    );
    assert_eq!(
        ack_in_order(&mut tables, name(3, 1_100)),
        CommandResult::Ended(vec![true])
    );
    assert_eq!(position(&tables), Some(5), "4 did not match");
    assert_eq!(tables.leases(), &Leases::default());
}

#[test]
fn in_order_an_open_message_comes_again_with_all_behind_it() {
    let mut tables = tables();
    pop(&mut tables, in_order(None, &[0, 1, 2], 3, "a"));
    ack_in_order(&mut tables, name(0, 1_000));
    ack_in_order(&mut tables, name(2, 1_000));
    assert_eq!(
        change(&mut tables, name(1, 1_000), 50, true),
        popped(1_000, &[])
    );
    tables.advance_clock(1_049);
    assert!(matches!(
        pop(&mut tables, in_order(Some(1), &[1], 2, "b")),
        CommandResult::Refused(_)
    ));
    tables.advance_clock(1_050);
    let again = pop(&mut tables, in_order(Some(1), &[1, 2], 3, "b"));
    assert_eq!(again, popped(1_050, &[1, 1]));
    tables.advance_clock(2_000);
    let again = pop(&mut tables, in_order(Some(1), &[1, 2, 3], 4, "c"));
    assert_eq!(again, popped(2_000, &[2, 2, 0]));
    assert_eq!(tables.leases().in_flight("G", KEY), 3);
    assert_eq!(tables.leases().span("G", KEY, at(1)), (at(1), at(4)));
}

#[test]
fn in_order_a_batch_that_the_group_was_moved_away_from_is_in_nobodys_way() {
    let mut tables = tables();
    pop(&mut tables, in_order(None, &[0, 1], 2, "a"));
    let entry = OffsetCommit {
        group: "G".to_owned(),
        topic: "T".to_owned(),
        queue: 1,
        offset: at(7),
    };
    tables.apply(Command::CommitOffsets {
        entries: vec![entry],
        advance_only: false,
    });
    assert_eq!(
        ack_in_order(&mut tables, name(0, 1_000)),
        CommandResult::Ended(vec![false])
    );
    assert_eq!(position(&tables), Some(7));
    assert_eq!(
        pop(&mut tables, in_order(Some(7), &[7], 8, "b")),
        popped(1_000, &[0])
    );
    // Looked at, and nothing matched: the group moves on and has nothing.
    ack_in_order(&mut tables, name(7, 1_000));
    assert_eq!(
        pop(&mut tables, in_order(Some(8), &[], 20, "c")),
        popped(1_000, &[])
    );
    assert_eq!(
        (position(&tables), tables.leases()),
        (Some(20), &Leases::default())
    );
}

#[test]
fn leases_and_modes_go_with_their_topic_and_their_group() {
    let mode = Command::SetRequestMode {
        topic: "T".to_owned(),
        group: "G".to_owned(),
        mode: RequestMode::default(),
    };
    let filled = || {
        let mut tables = tables();
        tables.apply(Command::PutGroup {
            config: SubscriptionGroupConfig::new("G"),
        });
        pop(&mut tables, grant(None, &[0], 1));
        pop(&mut tables, in_order(Some(1), &[1], 2, "a"));
        tables.apply(mode.clone());
        tables
    };
    let mut without_topic = filled();
    without_topic.apply(Command::DeleteTopic { name: "T".into() });
    let mut without_group = filled();
    without_group.apply(Command::DeleteGroup {
        name: "G".into(),
        clean_offsets: false,
    });
    for tables in [without_topic, without_group] {
        assert_eq!(tables.leases(), &Leases::default());
        assert_eq!(tables.request_modes().iter().count(), 0);
    }
}

#[test]
fn encoded_leases_come_back_with_what_is_due() {
    let mut tables = tables();
    pop(&mut tables, grant(None, &[0, 4], 5));
    tables.advance_clock(1_200);
    change(&mut tables, name(0, 1_000), 10_000, false);
    pop(&mut tables, in_order(Some(5), &[5], 6, "a"));
    let bytes = codec::encode(tables.leases());
    let back: Leases = codec::decode(&bytes).unwrap();
    assert_eq!(&back, tables.leases());
    assert_eq!(back.first_due_ms(), Some(1_500));
    assert_eq!(back.due().count(), 2);
}
