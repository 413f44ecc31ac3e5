//! Clients under whose eyes the cluster is broken. Each writes down what it asks before it asks, and what
//! it was told; the checker judges that.

mod admin;
mod client;
mod consumer;
mod dump;
mod locker;
mod observer;
mod pace;
mod producer;
mod seeker;
mod stock;
mod tally;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use gantry_checker::{Note, Queue, Writer};
use tokio::task::JoinSet;

use crate::cluster::View;
use crate::node::GROUPS;
use crate::random::Random;
use crate::shell::{Failure, Outcome, while_doing};

pub use client::Asker;
pub use dump::{Held, dump};
pub use pace::Pace;
pub use stock::{Stock, Told, probe as probe_stock};
pub use tally::{Tally, Window};

/// Producers that send one message at a time, and those that send batches.
const SINGLE_PRODUCERS: usize = 9;
const BATCH_PRODUCERS: usize = 6;
const CONSUMERS: usize = 6;
const LOCKERS: usize = 3;
const OBSERVERS: usize = 2;
const SEEKERS: usize = 2;

/// What all clients of a round share.
pub struct Round {
    /// Number of the round; in the names of all that it makes.
    pub number: u64,
    /// The run's seed.
    pub seed: u64,
    /// What is known of the cluster.
    pub view: Arc<View>,
    /// Where events go.
    pub history: Arc<Writer>,
    /// Topics with messages.
    pub topics: Vec<String>,
    /// How fast messages are sent.
    pub pace: Pace,
    /// What is counted.
    pub tally: Arc<Tally>,
    /// Messages that were acked not long ago, to be looked for.
    pub acked: seeker::Acked,
    next_id: AtomicU64,
    sending: AtomicBool,
    reading: AtomicBool,
}

/// Topics of a round, and queues of each in each group.
const TOPICS: usize = 4;
/// Queues of each topic in each group.
pub const QUEUES: u16 = 4;

impl Round {
    /// A round of which nothing has happened yet.
    pub fn new(number: u64, seed: u64, view: Arc<View>, history: Arc<Writer>) -> Self {
        let topic = |n| format!("chaos-{number}-{n}");
        Self {
            number,
            seed,
            view,
            history,
            topics: (0..TOPICS).map(topic).collect(),
            pace: Pace::new(0),
            tally: Arc::new(Tally::new()),
            acked: seeker::Acked::default(),
            next_id: AtomicU64::new(number << 32),
            sending: AtomicBool::new(true),
            reading: AtomicBool::new(true),
        }
    }

    /// All queues with messages.
    pub fn queues(&self) -> Vec<Queue> {
        let mut queues = Vec::new();
        for topic in &self.topics {
            for broker in GROUPS {
                let of_topic = (0..QUEUES).map(|queue| Queue {
                    broker: broker.to_string(),
                    topic: topic.clone(),
                    queue,
                });
                queues.extend(of_topic);
            }
        }
        queues
    }

    fn next_ids(&self, count: u64) -> std::ops::Range<u64> {
        let first = self.next_id.fetch_add(count, Ordering::Relaxed);
        first..first + count
    }

    fn sends(&self) -> bool {
        self.sending.load(Ordering::Relaxed)
    }

    fn reads(&self) -> bool {
        self.reading.load(Ordering::Relaxed)
    }

    fn asker(self: &Arc<Self>, by: String, part: u64) -> Asker {
        let random = Random::of(self.seed ^ self.number, part);
        Asker::new(Arc::clone(self), by, random)
    }
}

/// The clients of a round at work.
pub struct Load {
    round: Arc<Round>,
    senders: JoinSet<Outcome>,
    readers: JoinSet<Outcome>,
}

impl Load {
    /// Creates the topics and starts all clients.
    pub async fn start(round: Arc<Round>) -> Outcome<Self> {
        admin::create_topics(&round).await?;
        let mut senders = JoinSet::new();
        let mut readers = JoinSet::new();
        let mut part = 0;
        let mut asker = |name: &str, number: usize| {
            part += 1;
            round.asker(format!("{name}{number}"), part)
        };
        for number in 0..SINGLE_PRODUCERS {
            senders.spawn(producer::run(asker("p", number), producer::Kind::Single));
        }
        for number in 0..BATCH_PRODUCERS {
            senders.spawn(producer::run(asker("b", number), producer::Kind::Batch));
        }
        senders.spawn(admin::churn(asker("t", 0)));
        senders.spawn(admin::define(asker("r", 0)));
        senders.spawn(admin::look_up(asker("r", 1)));
        for number in 0..LOCKERS {
            senders.spawn(locker::run(asker("l", number)));
        }
        for number in 0..SEEKERS {
            senders.spawn(seeker::run(asker("k", number)));
        }
        for number in 0..CONSUMERS {
            let all = round.queues();
            let own = all.into_iter().skip(number).step_by(CONSUMERS).collect();
            readers.spawn(consumer::run(asker("c", number), own));
        }
        for number in 0..OBSERVERS {
            senders.spawn(observer::run(asker("o", number)));
        }
        readers.spawn(tally::tick(Arc::clone(&round)));
        Ok(Self {
            round,
            senders,
            readers,
        })
    }

    /// Fails if a client could not go on, which is a fault of the harness.
    pub fn check(&mut self) -> Outcome {
        while let Some(ended) = self.senders.try_join_next() {
            ended.map_err(while_doing("a client"))??;
        }
        while let Some(ended) = self.readers.try_join_next() {
            ended.map_err(while_doing("a client"))??;
        }
        Ok(())
    }

    /// Ends the sends, and waits until each has its answer or its time is over.
    pub async fn stop_sending(&mut self) -> Outcome {
        self.round.sending.store(false, Ordering::Relaxed);
        join(&mut self.senders, Duration::from_secs(30)).await?;
        self.round.view.note(Note::LoadEnds)
    }

    /// Lets the readers come to the end of all queues.
    pub async fn stop_reading(&mut self) -> Outcome {
        self.round.reading.store(false, Ordering::Relaxed);
        join(&mut self.readers, Duration::from_secs(90)).await
    }
}

async fn join(tasks: &mut JoinSet<Outcome>, patience: Duration) -> Outcome {
    let all = async {
        while let Some(ended) = tasks.join_next().await {
            ended.map_err(while_doing("a client"))??;
        }
        Ok(())
    };
    match tokio::time::timeout(patience, all).await {
        Ok(outcome) => outcome,
        Err(_) => Err(Failure(format!(
            "{} clients have not ended after {} s",
            tasks.len(),
            patience.as_secs()
        ))),
    }
}
