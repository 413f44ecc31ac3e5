//! Pulls that wait for a message: who waits for which queue, and who wakes them.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use gantry_storage::QueueKey;
use tokio::sync::oneshot;

/// The parked pulls of one group on this node.
#[derive(Default)]
pub struct LongPoll {
    parked: Mutex<HashMap<QueueKey, Vec<oneshot::Sender<()>>>>,
}

impl LongPoll {
    /// Parks a pull. The receiver fires at the next message of the queue. Register first and look
    /// for messages after that, or one that comes in between is missed.
    pub fn park(&self, queue: QueueKey) -> oneshot::Receiver<()> {
        let (wake, woken) = oneshot::channel();
        let mut parked = self.lock();
        let waiting = parked.entry(queue).or_default();
        // Those that timed out have dropped their receiver.
        waiting.retain(|waiting| !waiting.is_closed());
        waiting.push(wake);
        woken
    }

    /// A message arrived in these queues.
    pub fn wake(&self, queues: impl IntoIterator<Item = QueueKey>) {
        let mut parked = self.lock();
        if parked.is_empty() {
            return;
        }
        for queue in queues {
            for waiting in parked.remove(&queue).into_iter().flatten() {
                // Who waited may have timed out meanwhile.
                let _ = waiting.send(());
            }
        }
    }

    /// Wakes everyone: the node is stopping, or the state was replaced.
    pub fn wake_all(&self) {
        self.lock().clear();
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<QueueKey, Vec<oneshot::Sender<()>>>> {
        self.parked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_the_queue_that_got_a_message_wakes() {
        let polls = LongPoll::default();
        let key = |topic_id, queue| QueueKey { topic_id, queue };
        let mut first = polls.park(key(1, 0));
        let second = polls.park(key(1, 1));
        polls.wake([key(1, 1), key(9, 9)]);
        assert_eq!(second.await, Ok(()));
        assert!(first.try_recv().is_err());
        polls.wake_all();
        assert!(first.await.is_err(), "woken without a message");
    }
}
