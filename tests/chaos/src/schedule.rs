//! Which faults when: all of it follows from the seed.
//!
//! A run is a row of episodes. An episode has one victim and one to three faults that overlap on it, so
//! that a majority always has what it needs; the classes that hit two or all nodes have an episode for
//! themselves. What follows from the seed is classes, order, times and dice; which node leads a group when
//! an episode begins is up to the cluster.

use std::fmt;

use crate::faults::Kind;
use crate::net::{NODES, name_of};
use crate::node::GROUPS;
use crate::random::Random;
use crate::shell::{Outcome, failure};

/// A kind of fault; [`TABLE`] says what each one does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    Kill,
    KillAll,
    Freeze,
    Restart,
    Transfer,
    Isolate,
    OneWay,
    Ring,
    Loss,
    SlowLink,
    Reorder,
    DropSockets,
    PowerCut,
    PowerCutTwo,
    PowerCutAll,
    PowerCutTorn,
    DiskFull,
    SlowDisk,
    DiskError,
    Wipe,
    Clock,
    Rot(Kind),
}

/// How much a class takes for itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reach {
    /// The victim; others may be added to it.
    Victim,
    /// More than a minority, or a long procedure.
    Alone,
}

/// Name, class, what it does, how often it is drawn in the default list (0: only by name), reach.
type Row = (&'static str, Class, &'static str, u32, Reach);

const TABLE: [Row; 30] = [
    (
        "kill",
        Class::Kill,
        "kill -9 of the victim",
        3,
        Reach::Victim,
    ),
    (
        "kill-all",
        Class::KillAll,
        "kill -9 of all nodes at once",
        1,
        Reach::Alone,
    ),
    (
        "freeze",
        Class::Freeze,
        "SIGSTOP of the victim, 0.1 to 30 s",
        2,
        Reach::Victim,
    ),
    (
        "restart",
        Class::Restart,
        "SIGTERM and start of each node in turn",
        1,
        Reach::Alone,
    ),
    (
        "transfer",
        Class::Transfer,
        "leadership moves on request",
        1,
        Reach::Alone,
    ),
    (
        "partition",
        Class::Isolate,
        "the victim and its peers do not hear each other",
        2,
        Reach::Victim,
    ),
    (
        "one-way",
        Class::OneWay,
        "the victim does not hear its peers, or is not heard",
        1,
        Reach::Victim,
    ),
    (
        "ring",
        Class::Ring,
        "the victim and one peer do not hear each other",
        1,
        Reach::Victim,
    ),
    (
        "loss",
        Class::Loss,
        "3 to 30 % of the packets to the victim are lost",
        1,
        Reach::Victim,
    ),
    (
        "slow-link",
        Class::SlowLink,
        "the victim sends 0.5 to 8 Mbit/s, and waits",
        1,
        Reach::Victim,
    ),
    (
        "reorder",
        Class::Reorder,
        "3 to 40 % of the packets of the victim come late, behind others",
        1,
        Reach::Victim,
    ),
    (
        "drop-sockets",
        Class::DropSockets,
        "connections of the victim break",
        1,
        Reach::Victim,
    ),
    (
        "power-cut",
        Class::PowerCut,
        "the victim loses what it has not synced",
        3,
        Reach::Victim,
    ),
    (
        "power-cut-two",
        Class::PowerCutTwo,
        "two nodes do at the same moment",
        1,
        Reach::Alone,
    ),
    (
        "power-cut-all",
        Class::PowerCutAll,
        "all nodes do at the same moment",
        2,
        Reach::Alone,
    ),
    (
        "power-cut-torn",
        Class::PowerCutTorn,
        "a part of what is being written arrives",
        2,
        Reach::Victim,
    ),
    (
        "disk-full",
        Class::DiskFull,
        "the victim's disk is full, and is freed",
        1,
        Reach::Alone,
    ),
    (
        "slow-disk",
        Class::SlowDisk,
        "the victim's disk takes 0.1 to 2 MB/s",
        1,
        Reach::Victim,
    ),
    (
        "disk-error",
        Class::DiskError,
        "a write or sync of the victim gives EIO",
        1,
        Reach::Alone,
    ),
    (
        "wipe",
        Class::Wipe,
        "the victim comes back with an empty disk",
        1,
        Reach::Alone,
    ),
    (
        "clock",
        Class::Clock,
        "the victim's wall clock jumps by up to an hour",
        1,
        Reach::Alone,
    ),
    (
        "rot-identity",
        Class::Rot(Kind::Identity),
        "a bit of `identity` flips",
        1,
        Reach::Alone,
    ),
    (
        "rot-vote",
        Class::Rot(Kind::Vote),
        "a bit of a slot of `vote` flips, in each group",
        1,
        Reach::Alone,
    ),
    (
        "rot-mark",
        Class::Rot(Kind::Mark),
        "a bit of a slot of `mark` flips, in each group",
        1,
        Reach::Alone,
    ),
    (
        "rot-checkpoint",
        Class::Rot(Kind::Checkpoint),
        "bits of checkpoints flip",
        1,
        Reach::Alone,
    ),
    (
        "rot-idx",
        Class::Rot(Kind::Sidecar),
        "bits of log indexes flip",
        1,
        Reach::Alone,
    ),
    (
        "rot-consume-queue",
        Class::Rot(Kind::ConsumeQueue),
        "bits of consume queues flip",
        1,
        Reach::Alone,
    ),
    (
        "rot-key-index",
        Class::Rot(Kind::KeyIndex),
        "bits of key indexes flip",
        1,
        Reach::Alone,
    ),
    (
        "rot-tables",
        Class::Rot(Kind::Tables),
        "bits of the copy of the tables flip",
        1,
        Reach::Alone,
    ),
    (
        "rot-log",
        Class::Rot(Kind::Log),
        "bits of the log flip",
        2,
        Reach::Alone,
    ),
];

