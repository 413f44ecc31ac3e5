//! What the commands of groups that pop do.

use super::super::command::{Grant, OffsetCommit, Redelivery};
use super::super::leases::{Lease, LeaseName, OrderBatch, OrderEntry};
use super::{Command, CommandResult, Tables};
use crate::position::QueueOffset;
use crate::queue_offsets::QueueKey;

impl Tables {
    /// Carries out one of these commands.
    pub(super) fn apply_pop(&mut self, command: Command) -> CommandResult {
        match command {
            Command::Pop { group, key, grant } => self.pop(&group, key, grant),
            Command::Ack { group, leases } => self.ack(&group, leases),
            Command::AckInOrder { group, leases } => {
                let mut ended = Vec::with_capacity(leases.len());
                for name in leases {
                    ended.push(self.ack_in_order(&group, name));
                }
                CommandResult::Ended(ended)
            }
            Command::ChangeInvisible {
                group,
                lease,
                invisible_ms,
                in_order,
            } => self.change_invisible(&group, lease, invisible_ms, in_order),
            Command::Redeliver { leases } => self.redeliver(leases),
            Command::SetRequestMode { topic, group, mode } => {
                self.request_modes.set(topic, group, mode);
                CommandResult::Done
            }
            other => unreachable!("{other:?} is not about popping"),
        }
    }

    fn pop(&mut self, group: &str, key: QueueKey, grant: Grant) -> CommandResult {
        let refused = |reason: &str| CommandResult::Refused(reason.to_owned());
        let Some(topic) = self.topics.by_id(key.topic_id) else {
            return refused("the topic is gone");
        };
        let topic = topic.config.name.clone();
        if self.offsets.get(group, &topic, key.queue) != grant.expected {
            return refused("the group is elsewhere by now");
        }
        let ascends = grant.offsets.is_sorted_by(|a, b| a < b);
        if !ascends || grant.offsets.last() >= Some(&grant.next) {
            return refused("these are not messages in front of the next one");
        }
        let pop_ms = self.clock_ms;
        let visible_ms = pop_ms.saturating_add(grant.invisible_ms);
        let mut times = Vec::new();
        let mut position = grant.next;
        if let Some(attempt_id) = &grant.in_order {
            let batch = self.next_in_order(group, key, (&grant, attempt_id), visible_ms);
            let Some(batch) = batch else {
                return refused("the queue is taken");
            };
            times = batch.entries.iter().map(|entry| entry.times).collect();
            position = batch.position();
            let batch = (!batch.entries.is_empty()).then_some(batch);
            self.leases.set_order(group, key, batch);
        } else if self.leases.room(group, key) < grant.offsets.len() {
            return refused("too many messages are not acknowledged");
        } else {
            let lease = Lease { pop_ms, visible_ms };
            self.leases.grant(group, key, &grant.offsets, lease);
        }
        // It reads from where it was moved to.
        self.resets.remove(group, &topic, key.queue);
        self.move_to(group, (topic, key.queue), position);
        CommandResult::Popped { pop_ms, times }
    }

    /// The batch that a group gets, unless another one is in the way.
    fn next_in_order(
        &self,
        group: &str,
        key: QueueKey,
        (grant, attempt_id): (&Grant, &str),
        visible_ms: u64,
    ) -> Option<OrderBatch> {
        let before = self.leases.order(group, key);
        // One that the group was moved away from is in nobody's way.
        let before = before.filter(|batch| Some(batch.position()) == grant.expected);
        let is_blocked = before.is_some_and(|batch| {
            batch.blocked_until(self.clock_ms).is_some() && !batch.is_attempt(attempt_id)
        });
        if is_blocked {
            return None;
        }
        let entry = |offset: &QueueOffset| OrderEntry {
            offset: *offset,
            visible_ms,
            times: before.map_or(0, |batch| batch.times_now(*offset, attempt_id)),
            acked: false,
        };
        Some(OrderBatch {
            pop_ms: self.clock_ms,
            attempt_id: attempt_id.to_owned(),
            next: grant.next,
            entries: grant.offsets.iter().map(entry).collect(),
        })
    }

    fn ack(&mut self, group: &str, leases: Vec<LeaseName>) -> CommandResult {
        let ended = leases.into_iter();
        let ended = ended.map(|name| self.leases.end(group, name));
        CommandResult::Ended(ended.collect())
    }

    fn ack_in_order(&mut self, group: &str, name: LeaseName) -> bool {
        let Some((topic, _)) = self.order_position(group, name) else {
            return false;
        };
        let batch = self.leases.order_mut(group, name.key);
        let batch = batch.expect("its position was just read");
        let Some(entry) = batch.entry_mut(name.offset) else {
            return false;
        };
        entry.acked = true;
        let position = batch.position();
        if batch.open_count() == 0 {
            self.leases.set_order(group, name.key, None);
        }
        self.move_to(group, (topic, name.key.queue), position);
        true
    }

    /// The topic and the position of the batch that a lease is of, if the group still is there.
    fn order_position(&self, group: &str, name: LeaseName) -> Option<(String, QueueOffset)> {
        let topic = self.topics.by_id(name.key.topic_id)?.config.name.clone();
        let batch = self.leases.order(group, name.key)?;
        let position = batch.position();
        let stored = self.offsets.get(group, &topic, name.key.queue);
        let is_current = batch.pop_ms == name.pop_ms && stored == Some(position);
        is_current.then_some((topic, position))
    }

    fn change_invisible(
        &mut self,
        group: &str,
        name: LeaseName,
        invisible_ms: u64,
        in_order: bool,
    ) -> CommandResult {
        let visible_ms = self.clock_ms.saturating_add(invisible_ms);
        let pop_ms = if in_order { name.pop_ms } else { self.clock_ms };
        let is_changed = if in_order {
            let is_current = self.order_position(group, name).is_some();
            let batch = self.leases.order_mut(group, name.key);
            let batch = batch.filter(|_| is_current);
            let entry = batch.and_then(|batch| batch.entry_mut(name.offset));
            entry.map(|entry| entry.visible_ms = visible_ms).is_some()
        } else {
            let lease = Lease { pop_ms, visible_ms };
            self.leases.change(group, name, lease)
        };
        if is_changed {
            let times = Vec::new();
            CommandResult::Popped { pop_ms, times }
        } else {
            CommandResult::Ended(vec![false])
        }
    }

    /// Ends leases whose time has passed. Rows of those that had ended before are not wanted.
    fn redeliver(&mut self, leases: Vec<Redelivery>) -> CommandResult {
        let mut unwanted = Vec::new();
        for Redelivery { group, name, row } in leases {
            let lease = self.leases.get(&group, name.key, name.offset);
            let has_passed = lease.is_some_and(|lease| lease.visible_ms <= self.clock_ms);
            if !has_passed || !self.leases.end(&group, name) {
                unwanted.extend(row);
            }
        }
        CommandResult::Redelivered { unwanted }
    }

    fn move_to(&mut self, group: &str, (topic, queue): (String, u16), offset: QueueOffset) {
        let group = group.to_owned();
        let entry = OffsetCommit {
            group,
            topic,
            queue,
            offset,
        };
        self.offsets.commit(entry, false);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
