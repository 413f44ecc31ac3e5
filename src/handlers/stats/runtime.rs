//! What a broker is doing, as tools read it: 28.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::time::Duration;

use gantry_protocol::bodies::KvTable;
use gantry_protocol::{RemotingCommand, ResponseCode, version};
use gantry_storage::LogIndex;
use gantry_storage::commitlog::CommitLog;
use gantry_storage::error::ReadError;
use gantry_storage::fs::{FileSystem, RealFs};
use prometheus::Histogram;
use prometheus::core::Metric;

use crate::broker::Broker;
use crate::catalog;
use crate::error::Failure;
use crate::group::Group;
use crate::handlers::Handled;
use crate::metrics::Way;
use crate::remoting::Request;

/// What tools read as the version, beside our own.
const PROTOCOL_VERSION: &str = "V5_3_3";

/// Keys whose value is three rates, and what of it is counted. RocketMQ 4 writes one of them with one r; its
/// `clusterList` and dashboard stop without it.
const RATES: [(&str, &[Way]); 6] = [
    ("putTps", &[Way::In]),
    ("getTransferedTps", &[Way::Out]),
    ("getTransferredTps", &[Way::Out]),
    ("getFoundTps", &[Way::Found]),
    ("getMissTps", &[Way::Missed]),
    ("getTotalTps", &[Way::Found, Way::Missed]),
];

/// What the three rates are over.
const RATE_TIMES: [Duration; 3] = [
    Duration::from_secs(10),
    Duration::from_secs(60),
    Duration::from_secs(600),
];

/// Keys of things that Gantry does not have, or that are always 0 in it.
const ZEROS: [&str; 21] = [
    "sendThreadPoolQueueSize",
    "sendThreadPoolQueueHeadWaitTimeMills",
    "pullThreadPoolQueueSize",
    "pullThreadPoolQueueHeadWaitTimeMills",
    "litePullThreadPoolQueueSize",
    "litePullThreadPoolQueueHeadWaitTimeMills",
    "queryThreadPoolQueueSize",
    "queryThreadPoolQueueHeadWaitTimeMills",
    "ackThreadPoolQueueSize",
    "ackThreadPoolQueueHeadWaitTimeMills",
    "EndTransactionQueueSize",
    "pageCacheLockTimeMills",
    "dispatchBehindBytes",
    "timerReadBehind",
    "timerOffsetBehind",
    "timerCongestNum",
    "getMessageEntireTimeMax",
    "remainTransientStoreBufferNumbs",
    "startAcceptSendRequestTimeStamp",
    "timerEnqueueTps",
    "timerDequeueTps",
];

/// Keys of queues' capacities; nothing is queued by number of requests.
const CAPACITIES: [&str; 6] = [
    "sendThreadPoolQueueCapacity",
    "pullThreadPoolQueueCapacity",
    "litePullThreadPoolQueueCapacity",
    "queryThreadPoolQueueCapacity",
    "ackThreadPoolQueueCapacity",
    "EndTransactionThreadPoolQueueCapacity",
];

/// Delay levels, whose progress tools ask for.
const DELAY_LEVELS: usize = 18;

/// 28: what the broker is doing.
pub async fn runtime_info(group: &Group, broker: &Broker, request: &Request) -> Handled {
    let mut table = constants();
    add_log(&mut table, group);
    add_replica(&mut table, group);
    add_traffic(&mut table, group);
    let uptime = broker.sessions.uptime();
    let started_ms = broker
        .clock
        .now_ms()
        .saturating_sub(uptime.as_millis() as u64);
    table.insert("bootTimestamp".to_string(), started_ms.to_string());
    let uptime = uptime.as_secs();
    let (days, hours) = (uptime / 86_400, uptime / 3600 % 24);
    let (minutes, seconds) = (uptime / 60 % 60, uptime % 60);
    let runtime = format!("[ {days} days, {hours} hours, {minutes} minutes, {seconds} seconds ]");
    table.insert("runtime".to_string(), runtime);
    let (log, data) = (group.log.clone(), broker.config.data.clone());
    let looking = catalog::read_aside(group, move |_| Ok((earliest_ms(&log)?, Disk::of(&data))));
    let (earliest, disk) = looking.await?;
    table.insert("earliestMessageTimeStamp".to_string(), earliest.to_string());
    let disk = disk.map_err(|error| {
        let reason = format!("cannot ask for the free space: {error}");
        Failure::code(ResponseCode::SYSTEM_ERROR, reason)
    })?;
    add_disk(&mut table, &disk);
    let body = KvTable { table }.encode();
    Ok(RemotingCommand::success_to(&request.command)
        .with_body(body)
        .into())
}

