//! A run: rounds of load under faults, each judged when it is over.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use gantry_checker::event::FaultClass;
use gantry_checker::{Note, Writer};
use tokio::time::{Instant, sleep};

use crate::cluster::{Cluster, View};
use crate::failover::{self, Failover, Gaps};
use crate::faults::{self, Count, Kind, Nemesis};
use crate::judge::{self, Verdict};
use crate::load::{self, Counts, Held, Load, Pace, Round, Stock, Told, Window};
use crate::logs;
use crate::net::{self, NODES, name_of};
use crate::node::{GROUPS, Settings};
use crate::sandbox;
use crate::schedule::{self, Class, Episode, Mix, Shot, Victim};
use crate::shell::{Failure, Outcome, while_doing};
use crate::trace::Trace;

/// Liveness after faults: the cluster must be whole within this.
const WHOLE_PATIENCE: Duration = Duration::from_secs(60);

/// How long damage of a log may last: the scrub reads everything once in 20 s here.
const MEND_PATIENCE: Duration = Duration::from_secs(90);

/// What a run is to do.
#[derive(Clone, Debug)]
pub struct Plan {
    /// What all follows from.
    pub seed: u64,
    /// How long faults are injected, in all rounds together.
    pub lasting: Duration,
    /// How long one round is.
    pub round: Duration,
    /// What is injected.
    pub mix: Mix,
    /// Messages a second.
    pub rate: u32,
    /// Whether histories of green rounds are kept.
    pub keep: bool,
    /// Whether the C++ client sends too.
    pub stock: bool,
    /// Measures failover instead of the schedule.
    pub failover: Option<Failover>,
}

/// What came of one round.
pub struct RoundReport {
    pub number: u64,
    pub lasted: Duration,
    pub acked: u64,
    pub unknown: u64,
    pub windows: Vec<Window>,
    pub verdict: Verdict,
    /// Messages in one replica in the end.
    pub held: u64,
    /// What was done with messages that wait or come again.
    pub deeds: Counts,
}

/// What came of a run.
pub struct RunReport {
    pub rounds: Vec<RoundReport>,
    pub counts: BTreeMap<Class, Count>,
    /// Bits flipped, by kind of file.
    pub flipped: BTreeMap<Kind, u64>,
    /// What failover took.
    pub gaps: Option<Gaps>,
    /// What ended it early.
    pub failure: Option<Failure>,
}

/// What was seen of the work of a round.
struct Work {
    /// From the first send to the last.
    lasted: Duration,
    held: Held,
    /// By the C++ client.
    told: Option<Told>,
}

/// A run under way.
struct Run {
    plan: Plan,
    directory: PathBuf,
    nemesis: Nemesis,
    episodes: std::vec::IntoIter<Episode>,
    /// Episodes whose first fault had nothing to hit, and that are tried once more later.
    again: Vec<Episode>,
    gaps: Option<Gaps>,
    ends: Instant,
}

/// Builds the cluster, runs all rounds, and leaves in `settings.directory` what is to be kept.
pub async fn run(settings: &Settings, plan: Plan) -> Outcome<RunReport> {
    faults::clean_up().await?;
    sandbox::furnish().await?;
    net::build().await?;
    let mut trace = Trace::create(&settings.directory.join("faults.log"))?;
    let episodes = schedule::draw(plan.seed, &plan.mix, episodes_of(&plan));
    let text: Vec<String> = episodes
        .iter()
        .enumerate()
        .map(|(number, one)| format!("{number}: {one}\n"))
        .collect();
    let path = settings.directory.join("schedule.txt");
    std::fs::write(&path, text.concat()).map_err(while_doing("writing the schedule"))?;
    trace.line(&format!(
        "seed {}: {} episodes in {}",
        plan.seed,
        text.len(),
        path.display()
    ))?;
    let view = View::new();
    let watching = tokio::spawn(Arc::clone(&view).watch());
    let cluster = Cluster::start(settings, view).await?;
    trace.line("the cluster is whole")?;
    let mut run = Run {
        ends: Instant::now() + plan.lasting,
        directory: settings.directory.clone(),
        nemesis: Nemesis::new(cluster, trace),
        episodes: episodes.into_iter(),
        again: Vec::new(),
        gaps: None,
        plan,
    };
    let mut rounds = Vec::new();
    let outcome = run.rounds(&mut rounds).await;
    faults::clean_up().await?;
    let failed = outcome.is_err() || rounds.iter().any(|round| !round.verdict.report.is_green());
    if failed {
        run.keep_everything().await?;
    }
    watching.abort();
    Ok(RunReport {
        rounds,
        counts: run.nemesis.counts,
        flipped: run.nemesis.flipped,
        gaps: run.gaps,
        failure: outcome.err(),
    })
}

