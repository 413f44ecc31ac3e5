//! The disk of a machine: how long it takes, and what goes wrong with it.

mod rot;

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use gantry_checker::Note;
use gantry_checker::event::FaultClass;
use gantry_storage::testing::{Access, AccessKind, FaultyFs};

use crate::fiber::{self, Pause};
use crate::history::History;
use crate::rng::Rng;
use crate::trace::Trace;

/// A disk and the hand that makes it fail. Clones are the same.
#[derive(Clone)]
pub struct Disk {
    name: String,
    fs: FaultyFs,
    state: Arc<Mutex<State>>,
}

struct State {
    trace: Trace,
    history: History,
    rng: Rng,
    /// The longest that a sync takes; microseconds.
    sync_us: u64,
    plight: Plight,
    /// Numbers the failures.
    failures: u64,
}

/// What is wrong with a disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Plight {
    /// The next access of this kind fails.
    pub fails: Option<AccessKind>,
    /// There is no room for anything new.
    pub full: bool,
    /// The next sync takes so many milliseconds.
    pub stalls_ms: Option<u64>,
}

impl Disk {
    /// An empty disk of the machine of that name.
    pub fn new(seed: u64, name: &str, trace: Trace, history: History) -> Self {
        let mut rng = Rng::new(seed, &format!("disk of {name}"));
        // Of a fast flash drive, of one behind a network, of a spinning one.
        let sync_us = *rng.pick(&[200, 2_000, 12_000]);
        let mut survives = Rng::new(seed, &format!("what survives on {name}"));
        let state = Arc::new(Mutex::new(State {
            trace,
            history,
            rng,
            sync_us,
            plight: Plight::default(),
            failures: 0,
        }));
        let (asked, owner) = (state.clone(), name.to_string());
        let gate = move |access: &Access<'_>| pass(&asked, &owner, access);
        let choose = move |below: u64| survives.below(below);
        Disk {
            name: name.to_string(),
            fs: FaultyFs::live(Arc::new(gate), Box::new(choose)),
            state,
        }
    }

    /// The file system on it.
    pub fn fs(&self) -> FaultyFs {
        self.fs.clone()
    }

    /// What is wrong with it at the moment.
    pub fn plight(&self) -> Plight {
        self.lock().plight
    }

    /// Makes something go wrong, or right again.
    pub fn set_plight(&self, plight: Plight) {
        self.lock().plight = plight;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("the disk does not panic")
    }
}

/// The vote and the mark: two slots, of which either may be lost.
fn is_slotted(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default();
    name == "vote" || name == "mark"
}

/// Whether the replica cannot go on without a file: what was acked is in it.
fn is_vital(path: &Path) -> bool {
    is_slotted(path) || path.extension().is_some_and(|end| end == "log")
}

/// Lets an access through or not. Runs on the thread that wants it; a fiber has to wait for its turn.
fn pass(state: &Mutex<State>, owner: &str, access: &Access<'_>) -> io::Result<()> {
    let lock = || state.lock().expect("the disk does not panic");
    let wait = {
        let mut state = lock();
        let fails = state.plight.fails == Some(access.kind);
        if fails && access.kind != AccessKind::Sync {
            return Err(state.fail(owner, access));
        }
        if state.plight.full && access.grows {
            let shown = access.path.display();
            state
                .trace
                .line(owner, format_args!("disk no room for {shown}"));
            return Err(io::ErrorKind::StorageFull.into());
        }
        match access.kind {
            AccessKind::Sync if fiber::is_fiber() => state.sync_time(),
            _ => Duration::ZERO,
        }
    };
    if !wait.is_zero() {
        fiber::pause(Pause::Sleep(wait));
    }
    let mut state = lock();
    // It may have become so while the sync was waited for.
    if access.kind == AccessKind::Sync && state.plight.fails == Some(AccessKind::Sync) {
        return Err(state.fail(owner, access));
    }
    if access.kind != AccessKind::Read {
        let (kind, shown, offset) = (access.kind, access.path.display(), access.offset);
        let (len, crc) = (access.bytes.len(), crc32fast::hash(access.bytes));
        let what = format_args!("disk {kind:?} {shown} {offset} {len} {crc:08x}");
        state.trace.line(owner, what);
    }
    Ok(())
}

impl State {
    fn sync_time(&mut self) -> Duration {
        if let Some(ms) = self.plight.stalls_ms.take() {
            return Duration::from_millis(ms);
        }
        let longest = self.sync_us;
        Duration::from_micros(self.rng.between(longest / 4, longest))
    }

    /// One access fails. What happens to a vital file is a fact that the broker must act upon.
    fn fail(&mut self, owner: &str, access: &Access<'_>) -> io::Error {
        self.plight.fails = None;
        self.failures += 1;
        let (kind, shown) = (access.kind, access.path.display());
        self.trace
            .line(owner, format_args!("disk fails {kind:?} {shown}"));
        if is_vital(access.path) && kind != AccessKind::Read {
            let name = format!("{owner} failure {}", self.failures);
            self.history.note(Note::Fault {
                name: name.clone(),
                class: FaultClass::DiskFailure,
                nodes: vec![owner.to_string()],
            });
            // The disk is well again; whether the node is, shows when it has been started.
            self.history.note(Note::Heal { name });
        }
        io::Error::other("input/output error")
    }
}
