//! Moving consumer groups: resetOffsetByTime, skipAccumulatedMessage, cloneGroupOffset.

use gantry_protocol::RequestCode;
use gantry_protocol::bodies::{QueueMap, ResetOffsets};
use gantry_protocol::headers::{CloneOffsetsRequest, ResetOffsetRequest};

use super::call::{Call, body, master, request};
use super::format;
use crate::cli::failure::{Failure, Outcome};
use crate::cli::output;
use crate::client::BrokerGroup;

pub(super) async fn reset(call: Call) -> Outcome {
    let (group, topic, time) = (call.text('g'), call.text('t'), call.text('s'));
    let force = call.flag('f', true)?;
    let timestamp = if time == "-1" {
        -1
    } else {
        format::parse_time(time)?
    };
    let place = |broker: Option<&str>, queue: Option<&str>| match (broker, queue) {
        (Some(broker), Some(queue)) => format!("queueId[{queue}], broker[{broker}]"),
        _ => format!("force[{force}]"),
    };
    let (broker, queue) = (call.option('b'), call.option('q'));
    output::line(&format!(
        "start reset consumer offset by specified, group[{group}], topic[{topic}], {}, \
         timestamp(string)[{time}], timestamp(long)[{timestamp}]",
        place(broker, queue)
    ))?;
    let groups = call.groups_of_topic(topic).await?;
    let chosen = match broker {
        Some(broker) => {
            let named = |group: &&BrokerGroup| {
                group.name == broker || master(group).as_deref() == Some(broker)
            };
            let chosen = groups.iter().find(named).cloned();
            let unknown = || Failure::new(format!("topic {topic} has no broker {broker}"));
            vec![chosen.ok_or_else(unknown)?]
        }
        None => groups,
    };
    let moved = move_to(&call, &chosen, timestamp).await?;
    if let (Some(_), [(_, offset)]) = (queue, moved.iter().collect::<Vec<_>>().as_slice()) {
        return Ok(output::line(&format!("reset consumer offset to {offset}"))?);
    }
    print(&moved)
}

pub(super) async fn skip(call: Call) -> Outcome {
    let groups = call.groups_of_topic(call.text('t')).await?;
    let moved = move_to(&call, &groups, -1).await?;
    print(&moved)
}

/// Moves the group in these brokers; where it is now.
async fn move_to(
    call: &Call,
    groups: &[BrokerGroup],
    timestamp: i64,
) -> Result<QueueMap<i64>, Failure> {
    // `-o` is an offset, which goes with a queue.
    let offset = match call.option('o') {
        Some(_) => Some(call.number('o', 0)?),
        None => None,
    };
    let queue_id = match call.option('q') {
        Some(_) => Some(call.number('q', 0)?),
        None => None,
    };
    if offset.is_some() && queue_id.is_none() {
        return Err(Failure::usage(
            "-o needs -q: which queue is it an offset of?",
        ));
    }
    let mut moved = QueueMap::new();
    for group in groups {
        let header = ResetOffsetRequest {
            topic: call.text('t'),
            group: call.text('g'),
            queue_id,
            timestamp,
            offset,
            is_force: Some(call.flag('f', true)?),
        };
        let code = RequestCode::INVOKE_BROKER_TO_RESET_OFFSET;
        let answer = call
            .ask_group(group, request(code, |fields| header.write(fields)))
            .await?;
        moved.extend(body(ResetOffsets::decode(&answer.body))?.offset_table);
    }
    Ok(moved)
}

fn print(moved: &QueueMap<i64>) -> Outcome {
    output::line(&format!(
        "{:<40}  {:<40}  {:<40}",
        "#brokerName", "#queueId", "#offset"
    ))?;
    for (queue, offset) in moved {
        let broker = format::front(&queue.broker_name, 32);
        output::line(&format!(
            "{broker:<40}  {:<40}  {offset:<40}",
            queue.queue_id
        ))?;
    }
    Ok(())
}

pub(super) async fn copy(call: Call) -> Outcome {
    let (source, destination, topic) = (call.text('s'), call.text('d'), call.text('t'));
    let offline = call.flag('o', true)?;
    for group in call.groups_of_topic(topic).await? {
        let header = CloneOffsetsRequest {
            src_group: source,
            dest_group: destination,
            topic: Some(topic),
            offline,
        };
        let code = RequestCode::CLONE_GROUP_OFFSET;
        call.ask_group(&group, request(code, |fields| header.write(fields)))
            .await?;
    }
    Ok(output::line(&format!(
        "clone group offset success. srcGroup[{source}], destGroup=[{destination}], topic[{topic}]"
    ))?)
}
