//! What reaches the disk of a write that the power cut interrupts.
//!
//! The log is written past the page cache with `O_DIRECT` and `RWF_DSYNC` (ADR 6): its bytes are durable
//! when the call returns, and until then any part of its blocks may be. So the process is stopped for good
//! on its way into `pwritev2` (strace sends SIGKILL at the entry, and writes down what was to be written),
//! and the harness then writes a random part of the blocks itself. Other files go through the page cache:
//! of their dirty pages, a random part is written with `sync_range` before the power is cut.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;

use crate::disk::{files, text};
use crate::net::name_of;
use crate::node::Node;
use crate::random::Random;
use crate::shell::{Failure, Outcome, failure, run, while_doing};

const BLOCK: usize = 4096;
const STRIKE_PATIENCE: Duration = Duration::from_secs(5);
/// Of each file, so many ranges of pages may be written.
const RANGES_MAX: usize = 16;

/// A write that was not carried out.
#[derive(Debug, PartialEq, Eq)]
struct Write {
    path: PathBuf,
    offset: u64,
    bytes: Vec<u8>,
}

/// Kills the node at the entry of a write of its log, and writes a part of it; says what was done.
pub async fn kill_in_write(node: &mut Node, random: &mut Random) -> Outcome<String> {
    let Some(pid) = node.pid() else {
        return Ok("it was down".to_string());
    };
    let log = node.disk.mount.with_extension("strace");
    let when = random.between(1, 4);
    let mut strace = Command::new("strace")
        .args([
            "-f",
            "-qq",
            "-y",
            "-xx",
            "-s",
            "16777216",
            "-e",
            "trace=pwritev2",
        ])
        .args(["-e", &format!("inject=pwritev2:signal=SIGKILL:when={when}")])
        .args(["-o", text(&log), "-p", &pid.to_string()])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .map_err(while_doing("strace"))?;
    let ended = node.await_end(STRIKE_PATIENCE).await?;
    // It ends with its process; where it does not, nothing was written in time.
    if ended.is_none() {
        strace.kill().await.map_err(while_doing("ending strace"))?;
        node.kill().await?;
        return Ok("no write was on its way".to_string());
    }
    strace.wait().await.map_err(while_doing("strace"))?;
    let traced = std::fs::read_to_string(&log).map_err(while_doing("reading a trace"))?;
    let mut written = Vec::new();
    for line in interrupted(&traced) {
        let write = parse(line).ok_or_else(|| {
            let start: String = line.chars().take(300).collect();
            Failure(format!("{}: not understood: {start}", name_of(node.number)))
        })?;
        written.push(tear(&write, random)?);
    }
    if written.is_empty() {
        return failure(format!(
            "{} was killed in a write of which there is no trace",
            log.display()
        ));
    }
    std::fs::remove_file(&log).map_err(while_doing("removing a trace"))?;
    Ok(written.join(", "))
}

/// Lines of writes that have begun and not returned.
fn interrupted(traced: &str) -> Vec<&str> {
    let mut open: Vec<&str> = Vec::new();
    for line in traced.lines() {
        let thread = line.split_whitespace().next().unwrap_or_default();
        let of_thread = |other: &&str| other.split_whitespace().next() == Some(thread);
        if line.contains("pwritev2(") {
            open.retain(|other| !of_thread(other));
            if !has_returned(line) {
                open.push(line);
            }
        } else if line.contains("pwritev2 resumed") && has_returned(line) {
            open.retain(|other| !of_thread(other));
        }
    }
    open
}

/// `... = 4096`; a call whose process was killed within it ends with `= ?` or not at all.
fn has_returned(line: &str) -> bool {
    let result = line.rsplit_once(" = ").map(|(_, result)| result.trim());
    result.is_some_and(|result| result != "?" && !line.ends_with("<unfinished ...>"))
}

/// `123 pwritev2(9</path>, [{iov_base="\x..", iov_len=4096}, ..], 2, 65536, RWF_DSYNC ..`
fn parse(line: &str) -> Option<Write> {
    let call = &line[line.find("pwritev2(")?..];
    let path = call.split_once('<')?.1.split_once('>')?.0;
    let path = PathBuf::from(String::from_utf8(unescaped(path)?).ok()?);
    let mut bytes = Vec::new();
    let mut rest = call;
    while let Some((_, after)) = rest.split_once("iov_base=\"") {
        let (data, after) = after.split_once('"')?;
        let data = unescaped(data)?;
        let length = after.split_once("iov_len=")?.1;
        let length: usize = length.split(['}', ',']).next()?.trim().parse().ok()?;
        if data.len() != length {
            return None;
        }
        bytes.extend_from_slice(&data);
        rest = after;
    }
    let (_, numbers) = rest.split_once(']')?;
    let mut numbers = numbers.split(',').map(str::trim);
    numbers.next()?;
    numbers.next()?.parse::<u64>().ok()?;
    let offset = call
        .rsplit_once(']')?
        .1
        .split(',')
        .nth(2)?
        .trim()
        .parse()
        .ok()?;
    Some(Write {
        path,
        offset,
        bytes,
    })
}

