//! The load: clients that speak RocketMQ's protocol, and write down what they asked and were told.

mod admins;
mod consumers;
mod cursors;
mod dealers;
mod lockers;
mod poppers;
mod producers;
mod registers;
mod repeaters;
mod returners;
mod seekers;
mod timed;

mod link;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use gantry_checker::{Answer, Queue, Request};
use gantry_protocol::{Fields, RemotingCommand, RequestCode, ResponseCode};
use gantry_raft::NodeNumber;
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::cluster::{BROKER, NODES, QUEUES, Surroundings, TOPICS};
use crate::machine::name_of;
use crate::rng::Rng;
pub use link::CLIENT_MACHINE;
use link::{Link, Lost};

/// How far a run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Everybody works.
    Load,
    /// Nothing is sent any more; consumers read to the end.
    Drain,
    /// Everybody has stopped.
    Over,
}

/// The clients, on a machine of their own that nothing happens to.
pub struct Clients {
    runtime: Runtime,
    running: JoinSet<()>,
    stage: watch::Sender<Stage>,
    origin: Instant,
    around: Surroundings,
}

impl Clients {
    /// Clients that begin to work when time goes on.
    pub fn new(around: Surroundings) -> Self {
        around.net.switch_on(CLIENT_MACHINE);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .expect("a runtime without sockets and threads can always be made");
        let stage = watch::Sender::new(Stage::Load);
        let mut running = JoinSet::new();
        let handle = runtime.handle().clone();
        let origin = runtime.block_on(async { Instant::now() });
        let mut count = 0;
        let mut client = |name: &str| {
            count += 1;
            Client::new(name, count, &around, stage.subscribe())
        };
        for number in 0..4 {
            running.spawn_on(
                producers::run(client(&format!("producer{number}"))),
                &handle,
            );
        }
        for number in 0..2 {
            let work = consumers::run(client(&format!("consumer{number}")), number);
            running.spawn_on(work, &handle);
        }
        running.spawn_on(consumers::watch(client("watcher")), &handle);
        running.spawn_on(consumers::rewind(client("rewinder")), &handle);
        let handed = Arc::new(AtomicU64::new(0));
        for number in 0..2 {
            let work = cursors::hand_over(client(&format!("member{number}")), handed.clone());
            running.spawn_on(work, &handle);
        }
        running.spawn_on(cursors::pull_and_commit(client("stock")), &handle);
        running.spawn_on(seekers::run(client("seeker")), &handle);
        for number in 0..2 {
            running.spawn_on(
                registers::run(client(&format!("register{number}"))),
                &handle,
            );
            running.spawn_on(lockers::run(client(&format!("locker{number}"))), &handle);
        }
        running.spawn_on(admins::run(client("admin")), &handle);
        if around.shape.features {
            running.spawn_on(timed::run(client("delayer")), &handle);
            running.spawn_on(timed::read(client("timekeeper")), &handle);
            running.spawn_on(dealers::run(client("dealer")), &handle);
            running.spawn_on(returners::run(client("returner")), &handle);
            for number in 0..2 {
                running.spawn_on(poppers::run(client(&format!("popper{number}"))), &handle);
            }
            running.spawn_on(repeaters::run(client("repeater")), &handle);
        }
        Clients {
            runtime,
            running,
            stage,
            origin,
            around,
        }
    }

    /// Tells the clients how far the run is.
    pub fn set_stage(&self, stage: Stage) {
        self.stage.send_replace(stage);
    }

    /// Whether all clients have come to an end.
    pub fn are_done(&mut self) -> bool {
        while self.running.try_join_next().is_some() {}
        self.running.is_empty()
    }

    /// Does something as another client.
    pub fn spawn<Work>(&mut self, name: &str, work: impl FnOnce(Client) -> Work)
    where
        Work: Future<Output = ()> + Send + 'static,
    {
        let client = Client::new(name, 99, &self.around, self.stage.subscribe());
        let handle = self.runtime.handle().clone();
        self.running.spawn_on(work(client), &handle);
    }

    /// Goes on to a true time.
    pub fn step(&self, now_ns: u64) {
        let target = self.origin + Duration::from_nanos(now_ns);
        self.runtime
            .block_on(async move { tokio::time::sleep_until(target).await });
    }
}

