//! Everything that a run makes on the machine ends with it, however it ends.
//!
//! The harness runs itself again as the first process of namespaces of its own (`unshare`). Mounts, network
//! devices, further namespaces and processes belong to these: when the first process is gone, the kernel
//! takes all of them away, so that neither Ctrl-C nor `kill -9` leaves anything but files in the output
//! directory.

use std::os::unix::process::CommandExt;
use std::process::Command;

use crate::shell::{Failure, Outcome, failure, run};

const INSIDE: &str = "GANTRY_CHAOS_INSIDE";

/// Runs this program again inside; returns when it is inside.
pub fn enter() -> Outcome {
    if std::env::var_os(INSIDE).is_some() {
        return Ok(());
    }
    if !rustix::process::getuid().is_root() {
        return failure("namespaces, mounts and firewalls need root: run as root");
    }
    let own = std::env::current_exe()
        .map_err(|error| Failure(format!("cannot find this program's own file: {error}")))?;
    let error = Command::new("unshare")
        .args([
            "--mount",
            "--pid",
            "--net",
            "--fork",
            "--kill-child",
            "--mount-proc",
        ])
        .args(["--propagation", "private"])
        .arg(own)
        .args(std::env::args_os().skip(1))
        .env(INSIDE, "1")
        .exec();
    failure(format!(
        "unshare (Debian package util-linux) cannot be run: {error}"
    ))
}

/// Makes the place for named network namespaces and brings the loopback up.
pub async fn furnish() -> Outcome {
    run("mkdir", &["-p", "/run/netns"]).await?;
    run("mount", &["-t", "tmpfs", "chaos-netns", "/run/netns"]).await?;
    run("ip", &["link", "set", "lo", "up"]).await?;
    Ok(())
}
