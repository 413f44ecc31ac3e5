//! Clients under whose eyes the cluster is broken. Each writes down what it asks before it asks, and what
//! it was told; the checker judges that.

mod admin;
mod client;
mod consumer;
mod dealer;
mod deeds;
mod delayer;
mod dump;
mod locker;
mod observer;
mod pace;
mod popper;
mod producer;
mod returner;
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
pub use deeds::{Counts, missing};
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
/// Of each broker group.
const POPPERS: usize = 2;

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
/// Topics with messages that come later, are handed out one by one, or come again; and how many queues each
/// has in each group.
const FEATURE_TOPICS: [(&str, u16); 5] = [
    (delayer::TOPIC, 2),
    (dealer::TOPIC, 2),
    (popper::FREELY.topic, 2),
    (popper::IN_ORDER.topic, 1),
    (returner::TOPIC, 1),
];
/// How long those go on that wait for messages when nothing is sent any more: what was left open or let go
/// comes again, and what does not is late.
const DRAIN: Duration = Duration::from_secs(14);
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

    /// All queues that producers send to.
    pub fn queues(&self) -> Vec<Queue> {
        let topics = self.topics.iter();
        topics.flat_map(|topic| queues_of(topic, QUEUES)).collect()
    }

    /// All queues that consumers read as they grow: those, and where messages come later.
    fn read_queues(&self) -> Vec<Queue> {
        let later = [delayer::TOPIC, dealer::TOPIC];
        let features = FEATURE_TOPICS.into_iter();
        let later = features.filter(|(name, _)| later.contains(name));
        let later = later.flat_map(|(name, queues)| queues_of(&self.topic(name), queues));
        self.queues().into_iter().chain(later).collect()
    }

    /// Every queue of the round, those with copies of messages included, which brokers make when they are
    /// needed.
    fn every_queue(&self) -> Vec<Queue> {
        let features = FEATURE_TOPICS.into_iter();
        let features = features.flat_map(|(name, queues)| queues_of(&self.topic(name), queues));
        let groups = 0..GROUPS.len();
        let copies = groups.flat_map(|group| {
            let topics = [
                returner::retry_topic(self, group),
                returner::dead_letter_topic(self, group),
                popper::FREELY.retry_topic(self, group),
            ];
            topics.map(|topic| queue_at(group, &topic, 0))
        });
        let all = self.queues().into_iter().chain(features).chain(copies);
        all.collect()
    }

    /// The name of one of the round's own topics.
    fn topic(&self, name: &str) -> String {
        format!("chaos-{}-{name}", self.number)
    }

    /// The name of those who produce or consume in one broker group: the checker takes what a group of
    /// consumers is not given by one broker group for late. Each round has its own.
    fn members(&self, name: &str, group: usize) -> String {
        format!("chaos-{}-{name}-{}", self.number, GROUPS[group])
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
    /// Who sends, and waits when nothing is sent any more.
    drainers: JoinSet<Outcome>,
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
            let all = round.read_queues();
            let own = all.into_iter().skip(number).step_by(CONSUMERS).collect();
            readers.spawn(consumer::run(asker("c", number), own));
        }
        for number in 0..OBSERVERS {
            senders.spawn(observer::run(asker("o", number)));
        }
        readers.spawn(tally::tick(Arc::clone(&round)));
        let mut drainers = JoinSet::new();
        for group in 0..GROUPS.len() {
            senders.spawn(delayer::run(asker("d", group), group));
            senders.spawn(returner::run(asker("x", group), group));
            drainers.spawn(dealer::run(asker("h", group), group));
            for number in 0..POPPERS {
                let number = group * POPPERS + number;
                drainers.spawn(popper::run(asker("v", number), group));
            }
        }
        Ok(Self {
            round,
            senders,
            drainers,
            readers,
        })
    }

    /// Fails if a client could not go on, which is a fault of the harness.
    pub fn check(&mut self) -> Outcome {
        for clients in [&mut self.senders, &mut self.drainers, &mut self.readers] {
            while let Some(ended) = clients.try_join_next() {
                ended.map_err(while_doing("a client"))??;
            }
        }
        Ok(())
    }

    /// Ends the sends, and waits until each has its answer or its time is over.
    pub async fn stop_sending(&mut self) -> Outcome {
        self.round.sending.store(false, Ordering::Relaxed);
        join(&mut self.senders, Duration::from_secs(30)).await?;
        self.round.view.note(Note::LoadEnds)
    }

    /// Lets come what was left open or let go, and then the readers to the end of all queues.
    pub async fn stop_reading(&mut self) -> Outcome {
        join(&mut self.drainers, DRAIN + Duration::from_secs(30)).await?;
        self.round.reading.store(false, Ordering::Relaxed);
        join(&mut self.readers, Duration::from_secs(90)).await
    }
}

/// Queues of a topic in all broker groups.
fn queues_of(topic: &str, queues: u16) -> Vec<Queue> {
    let groups = 0..GROUPS.len();
    let all = groups.flat_map(|group| (0..queues).map(move |queue| queue_at(group, topic, queue)));
    all.collect()
}

/// A queue of a topic in a broker group.
fn queue_at(group: usize, topic: &str, queue: u16) -> Queue {
    Queue {
        broker: GROUPS[group].to_string(),
        topic: topic.to_string(),
        queue,
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
