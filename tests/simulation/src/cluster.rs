//! What all parts of a simulation share: its names, its seed, and the shape that the seed gives it.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use gantry_raft::NodeNumber;

use crate::history::History;
use crate::net::Net;
use crate::rng::Rng;
use crate::steps::Steps;
use crate::time::Time;
use crate::trace::Trace;

/// Name of the cluster.
pub const CLUSTER: &str = "simulated";

/// Name of the only broker group.
pub const BROKER: &str = "broker-a";

/// The nodes.
pub const NODES: [NodeNumber; 3] = [1, 2, 3];

/// The topics that are there throughout, and the queues of each.
pub const TOPICS: [&str; 2] = ["orders", "events"];
/// Queues of each topic.
pub const QUEUES: u16 = 2;

/// Topics of messages that wait, are popped, handed back or kept once, with their queues.
pub const FEATURE_TOPICS: [(&str, u16); 5] = [
    ("timed", 2),
    ("popped", 2),
    ("ordered", 1),
    ("returned", 1),
    ("once", 2),
];
/// Those that the broker makes, with one queue each.
pub const COPIES: [&str; 3] = [
    "%RETRY%poppers_popped",
    "%RETRY%returners",
    "%DLQ%returners",
];

/// Kinds of faults that a seed may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Trouble {
    /// Processes die.
    Kill,
    /// Machines lose their power, one or all.
    PowerCut,
    /// A node is cut off from its peers.
    Isolate,
    /// A way between two nodes is cut, in one direction or in both.
    Cut,
    /// A way between two nodes is slow.
    Slow,
    /// Connections break.
    Break,
    /// A process gets no processor.
    Freeze,
    /// Wall clocks are set wrong.
    Clock,
    /// A write, a sync or a read fails.
    DiskFailure,
    /// A disk is full for a time.
    DiskFull,
    /// A sync takes long.
    DiskStall,
    /// Bits flip in files that have a second source.
    Rot,
    /// A machine loses its disk.
    Wipe,
    /// Leadership is handed over.
    HandOver,
    /// All processes die while their disks stall, come back, and lose their power before they do anything.
    Relapse,
    /// A disk is lost while one of the other replicas is behind, and the third one is away.
    LastCopy,
    /// Bits of the log flip, below what is durable, on one machine.
    RotLog,
    /// Bits flip in files that are made from the log.
    RotDerived,
}

impl Trouble {
    /// All of them.
    pub const ALL: [Trouble; 14] = [
        Trouble::Kill,
        Trouble::PowerCut,
        Trouble::Isolate,
        Trouble::Cut,
        Trouble::Slow,
        Trouble::Break,
        Trouble::Freeze,
        Trouble::Clock,
        Trouble::DiskFailure,
        Trouble::DiskFull,
        Trouble::DiskStall,
        Trouble::Rot,
        Trouble::Wipe,
        Trouble::HandOver,
    ];

    /// What few seeds have beside the others.
    pub const RARE: [Trouble; 4] = [
        Trouble::Relapse,
        Trouble::LastCopy,
        Trouble::RotLog,
        Trouble::RotDerived,
    ];
}

/// What a seed makes of the cluster.
#[derive(Clone, Debug)]
pub struct Shape {
    /// Size of the log's segments; bytes.
    pub segment_bytes: u64,
    /// How much of the log is kept in memory; bytes.
    pub tail_bytes: usize,
    /// Log that is kept, if it is limited; bytes.
    pub retention_bytes: Option<u64>,
    /// The node that leads when it can.
    pub preferred: NodeNumber,
    /// What goes wrong.
    pub troubles: BTreeSet<Trouble>,
    /// The mean time between faults; milliseconds.
    pub fault_every_ms: u64,
    /// The longest that a producer thinks; milliseconds.
    pub think_ms: u64,
    /// Topics are created by the first send.
    pub auto_create: bool,
    /// Messages wait, are popped, handed back and sent again, and leaders die at the steps of that.
    pub features: bool,
}

impl Shape {
    /// The shape of a seed. Each has some of the troubles, so that one does not hide what another would show.
    pub fn new(seed: u64, features: bool) -> Self {
        let mut rng = Rng::new(seed, "shape");
        let likely = *rng.pick(&[250, 500, 800]);
        let mut troubles: BTreeSet<Trouble> = Trouble::ALL
            .into_iter()
            .filter(|_| rng.per_mille(likely))
            .collect();
        let mut rare = Rng::new(seed, "rare troubles");
        troubles.extend(Trouble::RARE.into_iter().filter(|_| rare.per_mille(250)));
        if troubles.contains(&Trouble::RotLog) {
            // One copy of a record that is lost is within the promise, two are not.
            troubles.remove(&Trouble::Wipe);
            troubles.remove(&Trouble::LastCopy);
        }
        Shape {
            segment_bytes: *rng.pick(&[128 << 10, 256 << 10, 1 << 20]),
            tail_bytes: *rng.pick(&[0, 16 << 10, 128 << 10]),
            retention_bytes: *rng.pick(&[None, Some(512 << 10), Some(1 << 20)]),
            preferred: *rng.pick(&NODES),
            troubles,
            fault_every_ms: *rng.pick(&[400, 900, 2_000]),
            think_ms: *rng.pick(&[5, 20, 60]),
            auto_create: rng.per_mille(500),
            features,
        }
    }
}

/// What machines and clients are surrounded by. Clones are the same.
#[derive(Clone)]
pub struct Surroundings {
    /// The seed.
    pub seed: u64,
    /// The true time.
    pub time: Time,
    /// What happens, for who reads it.
    pub trace: Trace,
    /// What happens, for the checker.
    pub history: History,
    /// The network.
    pub net: Net,
    /// What the seed made of the cluster.
    pub shape: Arc<Shape>,
    /// Who leads, as seen from above.
    pub leads: Arc<[AtomicBool; NODES.len()]>,
    /// Messages that were acked not long ago: what they are known by, and their topic.
    pub acked: Arc<Mutex<Vec<(u64, String)>>>,
    /// At which steps leaders die.
    pub steps: Steps,
    chance: Arc<Mutex<Rng>>,
}

impl Surroundings {
    /// Those of a seed, with the trace going to a file if there is one.
    pub fn new(seed: u64, shape: Shape, out: Option<std::fs::File>) -> Self {
        let time = Time::default();
        let trace = Trace::new(time.clone(), out);
        Surroundings {
            seed,
            history: History::new(time.clone(), trace.clone()),
            net: Net::new(seed, time.clone(), trace.clone()),
            time: time.clone(),
            trace,
            steps: Steps::new(seed, time),
            shape: Arc::new(shape),
            leads: Arc::default(),
            acked: Arc::default(),
            chance: Arc::new(Mutex::new(Rng::new(seed, "chance"))),
        }
    }

    /// A number below `end`.
    pub fn draw(&self, end: u64) -> u64 {
        self.chance
            .lock()
            .expect("drawing a number does not panic")
            .below(end)
    }

    /// Whether a node leads the group at this moment.
    pub fn leads(&self, node: NodeNumber) -> bool {
        self.leads[usize::from(node) - 1].load(Ordering::Relaxed)
    }
}