/// More than can be run in the time.
fn episodes_of(plan: &Plan) -> usize {
    (plan.lasting.as_secs() as usize / 2).max(10)
}

impl Run {
    async fn rounds(&mut self, done: &mut Vec<RoundReport>) -> Outcome {
        while Instant::now() < self.ends {
            let report = self.round(done.len() as u64 + 1).await?;
            let is_green = report.verdict.report.is_green();
            let line = format!(
                "round {}: {} acked, {} unknown, {} held, {} s, judged in {:.1} s: {}",
                report.number,
                report.acked,
                report.unknown,
                report.held,
                report.lasted.as_secs(),
                report.verdict.took.as_secs_f64(),
                if is_green { "green" } else { "BROKEN" }
            );
            self.nemesis.trace.line(&line)?;
            done.push(report);
            if self.plan.failover.is_some() {
                self.ends = Instant::now();
            }
            if !is_green {
                return Err(Failure(format!(
                    "promises were broken in round {}",
                    done.len()
                )));
            }
            if !self.plan.keep {
                let history = self
                    .round_directory(done.len() as u64)
                    .join("history.jsonl");
                std::fs::remove_file(history).map_err(while_doing("removing a history"))?;
            }
        }
        Ok(())
    }

    /// How often a fault was in effect.
    fn times(&self, class: Class) -> u64 {
        self.nemesis
            .counts
            .get(&class)
            .map_or(0, |count| count.done)
    }

    /// What a history begins with. The time of a log does not go back: a clock that was set in an earlier
    /// round counts in this one, too.
    fn note_cluster(&self) -> Outcome {
        let view = &self.nemesis.cluster.view;
        for broker in GROUPS {
            view.note(Note::Cluster {
                broker: broker.to_string(),
                nodes: (0..NODES).map(name_of).collect(),
            })?;
        }
        if self.times(Class::Clock) == 0 {
            return Ok(());
        }
        let name = "clocks-before".to_string();
        view.note(Note::Fault {
            name: name.clone(),
            class: FaultClass::Clock,
            nodes: (0..NODES).map(name_of).collect(),
        })?;
        view.note(Note::Heal { name })
    }

    fn round_directory(&self, number: u64) -> PathBuf {
        self.directory.join(format!("round-{number}"))
    }

