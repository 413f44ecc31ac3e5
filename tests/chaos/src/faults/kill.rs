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
        nemesis.hold(*node);
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
