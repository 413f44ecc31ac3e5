//! The three nodes together, and what the harness knows about their groups.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use gantry::client::status::{NodeStatus, ReplicaStatus};
use gantry_checker::{Note, Writer};
use tokio::time::{Instant, sleep};

use crate::net::{NODES, name_of};
use crate::node::{GROUPS, Node, Settings};
use crate::shell::{Failure, Outcome, failure};

/// What the clients know of the cluster, and where all of them write down what they see.
pub struct View {
    statuses: Mutex<[Option<NodeStatus>; NODES]>,
    history: Mutex<Option<Arc<Writer>>>,
}

impl View {
    /// Nothing known yet.
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            statuses: Mutex::default(),
            history: Mutex::default(),
        })
    }

    /// From here on the run is written down there.
    pub fn write_to(&self, history: Option<Arc<Writer>>) {
        *self
            .history
            .lock()
            .expect("nothing panics while it holds this") = history;
    }

    /// Writes down a fact, if a round is under way.
    pub fn note(&self, note: Note) -> Outcome {
        let history = self
            .history
            .lock()
            .expect("nothing panics while it holds this")
            .clone();
        match history {
            Some(history) => history
                .note("harness", note)
                .map_err(|error| Failure(format!("writing the history: {error}"))),
            None => Ok(()),
        }
    }

    /// The node that leads a group, by the newest term that any node told of.
    pub fn leader_of(&self, group: usize) -> Option<usize> {
        let statuses = self
            .statuses
            .lock()
            .expect("nothing panics while it holds this");
        let replicas = statuses
            .iter()
            .flatten()
            .filter_map(|status| replica(status, group));
        let newest = replicas
            .filter(|replica| replica.leader.is_some())
            .max_by_key(|r| r.term)?;
        newest.leader.map(|node| usize::from(node) - 1)
    }

    /// Asks all nodes again and again; writes down how far their replicas are.
    pub async fn watch(self: Arc<Self>) {
        loop {
            let asked = [Node::status(0), Node::status(1), Node::status(2)];
            let [a, b, c] = asked;
            let answers = tokio::join!(a, b, c);
            for (node, answer) in [answers.0, answers.1, answers.2].into_iter().enumerate() {
                let status = answer.ok();
                if let Some(status) = &status
                    && let Err(error) = self.note_progress(node, status)
                {
                    eprintln!("chaos: {error}");
                }
                self.statuses
                    .lock()
                    .expect("nothing panics while it holds this")[node] = status;
            }
            sleep(Duration::from_millis(250)).await;
        }
    }

    fn note_progress(&self, node: usize, status: &NodeStatus) -> Outcome {
        for replica in &status.groups {
            if let (Some(committed), Some(applied)) = (replica.committed, replica.applied) {
                self.note(Note::Progress {
                    broker: replica.name.clone(),
                    node: name_of(node),
                    committed,
                    applied,
                })?;
            }
        }
        Ok(())
    }
}

fn replica(status: &NodeStatus, group: usize) -> Option<&ReplicaStatus> {
    status
        .groups
        .iter()
        .find(|replica| replica.name == GROUPS[group])
}

/// All nodes.
pub struct Cluster {
    /// In the order of their numbers.
    pub nodes: Vec<Node>,
    /// What is known about them.
    pub view: Arc<View>,
    /// Nodes whose disk is full, and that may stop for that reason.
    pub full: [bool; NODES],
}

impl Cluster {
    /// Makes the nodes, starts them, and waits until they serve.
    pub async fn start(settings: &Settings, view: Arc<View>) -> Outcome<Self> {
        crate::disk::prepare(&settings.directory.join("disks")).await?;
        let mut nodes = Vec::new();
        for number in 0..NODES {
            nodes.push(Node::create(settings, number).await?);
        }
        let mut cluster = Self {
            nodes,
            view,
            full: [false; NODES],
        };
        for node in 0..NODES {
            cluster.start_node(node)?;
        }
        cluster.await_whole(Duration::from_secs(30)).await?;
        Ok(cluster)
    }

    /// Starts a node. What it showed before no longer binds it, from before its process is there.
    pub fn start_node(&mut self, node: usize) -> Outcome {
        self.view.note(Note::Started {
            node: name_of(node),
        })?;
        self.nodes[node].start()
    }

    /// Starts a node if it is down; false if it runs.
    pub fn start_if_down(&mut self, node: usize) -> Outcome<bool> {
        if self.nodes[node].runs() {
            return Ok(false);
        }
        self.start_node(node)?;
        Ok(true)
    }

    /// Fails if a process has ended that nobody ended. One that says that its disk is full may.
    pub fn check_running(&mut self) -> Outcome {
        for node in &mut self.nodes {
            if let Some(status) = node.ended()? {
                let (name, end) = (name_of(node.number), node.log_end());
                if self.full[node.number] && end.contains("No space left on device") {
                    continue;
                }
                return failure(format!("{name} ended by itself with {status}:\n{end}"));
            }
        }
        Ok(())
    }

    /// Waits until every node serves and every replica votes and has applied all that is committed now.
    pub async fn await_whole(&mut self, patience: Duration) -> Outcome {
        let until = Instant::now() + patience;
        let mut targets = [None; GROUPS.len()];
        loop {
            self.check_running()?;
            let reason = match self.what_is_missing(&mut targets).await {
                None => return Ok(()),
                Some(reason) => reason,
            };
            if Instant::now() > until {
                let seconds = patience.as_secs();
                return failure(format!(
                    "the cluster is not whole after {seconds} s: {reason}"
                ));
            }
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// Why the cluster is not whole; `targets` are what each group had committed when it was first whole
    /// enough to say.
    async fn what_is_missing(&self, targets: &mut [Option<u64>]) -> Option<String> {
        let mut statuses = Vec::new();
        for node in 0..NODES {
            match Node::status(node).await {
                Ok(status) if status.ready => statuses.push(status),
                Ok(_) => return Some(format!("{} is not ready", name_of(node))),
                Err(reason) => return Some(format!("{}: {reason}", name_of(node))),
            }
        }
        for (group, name) in GROUPS.iter().enumerate() {
            let replicas: Vec<&ReplicaStatus> = statuses
                .iter()
                .filter_map(|status| replica(status, group))
                .collect();
            let leaders = replicas
                .iter()
                .filter(|replica| replica.role == "leader")
                .count();
            if replicas.len() != NODES || leaders != 1 {
                return Some(format!(
                    "{name} has {} replicas, {leaders} leaders",
                    replicas.len()
                ));
            }
            if replicas.iter().any(|replica| replica.voters.len() != NODES) {
                return Some(format!("not every replica of {name} votes"));
            }
            let committed = replicas
                .iter()
                .filter_map(|replica| replica.committed)
                .max();
            let target = *targets[group].get_or_insert(committed.unwrap_or(0));
            for (node, replica) in replicas.iter().enumerate() {
                if replica.applied.unwrap_or(0) < target {
                    let (node, at) = (name_of(node), replica.applied.unwrap_or(0));
                    return Some(format!(
                        "{node} has applied {at} of {target} records of {name}"
                    ));
                }
            }
        }
        None
    }
}
