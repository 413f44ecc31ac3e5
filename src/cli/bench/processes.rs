//! CPU time and memory of processes, as the kernel accounts them.

use std::fs;

use rustix::param::{clock_ticks_per_second, page_size};

/// What processes have used up to a moment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Usage {
    /// Seconds of CPU of all servers; `None` if one of them is not there or none was named.
    pub(super) server_cpu: Option<f64>,
    /// Seconds of CPU of this process.
    pub(super) client_cpu: Option<f64>,
    /// Resident bytes of the server that has most.
    pub(super) rss_bytes: Option<u64>,
}

impl Usage {
    /// Reads it now. Costs some file reads for each server.
    pub(super) fn now(servers: &[u32]) -> Usage {
        let found: Option<Vec<Process>> = servers.iter().map(|pid| process(*pid)).collect();
        let found = found.filter(|found| !found.is_empty());
        Usage {
            server_cpu: found
                .as_ref()
                .map(|found| found.iter().map(|one| one.cpu).sum()),
            client_cpu: process(std::process::id()).map(|own| own.cpu),
            rss_bytes: found.and_then(|found| found.iter().map(|one| one.rss_bytes).max()),
        }
    }
}

/// Whether there is such a process and it can be looked at.
pub(super) fn exists(pid: u32) -> bool {
    process(pid).is_some()
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Process {
    cpu: f64,
    rss_bytes: u64,
}

fn process(pid: u32) -> Option<Process> {
    parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// The name in parentheses may hold anything; fields are counted from its end.
fn parse(stat: &str) -> Option<Process> {
    let fields: Vec<&str> = stat[stat.rfind(')')? + 1..].split_whitespace().collect();
    let number = |position: usize| fields.get(position)?.parse::<u64>().ok();
    let ticks = number(11)? + number(12)?;
    Some(Process {
        cpu: ticks as f64 / clock_ticks_per_second() as f64,
        rss_bytes: number(21)? * page_size() as u64,
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_proc_is_read_past_an_odd_name() {
        let line = "7 (a) b (c)) S 1 7 7 0 -1 0 10 0 0 0 150 50 0 0 20 0 9 0 8 1000 3 18446744073709551615";
        let found = parse(line).unwrap();
        assert_eq!(found.cpu, 200.0 / clock_ticks_per_second() as f64);
        assert_eq!(found.rss_bytes, 3 * page_size() as u64);
        assert_eq!(parse("7 (short) S 1"), None);
    }

    #[test]
    fn a_server_that_is_gone_makes_the_sum_unknown() {
        let own = std::process::id();
        let usage = Usage::now(&[own]);
        assert!(usage.rss_bytes.unwrap() > 0 && usage.server_cpu.is_some());
        // Above the highest id that Linux gives.
        let usage = Usage::now(&[own, 1 << 23]);
        assert_eq!((usage.server_cpu, usage.rss_bytes), (None, None));
        assert!(exists(own) && !exists(1 << 23));
        assert_eq!(Usage::now(&[]).server_cpu, None);
    }
}
