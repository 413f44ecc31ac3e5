//! Power cuts: what was not synced is gone. The process is killed or frozen first: a sync that races with
//! the cut may be told that it succeeded although it did not, which no real disk does.

use rustix::process::Signal;

use super::{Effect, Nemesis, torn};
use crate::net::name_of;
use crate::random::Random;
use crate::shell::Outcome;

/// Cuts the power of some nodes at the same moment.
pub async fn inject(nemesis: &mut Nemesis, nodes: &[usize], dice: u64) -> Outcome<Effect> {
    let freezes = Random::new(dice).one_in(2);
    for node in nodes {
        let node = &mut nemesis.cluster.nodes[*node];
        if freezes {
            node.signal(Signal::STOP)?;
        } else {
            node.kill().await?;
        }
    }
    cut(nemesis, nodes).await?;
    let names: Vec<String> = nodes.iter().map(|node| name_of(*node)).collect();
    let how = if freezes { "frozen" } else { "killed" };
    let detail = format!("{how}, and the power of {} cut", names.join(", "));
    Ok(Effect::Done {
        nodes: nodes.to_vec(),
        detail,
    })
}

async fn cut(nemesis: &mut Nemesis, nodes: &[usize]) -> Outcome {
    for node in nodes {
        nemesis.cluster.nodes[*node].disk.power_off().await?;
    }
    for node in nodes {
        nemesis.cluster.nodes[*node].kill().await?;
        nemesis.hold(*node);
    }
    Ok(())
}

/// Cuts the power of one node while a write of its log is on its way: a part of the write's blocks reaches
/// the disk, and so does a part of the pages that nobody has synced.
pub async fn inject_torn(nemesis: &mut Nemesis, node: usize, dice: u64) -> Outcome<Effect> {
    if !nemesis.cluster.nodes[node].runs() {
        return Ok(Effect::Moot(format!("{} is down", name_of(node))));
    }
    let mut random = Random::new(dice);
    let blocks = torn::kill_in_write(&mut nemesis.cluster.nodes[node], &mut random).await?;
    let pages = torn::write_some_pages(&nemesis.cluster.nodes[node], &mut random).await?;
    cut(nemesis, &[node]).await?;
    let detail = format!("power of {} cut; {blocks}; {pages}", name_of(node));
    Ok(Effect::Done {
        nodes: vec![node],
        detail,
    })
}

/// Brings disks and nodes back.
pub async fn heal(nemesis: &mut Nemesis, nodes: &[usize]) -> Outcome {
    for node in nodes {
        nemesis.cluster.nodes[*node].disk.power_on().await?;
    }
    nemesis.release(nodes).await
}