type Table = BTreeMap<String, String>;

fn constants() -> Table {
    let zeros = ZEROS.iter().map(|key| (key.to_string(), "0".to_string()));
    let capacities = CAPACITIES
        .iter()
        .map(|key| (key.to_string(), "10000".to_string()));
    let levels = (1..=DELAY_LEVELS)
        .map(|level| (format!("scheduleMessageOffset_{level}"), "0,0".to_string()));
    let mut table: Table = zeros.chain(capacities).chain(levels).collect();
    table.insert("brokerActive".to_string(), "true".to_string());
    table.insert("brokerVersion".to_string(), version::CURRENT.to_string());
    table.insert(
        "brokerVersionDesc".to_string(),
        PROTOCOL_VERSION.to_string(),
    );
    table.insert(
        "gantry.version".to_string(),
        env!("CARGO_PKG_VERSION").to_string(),
    );
    table
}

fn add_log(table: &mut Table, group: &Group) {
    let bounds = group.log.bounds();
    let mut add = |key: &str, value: String| table.insert(key.to_string(), value);
    add("commitLogMinOffset", bounds.start_offset.get().to_string());
    add("commitLogMaxOffset", bounds.end_offset.get().to_string());
    let unflushed = group.log.unflushed_bytes();
    add("remainHowManyDataToFlush", unflushed.to_string());
}

fn add_traffic(table: &mut Table, group: &Group) {
    let traffic = &group.metrics.traffic;
    for (key, ways) in RATES {
        let rate = |time| {
            let spans = ways.iter().map(|way| traffic.lately(*way, time));
            spans
                .map(|span| span.per_second(span.messages))
                .sum::<f64>()
        };
        let [short, middle, long] = RATE_TIMES.map(rate);
        table.insert(key.to_string(), format!("{short} {middle} {long}"));
    }
    let (messages, bytes) = traffic.since_start(Way::In);
    let delivered = traffic.since_start(Way::Out).0;
    let ([put_before, got_before], [put_today, got_today]) = group.mornings.get();
    let latency_ms = |quantile| {
        let seconds = quantile_bound(&group.metrics.commit_seconds, quantile);
        format!("{:.3}", seconds * 1000.0)
    };
    let mut add = |key: &str, value: String| table.insert(key.to_string(), value);
    add("msgPutTotalYesterdayMorning", put_before.to_string());
    add("msgPutTotalTodayMorning", put_today.to_string());
    add("msgPutTotalTodayNow", messages.to_string());
    add("msgGetTotalYesterdayMorning", got_before.to_string());
    add("msgGetTotalTodayMorning", got_today.to_string());
    add("msgGetTotalTodayNow", delivered.to_string());
    let average = bytes as f64 / messages.max(1) as f64;
    add("putMessageAverageSize", average.to_string());
    add("putLatency99", latency_ms(0.99));
    add("putLatency999", latency_ms(0.999));
    let slowest = quantile_bound(&group.metrics.commit_seconds, 1.0) * 1000.0;
    add("putMessageEntireTimeMax", format!("{slowest:.0}"));
}

/// The upper end of the histogram's step that a quantile is in; 0 without a measurement.
fn quantile_bound(histogram: &Histogram, quantile: f64) -> f64 {
    let metric = histogram.metric();
    let counts = metric.get_histogram();
    let wanted = (counts.get_sample_count() as f64 * quantile).ceil() as u64;
    if wanted == 0 {
        return 0.0;
    }
    let mut greatest = 0.0;
    for step in counts.get_bucket() {
        greatest = step.upper_bound();
        if step.cumulative_count() >= wanted {
            break;
        }
    }
    greatest
}