/// What every client has.
pub struct Client {
    /// Its name in the history.
    pub name: String,
    /// Its choices.
    pub rng: Rng,
    around: Surroundings,
    links: BTreeMap<NodeNumber, Link>,
    stage: watch::Receiver<Stage>,
    born_ms: i64,
}

impl Client {
    fn new(name: &str, number: u16, around: &Surroundings, stage: watch::Receiver<Stage>) -> Self {
        let link = |node: &NodeNumber| (*node, Link::new(around.net.clone(), number, *node));
        Client {
            name: name.to_string(),
            rng: Rng::new(around.seed, name),
            around: around.clone(),
            links: NODES.iter().map(link).collect(),
            stage,
            born_ms: 1,
        }
    }

    fn stage(&self) -> Stage {
        *self.stage.borrow()
    }

    /// Writes down that something is asked.
    fn invoke(&self, what: Request) -> u64 {
        self.around.history.invoke(&self.name, what)
    }

    /// Writes down that it succeeded.
    fn done(&self, call: u64, answer: Answer) {
        self.around.history.ok(&self.name, call, answer);
    }

    /// Lets some time pass; milliseconds.
    async fn pause(&mut self, low: u64, high: u64) {
        let pause = self.rng.between(low, high);
        sleep(Duration::from_millis(pause)).await;
    }

    /// A time to think.
    async fn think(&mut self) {
        let longest = self.around.shape.think_ms;
        let pause = self.rng.below(longest + 1);
        sleep(Duration::from_millis(pause)).await;
    }

    /// Mostly the leader, sometimes any node.
    fn node(&mut self) -> NodeNumber {
        let leader = NODES.iter().copied().find(|node| self.around.leads(*node));
        let any = *self.rng.pick(&NODES);
        leader.filter(|_| self.rng.per_mille(600)).unwrap_or(any)
    }

    /// Any queue of the topics that are there throughout.
    fn queue(&mut self) -> Queue {
        let topic = *self.rng.pick(&TOPICS);
        queue(topic, self.rng.below(u64::from(QUEUES)) as u16)
    }

    async fn call(
        &mut self,
        node: NodeNumber,
        request: RemotingCommand,
        limit: Duration,
    ) -> Result<RemotingCommand, Lost> {
        let link = self
            .links
            .get_mut(&node)
            .expect("there is a link to each node");
        link.call(request, limit).await
    }

    /// The name of the node that has answered a send, if it is certain that it did so itself.
    fn acked_by(&self, node: NodeNumber) -> Option<String> {
        self.around.leads(node).then(|| name_of(node))
    }

    /// Writes down that an operation has not succeeded, and lets a moment pass.
    async fn lost(&mut self, call: u64, lost: Lost) {
        match lost {
            Lost::Unsent => self.around.history.fail(&self.name, call, -1),
            Lost::Unknown => self.around.history.info(&self.name, call, None),
        }
        sleep(Duration::from_millis(20)).await;
    }

    /// Asks something whose effect is known only from success; the answer if it was one.
    async fn ask(
        &mut self,
        call: u64,
        node: NodeNumber,
        request: RemotingCommand,
        limit: Duration,
    ) -> Option<RemotingCommand> {
        match self.call(node, request, limit).await {
            Ok(answer) if answer.response_code() == ResponseCode::SUCCESS => Some(answer),
            Ok(answer) => {
                let code = answer.response_code().0;
                self.around.history.info(&self.name, call, Some(code));
                sleep(Duration::from_millis(20)).await;
                None
            }
            Err(lost) => {
                self.lost(call, lost).await;
                None
            }
        }
    }
}

fn request(code: RequestCode, write: impl FnOnce(&mut Fields)) -> RemotingCommand {
    let mut request = RemotingCommand::request(code, 0);
    write(&mut request.fields);
    request
}

fn queue(topic: &str, queue: u16) -> Queue {
    Queue {
        broker: BROKER.to_string(),
        topic: topic.to_string(),
        queue,
    }
}

pub(crate) use consumers::seen;
pub use producers::probe;
