//! Consumers that care for nothing but where their group is.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use gantry_checker::Request;
use gantry_checker::event::Cursor;

use super::{Client, Stage, queue};
use crate::cluster::{NODES, TOPICS};

/// Commits of a group that is handed around.
const COMMITS: u64 = 24;

/// One of several members of a group that hand a queue to each other: each goes on behind where any of them
/// was, on whatever node, and looks.
pub(super) async fn hand_over(mut client: Client, next: Arc<AtomicU64>) {
    while client.stage() == Stage::Load {
        let offset = next.fetch_add(1, Ordering::Relaxed) + 1;
        // A commit of unknown outcome may come at any time, and proves less with each: a new group now and
        // then.
        let group = offset / COMMITS;
        let node = *client.rng.pick(&NODES);
        client.commit_at(node, &handed(group), offset, false).await;
        client.committed(&handed(group)).await;
        // What a node could not write for a while may come when the others are far ahead.
        let earlier = group.saturating_sub(client.rng.between(1, 3));
        client.committed(&handed(earlier)).await;
        client.think().await;
    }
}

fn handed(group: u64) -> Cursor {
    Cursor {
        group: format!("handed{group}"),
        queue: queue(TOPICS[0], 0),
    }
}

/// One that does as stock consumers do: it says where it is with each pull, which nobody answers, and now and
/// then by itself.
pub(super) async fn pull_and_commit(mut client: Client) {
    let (mut offset, mut names) = (0, 0);
    while client.stage() == Stage::Load {
        let cursor = Cursor {
            group: format!("stock{names}"),
            queue: queue(TOPICS[1], 1),
        };
        let node = client.node();
        let (along, after) = (offset + 1, offset + 2);
        offset = after;
        let from = (&cursor.queue, 0);
        let told = client
            .pull_as(node, from, 0, (&cursor.group, Some(along)))
            .await;
        let acked = told.is_some() && client.commit_at(node, &cursor, after, false).await;
        if !acked {
            // The node may still have it, and write it when it can: nothing of this group is certain any
            // more. Otherwise it came before what was acked.
            names += 1;
            let offset = along;
            let cursor = cursor.clone();
            let commit = Request::Commit { cursor, offset };
            let call = client.invoke(commit);
            client.around.history.info(&client.name, call, None);
        }
        client.committed(&cursor).await;
        client.think().await;
        client.think().await;
    }
}
