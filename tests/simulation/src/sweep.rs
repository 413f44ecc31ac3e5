//! Many seeds, each in a process of its own: what a process draws of chance begins with the process, and a
//! seed that is stuck or ends in an abort is a failure like any other.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::ops::Range;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::steps::Step;

/// How often it is looked whether a process has ended.
const LOOK: Duration = Duration::from_millis(10);

/// Lines of a failed seed's output that are shown.
const SHOWN_LINES: usize = 12;

/// What stands in a seed's verdict before the steps at which leaders died.
pub const KILLED_AT: &str = "; leaders killed at: ";

/// Seeds among which each step must have been hit.
const SEEDS_FOR_EACH_STEP: u64 = 100;

/// How seeds are run.
#[derive(Clone, Debug)]
pub struct Sweep {
    /// Processes at the same time.
    pub jobs: usize,
    /// Wall-clock time after which a seed counts as stuck; seconds.
    pub patience_s: u64,
    /// The bug to plant.
    pub bug: Option<String>,
    /// Without messages that wait, are popped or handed back.
    pub plain: bool,
}

/// What a process said.
pub struct Ended {
    /// The seed.
    pub seed: u64,
    /// Whether all was well.
    pub passed: bool,
    /// Everything it printed.
    pub text: String,
}

impl Ended {
    /// The line that says what became of the seed.
    fn verdict(&self) -> &str {
        let head = format!("seed {} ", self.seed);
        let found = self.text.lines().find(|line| line.starts_with(&head));
        found.unwrap_or("no verdict")
    }
}

/// Runs seeds and prints a line for each that fails, and the sums. True if none failed.
///
/// # Errors
/// Processes cannot be started.
pub fn seeds(sweep: &Sweep, seeds: Range<u64>) -> Result<bool, String> {
    let began = Instant::now();
    let total = seeds.end - seeds.start;
    let (mut passed, mut failed) = (0, 0);
    let mut killed = BTreeMap::new();
    each(sweep, seeds, |ended| {
        count_killed(ended.verdict(), &mut killed);
        if ended.passed {
            passed += 1;
        } else {
            failed += 1;
            print_failure(sweep, &ended);
        }
        progress(&format!(
            "{} of {total} seeds, {failed} failed",
            passed + failed
        ));
        true
    })?;
    let seconds = began.elapsed().as_secs();
    println!("{passed} passed, {failed} failed in {seconds} s");
    let all_hit = sweep.plain || print_killed(&killed) || total < SEEDS_FOR_EACH_STEP;
    Ok(failed == 0 && all_hit)
}

/// Adds the steps of a seed at which leaders died.
fn count_killed(verdict: &str, killed: &mut BTreeMap<String, u64>) {
    let steps = verdict.split_once(KILLED_AT).map_or("", |(_, steps)| steps);
    for (name, count) in steps.split(", ").filter_map(|one| one.split_once(' ')) {
        let count: u64 = count.parse().unwrap_or(0);
        *killed.entry(name.to_string()).or_default() += count;
    }
}

/// Says how often a leader died at each step; whether it did at all of them.
fn print_killed(killed: &BTreeMap<String, u64>) -> bool {
    let names = Step::ALL.map(|step| format!("{step:?}"));
    let of = |name: &String| killed.get(name).copied().unwrap_or(0);
    let hit = names.iter().filter(|name| of(name) > 0);
    let hit: Vec<String> = hit.map(|name| format!("{name} {}", of(name))).collect();
    let never = names.iter().filter(|name| of(name) == 0);
    let never: Vec<&str> = never.map(String::as_str).collect();
    println!("leaders killed at: {}", hit.join(", "));
    if !never.is_empty() {
        println!("no leader was killed at: {}", never.join(", "));
    }
    never.is_empty()
}

/// Runs each seed twice and compares. True if the two runs of each were the same.
///
/// # Errors
/// Processes cannot be started.
pub fn replays(sweep: &Sweep, seeds: Range<u64>) -> Result<bool, String> {
    let mut verdicts: BTreeMap<u64, String> = BTreeMap::new();
    let mut differ = 0;
    for _ in 0..2 {
        each(sweep, seeds.clone(), |ended| {
            let verdict = ended.verdict().to_string();
            match verdicts.get(&ended.seed) {
                Some(first) if *first != verdict => {
                    differ += 1;
                    println!("seed {} differs:\n  {first}\n  {verdict}", ended.seed);
                }
                _ => {}
            }
            verdicts.insert(ended.seed, verdict);
            true
        })?;
    }
    let same = verdicts.len() as u64 - differ;
    println!("{same} replayed exactly, {differ} did not");
    Ok(differ == 0)
}

