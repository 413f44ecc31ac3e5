//! Consumers: read queues from all nodes as they grow, commit how far they are, and look whether that holds.

use std::sync::atomic::Ordering;
use std::time::Duration;

use gantry_checker::event::Cursor;
use gantry_checker::{Answer, Queue, Request};
use gantry_protocol::headers::{
    OffsetResponse, QueryConsumerOffsetRequest, UpdateConsumerOffsetRequest,
};
use gantry_protocol::{RequestCode, ResponseCode};
use tokio::time::sleep;

use super::client::{Asker, Heard, command, group_of, is_success};
use crate::net::NODES;
use crate::shell::{Outcome, while_doing};

/// Most messages of a pull.
const MOST: i32 = 512;

/// A queue and how far it is read.
struct Place {
    queue: Queue,
    next: u64,
    committed: Option<u64>,
}

/// Reads some queues until the round ends and all of them are read to their end.
pub async fn run(mut asker: Asker, queues: Vec<Queue>) -> Outcome {
    let place = |queue| Place {
        queue,
        next: 0,
        committed: None,
    };
    let mut places: Vec<Place> = queues.into_iter().map(place).collect();
    loop {
        // Looked at before the pass: what was acked before is then read in it.
        let is_last = !asker.round.reads();
        let mut moved = false;
        let mut complete = true;
        for place in &mut places {
            match step(&mut asker, place, is_last).await? {
                Step::Moved => moved = true,
                Step::AtEnd => {}
                Step::Failed => complete = false,
            }
        }
        if is_last && !moved && complete {
            return Ok(());
        }
        if !moved {
            sleep(Duration::from_millis(20)).await;
        }
    }
}

enum Step {
    Moved,
    AtEnd,
    Failed,
}

async fn step(asker: &mut Asker, place: &mut Place, is_last: bool) -> Outcome<Step> {
    let node = match asker.round.view.leader_of(group_of(&place.queue)) {
        // A follower may be behind; the end is asked of the leader.
        Some(leader) if is_last => leader,
        _ => asker.random.below(NODES),
    };
    let Some(pulled) = asker.pull(node, &place.queue, place.next, MOST).await? else {
        return Ok(Step::Failed);
    };
    let has_moved = pulled.next > place.next;
    place.next = place.next.max(pulled.next);
    asker
        .round
        .tally
        .read
        .fetch_add(pulled.messages.len() as u64, Ordering::Relaxed);
    let is_due =
        place.committed != Some(place.next) && (is_last || has_moved && asker.random.one_in(4));
    if is_due {
        commit(asker, place).await?;
        if asker.random.one_in(3) {
            query(asker, place).await?;
        }
    }
    if is_last && place.committed != Some(place.next) {
        return Ok(Step::Failed);
    }
    Ok(if has_moved { Step::Moved } else { Step::AtEnd })
}

/// Each round's consumers are a group of their own.
fn cursor(asker: &Asker, place: &Place) -> Cursor {
    Cursor {
        group: format!("chaos-{}", asker.round.number),
        queue: place.queue.clone(),
    }
}

async fn commit(asker: &mut Asker, place: &mut Place) -> Outcome {
    let cursor = cursor(asker, place);
    let header = UpdateConsumerOffsetRequest {
        consumer_group: &cursor.group,
        topic: &place.queue.topic,
        queue_id: i32::from(place.queue.queue),
        commit_offset: place.next as i64,
    };
    let request = command(RequestCode::UPDATE_CONSUMER_OFFSET, |fields| {
        header.write(fields)
    });
    let group = group_of(&place.queue);
    let node = asker.choose_node(group);
    let offset = place.next;
    let call = asker.begin(Request::Commit {
        cursor: cursor.clone(),
        offset,
    })?;
    let heard = asker.ask(node, group, request).await;
    if is_success(&heard).is_some() {
        place.committed = Some(offset);
        return asker.succeed(call, Answer::Done);
    }
    asker.end(call, &heard)
}

async fn query(asker: &mut Asker, place: &Place) -> Outcome {
    let cursor = cursor(asker, place);
    let header = QueryConsumerOffsetRequest {
        consumer_group: &cursor.group,
        topic: &place.queue.topic,
        queue_id: i32::from(place.queue.queue),
        set_zero_if_not_found: Some(false),
    };
    let request = command(RequestCode::QUERY_CONSUMER_OFFSET, |fields| {
        header.write(fields)
    });
    let node = asker.random.below(NODES);
    let call = asker.begin(Request::Query {
        cursor: cursor.clone(),
    })?;
    let heard = asker.ask(node, group_of(&place.queue), request).await;
    match &heard {
        Heard::Answer(answer) if answer.response_code() == ResponseCode::QUERY_NOT_FOUND => {
            asker.succeed(call, Answer::Offset(None))
        }
        Heard::Answer(answer) if answer.response_code() == ResponseCode::SUCCESS => {
            let header = OffsetResponse::parse(&answer.fields);
            let header = header.map_err(while_doing("reading an offset"))?;
            asker.succeed(call, Answer::Offset(Some(header.offset as u64)))
        }
        _ => asker.end(call, &heard),
    }
}
