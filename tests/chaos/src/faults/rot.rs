//! Bits that flip in files, one kind of file at a time, while the node is down or while it runs.
//!
//! The node must come up and show nothing wrong, or refuse to come up and say why. A refusal is accepted
//! where the file cannot be had again from anywhere (`identity`); the node then loses its disk.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{ANSWER_PATIENCE, Effect, Nemesis};
use crate::disk::files;
use crate::net::name_of;
use crate::node::Node;
use crate::random::Random;
use crate::shell::{Outcome, while_doing};

/// A kind of file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Which replica this is.
    Identity,
    /// The vote, two slots.
    Vote,
    /// The synced mark, two slots.
    Mark,
    /// State as of a record.
    Checkpoint,
    /// Where records stand.
    Sidecar,
    /// Units of queues.
    ConsumeQueue,
    /// Keys of segments.
    KeyIndex,
    /// sled's copy of the tables.
    Tables,
    /// Segments below the synced mark.
    Log,
}

/// Flips of one injection, where one file bears more than one.
const FLIPS: usize = 8;
/// Of a two-slot file, where its slots are and how much of them is used.
const SLOT: u64 = 4096;
const SLOT_USED: u64 = 56;

impl Kind {
    fn matches(self, path: &Path) -> bool {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let within = |directory: &str| path.components().any(|part| part.as_os_str() == directory);
        match self {
            Kind::Identity => name == "identity",
            Kind::Vote => name == "vote",
            Kind::Mark => name == "mark",
            Kind::Checkpoint => name.starts_with("checkpoint-"),
            Kind::Sidecar => name.ends_with(".idx"),
            Kind::ConsumeQueue => within("consume_queue"),
            Kind::KeyIndex => within("key_index"),
            Kind::Tables => within("tables") && !within("groups"),
            Kind::Log => name.ends_with(".log"),
        }
    }

    fn is_two_slots(self) -> bool {
        matches!(self, Kind::Vote | Kind::Mark)
    }

    /// Whether the node may refuse to come up.
    fn may_refuse(self) -> bool {
        matches!(self, Kind::Identity)
    }
}

/// Flips bits; gives the node back running or held.
pub async fn inject(
    nemesis: &mut Nemesis,
    node: usize,
    (kind, dice): (Kind, u64),
) -> Outcome<Effect> {
    let mut random = Random::new(dice);
    let while_up = !kind.is_two_slots() && kind != Kind::Identity && random.one_in(2);
    if !while_up {
        nemesis.cluster.nodes[node].kill().await?;
        nemesis.hold(node);
    }
    let flips = flip_some(&nemesis.cluster.nodes[node], kind, &mut random)?;
    if flips == 0 {
        return Ok(Effect::Moot(format!(
            "{} has no file of that kind",
            name_of(node)
        )));
    }
    nemesis.flips(kind, flips as u64);
    let how = if while_up { "runs" } else { "is down" };
    let detail = format!("{flips} bits of {} flipped, which {how}", name_of(node));
    Ok(Effect::Done {
        nodes: vec![node],
        detail,
    })
}

/// Starts the node anew; where that is refused and may be, with an empty disk.
pub async fn heal(nemesis: &mut Nemesis, node: usize, kind: Kind) -> Outcome {
    if nemesis.cluster.nodes[node].runs() {
        nemesis.cluster.nodes[node].kill().await?;
        nemesis.hold(node);
    }
    if !kind.may_refuse() {
        return nemesis.release(&[node]).await;
    }
    nemesis.cluster.start_node(node)?;
    let one = &mut nemesis.cluster.nodes[node];
    if one.await_answer(ANSWER_PATIENCE).await.is_ok() {
        // It says that it is there before it has looked at everything.
        if one.await_end(Duration::from_secs(1)).await?.is_none() {
            nemesis.unhold(node);
            return Ok(());
        }
    }
    let end = one.log_end();
    let reason = end
        .lines()
        .rev()
        .find(|line| line.contains("gantry:"))
        .unwrap_or("no reason given");
    nemesis
        .trace
        .line(&format!("{} refuses to start: {reason}", name_of(node)))?;
    one.kill().await?;
    one.disk.replace().await?;
    nemesis.release(&[node]).await
}

fn flip_some(node: &Node, kind: Kind, random: &mut Random) -> Outcome<usize> {
    let all = files(&node.data())?;
    let mut of_kind: Vec<PathBuf> = all.into_iter().filter(|path| kind.matches(path)).collect();
    random.shuffle(&mut of_kind);
    let mut flips = 0;
    if kind.is_two_slots() {
        // One slot of each: the other one must do.
        for path in &of_kind {
            let at = SLOT * random.between(0, 1) + random.below(SLOT_USED as usize) as u64;
            flips += usize::from(flip(path, at, random)?);
        }
        return Ok(flips);
    }
    let wanted = if kind == Kind::Identity { 1 } else { FLIPS };
    for number in 0..wanted {
        let Some(path) = of_kind.get(number % of_kind.len().max(1)) else {
            break;
        };
        let length = std::fs::metadata(path)
            .map_err(while_doing("a file's length"))?
            .len();
        if length > 0 {
            flips += usize::from(flip(path, random.below(length as usize) as u64, random)?);
        }
    }
    Ok(flips)
}

/// Flips one bit, if the file reaches that far.
fn flip(path: &Path, at: u64, random: &mut Random) -> Outcome<bool> {
    let doing = || while_doing::<std::io::Error>(format!("flipping a bit of {}", path.display()));
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .map_err(doing())?;
    let mut byte = [0];
    if file.read_at(&mut byte, at).map_err(doing())? == 0 {
        return Ok(false);
    }
    byte[0] ^= 1 << random.below(8);
    file.write_all_at(&byte, at).map_err(doing())?;
    file.sync_data().map_err(doing())?;
    Ok(true)
}
