//! Queues that one client of a group has for itself, for ordered consumption.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// How long a lock lasts from when it was taken or renewed; milliseconds of the log's clock.
pub const LOCK_LEASE_MS: u64 = 60_000;

/// A lock on one queue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Lease {
    /// Client id.
    pub owner: String,
    /// Time of the log from which on another client may take the queue; milliseconds since 1970.
    pub expires_ms: u64,
}

/// Locks per group, topic and queue.
///
/// Invariant: no group without a lock.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Locks {
    groups: BTreeMap<String, BTreeMap<(String, u16), Lease>>,
}

impl Locks {
    /// Gives `client` those of `queues` that are free, expired or its own already; returns them.
    pub(super) fn lock(
        &mut self,
        group: String,
        client: &str,
        queues: Vec<(String, u16)>,
        now_ms: u64,
    ) -> Vec<(String, u16)> {
        let leases = self.groups.entry(group).or_default();
        let mut granted = Vec::new();
        for queue in queues {
            let foreign = leases
                .get(&queue)
                .is_some_and(|lease| lease.owner != client && lease.expires_ms > now_ms);
            if !foreign {
                let expires_ms = now_ms.saturating_add(LOCK_LEASE_MS);
                leases.insert(
                    queue.clone(),
                    Lease {
                        owner: client.to_owned(),
                        expires_ms,
                    },
                );
                granted.push(queue);
            }
        }
        self.drop_empty();
        granted
    }

    /// Takes the queues away from `client` where it has them.
    pub(super) fn unlock(&mut self, group: &str, client: &str, queues: &[(String, u16)]) {
        let Some(leases) = self.groups.get_mut(group) else {
            return;
        };
        for queue in queues {
            if leases.get(queue).is_some_and(|lease| lease.owner == client) {
                leases.remove(queue);
            }
        }
        self.drop_empty();
    }

    /// Starts all leases anew, also expired ones: while there was no leader nobody could renew.
    pub(super) fn renew_all(&mut self, now_ms: u64) {
        for lease in self.groups.values_mut().flat_map(BTreeMap::values_mut) {
            lease.expires_ms = now_ms.saturating_add(LOCK_LEASE_MS);
        }
    }

    /// The lock on a queue, expired or not.
    pub(super) fn get(&self, group: &str, topic: &str, queue: u16) -> Option<&Lease> {
        self.groups.get(group)?.get(&(topic.to_owned(), queue))
    }

    /// Whether any lock of the group has not expired.
    pub(super) fn has_unexpired(&self, group: &str, now_ms: u64) -> bool {
        let leases = self.groups.get(group);
        leases.is_some_and(|leases| leases.values().any(|lease| lease.expires_ms > now_ms))
    }

    pub(super) fn remove_group(&mut self, group: &str) {
        self.groups.remove(group);
    }

    pub(super) fn remove_topic(&mut self, topic: &str) {
        for leases in self.groups.values_mut() {
            leases.retain(|(name, _), _| name != topic);
        }
        self.drop_empty();
    }

    fn drop_empty(&mut self) {
        self.groups.retain(|_, leases| !leases.is_empty());
    }
}
