//! The steps in the lives of messages that wait, are leased or come again; and leaders that die at them.
//!
//! The dice of a seed choose some steps, and for each at which time that it is taken a leader dies: a moment
//! after the client asks for it, so that it strikes before, during or after the leader's work.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use crate::rng::Rng;
use crate::time::Time;

const MS: u64 = 1_000_000;

/// A step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// A message is sent that is to come later.
    Delay,
    /// One of these is recalled.
    Recall,
    /// One of these is due.
    Due,
    /// A half message is sent.
    Half,
    /// It is committed.
    Commit,
    /// It is rolled back.
    RollBack,
    /// Its producer was asked, and answers.
    Question,
    /// Messages are popped.
    Pop,
    /// Messages are popped in order.
    PopInOrder,
    /// The time of a popped message is changed.
    Renew,
    /// A popped message is acknowledged.
    Ack,
    /// The time of a popped message is over.
    LeaseEnd,
    /// A message is handed back.
    SendBack,
    /// One that was handed back comes again.
    Retry,
    /// A message whose send nobody has answered is sent again.
    SendAgain,
}

impl Step {
    /// All of them.
    pub const ALL: [Step; 15] = [
        Step::Delay,
        Step::Recall,
        Step::Due,
        Step::Half,
        Step::Commit,
        Step::RollBack,
        Step::Question,
        Step::Pop,
        Step::PopInOrder,
        Step::Renew,
        Step::Ack,
        Step::LeaseEnd,
        Step::SendBack,
        Step::Retry,
        Step::SendAgain,
    ];
}

/// The steps of a run. Clones are the same.
#[derive(Clone)]
pub struct Steps {
    time: Time,
    inner: Arc<Mutex<Inner>>,
}

struct Inner {
    rng: Rng,
    /// At which time that a step is taken a leader dies.
    aims: Vec<(Step, u64)>,
    taken: BTreeMap<Step, u64>,
    /// When a leader dies.
    due: Vec<(u64, Step)>,
    killed: BTreeMap<Step, u64>,
}

impl Steps {
    /// Those of a seed.
    pub fn new(seed: u64, time: Time) -> Self {
        let mut rng = Rng::new(seed, "aimed faults");
        let aims = 3 + rng.below(3);
        let aims = (0..aims).map(|_| (*rng.pick(&Step::ALL), rng.between(1, 6)));
        let aims = aims.collect();
        let inner = Inner {
            rng,
            aims,
            taken: BTreeMap::new(),
            due: Vec::new(),
            killed: BTreeMap::new(),
        };
        Steps {
            time,
            inner: Arc::new(Mutex::new(inner)),
        }
    }

    /// A step is taken now.
    pub fn take(&self, step: Step) {
        self.take_in(step, 0);
    }

    /// A step will be taken in so many milliseconds.
    pub fn take_in(&self, step: Step, ms: u64) {
        let at = self.time.now_ns() + ms * MS;
        let mut inner = self.lock();
        let taken = inner.taken.entry(step).or_default();
        *taken += 1;
        let aim = (step, *taken);
        if let Some(place) = inner.aims.iter().position(|one| *one == aim) {
            inner.aims.swap_remove(place);
            let at = at + inner.rng.below(20) * MS;
            inner.due.push((at, step));
        }
    }

    /// The steps at which a leader is to die now.
    pub fn due(&self, now: u64) -> Vec<Step> {
        let due = self
            .lock()
            .due
            .extract_if(.., |(at, _)| now >= *at)
            .collect::<Vec<_>>();
        due.into_iter().map(|(_, step)| step).collect()
    }

    /// A leader died at a step, or there was none: then the next time is as good.
    pub fn struck(&self, step: Step, is_hit: bool) {
        let mut inner = self.lock();
        if is_hit {
            *inner.killed.entry(step).or_default() += 1;
        } else {
            let next = inner.taken.get(&step).copied().unwrap_or(0) + 1;
            inner.aims.push((step, next));
        }
    }

    /// How many leaders died at each step.
    pub fn killed(&self) -> BTreeMap<Step, u64> {
        self.lock().killed.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("counting does not panic")
    }
}
