//! `kill -9` of a process, or of all.

use super::{Effect, Nemesis};
use crate::net::name_of;
use crate::shell::Outcome;

pub async fn inject(nemesis: &mut Nemesis, nodes: &[usize]) -> Outcome<Effect> {
    let mut hit = Vec::new();
    for node in nodes {
        if nemesis.cluster.nodes[*node].kill().await? {
            hit.push(*node);
        }
    }
    if hit.is_empty() {
        return Ok(Effect::Moot("nothing ran".to_string()));
    }
    let names: Vec<String> = hit.iter().map(|node| name_of(*node)).collect();
    Ok(Effect::Done {
        nodes: hit,
        detail: format!("killed {}", names.join(", ")),
    })
}

/// Starts what is down, one after the other as fast as they can be.
pub async fn heal(nemesis: &mut Nemesis, nodes: &[usize]) -> Outcome {
    for node in nodes {
        nemesis.cluster.start_if_down(*node)?;
    }
    for node in nodes {
        nemesis.cluster.nodes[*node]
            .await_answer(super::ANSWER_PATIENCE)
            .await?;
    }
    Ok(())
}