/// When the first record that is still in the log and has a time was stored; 0 if there is none. Those before
/// the first batch have none.
fn earliest_ms(log: &CommitLog) -> Result<u64, ReadError> {
    const READ_BYTES: usize = 64 << 10;
    let bounds = log.bounds();
    let purged = bounds.purged.map(|(purged, _)| purged.next());
    let mut next = purged.unwrap_or(LogIndex::ZERO);
    let Some((last, _)) = bounds.last else {
        return Ok(0);
    };
    loop {
        let records = log.read(next, last.next(), READ_BYTES)?;
        let Some(behind) = records.last().map(|located| located.record.index.next()) else {
            return Ok(0);
        };
        let mut times = records.iter().map(|located| located.record.store_time_ms);
        if let Some(first) = times.find(|time_ms| *time_ms > 0) {
            return Ok(first);
        }
        next = behind;
    }
}

fn add_replica(table: &mut Table, group: &Group) {
    let status = group.replica.status();
    let index = |index: Option<u64>| index.map_or_else(|| "none".to_string(), |i| i.to_string());
    let leader = status
        .leadership
        .leader
        .map_or_else(|| "none".to_string(), |l| l.to_string());
    let mut add = |key: &str, value: String| table.insert(format!("gantry.{key}"), value);
    add("role", status.role.to_string());
    add("term", status.leadership.term.to_string());
    add("leader", leader);
    add("last", index(status.last));
    add("committed", index(status.committed));
    add("applied", index(status.applied));
}

/// Space of the file system that holds the data.
struct Disk {
    total_bytes: u64,
    free_bytes: u64,
}

impl Disk {
    fn of(path: &Path) -> io::Result<Disk> {
        let space = RealFs.space(path)?;
        Ok(Disk {
            total_bytes: space.total,
            free_bytes: space.free,
        })
    }

    fn used_ratio(&self) -> f64 {
        if self.total_bytes == 0 {
            return 0.0;
        }
        1.0 - self.free_bytes as f64 / self.total_bytes as f64
    }
}

fn add_disk(table: &mut Table, disk: &Disk) {
    let gibibytes = |bytes: u64| bytes as f64 / f64::from(1 << 30);
    let (total, free) = (gibibytes(disk.total_bytes), gibibytes(disk.free_bytes));
    let capacity = format!("Total : {total:.1} GiB, Free : {free:.1} GiB.");
    let ratio = format!("{:.4}", disk.used_ratio());
    table.insert("commitLogDirCapacity".to_string(), capacity);
    table.insert("commitLogDiskRatio".to_string(), ratio.clone());
    table.insert("consumeQueueDiskRatio".to_string(), ratio);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tools_find_what_they_parse_without_looking() {
        let mut table = constants();
        add_disk(
            &mut table,
            &Disk {
                total_bytes: 4 << 30,
                free_bytes: 3 << 30,
            },
        );
        assert_eq!(table["commitLogDiskRatio"], "0.2500");
        for key in ZEROS.iter().chain(&CAPACITIES) {
            assert!(table[*key].parse::<i64>().is_ok(), "{key}");
        }
        assert_eq!(table["scheduleMessageOffset_18"], "0,0");
    }

    #[test]
    fn a_quantile_is_the_end_of_its_step() {
        let steps = prometheus::HistogramOpts::new("h", "h").buckets(vec![0.001, 0.01, 0.1]);
        let Ok(histogram) = Histogram::with_opts(steps) else {
            panic!("the steps are in order");
        };
        assert!(
            quantile_bound(&histogram, 0.99).abs() < 1e-9,
            "nothing was measured"
        );
        for _ in 0..99 {
            histogram.observe(0.0005);
        }
        histogram.observe(0.05);
        assert!((quantile_bound(&histogram, 0.99) - 0.001).abs() < 1e-9);
        assert!((quantile_bound(&histogram, 1.0) - 0.1).abs() < 1e-9);
    }

    #[test]
    fn an_empty_file_system_is_not_a_division_by_zero() {
        assert_eq!(
            Disk {
                total_bytes: 0,
                free_bytes: 0
            }
            .used_ratio(),
            0.0
        );
    }
}
