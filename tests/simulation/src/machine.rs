//! A machine of the cluster: its disk, its clocks, and the node that runs on it, when one does.

mod process;

use std::sync::Arc;
use std::time::Duration;

use gantry::group::Group;
use gantry::remoting::Router;
use gantry_checker::Note;
use gantry_raft::NodeNumber;
use tokio::runtime::Runtime;
use tokio::time::Instant;

use crate::cluster::Surroundings;
use crate::disk::Disk;
use crate::rng::Rng;
use crate::time::MachineTime;
pub use process::Process;
use process::{Settings, run};

/// What a machine is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// Its node runs.
    Runs,
    /// Its node has ended and is started at this time; nanoseconds.
    Down {
        /// When the node is started.
        until: u64,
    },
    /// Its node stands still until this time.
    Frozen {
        /// When it goes on.
        until: u64,
    },
}

/// One machine.
pub struct Machine {
    /// Number of its node.
    pub node: NodeNumber,
    /// Its disk.
    pub disk: Disk,
    /// Its clocks.
    pub time: MachineTime,
    /// What it is doing.
    pub condition: Condition,
    /// What became of its last process, when that ended by itself.
    pub last_end: Option<String>,
    around: Surroundings,
    running: Option<Running>,
    boots: u64,
    /// It has no power.
    off: bool,
}

/// A process as it is stepped.
struct Running {
    runtime: Runtime,
    process: Arc<Process>,
    /// The runtime's clock at its start, and the machine's.
    started: (Instant, u64),
}

/// The name of a node in histories.
pub fn name_of(node: NodeNumber) -> String {
    format!("n{node}")
}

impl Machine {
    /// A machine whose node has never run.
    pub fn new(node: NodeNumber, around: Surroundings, rng: &mut Rng) -> Self {
        let name = name_of(node);
        // Clocks drift by up to five parts in a hundred.
        let rate = rng.between(950_000, 1_050_000);
        let (trace, history) = (around.trace.clone(), around.history.clone());
        let disk = Disk::new(around.seed, &name, trace, history);
        around.net.switch_on(node);
        Machine {
            node,
            disk,
            time: MachineTime::new(rate),
            condition: Condition::Down { until: 0 },
            last_end: None,
            around,
            running: None,
            boots: 0,
            off: false,
        }
    }

    /// The node's groups and the way in, once it answers.
    pub fn router(&self) -> Option<&Arc<Router>> {
        self.running.as_ref()?.process.router()
    }

    /// The only group, once the node answers.
    pub fn group(&self) -> Option<&Arc<Group>> {
        self.router()?.broker().groups.first()
    }

    /// Does something on the node's own runtime.
    pub fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        if let Some(running) = &self.running {
            running.runtime.spawn(work);
        }
    }

    /// The process dies: its connections end, what it wrote stays in the page cache.
    pub fn kill(&mut self, until: u64) {
        self.around.net.listen(self.node, None, None);
        self.running = None;
        self.condition = Condition::Down { until };
    }

    /// The machine loses its power: nobody hears of it, and what was not synced may be gone.
    pub fn cut_power(&mut self, until: u64) {
        self.around.net.switch_off(self.node);
        self.off = true;
        self.running = None;
        self.disk.fs().cut_power();
        self.condition = Condition::Down { until };
    }

    /// The process gets no processor until a time. Nothing happens if there is none.
    pub fn freeze(&mut self, until: u64) {
        if self.running.is_some() {
            self.condition = Condition::Frozen { until };
        }
    }

    /// The machine goes on for a step of true time.
    pub fn step(&mut self, now: u64) {
        match self.condition {
            Condition::Down { until } if now >= until => self.start(now),
            Condition::Frozen { until } if now >= until => self.condition = Condition::Runs,
            _ => {}
        }
        self.time.follow(now);
        if self.condition != Condition::Runs {
            return;
        }
        let Some(running) = &self.running else {
            return;
        };
        running.catch_up(self.time.monotonic_ns());
        let ended = running.process.ended();
        if let Some(reason) = ended {
            let name = name_of(self.node);
            self.around
                .trace
                .line(&name, format_args!("process ends: {reason}"));
            let pause = 200 + self.around.draw(800);
            self.last_end = Some(reason);
            self.kill(now + pause * 1_000_000);
        }
    }

    fn start(&mut self, now: u64) {
        if std::mem::take(&mut self.off) {
            self.around.net.switch_on(self.node);
        }
        self.boots += 1;
        self.time.follow(now);
        let name = name_of(self.node);
        self.around
            .trace
            .line(&name, format_args!("process starts"));
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .expect("a runtime without sockets and threads can always be made");
        let process = Arc::new(Process::default());
        let settings = Settings {
            node: self.node,
            boot: self.boots,
            disk: self.disk.clone(),
            time: self.time.clone(),
            around: self.around.clone(),
        };
        let monotonic = self.time.monotonic_ns();
        let started = runtime.block_on(async { Instant::now() });
        let (told, history) = (process.clone(), self.around.history.clone());
        runtime.spawn(async move {
            let started = || history.note(Note::Started { node: name.clone() });
            let reason = run(settings, told.clone(), started).await;
            told.end(reason);
        });
        self.running = Some(Running {
            runtime,
            process,
            started: (started, monotonic),
        });
        self.condition = Condition::Runs;
    }
}

impl Running {
    /// Runs until the machine's clock shows a time.
    fn catch_up(&self, monotonic_ns: u64) {
        let (origin, origin_ns) = self.started;
        // Timers are as fine as a millisecond.
        let since_ms = (monotonic_ns - origin_ns) / 1_000_000;
        let target = origin + Duration::from_millis(since_ms);
        self.runtime.block_on(async move {
            let behind = target.saturating_duration_since(Instant::now());
            if behind > Duration::from_millis(10) {
                // It stood still: all that was due meanwhile is due now, at once.
                tokio::time::advance(behind).await;
            }
            if behind.is_zero() {
                tokio::task::yield_now().await;
            } else {
                tokio::time::sleep_until(target).await;
            }
        });
    }
}
