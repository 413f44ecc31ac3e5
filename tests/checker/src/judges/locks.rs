//! A queue is locked by one client at a time, for as long as a lock holds.
//!
//! An unlock whose outcome is unknown may still take effect, however late: it may free any lock that its
//! client is given after it, so that nothing can be concluded from those.
//!
//! Locks end by the clock of the node that leads: one that is set forward ends those that are held. So
//! nothing is concluded from a lock that was given before or while a clock was set; what is given after
//! that counts again.

use std::collections::{HashMap, HashSet};

use super::Judge;
use crate::checker::{Bounds, Call, Invariant, Moment, Outcome, Report, Step};
use crate::event::{Answer, Cursor, FaultClass, Locks, Note, Queue, Request};

/// The last grant to a client.
struct Grant {
    begun_at: u64,
    number: u64,
}

/// All locks that hold or may hold, by owner.
pub(super) struct Leases {
    lease_ns: u64,
    skew_ns: u64,
    grants: HashMap<Cursor, HashMap<String, Grant>>,
    /// Owners of whom an unlock may still take effect, whatever they are granted meanwhile.
    doubtful: HashSet<(Cursor, String)>,
    /// Clocks that are being set, by the fault's name.
    moving: HashSet<String>,
    /// The last event that was about a clock.
    moved: u64,
}

impl Leases {
    pub(super) fn new(bounds: &Bounds) -> Self {
        Self {
            lease_ns: bounds.lease_ns,
            skew_ns: bounds.skew_ns,
            grants: HashMap::new(),
            doubtful: HashSet::new(),
            moving: HashSet::new(),
            moved: 0,
        }
    }

    fn noted(&mut self, number: u64, note: &Note) {
        let is_about_clocks = match note {
            Note::Fault { name, class, .. } => {
                *class == FaultClass::Clock && self.moving.insert(name.clone())
            }
            Note::Heal { name } => self.moving.remove(name),
            _ => false,
        };
        if is_about_clocks {
            self.moved = number;
            self.grants.clear();
        }
    }

    fn granted(
        &mut self,
        moment: Moment,
        call: &Call,
        (locks, queue): (&Locks, &Queue),
        report: &mut Report,
    ) {
        if !self.moving.is_empty() || call.number < self.moved {
            return;
        }
        report.judged(Invariant::Lock);
        let cursor = Cursor {
            group: locks.group.clone(),
            queue: queue.clone(),
        };
        if self
            .doubtful
            .contains(&(cursor.clone(), locks.owner.clone()))
        {
            return;
        }
        let grants = self.grants.entry(cursor).or_default();
        let lease_ns = self.lease_ns;
        let skewed_at = moment.at.saturating_add(self.skew_ns);
        for (owner, grant) in grants.iter().filter(|(owner, _)| **owner != locks.owner) {
            // Whichever came first, the other came before its lease ended.
            let first_at = grant.begun_at.min(call.at);
            if skewed_at < first_at.saturating_add(lease_ns) {
                let text = format!("{} and {owner} both have the lock of {queue}", locks.owner);
                report.broken(Invariant::Lock, &[grant.number, moment.number], text);
            }
        }
        let fresh = Grant {
            begun_at: call.at,
            number: moment.number,
        };
        grants.insert(locks.owner.clone(), fresh);
    }
}

/// What locks are of.
fn cursors(locks: &Locks) -> impl Iterator<Item = Cursor> {
    locks.queues.iter().map(|queue| Cursor {
        group: locks.group.clone(),
        queue: queue.clone(),
    })
}

impl Judge for Leases {
    fn see(&mut self, moment: Moment, step: &Step<'_>, report: &mut Report) {
        match step {
            // From here on the lock may be free.
            Step::Begun(call) => {
                let Request::Unlock(locks) = &call.request else {
                    return;
                };
                for cursor in cursors(locks) {
                    if let Some(grants) = self.grants.get_mut(&cursor) {
                        grants.remove(&locks.owner);
                    }
                }
            }
            Step::Ended {
                call,
                outcome: Outcome::Info,
            } => {
                if let Request::Unlock(locks) = &call.request {
                    let doubtful = cursors(locks).map(|cursor| (cursor, locks.owner.clone()));
                    self.doubtful.extend(doubtful);
                }
            }
            Step::Ended {
                call,
                outcome: Outcome::Ok(Answer::Locked(queues)),
            } => {
                let Request::Lock(locks) = &call.request else {
                    return;
                };
                for queue in queues {
                    self.granted(moment, call, (locks, queue), report);
                }
            }
            Step::Noted(note) => self.noted(moment.number, note),
            _ => {}
        }
    }
}
