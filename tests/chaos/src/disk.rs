//! A disk for each node: an image on a tmpfs, mounted as ext4, whose power can be cut.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::shell::{Failure, Outcome, failure, run, while_doing};

/// Size of each image, sparse.
const IMAGE: &str = "2G";

/// The disk of one node.
#[derive(Clone, Debug)]
pub struct Disk {
    image: PathBuf,
    /// Where it is mounted.
    pub mount: PathBuf,
}

/// Mounts the tmpfs that holds the images.
pub async fn prepare(directory: &Path) -> Outcome {
    run("mkdir", &["-p", text(directory)]).await?;
    run(
        "mount",
        &[
            "-t",
            "tmpfs",
            "-o",
            "size=12G",
            "chaos-disks",
            text(directory),
        ],
    )
    .await?;
    Ok(())
}

/// A path for a command line.
pub fn text(path: &Path) -> &str {
    path.to_str()
        .expect("the harness makes its paths of plain letters")
}

impl Disk {
    /// A fresh disk, formatted and mounted.
    pub async fn create(images: &Path, mount: PathBuf, name: &str) -> Outcome<Self> {
        let image = images.join(format!("{name}.img"));
        let disk = Self { image, mount };
        run("mkdir", &["-p", text(&disk.mount)]).await?;
        disk.format().await?;
        disk.mount().await?;
        Ok(disk)
    }

    async fn format(&self) -> Outcome {
        run("rm", &["-f", text(&self.image)]).await?;
        run("truncate", &["-s", IMAGE, text(&self.image)]).await?;
        let lazy = "lazy_itable_init=1,lazy_journal_init=1,nodiscard";
        run(
            "mkfs.ext4",
            &["-q", "-F", "-m", "0", "-E", lazy, text(&self.image)],
        )
        .await?;
        Ok(())
    }

    async fn mount(&self) -> Outcome {
        let options = "loop,noatime,discard";
        run(
            "mount",
            &["-o", options, text(&self.image), text(&self.mount)],
        )
        .await?;
        Ok(())
    }

    /// Takes it off; whoever used it must be gone.
    pub async fn unmount(&self) -> Outcome {
        // The kernel may still be putting away what belonged to a process killed a moment ago.
        let mut last = Failure(String::new());
        for _ in 0..100 {
            match run("umount", &[text(&self.mount)]).await {
                Ok(_) => return Ok(()),
                Err(error) => last = error,
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Err(last)
    }

    /// Cuts the power: what was not synced is gone. Whoever wrote must be frozen or gone. The disk is as
    /// after the outage when [`Disk::power_on`] returns.
    pub async fn power_off(&self) -> Outcome {
        run("xfs_io", &["-x", "-c", "shutdown", text(&self.mount)])
            .await
            .map(|_| ())
    }

    /// Brings the disk back after [`Disk::power_off`].
    pub async fn power_on(&self) -> Outcome {
        self.unmount().await?;
        self.mount().await
    }

    /// Replaces the disk by an empty one.
    pub async fn replace(&self) -> Outcome {
        self.unmount().await?;
        self.format().await?;
        self.mount().await
    }

    /// The block device it is on, as `7:3`.
    pub async fn device(&self) -> Outcome<String> {
        let found = run("findmnt", &["-n", "-o", "MAJ:MIN", text(&self.mount)]).await?;
        Ok(found.trim().to_string())
    }

    /// Bytes in use and in all.
    pub fn usage(&self) -> Outcome<(u64, u64)> {
        let found = rustix::fs::statvfs(&self.mount).map_err(while_doing("statvfs"))?;
        let size = found.f_blocks * found.f_frsize;
        Ok((size - found.f_bavail * found.f_frsize, size))
    }

    /// Copies the image, holes left out; the node should not be writing.
    pub async fn keep(&self, directory: &Path) -> Outcome {
        run("sync", &["-f", text(&self.mount)]).await?;
        run(
            "cp",
            &["--sparse=always", text(&self.image), text(directory)],
        )
        .await?;
        Ok(())
    }
}

/// Every file below a directory.
pub fn files(directory: &Path) -> Outcome<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut open = vec![directory.to_path_buf()];
    while let Some(next) = open.pop() {
        let entries =
            std::fs::read_dir(&next).map_err(while_doing(format!("{}", next.display())))?;
        for entry in entries {
            let path = entry.map_err(while_doing("reading a directory"))?.path();
            if path.is_dir() {
                open.push(path);
            } else {
                found.push(path);
            }
        }
    }
    if found.is_empty() {
        return failure(format!("{} holds no files", directory.display()));
    }
    found.sort();
    Ok(found)
}