/// Runs seeds in order, several at a time, until `take` says that it is enough.
///
/// # Errors
/// Processes cannot be started.
pub fn each(
    sweep: &Sweep,
    seeds: Range<u64>,
    mut take: impl FnMut(Ended) -> bool,
) -> Result<(), String> {
    let mut running: Vec<Running> = Vec::new();
    let mut seeds = seeds;
    loop {
        while running.len() < sweep.jobs
            && let Some(seed) = seeds.next()
        {
            running.push(Running::start(sweep, seed)?);
        }
        if running.is_empty() {
            return Ok(());
        }
        let Some(at) = running.iter_mut().position(Running::has_ended) else {
            thread::sleep(LOOK);
            continue;
        };
        if !take(running.swap_remove(at).finish()) {
            return Ok(());
        }
    }
}

/// All threads of this process on one processor, which they pass on to each other.
pub fn stay_on_one_processor() {
    let mut here = rustix::thread::CpuSet::new();
    here.set(rustix::thread::sched_getcpu());
    // It is only quicker.
    let _ = rustix::thread::sched_setaffinity(None, &here);
}

/// A process that runs a seed.
struct Running {
    seed: u64,
    child: Child,
    reading: Option<thread::JoinHandle<String>>,
    began: Instant,
    patience: Duration,
    stuck: bool,
}

impl Running {
    fn start(sweep: &Sweep, seed: u64) -> Result<Self, String> {
        let own = std::env::current_exe().map_err(|error| error.to_string())?;
        let mut command = Command::new(own);
        command.arg("--seed").arg(seed.to_string());
        if let Some(bug) = &sweep.bug {
            command.arg("--bug").arg(bug);
        }
        if sweep.plain {
            command.arg("--plain");
        }
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|error| error.to_string())?;
        let (mut out, mut err) = (child.stdout.take(), child.stderr.take());
        let reading = thread::spawn(move || {
            // One after the other: neither is long enough to fill a pipe.
            let mut text = String::new();
            for stream in [
                out.as_mut().map(|out| out as &mut dyn Read),
                err.as_mut().map(|err| err as &mut dyn Read),
            ] {
                if let Some(stream) = stream
                    && let Err(error) = stream.read_to_string(&mut text)
                {
                    text += &format!("output cannot be read: {error}");
                }
            }
            text
        });
        Ok(Running {
            seed,
            child,
            reading: Some(reading),
            began: Instant::now(),
            patience: Duration::from_secs(sweep.patience_s),
            stuck: false,
        })
    }

    fn has_ended(&mut self) -> bool {
        if !self.stuck && self.began.elapsed() > self.patience {
            self.stuck = true;
            // It may have ended just now.
            drop(self.child.kill());
        }
        !matches!(self.child.try_wait(), Ok(None))
    }

    fn finish(mut self) -> Ended {
        let status = self.child.wait();
        let reading = self.reading.take().map(thread::JoinHandle::join);
        let mut text = match reading {
            Some(Ok(text)) => text,
            _ => "output cannot be read".to_string(),
        };
        if self.stuck {
            let seconds = self.patience.as_secs();
            text += &format!("\n  stuck: no end after {seconds} s\n");
        }
        Ended {
            seed: self.seed,
            passed: status.is_ok_and(|status| status.success()),
            text,
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // One that has ended cannot be killed any more.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn print_failure(sweep: &Sweep, ended: &Ended) {
    progress("");
    println!("seed {} failed", ended.seed);
    for line in ended.text.lines().take(SHOWN_LINES) {
        println!("    {line}");
    }
    let bug = sweep.bug.as_ref().map(|bug| format!(" --bug {bug}"));
    let bug = bug.unwrap_or_default();
    let own = std::env::args().next().unwrap_or_default();
    println!(
        "  again: {own} --seed {} --trace trace.txt{bug}",
        ended.seed
    );
}

/// Replaces the line that says how far a sweep is.
pub fn progress(text: &str) {
    eprint!("\r\x1b[K{text}");
    drop(std::io::stderr().flush());
}