impl Class {
    /// All of them.
    pub fn all() -> impl Iterator<Item = Self> {
        TABLE.iter().map(|row| row.1)
    }

    /// As in `--faults`.
    pub fn name(self) -> &'static str {
        self.row().0
    }

    /// In a few words.
    pub fn meaning(self) -> &'static str {
        self.row().2
    }

    /// How often it is drawn by default.
    pub fn weight(self) -> u32 {
        self.row().3
    }

    fn is_alone(self) -> bool {
        self.row().4 == Reach::Alone
    }

    fn row(self) -> &'static Row {
        let row = TABLE.iter().find(|row| row.1 == self);
        row.expect("every class has a row")
    }
}

/// Classes with their weights.
pub type Mix = Vec<(Class, u32)>;

/// Reads `--faults`: `default`, `each` (the same, all with one weight), `all`, or names with weights as
/// `kill,freeze=3`.
pub fn parse_mix(text: &str) -> Outcome<Mix> {
    let mut mix = Mix::new();
    for part in text
        .split(',')
        .map(str::trim)
        .filter(|part| !part.is_empty())
    {
        if ["default", "each", "all"].contains(&part) {
            for class in Class::all().filter(|class| part == "all" || class.weight() > 0) {
                let weight = if part == "each" {
                    1
                } else {
                    class.weight().max(1)
                };
                mix.retain(|(other, _)| *other != class);
                mix.push((class, weight));
            }
            continue;
        }
        let (name, weight) = part.split_once('=').unwrap_or((part, ""));
        let Some(class) = Class::all().find(|class| class.name() == name) else {
            return failure(format!(
                "--faults: there is no {name:?}; --list shows what there is"
            ));
        };
        let weight = if weight.is_empty() {
            Ok(class.weight().max(1))
        } else {
            weight.parse()
        };
        let Ok(weight) = weight else {
            return failure(format!("--faults: {part:?}: the weight is a number"));
        };
        mix.retain(|(other, _)| *other != class);
        mix.push((class, weight));
    }
    mix.retain(|(_, weight)| *weight > 0);
    if mix.is_empty() {
        return failure("--faults names no class");
    }
    Ok(mix)
}

/// Whom an episode hits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Victim {
    /// A node.
    Node(usize),
    /// Who leads a group then.
    Leader(usize),
    /// A node that does not lead a group: the first or the second after the leader.
    Follower(usize, usize),
}

impl fmt::Display for Victim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Victim::Node(node) => write!(f, "{}", name_of(*node)),
            Victim::Leader(group) => write!(f, "leader of {}", GROUPS[*group]),
            Victim::Follower(group, 1) => write!(f, "first follower of {}", GROUPS[*group]),
            Victim::Follower(group, _) => write!(f, "second follower of {}", GROUPS[*group]),
        }
    }
}

/// One fault of an episode.
#[derive(Clone, Debug)]
pub struct Shot {
    /// What.
    pub class: Class,
    /// When, in milliseconds from the episode's beginning.
    pub after_ms: u64,
    /// For how long.
    pub lasting_ms: u64,
    /// For whatever else is to be chosen.
    pub dice: u64,
}

