//! The wall clock of a node jumps, forwards and backwards, while it runs. The node is started anew with a
//! library that lies to it about the time; monotonic time goes on as it is.

use std::time::Duration;

use tokio::time::sleep;

use super::{ANSWER_PATIENCE, Effect, Nemesis};
use crate::net::name_of;
use crate::random::Random;
use crate::shell::Outcome;
use gantry_checker::Note;
use gantry_checker::event::FaultClass;

const JUMPS_S: [i64; 8] = [-3600, -60, -5, -1, 1, 5, 60, 3600];
const PATIENCE: Duration = Duration::from_secs(60);

/// Restarts the node with a clock of its own and lets that jump a few times, half a second apart.
pub async fn inject(
    nemesis: &mut Nemesis,
    node: usize,
    (dice, name): (u64, &str),
) -> Outcome<Effect> {
    let mut random = Random::new(dice);
    nemesis.cluster.nodes[node].kill().await?;
    nemesis.cluster.view.note(Note::Started {
        node: name_of(node),
    })?;
    nemesis.cluster.nodes[node].start_with_own_clock()?;
    nemesis.cluster.nodes[node]
        .await_answer(ANSWER_PATIENCE)
        .await?;
    nemesis.cluster.await_whole(PATIENCE).await?;
    // A lock ends when the leader's clock is set forward: nothing is concluded from those that were given
    // before.
    let name = format!("{name}-jumps");
    nemesis.cluster.view.note(Note::Fault {
        name: name.clone(),
        class: FaultClass::Clock,
        nodes: vec![name_of(node)],
    })?;
    let mut jumps = Vec::new();
    for _ in 0..random.between(1, 4) {
        let offset = *random.pick(&JUMPS_S);
        nemesis.cluster.nodes[node].set_clock(offset)?;
        jumps.push(format!("{offset:+} s"));
        sleep(Duration::from_millis(500)).await;
    }
    nemesis.cluster.view.note(Note::Heal { name })?;
    let detail = format!(
        "the clock of {} was off by {}",
        name_of(node),
        jumps.join(", ")
    );
    Ok(Effect::Done {
        nodes: vec![node],
        detail,
    })
}

/// Starts the node with the right clock.
pub async fn heal(nemesis: &mut Nemesis, node: usize) -> Outcome {
    nemesis.cluster.nodes[node].kill().await?;
    nemesis.hold(node);
    nemesis.release(&[node]).await
}
