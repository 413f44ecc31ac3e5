//! Takes back messages that are not due yet, by their unique key: 370, and timer messages that name another
//! one.

use std::net::{Ipv4Addr, SocketAddrV4};

use gantry_protocol::message::Message;
use gantry_protocol::properties::names;
use gantry_protocol::{ResponseCode, topic as names_of};
use gantry_storage::PhysicalOffset;
use gantry_storage::store::KeyQuery;
use gantry_storage::tables::{Command, CommandResult};
use tokio::time::Instant;

use crate::catalog;
use crate::error::Failure;
use crate::group::{Executed, Group};

/// Messages that may share a unique key and are looked at.
const MESSAGES_MAX: usize = 64;

/// There is nothing to take back.
pub fn nothing(reason: &str) -> Failure {
    Failure::code(ResponseCode::ILLEGAL_OPERATION, reason)
}

/// The unique key that the property of a timer message stands for which takes back another one of `topic`:
/// RocketMQ 5.2 and later put the topic in front of it.
pub fn named_key<'a>(topic: &str, named: &'a str) -> &'a str {
    let key = named.strip_prefix(topic).unwrap_or(named);
    key.strip_prefix('+').unwrap_or(key)
}

/// Where the message for a topic waits that has this unique key; and this time, if that is known.
pub async fn find(
    group: &Group,
    (topic, unique_key): (&str, &str),
    due_ms: Option<u64>,
    deadline: Instant,
) -> Result<PhysicalOffset, Failure> {
    group.catch_up(deadline).await?;
    let key = unique_key.to_string();
    let found = catalog::read_aside(group, move |store| {
        store.query_keys(&KeyQuery {
            topic: names_of::TIMER_TOPIC,
            key: &key,
            max_messages: MESSAGES_MAX,
            begin_ms: 0,
            end_ms: u64::MAX,
            store_host: SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0),
        })
    });
    for mut bytes in found.await? {
        let Ok(Some(message)) = Message::decode(&mut bytes) else {
            continue;
        };
        let place = PhysicalOffset::new(message.physical_offset as u64);
        let waits_until = group.store.tables().parked().timers().time_of(place);
        let is_due = waits_until.is_some() && due_ms.is_none_or(|due| waits_until == Some(due));
        let is_named = message.property(names::UNIQ_KEY) == Some(unique_key);
        if is_due && is_named && message.property(names::REAL_TOPIC) == Some(topic) {
            return Ok(place);
        }
    }
    Err(nothing(
        "no such message waits; it was delivered, or recalled before",
    ))
}

/// Makes sure that the message that waits at a place never comes. Fails with [`Failure::Unsettled`] if that
/// was asked of a leader that fell, and nobody knows whether the message was taken back or delivered.
pub async fn cancel(
    group: &Group,
    place: PhysicalOffset,
    deadline: Instant,
) -> Result<(), Failure> {
    let unpark = Command::Unpark {
        places: vec![place],
    };
    outcome(&group.execute_and_tell(vec![unpark], deadline).await?)
}

fn outcome(executed: &Executed) -> Result<(), Failure> {
    match executed.results[..] {
        [CommandResult::Resolved(1)] => Ok(()),
        // It may have been this recall that resolved it.
        _ if executed.again => Err(Failure::Unsettled),
        _ => Err(nothing("the message was delivered just now")),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_recall_that_was_written_twice_says_nothing_about_what_is_gone() {
        let of = |resolved, again| {
            let results = vec![CommandResult::Resolved(resolved)];
            outcome(&Executed { results, again })
        };
        assert_eq!((of(1, false), of(1, true)), (Ok(()), Ok(())));
        let nothing = of(0, false).unwrap_err();
        assert!(matches!(
            nothing,
            Failure::Code(ResponseCode::ILLEGAL_OPERATION, _)
        ));
        assert_eq!(of(0, true), Err(Failure::Unsettled));
    }

    #[test]
    fn a_key_may_come_with_its_topic() {
        for named in ["KEY", "T+KEY", "TKEY"] {
            assert_eq!(named_key("T", named), "KEY");
        }
    }
}
