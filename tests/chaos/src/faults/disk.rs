//! Disks that are full, slow, failing, or empty.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;
use tokio::time::{Instant, sleep};

use super::{ANSWER_PATIENCE, Effect, Nemesis};
use crate::disk::text;
use crate::net::name_of;
use crate::random::Random;
use crate::shell::{Outcome, run, while_doing};

const BLKIO: &str = "/sys/fs/cgroup/blkio";
const FILLER: &str = "filler";
/// How long a failing call is waited for, and then the end of the process.
const STRIKE_PATIENCE: Duration = Duration::from_secs(8);

fn moot(node: usize) -> Outcome<Effect> {
    Ok(Effect::Moot(format!("{} is down", name_of(node))))
}

/// Fills the disk to the last block or nearly so.
pub async fn fill(nemesis: &mut Nemesis, node: usize, dice: u64) -> Outcome<Effect> {
    nemesis.cluster.full[node] = true;
    let disk = &nemesis.cluster.nodes[node].disk;
    let (used, size) = disk.usage()?;
    let left = Random::new(dice)
        .pick(&[0, 64 << 10, 1 << 20, 16 << 20, 64 << 20])
        .to_owned();
    let wanted = size.saturating_sub(used + left);
    let filler = disk.mount.join(FILLER);
    // It allocates what there is and fails when that is less than asked for, which is as full as can be.
    let filled = run("fallocate", &["-l", &wanted.to_string(), text(&filler)]).await;
    let (used, _) = disk.usage()?;
    let free = size.saturating_sub(used);
    if let Err(error) = filled
        && free > left + (1 << 20)
    {
        return Err(error);
    }
    let detail = format!("{} bytes are free on the disk of {}", free, name_of(node));
    Ok(Effect::Done {
        nodes: vec![node],
        detail,
    })
}

/// Frees it. A node that has stopped because it was full is started.
pub async fn free(nemesis: &mut Nemesis, node: usize) -> Outcome {
    let filler = nemesis.cluster.nodes[node].disk.mount.join(FILLER);
    run("rm", &["-f", text(&filler)]).await?;
    nemesis.cluster.check_running()?;
    nemesis.cluster.full[node] = false;
    if nemesis.cluster.start_if_down(node)? {
        let line = format!("{} had stopped because its disk was full", name_of(node));
        nemesis.trace.line(&line)?;
        nemesis.cluster.nodes[node]
            .await_answer(ANSWER_PATIENCE)
            .await?;
    }
    Ok(())
}

/// Whether writes can be slowed down.
pub fn probe_slow() -> Result<(), String> {
    if PathBuf::from(BLKIO)
        .join("blkio.throttle.write_bps_device")
        .exists()
    {
        return Ok(());
    }
    Err(format!("{BLKIO} is not a version 1 blkio cgroup"))
}

fn slow_group(node: usize) -> PathBuf {
    PathBuf::from(BLKIO).join(format!("gantry-chaos-{}", name_of(node)))
}

/// Lets the node write so many bytes a second.
pub async fn slow(nemesis: &Nemesis, node: usize, dice: u64) -> Outcome<Effect> {
    let Some(pid) = nemesis.cluster.nodes[node].pid() else {
        return moot(node);
    };
    let rate = Random::new(dice).between(100_000, 2_000_000);
    let group = slow_group(node);
    let device = nemesis.cluster.nodes[node].disk.device().await?;
    let doing = || while_doing::<std::io::Error>("slowing a disk down");
    std::fs::create_dir_all(&group).map_err(doing())?;
    let limit = format!("{device} {rate}");
    std::fs::write(group.join("blkio.throttle.write_bps_device"), limit).map_err(doing())?;
    std::fs::write(group.join("cgroup.procs"), pid.to_string()).map_err(doing())?;
    let detail = format!("the disk of {} writes {rate} bytes a second", name_of(node));
    Ok(Effect::Done {
        nodes: vec![node],
        detail,
    })
}

/// Gives the disk its speed back.
pub async fn unslow(node: usize) -> Outcome {
    let group = slow_group(node);
    let doing = || while_doing::<std::io::Error>("giving a disk its speed back");
    let members = std::fs::read_to_string(group.join("cgroup.procs"));
    // Without the directory there is nothing to undo.
    let Ok(members) = members else {
        return Ok(());
    };
    for pid in members.lines() {
        let moved = std::fs::write(PathBuf::from(BLKIO).join("cgroup.procs"), pid);
        // A process that has ended in the meantime needs no room.
        if let Err(error) = moved
            && error.raw_os_error() != Some(rustix::io::Errno::SRCH.raw_os_error())
        {
            return Err(doing()(error));
        }
    }
    let until = Instant::now() + Duration::from_secs(2);
    loop {
        match std::fs::remove_dir(&group) {
            Ok(()) => return Ok(()),
            Err(error) if Instant::now() > until => return Err(doing()(error)),
            Err(_) => sleep(Duration::from_millis(20)).await,
        }
    }
}

/// Lets a write or a sync of the node fail with EIO, and all after it; the process must end by itself.
pub async fn fail(nemesis: &mut Nemesis, node: usize, dice: u64) -> Outcome<Effect> {
    let Some(pid) = nemesis.cluster.nodes[node].pid() else {
        return moot(node);
    };
    let mut random = Random::new(dice);
    let call = *random.pick(&["pwritev2", "pwritev2", "fdatasync"]);
    let when = random.between(1, 8);
    let mut strace = Command::new("strace")
        .args([
            "-f",
            "-qq",
            "-o",
            "/dev/null",
            "-e",
            &format!("trace={call}"),
        ])
        .args(["-e", &format!("inject={call}:error=EIO:when={when}+")])
        .args(["-p", &pid.to_string()])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .map_err(while_doing("strace"))?;
    let ended = nemesis.cluster.nodes[node].await_end(STRIKE_PATIENCE).await;
    strace.kill().await.map_err(while_doing("ending strace"))?;
    let Some(status) = ended? else {
        return Ok(Effect::Moot(format!(
            "{} called no {call} that failed",
            name_of(node)
        )));
    };
    nemesis.hold(node);
    let detail = format!(
        "{call} of {} gave EIO; it ended with {status}",
        name_of(node)
    );
    Ok(Effect::Done {
        nodes: vec![node],
        detail,
    })
}

/// The node loses its disk and comes back with an empty one.
pub async fn wipe(nemesis: &mut Nemesis, node: usize) -> Outcome<Effect> {
    nemesis.cluster.nodes[node].kill().await?;
    nemesis.hold(node);
    nemesis.cluster.nodes[node].disk.replace().await?;
    let detail = format!("{} has an empty disk", name_of(node));
    Ok(Effect::Done {
        nodes: vec![node],
        detail,
    })
}