    async fn round(&mut self, number: u64) -> Outcome<RoundReport> {
        let directory = self.round_directory(number);
        std::fs::create_dir_all(&directory).map_err(while_doing("making a directory"))?;
        let path = directory.join("history.jsonl");
        let history = Arc::new(Writer::open(&path).map_err(while_doing("opening a history"))?);
        let view = Arc::clone(&self.nemesis.cluster.view);
        view.write_to(Some(Arc::clone(&history)));
        self.note_cluster()?;
        let mut round = Round::new(number, self.plan.seed, Arc::clone(&view), history);
        round.pace = Pace::new(self.plan.rate);
        let round = Arc::new(round);
        let full_before = self.times(Class::DiskFull);
        let worked = self.work(&round).await;
        let retention = self.times(Class::DiskFull) > full_before;
        view.write_to(None);
        let mut files = vec![path];
        if let Ok(work) = &worked
            && let Some(told) = &work.told
        {
            let path = directory.join("stock.jsonl");
            let acks = told.write(&work.held.stock, &path)?;
            self.nemesis
                .trace
                .line(&format!("the C++ client got {acks} acks"))?;
            files.push(path);
        }
        let seconds = directory.join("seconds.csv");
        std::fs::write(seconds, round.tally.seconds()).map_err(while_doing("writing seconds"))?;
        let windows = directory.join("windows.csv");
        std::fs::write(windows, round.tally.windows_text())
            .map_err(while_doing("writing windows"))?;
        let judged = tokio::task::spawn_blocking(move || judge::judge(&files, retention)).await;
        let verdict = judged.map_err(while_doing("judging"))??;
        if let Err(failure) = &worked {
            // What was written down until then may already show why.
            let broken: Vec<String> = verdict
                .report
                .violations
                .iter()
                .map(|violation| violation.text.clone())
                .collect();
            let judged = match broken.len() {
                0 => "what was seen until then breaks no promise".to_string(),
                _ => broken.join("\n"),
            };
            return Err(Failure(format!("{failure}\n{judged}")));
        }
        let work = worked?;
        Ok(RoundReport {
            number,
            lasted: work.lasted,
            acked: round.tally.acked_in_all(),
            unknown: round
                .tally
                .unknown
                .load(std::sync::atomic::Ordering::Relaxed),
            windows: round.tally.windows(),
            verdict,
            held: work.held.messages,
            deeds: round.tally.deeds.counts(),
        })
    }

    /// Load and faults, and then peace.
    async fn work(&mut self, round: &Arc<Round>) -> Outcome<Work> {
        let mut load = Load::start(Arc::clone(round)).await?;
        let started = Instant::now();
        let log = self.round_directory(round.number).join("stock.log");
        let start_stock = || Stock::start(round.number, &round.topics[0], &log);
        let stock = self.plan.stock.then(start_stock).transpose()?;
        let ends = self.ends.min(Instant::now() + self.plan.round);
        if let Some(failover) = self.plan.failover {
            let gaps = failover::measure(failover, &mut self.nemesis, round, &mut load).await?;
            self.gaps = Some(gaps);
        }
        while self.plan.failover.is_none() && (Instant::now() < ends || self.owes_a_class()) {
            let Some(episode) = self.next_episode() else {
                break;
            };
            if !self.episode(&episode, &mut load).await? {
                self.again.push(episode);
            }
        }
        // The last heal must be followed by sends.
        self.pause(Duration::from_secs(1), &mut load).await?;
        let told = match stock {
            Some(stock) => Some(stock.stop().await?),
            None => None,
        };
        load.stop_sending().await?;
        let lasted = started.elapsed();
        self.nemesis.cluster.await_whole(WHOLE_PATIENCE).await?;
        load.stop_reading().await?;
        // The readers' offsets were written after the first look.
        self.nemesis.cluster.await_whole(WHOLE_PATIENCE).await?;
        let held = load::dump(round).await?;
        self.compare_logs().await?;
        Ok(Work { lasted, held, told })
    }

    /// Digests of all logs go into the history. What rotted and nobody has met yet comes back by the scrub.
    async fn compare_logs(&mut self) -> Outcome {
        let until = Instant::now() + MEND_PATIENCE;
        loop {
            self.nemesis.cluster.await_whole(WHOLE_PATIENCE).await?;
            let compared = tokio::task::block_in_place(|| logs::compare(&self.nemesis.cluster))?;
            let line = format!("logs compared: {compared:?}");
            self.nemesis.trace.line(&line)?;
            if compared.damaged == 0 {
                return Ok(());
            }
            if Instant::now() > until {
                return Err(Failure(format!("damage of the logs stays: {compared:?}")));
            }
            sleep(Duration::from_secs(5)).await;
        }
    }

