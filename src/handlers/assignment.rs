//! Which queues a member of a group asks for messages, and how: 400, 401, 402.

use std::collections::BTreeSet;
use std::sync::Arc;

use gantry_protocol::bodies::{
    Assignment, Assignments, MessageQueue, QueryAssignment, RequestModeName, RequestModeTable,
    SetRequestMode,
};
use gantry_protocol::{RemotingCommand, ResponseCode, topic as names};
use gantry_storage::tables::{Command, PERM_READ, RequestMode};

use super::Handled;
use crate::broker::Broker;
use crate::catalog;
use crate::error::Failure;
use crate::group::{Group, HOLD};
use crate::remoting::Request;

const BROADCASTING: &str = "BROADCASTING";

/// How queues are shared out among members.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Strategy {
    /// Neighbours go to the same member.
    Average,
    /// Neighbours go to different members.
    Circle,
}

/// 400: the queues of the member that asks. While its group's members are not known there is no list, and it
/// keeps what it has.
pub fn query(broker: &Broker, group: &Group, request: &Request) -> Handled {
    let body = QueryAssignment::decode(&request.command.body);
    let asked = body.map_err(|error| catalog::unreadable(&error))?;
    let strategy = match asked.strategy_name.as_str() {
        "AVG" | "" => Strategy::Average,
        "AVG_BY_CIRCLE" => Strategy::Circle,
        other => {
            let reason = format!("there is no strategy {other}: AVG and AVG_BY_CIRCLE are known");
            return Err(Failure::code(ResponseCode::INVALID_PARAMETER, reason));
        }
    };
    let queues = queues_of(broker, &asked.topic);
    let mode = mode_of(broker, group, (&asked.topic, &asked.consumer_group));
    let is_broadcasting = asked.message_model == BROADCASTING;
    let mine = if is_broadcasting {
        Some(queues)
    } else {
        let members = broker.sessions.members(&asked.consumer_group);
        let members = members.unwrap_or_default();
        let at = members.iter().position(|member| *member == asked.client_id);
        at.map(|at| share(&queues, (at, members.len()), strategy, mode))
    };
    let name = match mode.pops && !is_broadcasting {
        true => RequestModeName::Pop,
        false => RequestModeName::Pull,
    };
    let assignment = |message_queue: MessageQueue| Assignment {
        message_queue,
        mode: name,
    };
    let body = Assignments {
        message_queue_assignments: mine.map(|mine| mine.into_iter().map(assignment).collect()),
    };
    Ok(RemotingCommand::success_to(&request.command)
        .with_body(body.encode())
        .into())
}

/// 401: decides how a group asks for the messages of a topic.
pub async fn set_mode(group: &Group, request: &Request) -> Handled {
    let body = SetRequestMode::decode(&request.command.body);
    let asked = body.map_err(|error| catalog::unreadable(&error))?;
    if asked.topic.starts_with(names::RETRY_PREFIX) {
        let reason = format!("{} is a retry topic, which is always pulled", asked.topic);
        return Err(Failure::code(ResponseCode::NO_PERMISSION, reason));
    }
    let checked = names::check_topic(&asked.topic).and(names::check_group(&asked.consumer_group));
    checked.map_err(|error| Failure::code(ResponseCode::INVALID_PARAMETER, error.to_string()))?;
    let set = Command::SetRequestMode {
        topic: asked.topic,
        group: asked.consumer_group,
        mode: RequestMode {
            pops: asked.mode == RequestModeName::Pop,
            share_queues: asked.pop_share_queue_num,
        },
    };
    catalog::change(group, vec![set], request.caller.received + HOLD).await?;
    Ok(RemotingCommand::success_to(&request.command).into())
}

/// 402: what was decided.
pub async fn all_modes(group: &Group, request: &Request) -> Handled {
    group.catch_up(request.caller.received + HOLD).await?;
    let mut body = RequestModeTable::default();
    for (topic, consumer, mode) in group.store.tables().request_modes().iter() {
        let of_topic = body.message_request_mode_map.entry(topic.to_owned());
        let value = SetRequestMode {
            consumer_group: consumer.to_owned(),
            mode: match mode.pops {
                true => RequestModeName::Pop,
                false => RequestModeName::Pull,
            },
            pop_share_queue_num: mode.share_queues,
            topic: topic.to_owned(),
        };
        of_topic.or_default().insert(consumer.to_owned(), value);
    }
    Ok(RemotingCommand::success_to(&request.command)
        .with_body(body.encode())
        .into())
}