/// `\x41\x42`, or plain letters.
fn unescaped(text: &str) -> Option<Vec<u8>> {
    if !text.starts_with("\\x") {
        return Some(text.as_bytes().to_vec());
    }
    text.split("\\x")
        .skip(1)
        .map(|digits| u8::from_str_radix(digits, 16).ok())
        .collect()
}

/// Writes some blocks of a write, durably.
fn tear(write: &Write, random: &mut Random) -> Outcome<String> {
    let doing = || while_doing::<std::io::Error>(format!("tearing {}", write.path.display()));
    let file = OpenOptions::new()
        .write(true)
        .open(&write.path)
        .map_err(doing())?;
    let mut blocks: Vec<usize> = (0..write.bytes.len().div_ceil(BLOCK)).collect();
    let total = blocks.len();
    // A prefix, as most disks do it, or any blocks.
    if random.one_in(2) {
        blocks.truncate(random.below(total + 1));
    } else {
        blocks.retain(|_| random.one_in(2));
    }
    for block in &blocks {
        let start = block * BLOCK;
        let end = write.bytes.len().min(start + BLOCK);
        file.write_all_at(&write.bytes[start..end], write.offset + start as u64)
            .map_err(doing())?;
    }
    file.sync_data().map_err(doing())?;
    let name = write
        .path
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    Ok(format!(
        "{} of {total} blocks of a write of {name} arrived",
        blocks.len()
    ))
}

/// Writes a random part of the unsynced pages of all files but the segments.
pub async fn write_some_pages(node: &Node, random: &mut Random) -> Outcome<String> {
    let mut ranges = 0;
    for path in files(&node.data())? {
        let is_segment = path.extension().is_some_and(|ending| ending == "log");
        let length = std::fs::metadata(&path)
            .map_err(while_doing("a file's length"))?
            .len();
        if is_segment || length == 0 || random.one_in(3) {
            continue;
        }
        let pages = (length as usize).div_ceil(BLOCK);
        let mut commands = Vec::new();
        for _ in 0..random.between(1, RANGES_MAX as u64) {
            let first = random.below(pages) * BLOCK;
            let count = random.between(1, 4) as usize * BLOCK;
            commands.push(format!("sync_range -b -w -a {first} {count}"));
        }
        ranges += commands.len();
        sync_ranges(&path, &commands).await?;
    }
    Ok(format!("{ranges} ranges of other files written"))
}

async fn sync_ranges(path: &Path, commands: &[String]) -> Outcome {
    let mut arguments = Vec::new();
    for command in commands {
        arguments.extend(["-c", command.as_str()]);
    }
    arguments.push(text(path));
    run("xfs_io", &arguments).await.map(|_| ())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const CUT: &str = concat!(
        r#"12 pwritev2(9</a/b.log>, [{iov_base="\x41\x42", iov_len=2}, "#,
        r#"{iov_base="\x43", iov_len=1}], 2, 8192, RWF_DSYNC <unfinished ...>"#
    );

    #[test]
    fn a_traced_write_is_understood() {
        let write = parse(CUT).unwrap();
        let expected = Write {
            path: "/a/b.log".into(),
            offset: 8192,
            bytes: b"ABC".to_vec(),
        };
        assert_eq!(write, expected);
        assert_eq!(
            parse("12 pwritev2(9</a>, [{iov_base=\"\\x41\"..., iov_len=2}], 1, 0, 0"),
            None
        );
    }

    #[test]
    fn only_what_has_not_returned_is_interrupted() {
        let done = CUT.replace("<unfinished ...>", ") = 3");
        let other = CUT.replace("12 ", "13 ");
        let resumed = "13 <... pwritev2 resumed>) = 3";
        let killed = "12 <... pwritev2 resumed>)           = ?";
        let traced = [done.as_str(), &other, resumed, CUT, killed].join("\n");
        assert_eq!(interrupted(&traced), [CUT]);
    }
}