/// Faults that belong together.
#[derive(Clone, Debug)]
pub struct Episode {
    /// Quiet time before it, in milliseconds.
    pub pause_ms: u64,
    /// Whom it hits.
    pub victim: Victim,
    /// Its faults.
    pub shots: Vec<Shot>,
}

impl fmt::Display for Episode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "after {} ms, {}:", self.pause_ms, self.victim)?;
        for shot in &self.shots {
            let (name, from, to) = (
                shot.class.name(),
                shot.after_ms,
                shot.after_ms + shot.lasting_ms,
            );
            write!(f, " {name} {from}..{to} ms;")?;
        }
        Ok(())
    }
}

/// The episodes of a run.
pub fn draw(seed: u64, mix: &Mix, count: usize) -> Vec<Episode> {
    let mut random = Random::of(seed, 1);
    let mut bag = Vec::new();
    (0..count)
        .map(|_| episode(&mut random, mix, &mut bag))
        .collect()
}

fn episode(random: &mut Random, mix: &Mix, bag: &mut Vec<Class>) -> Episode {
    let first = next_class(random, mix, bag);
    let mut classes = vec![first];
    while !first.is_alone() && classes.len() < 3 && random.percent(35) {
        let (other, _) = *random.pick(mix);
        if !other.is_alone() && !classes.contains(&other) {
            classes.push(other);
        }
    }
    let shots = classes
        .into_iter()
        .enumerate()
        .map(|(position, class)| Shot {
            class,
            after_ms: if position == 0 {
                0
            } else {
                random.between(0, 1500)
            },
            lasting_ms: lasting(random, class),
            dice: random.next(),
        });
    let shots = shots.collect();
    let group = random.below(GROUPS.len());
    let victim = match random.below(10) {
        0..=4 => Victim::Leader(group),
        5..=7 => Victim::Follower(group, random.between(1, 2) as usize),
        _ => Victim::Node(random.below(NODES)),
    };
    Episode {
        pause_ms: random.between(200, 1500),
        victim,
        shots,
    }
}

/// From a bag that holds every class as often as its weight says, so that each of them has its turn.
fn next_class(random: &mut Random, mix: &Mix, bag: &mut Vec<Class>) -> Class {
    if bag.is_empty() {
        for (class, weight) in mix {
            bag.extend(std::iter::repeat_n(*class, *weight as usize));
        }
        random.shuffle(bag);
    }
    bag.pop().expect("a mix is never empty")
}

fn lasting(random: &mut Random, class: Class) -> u64 {
    match class {
        Class::Freeze if random.percent(70) => random.between(100, 2_000),
        Class::Freeze if random.percent(80) => random.between(2_000, 8_000),
        Class::Freeze => random.between(8_000, 30_000),
        Class::Restart | Class::DropSockets | Class::Clock | Class::Transfer => 0,
        Class::Isolate | Class::OneWay | Class::Ring => random.between(200, 6_000),
        Class::Loss | Class::SlowLink | Class::Reorder | Class::SlowDisk | Class::DiskFull => {
            random.between(1_000, 5_000)
        }
        _ => random.between(0, 3_000),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_one_schedule_and_every_class_has_its_turn() {
        let mix = parse_mix("default").unwrap();
        let text = |seed| {
            let lines = draw(seed, &mix, 200)
                .into_iter()
                .map(|episode| episode.to_string());
            lines.collect::<Vec<_>>()
        };
        assert_eq!(text(7), text(7));
        assert_ne!(text(7), text(8));
        let turn: u32 = mix.iter().map(|(_, weight)| weight).sum();
        let firsts: Vec<Class> = draw(7, &mix, turn as usize)
            .iter()
            .map(|episode| episode.shots[0].class)
            .collect();
        for (class, weight) in &mix {
            let drawn = firsts.iter().filter(|first| *first == class).count();
            assert_eq!(drawn, *weight as usize, "{}", class.name());
        }
    }

    #[test]
    fn what_hits_more_than_a_minority_is_alone() {
        let mix = parse_mix("all").unwrap();
        for episode in draw(3, &mix, 2000) {
            let alone = episode.shots.iter().any(|shot| shot.class.is_alone());
            assert!(!alone || episode.shots.len() == 1, "{episode}");
        }
    }

    #[test]
    fn mixes_are_read() {
        assert_eq!(
            parse_mix("kill=5, freeze").unwrap(),
            [(Class::Kill, 5), (Class::Freeze, 2)]
        );
        assert!(parse_mix("flood").is_err());
        assert!(parse_mix("kill=x").is_err());
        assert!(parse_mix("kill=0").is_err());
    }
}
