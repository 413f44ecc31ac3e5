//! Leadership of a group moves because an operator says so, and stays where it was put.

use gantry::client::transfer::transfer;

use super::{Effect, Nemesis};
use crate::net::{NODES, name_of};
use crate::node::{GROUPS, http_address};
use crate::random::Random;
use crate::shell::Outcome;

/// Asks any node to have one of the groups that the victim leads, or any other, led by another node.
pub async fn inject(nemesis: &mut Nemesis, victim: usize, dice: u64) -> Outcome<Effect> {
    let mut random = Random::new(dice);
    let view = &nemesis.cluster.view;
    let led = (0..GROUPS.len()).find(|group| view.leader_of(*group) == Some(victim));
    let group = led.unwrap_or_else(|| random.below(GROUPS.len()));
    let leader = view.leader_of(group).unwrap_or(victim);
    let to = (leader + random.between(1, NODES as u64 - 1) as usize) % NODES;
    let asked = random.below(NODES);
    let moved = transfer(&http_address(asked), GROUPS[group], to as u16 + 1).await;
    let what = format!(
        "{} from {} to {}",
        GROUPS[group],
        name_of(leader),
        name_of(to)
    );
    match moved {
        Ok(Ok(())) => Ok(Effect::Done {
            nodes: vec![leader],
            detail: format!("leadership of {what}, asked of {}", name_of(asked)),
        }),
        Ok(Err(reason)) => Ok(Effect::Moot(format!("{what}: {reason}"))),
        Err(error) => Ok(Effect::Moot(format!("{what}: {error}"))),
    }
}