/// All queues of a topic that may be read, in all groups of brokers, in RocketMQ's order.
fn queues_of(broker: &Broker, topic: &str) -> Vec<MessageQueue> {
    let mut queues = Vec::new();
    let mut groups: Vec<&Arc<Group>> = broker.groups.iter().collect();
    groups.sort_by(|a, b| a.name.cmp(&b.name));
    for group in groups {
        let found = group.store.tables().topic(topic);
        let readable = found.filter(|topic| topic.config.perm & PERM_READ != 0);
        let count = readable.map_or(0, |topic| topic.config.read_queues);
        queues.extend((0..count).map(|queue| MessageQueue {
            broker_name: group.name.clone(),
            queue_id: i32::from(queue),
            topic: topic.to_owned(),
        }));
    }
    queues
}

/// What was decided for a group in a topic, here or, if not here, in another group of brokers; else it pulls.
fn mode_of(broker: &Broker, group: &Group, (topic, consumer): (&str, &str)) -> RequestMode {
    let of = |group: &Group| group.store.tables().request_modes().get(topic, consumer);
    let elsewhere = || broker.groups.iter().find_map(|group| of(group));
    of(group).or_else(elsewhere).unwrap_or_default()
}

/// The queues of member `at` of so many.
fn share(
    queues: &[MessageQueue],
    (at, members): (usize, usize),
    strategy: Strategy,
    mode: RequestMode,
) -> Vec<MessageQueue> {
    if queues.is_empty() {
        return Vec::new();
    }
    if !mode.pops {
        return part(queues, (at, members), strategy);
    }
    let shared = usize::try_from(mode.share_queues).unwrap_or(0);
    if shared == 0 || shared >= members.saturating_sub(1) {
        // Everybody pops everywhere.
        let brokers: BTreeSet<&str> = queues
            .iter()
            .map(|queue| queue.broker_name.as_str())
            .collect();
        let any = brokers.into_iter().map(|broker| MessageQueue {
            broker_name: broker.to_owned(),
            queue_id: -1,
            topic: queues[0].topic.clone(),
        });
        return any.collect();
    }
    if members > queues.len() {
        // Nobody is left without one.
        return vec![queues[at % queues.len()].clone()];
    }
    let mut mine = Vec::new();
    for next in 0..=shared {
        mine.extend(part(queues, ((at + next) % members, members), strategy));
    }
    mine
}

/// A fair part, without overlaps.
fn part(
    queues: &[MessageQueue],
    (at, members): (usize, usize),
    strategy: Strategy,
) -> Vec<MessageQueue> {
    match strategy {
        Strategy::Circle => queues.iter().skip(at).step_by(members).cloned().collect(),
        Strategy::Average => {
            let (each, over) = (queues.len() / members, queues.len() % members);
            let begin = at * each + at.min(over);
            let count = each + usize::from(at < over);
            queues[begin..begin + count].to_vec()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queues(count: i32) -> Vec<MessageQueue> {
        let queue = |queue_id: i32| MessageQueue {
            broker_name: if queue_id < 2 { "a" } else { "b" }.into(),
            queue_id,
            topic: "t".into(),
        };
        (0..count).map(queue).collect()
    }

    fn ids(queues: &[MessageQueue]) -> Vec<i32> {
        queues.iter().map(|queue| queue.queue_id).collect()
    }

    const PULLS: RequestMode = RequestMode {
        pops: false,
        share_queues: 0,
    };

    #[test]
    fn every_queue_goes_to_one_member() {
        for strategy in [Strategy::Average, Strategy::Circle] {
            for (count, members) in [(8, 3), (2, 5), (4, 4), (1, 1), (7, 2)] {
                let all = queues(count);
                let mut given = Vec::new();
                for at in 0..members {
                    given.extend(ids(&share(&all, (at, members), strategy, PULLS)));
                }
                given.sort_unstable();
                assert_eq!(given, ids(&all), "{strategy:?} {count} {members}");
            }
        }
        let eight = queues(8);
        assert_eq!(
            ids(&share(&eight, (1, 3), Strategy::Average, PULLS)),
            [3, 4, 5]
        );
        assert_eq!(
            ids(&share(&eight, (1, 3), Strategy::Circle, PULLS)),
            [1, 4, 7]
        );
        assert!(share(&[], (0, 1), Strategy::Average, PULLS).is_empty());
    }

    #[test]
    fn who_pops_shares_queues() {
        let pops = |share_queues| RequestMode {
            pops: true,
            share_queues,
        };
        let four = queues(4);
        let average = Strategy::Average;
        for everywhere in [-1, 0, 1, 9] {
            let mine = share(&four, (1, 2), average, pops(everywhere));
            assert_eq!(ids(&mine), [-1, -1], "one for each broker group");
            assert_eq!(
                (mine[0].broker_name.as_str(), mine[1].broker_name.as_str()),
                ("a", "b")
            );
        }
        assert_eq!(ids(&share(&four, (3, 4), average, pops(1))), [3, 0]);
        assert_eq!(ids(&share(&four, (5, 6), average, pops(1))), [1]);
    }
}