    /// Whether the run's time is over and a class has not been in effect yet: a slow machine gets as much
    /// time as it needs for one turn of all, but not for ever.
    fn owes_a_class(&self) -> bool {
        let now = Instant::now();
        let patience = self.plan.lasting * 2;
        let is_missing = |class: &Class| {
            self.nemesis
                .counts
                .get(class)
                .is_none_or(|count| count.done == 0)
        };
        now >= self.ends
            && now < self.ends + patience
            && self.plan.mix.iter().any(|(class, _)| is_missing(class))
    }

    /// The next of the schedule; now and then one that came to nothing before.
    fn next_episode(&mut self) -> Option<Episode> {
        const AGAIN_EVERY: usize = 4;
        if self.episodes.len().is_multiple_of(AGAIN_EVERY) && !self.again.is_empty() {
            self.episodes.next();
            return Some(self.again.remove(0));
        }
        self.episodes.next()
    }

    /// Gives false if its first fault had nothing to hit.
    async fn episode(&mut self, episode: &Episode, load: &mut Load) -> Outcome<bool> {
        self.pause(Duration::from_millis(episode.pause_ms), load)
            .await?;
        let victim = self.resolve(episode.victim);
        let line = format!("episode: {episode} that is {}", name_of(victim));
        self.nemesis.trace.line(&line)?;
        let started = Instant::now();
        let at = |ms: u64| started + Duration::from_millis(ms);
        let mut waiting: Vec<&Shot> = episode.shots.iter().collect();
        let mut active = Vec::new();
        let mut first_hit = None;
        while !waiting.is_empty() || !active.is_empty() {
            waiting.sort_by_key(|shot| std::cmp::Reverse(shot.after_ms));
            active.sort_by_key(|(ends, _)| std::cmp::Reverse(*ends));
            let next_shot = waiting.last().map(|shot| at(shot.after_ms));
            let next_heal = active.last().map(|(ends, _)| *ends);
            let is_shot = match (next_shot, next_heal) {
                (Some(shot), Some(heal)) => shot <= heal,
                (shot, _) => shot.is_some(),
            };
            let next = if is_shot { next_shot } else { next_heal };
            if let Some(next) = next {
                self.pause(next.saturating_duration_since(Instant::now()), load)
                    .await?;
            }
            if is_shot {
                if let Some(shot) = waiting.pop() {
                    let fault = self.nemesis.inject(shot, victim).await?;
                    first_hit.get_or_insert(fault.is_in_effect());
                    active.push((
                        Instant::now() + Duration::from_millis(shot.lasting_ms),
                        fault,
                    ));
                }
            } else if let Some((_, fault)) = active.pop() {
                self.nemesis.heal(fault).await?;
            }
        }
        self.nemesis.cluster.await_whole(WHOLE_PATIENCE).await?;
        let took = started.elapsed().as_millis();
        let line = format!("whole again {took} ms after the beginning");
        self.nemesis.trace.line(&line)?;
        Ok(first_hit.unwrap_or(false))
    }

    fn resolve(&self, victim: Victim) -> usize {
        let leader = |group| self.nemesis.cluster.view.leader_of(group).unwrap_or(group);
        match victim {
            Victim::Node(node) => node,
            Victim::Leader(group) => leader(group),
            Victim::Follower(group, step) => (leader(group) + step) % NODES,
        }
    }

    /// Lets time pass, and looks after processes and clients.
    async fn pause(&mut self, time: Duration, load: &mut Load) -> Outcome {
        let until = Instant::now() + time;
        loop {
            self.nemesis.cluster.check_running()?;
            load.check()?;
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            sleep(left.min(Duration::from_millis(100))).await;
        }
    }

    /// Copies the disks of all nodes beside the history.
    async fn keep_everything(&mut self) -> Outcome {
        for node in &mut self.nemesis.cluster.nodes {
            node.kill().await?;
        }
        let kept: &Path = &self.directory;
        for node in &self.nemesis.cluster.nodes {
            node.disk.keep(kept).await?;
        }
        let line = format!("history, logs and disk images are in {}", kept.display());
        self.nemesis.trace.line(&line)
    }
}
