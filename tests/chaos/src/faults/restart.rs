//! Planned stops: SIGTERM, and a start when the process has ended; of one node, or of all in turn.

use std::time::Duration;

use super::{Effect, Nemesis};
use crate::net::{NODES, name_of};
use crate::shell::Outcome;

/// A node drains for 2 s (the harness's configuration) and then hands over and stops.
const STOP_PATIENCE: Duration = Duration::from_secs(15);
const WHOLE_PATIENCE: Duration = Duration::from_secs(60);

/// Each node in turn; the next one when the cluster is whole again.
pub async fn inject(nemesis: &mut Nemesis, first: usize) -> Outcome<Effect> {
    let mut stopped = Vec::new();
    for step in 0..NODES {
        let node = (first + step) % NODES;
        if nemesis.cluster.nodes[node].stop(STOP_PATIENCE).await? {
            stopped.push(node);
        }
        nemesis.cluster.start_if_down(node)?;
        nemesis.cluster.await_whole(WHOLE_PATIENCE).await?;
    }
    let names: Vec<String> = stopped.iter().map(|node| name_of(*node)).collect();
    Ok(Effect::Done {
        nodes: stopped,
        detail: format!("stopped in turn: {}", names.join(", ")),
    })
}
