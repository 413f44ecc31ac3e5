//! Observers: ask any node where queues end, which every node must know exactly.

use std::time::Duration;

use gantry_checker::{Answer, Request};
use gantry_protocol::RequestCode;
use gantry_protocol::headers::{MaxOffsetRequest, OffsetResponse};
use tokio::time::sleep;

use super::client::{Asker, command, group_of, is_success};
use crate::net::{NODES, name_of};
use crate::shell::{Outcome, while_doing};

/// Asks until the round ends.
pub async fn run(mut asker: Asker) -> Outcome {
    let queues = asker.round.queues();
    while asker.round.sends() {
        let queue = asker.random.pick(&queues).clone();
        let node = asker.random.below(NODES);
        let header = MaxOffsetRequest {
            topic: &queue.topic,
            queue_id: i32::from(queue.queue),
            committed: Some(true),
        };
        let request = command(RequestCode::GET_MAX_OFFSET, |fields| header.write(fields));
        let call = asker.begin(Request::MaxOffset {
            queue: queue.clone(),
        })?;
        let heard = asker.ask(node, group_of(&queue), request).await;
        match is_success(&heard) {
            Some(answer) => {
                let header = OffsetResponse::parse(&answer.fields);
                let offset = header.map_err(while_doing("reading an end"))?.offset as u64;
                let node = Some(name_of(node));
                asker.succeed(
                    call,
                    Answer::End {
                        node,
                        offset,
                        current: true,
                    },
                )?;
            }
            None => asker.end(call, &heard)?,
        }
        sleep(Duration::from_millis(10)).await;
    }
    Ok(())
}
