//! Pops that wait for a message: who waits for which topic, and who is woken.
//!
//! A message wakes one waiter of each consumer group, the one that waits longest; whoever takes messages and
//! leaves some behind wakes the next.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use gantry_storage::QueueKey;
use tokio::sync::Notify;

/// Most waiters of a consumer group for the same queue, or for any queue of a topic.
const WAITERS_MAX: usize = 1024;
/// Most waiters of a group of brokers on this node.
const WAITERS_TOTAL_MAX: usize = 100_000;

/// As many wait as may.
#[derive(Debug, PartialEq, Eq)]
pub struct Full;

/// The waiting pops of one group on this node.
#[derive(Default)]
pub struct Waiters {
    parked: Mutex<Parked>,
}

/// Invariant: `count` is the number of places in all lines, and no line is empty.
#[derive(Default)]
struct Parked {
    topics: HashMap<u32, HashMap<String, VecDeque<Place>>>,
    count: usize,
    next_id: u64,
}

struct Place {
    id: u64,
    /// `None`: any queue.
    queue: Option<u16>,
    woken: Arc<Notify>,
}

/// A place in the line of each topic, given up when this is dropped.
pub struct Waiter<'a> {
    waiters: &'a Waiters,
    topics: Vec<u32>,
    group: String,
    id: u64,
    woken: Arc<Notify>,
}

impl Waiter<'_> {
    /// Returns when it is this one's turn to look.
    pub async fn woken(&self) {
        self.woken.notified().await;
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        let mut parked = self.waiters.lock();
        for topic_id in &self.topics {
            parked.retain(*topic_id, &self.group, |place| place.id != self.id);
        }
    }
}

impl Waiters {
    /// Waits for a queue, or any queue, of a topic; and for any queue of the topic in which its messages come
    /// again, if there is one. Register first and look for messages after that, or one that comes in between
    /// is missed.
    ///
    /// # Errors
    /// [`Full`].
    pub fn park(
        &self,
        group: &str,
        (topic_id, queue): (u32, Option<u16>),
        again_in: Option<u32>,
    ) -> Result<Waiter<'_>, Full> {
        let mut parked = self.lock();
        let is_full = parked.count_of(group, topic_id, queue) >= WAITERS_MAX;
        if is_full || parked.count >= WAITERS_TOTAL_MAX {
            return Err(Full);
        }
        let id = parked.next_id;
        parked.next_id += 1;
        let woken = Arc::new(Notify::new());
        let again = again_in.map(|topic_id| (topic_id, None));
        let mut topics = Vec::new();
        for (topic_id, queue) in [(topic_id, queue)].into_iter().chain(again) {
            let groups = parked.topics.entry(topic_id).or_default();
            let line = groups.entry(group.to_owned()).or_default();
            line.push_back(Place {
                id,
                queue,
                woken: woken.clone(),
            });
            parked.count += 1;
            topics.push(topic_id);
        }
        Ok(Waiter {
            waiters: self,
            topics,
            group: group.to_owned(),
            id,
            woken,
        })
    }

    /// There may be something in these queues: one waiter of each group looks.
    pub fn wake(&self, queues: impl IntoIterator<Item = QueueKey>) {
        let mut parked = self.lock();
        if parked.count == 0 {
            return;
        }
        for key in queues {
            let groups = parked.topics.get(&key.topic_id).into_iter().flatten();
            let groups: Vec<String> = groups.map(|(group, _)| group.clone()).collect();
            for group in groups {
                parked.wake_one(&group, key.topic_id, Some(key.queue));
            }
        }
    }

    /// There is more in a topic than was taken: the next one of a group looks.
    pub fn wake_next(&self, group: &str, topic_id: u32) {
        self.lock().wake_one(group, topic_id, None);
    }

    /// How many pops of a group wait for a queue, or for any.
    pub fn count(&self, group: &str, topic_id: u32, queue: Option<u16>) -> usize {
        self.lock().count_of(group, topic_id, queue)
    }

    fn lock(&self) -> MutexGuard<'_, Parked> {
        self.parked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Parked {
    fn count_of(&self, group: &str, topic_id: u32, queue: Option<u16>) -> usize {
        let groups = self.topics.get(&topic_id);
        let line = groups.and_then(|groups| groups.get(group));
        let same =
            |line: &VecDeque<Place>| line.iter().filter(|place| place.queue == queue).count();
        line.map_or(0, same)
    }

    /// Wakes the first that waits for the queue, or just the first.
    fn wake_one(&mut self, group: &str, topic_id: u32, queue: Option<u16>) {
        let mut first = None;
        self.retain(topic_id, group, |place| {
            let fits = queue.is_none() || place.queue.is_none() || place.queue == queue;
            let is_first = first.is_none() && fits;
            if is_first {
                first = Some(place.woken.clone());
            }
            !is_first
        });
        if let Some(woken) = first {
            woken.notify_one();
        }
    }

    fn retain(&mut self, topic_id: u32, group: &str, stays: impl FnMut(&Place) -> bool) {
        let Some(groups) = self.topics.get_mut(&topic_id) else {
            return;
        };
        let Some(line) = groups.get_mut(group) else {
            return;
        };
        let before = line.len();
        line.retain(stays);
        self.count -= before - line.len();
        if line.is_empty() {
            groups.remove(group);
        }
        if groups.is_empty() {
            self.topics.remove(&topic_id);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    async fn is_woken(waiter: &Waiter<'_>) -> bool {
        let looked = tokio::time::timeout(std::time::Duration::ZERO, waiter.woken());
        looked.await.is_ok()
    }

    #[tokio::test]
    async fn one_of_each_group_wakes_and_the_longest_first() {
        let waiters = Waiters::default();
        let key = |queue| QueueKey { topic_id: 1, queue };
        let other_queue = waiters.park("G", (1, Some(9)), None).unwrap();
        let first = waiters.park("G", (1, None), None).unwrap();
        let second = waiters.park("G", (1, Some(0)), Some(2)).unwrap();
        let other_group = waiters.park("H", (1, None), None).unwrap();
        waiters.wake([key(0)]);
        assert!(is_woken(&first).await && is_woken(&other_group).await);
        assert!(!is_woken(&second).await && !is_woken(&other_queue).await);
        waiters.wake([key(0)]);
        assert!(is_woken(&second).await);
        waiters.wake_next("G", 1);
        assert!(is_woken(&other_queue).await, "whoever is left");
        let again = waiters.park("G", (1, None), None).unwrap();
        assert_eq!(waiters.count("G", 1, None), 1);
        drop((again, second));
        assert_eq!(waiters.lock().count, 0);
        assert!(waiters.lock().topics.is_empty());
    }

    #[tokio::test]
    async fn a_message_that_comes_again_wakes_who_waits_for_its_topic() {
        let waiters = Waiters::default();
        let waiter = waiters.park("G", (1, Some(3)), Some(2)).unwrap();
        waiters.wake([QueueKey {
            topic_id: 2,
            queue: 0,
        }]);
        assert!(is_woken(&waiter).await);
        drop(waiter);
        assert!(waiters.lock().topics.is_empty());
    }

    #[test]
    fn so_many_wait_and_no_more() {
        let waiters = Waiters::default();
        let parked: Vec<_> = (0..WAITERS_MAX)
            .map(|_| waiters.park("G", (1, None), None).unwrap())
            .collect();
        assert_eq!(waiters.park("G", (1, None), None).err(), Some(Full));
        assert!(waiters.park("G", (1, Some(0)), Some(2)).is_ok());
        drop(parked);
        assert!(waiters.park("G", (1, None), None).is_ok());
    }
}
