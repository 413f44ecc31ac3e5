//! Brokers and name servers: clusterList, brokerStatus, getBrokerConfig, updateBrokerConfig, statsAll,
//! wipeWritePerm, addWritePerm, updateKvConfig, deleteKvConfig.

use std::collections::BTreeMap;
use std::time::Duration;

use gantry_protocol::bodies::{ConsumeStats, CounterStats, CounterWindow};
use gantry_protocol::headers::{
    AddWritePermResponse, BrokerWritePermRequest, ConsumeStatsRequest, CounterRequest, KvRequest,
    PutKvRequest, WipeWritePermResponse,
};
use gantry_protocol::topic::{DEAD_LETTER_PREFIX, RETRY_PREFIX};
use gantry_protocol::{RequestCode, ResponseCode};

use super::call::{Call, body, request};
use super::format;
use crate::cli::failure::{Failure, Outcome};
use crate::cli::output;
use crate::client::BrokerGroup;

type Table = BTreeMap<String, String>;

const HOUR_MS: f64 = 3_600_000.0;

pub(super) async fn list(call: Call) -> Outcome {
    let interval: Option<u64> = match call.option('i') {
        Some(_) => Some(call.number('i', 0)?),
        None => None,
    };
    loop {
        let mut groups = match call.option('c') {
            Some(cluster) => call.groups_of_cluster(cluster).await?,
            None => call.client.groups().await?,
        };
        groups.sort_by(|a, b| (&a.cluster, &a.name).cmp(&(&b.cluster, &b.name)));
        if call.has('m') {
            more_stats(&call, &groups).await?;
        } else {
            base_info(&call, &groups).await?;
        }
        let Some(seconds) = interval.filter(|seconds| *seconds > 0) else {
            return Ok(());
        };
        output::line("")?;
        tokio::time::sleep(Duration::from_secs(seconds)).await;
    }
}

/// What each node says; nothing of one that cannot be reached.
async fn tables(call: &Call, groups: &[BrokerGroup]) -> Vec<(BrokerGroup, i64, String, Table)> {
    let mut tables = Vec::new();
    for group in groups {
        for (id, address) in &group.addresses {
            let table = match call.client.runtime_info(address).await {
                Ok(table) => table.table,
                Err(error) => {
                    output::note(&error.to_string());
                    Table::new()
                }
            };
            tables.push((group.clone(), *id, address.clone(), table));
        }
    }
    tables
}

async fn base_info(call: &Call, groups: &[BrokerGroup]) -> Outcome {
    output::line(&format!(
        "{:<22}  {:<22}  {:<4}  {:<22} {:<16}  {:>16}  {:>30}  {:<22}  {:<11}  {:<12}  {:<8}  {:<10}",
        "#Cluster Name",
        "#Broker Name",
        "#BID",
        "#Addr",
        "#Version",
        "#InTPS(LOAD)",
        "#OutTPS(LOAD)",
        "#Timer(Progress)",
        "#PCWait(ms)",
        "#Hour",
        "#SPACE",
        "#ACTIVATED"
    ))?;
    for (group, id, address, table) in tables(call, groups).await {
        let text = |key: &str| table.get(key).map_or("", String::as_str);
        let number = |key: &str| text(key).parse::<f64>().unwrap_or(0.0);
        let rate = |key: &str| {
            let first = text(key).split(' ').next().unwrap_or_default();
            first.parse::<f64>().unwrap_or(0.0)
        };
        let queue = |name: &str| {
            let size = text(&format!("{name}ThreadPoolQueueSize"));
            let wait = text(&format!("{name}ThreadPoolQueueHeadWaitTimeMills"));
            format!("{size},{wait}ms")
        };
        let coming = format!("{:9.2}({})", rate("putTps"), queue("send"));
        let going = format!(
            "{:9.2}({}|{})",
            rate("getTransferredTps"),
            queue("pull"),
            queue("ack")
        );
        let timer = format!(
            "{}-{}({:.1}w, {:.1}, {:.1})",
            number("timerReadBehind"),
            number("timerOffsetBehind"),
            number("timerCongestNum") / 10_000.0,
            number("timerEnqueueTps"),
            number("timerDequeueTps")
        );
        let earliest = number("earliestMessageTimeStamp");
        let hours = if earliest > 0.0 {
            (format::parse_time("now")? as f64 - earliest) / HOUR_MS
        } else {
            0.0
        };
        output::line(&format!(
            "{:<22}  {:<22}  {id:<4}  {address:<22} {:<16}  {coming:>16}  {going:>30}  {timer:<22}  \
             {:>11}  {:<12}  {:<8}  {:>10}",
            group.cluster,
            group.name,
            text("brokerVersionDesc"),
            text("pageCacheLockTimeMills"),
            format!("{hours:.2}"),
            format!("{:.4}", number("commitLogDiskRatio")),
            text("brokerActive") == "true",
        ))?;
    }
    Ok(())
}

async fn more_stats(call: &Call, groups: &[BrokerGroup]) -> Outcome {
    output::line(&format!(
        "{:<16}  {:<32} {:>14} {:>14} {:>14} {:>14}",
        "#Cluster Name",
        "#Broker Name",
        "#InTotalYest",
        "#OutTotalYest",
        "#InTotalToday",
        "#OutTotalToday"
    ))?;
    for (group, _, _, table) in tables(call, groups).await {
        let number = |key: &str| -> i64 {
            table
                .get(key)
                .and_then(|text| text.parse().ok())
                .unwrap_or(0)
        };
        let day = |way: &str, from: &str, to: &str| {
            number(&format!("msg{way}Total{to}")) - number(&format!("msg{way}Total{from}"))
        };
        output::line(&format!(
            "{:<16}  {:<32} {:>14} {:>14} {:>14} {:>14}",
            group.cluster,
            group.name,
            day("Put", "YesterdayMorning", "TodayMorning"),
            day("Get", "YesterdayMorning", "TodayMorning"),
            day("Put", "TodayMorning", "TodayNow"),
            day("Get", "TodayMorning", "TodayNow"),
        ))?;
    }
    Ok(())
}

pub(super) async fn status(call: Call) -> Outcome {
    let shows_address = call.option('b').is_none();
    for address in call.targets().await? {
        for (key, value) in call.client.runtime_info(&address).await?.table {
            output::line(&if shows_address {
                format!("{address:<24} {key:<32}: {value}")
            } else {
                format!("{key:<32}: {value}")
            })?;
        }
    }
    Ok(())
}

pub(super) async fn config(call: Call) -> Outcome {
    for address in call.targets().await? {
        let answer = call
            .ask(&address, request(RequestCode::GET_BROKER_CONFIG, |_| {}))
            .await?;
        output::line(&format!("============{address}============"))?;
        for line in String::from_utf8_lossy(&answer.body).lines() {
            let (key, value) = line.split_once('=').unwrap_or((line, ""));
            output::line(&format!("{key:<50}=  {value}"))?;
        }
        output::line("")?;
    }
    Ok(())
}

pub(super) async fn update_config(call: Call) -> Outcome {
    for address in call.targets().await? {
        let line = format!("{}={}\n", call.text('k'), call.text('v'));
        let asked = request(RequestCode::UPDATE_BROKER_CONFIG, |_| {}).with_body(line);
        call.ask(&address, asked).await?;
        output::line(&format!("update broker config success, {address}"))?;
    }
    Ok(())
}

/// A counter's windows over all brokers; empty where nothing was counted.
async fn counter(
    call: &Call,
    groups: &[BrokerGroup],
    (stats_name, stats_key): (&str, &str),
) -> Result<CounterStats, Failure> {
    let mut all = CounterStats::default();
    for group in groups {
        let header = CounterRequest {
            stats_name,
            stats_key,
        };
        let mut asked = request(RequestCode::VIEW_BROKER_STATS_DATA, |fields| {
            header.write(fields)
        });
        asked.fields.set("bname", &group.name);
        let timeout = super::call::TIMEOUT;
        let answer = match call.client.ask_group(group, asked, timeout).await {
            Ok(answer) => answer,
            Err(error) if error.code() == Some(ResponseCode::SYSTEM_ERROR) => continue,
            Err(error) => return Err(error.into()),
        };
        let stats = body(CounterStats::decode(&answer.body))?;
        for (sum, more) in [
            (&mut all.stats_minute, stats.stats_minute),
            (&mut all.stats_hour, stats.stats_hour),
            (&mut all.stats_day, stats.stats_day),
        ] {
            add(sum, more);
        }
    }
    Ok(all)
}

fn add(sum: &mut CounterWindow, more: CounterWindow) {
    sum.sum += more.sum;
    sum.tps += more.tps;
}

pub(super) async fn stats_all(call: Call) -> Outcome {
    output::line(&format!(
        "{:<64}  {:<64} {:>12} {:>11} {:>11} {:>14} {:>14}",
        "#Topic",
        "#Consumer Group",
        "#Accumulation",
        "#InTPS",
        "#OutTPS",
        "#InMsg24Hour",
        "#OutMsg24Hour"
    ))?;
    let wanted = |topic: &str| {
        let is_derived = topic.starts_with(RETRY_PREFIX) || topic.starts_with(DEAD_LETTER_PREFIX);
        !is_derived && call.option('t').is_none_or(|only| only == topic)
    };
    let topics = call.client.topics().await?;
    for topic in topics.iter().filter(|topic| wanted(topic)) {
        stats_of(&call, topic).await?;
    }
    Ok(())
}

async fn stats_of(call: &Call, topic: &str) -> Outcome {
    let groups = call.client.groups_of(topic).await?.unwrap_or_default();
    let put = counter(call, &groups, ("TOPIC_PUT_NUMS", topic)).await?;
    let (in_tps, in_day) = (put.stats_minute.tps, put.stats_day.sum);
    let only_active = call.has('a');
    let consumers = call.consumers_of(topic, &groups).await?;
    let shown_topic = format::front(topic, 64);
    if consumers.is_empty() && (!only_active || in_day > 0) {
        output::line(&format!(
            "{shown_topic:<64}  {:<64} {:>12} {in_tps:>11.2} {:>11} {in_day:>14} {:>14}",
            "", 0, "", "NO_CONSUMER"
        ))?;
    }
    for consumer in consumers {
        let key = format!("{topic}@{consumer}");
        let got = counter(call, &groups, ("GROUP_GET_NUMS", &key)).await?;
        let (out_tps, out_day) = (got.stats_minute.tps, got.stats_day.sum);
        if only_active && in_day == 0 && out_day == 0 {
            continue;
        }
        let behind = accumulated(call, &groups, (topic, &consumer)).await?;
        output::line(&format!(
            "{shown_topic:<64}  {:<64} {behind:>12} {in_tps:>11.2} {out_tps:>11.2} {in_day:>14} \
             {out_day:>14}",
            format::front(&consumer, 64)
        ))?;
    }
    Ok(())
}

async fn accumulated(
    call: &Call,
    groups: &[BrokerGroup],
    (topic, consumer_group): (&str, &str),
) -> Result<i64, Failure> {
    let mut behind = 0;
    for group in groups {
        let header = ConsumeStatsRequest {
            consumer_group,
            topic: Some(topic),
            ..ConsumeStatsRequest::default()
        };
        let asked = request(RequestCode::GET_CONSUME_STATS, |fields| {
            header.write(fields)
        });
        let answer = call.ask_group(group, asked).await?;
        let stats = body(ConsumeStats::decode(&answer.body))?;
        let rows = stats.offset_table.values();
        behind += rows
            .map(|row| (row.broker_offset - row.consumer_offset).max(0))
            .sum::<i64>();
    }
    Ok(behind)
}

pub(super) async fn wipe_write(call: Call) -> Outcome {
    let count = |fields: &gantry_protocol::Fields| {
        WipeWritePermResponse::parse(fields).map(|answer| answer.wipe_topic_count)
    };
    change_write(
        &call,
        (RequestCode::WIPE_WRITE_PERM_OF_BROKER, "wipe"),
        count,
    )
    .await
}

pub(super) async fn add_write(call: Call) -> Outcome {
    let count = |fields: &gantry_protocol::Fields| {
        AddWritePermResponse::parse(fields).map(|answer| answer.add_topic_count)
    };
    change_write(&call, (RequestCode::ADD_WRITE_PERM_OF_BROKER, "add"), count).await
}

/// Asks every name server, as scripts expect a line of each; one would do.
async fn change_write(
    call: &Call,
    (code, verb): (RequestCode, &str),
    count: impl Fn(&gantry_protocol::Fields) -> Result<i32, gantry_protocol::FieldError>,
) -> Outcome {
    let broker_name = call.text('b');
    let mut failed = None;
    for server in servers(&call.servers) {
        let asked = request(code, |fields| {
            BrokerWritePermRequest { broker_name }.write(fields)
        });
        let place = format!("{verb} write perm of broker[{broker_name}] in name server[{server}]");
        match call.ask(server, asked).await {
            Ok(answer) => {
                let count = body(count(&answer.fields))?;
                output::line(&format!("{place} OK, {count}"))?;
            }
            Err(failure) => {
                output::line(&format!("{place} Failed"))?;
                failed = Some(failure);
            }
        }
    }
    failed.map_or(Ok(()), Err)
}

fn servers(list: &str) -> impl Iterator<Item = &str> {
    list.split([';', ','])
        .map(str::trim)
        .filter(|server| !server.is_empty())
}

/// Values are replicated: the first name server that answers has told all.
async fn ask_any_server(call: &Call, asked: gantry_protocol::RemotingCommand) -> Outcome {
    let mut failure = Failure::new("no name server is given");
    for server in servers(&call.servers) {
        match call
            .client
            .ask(server, asked.clone(), super::call::TIMEOUT)
            .await
        {
            Ok(_) => return Ok(()),
            Err(error) if error.is_unreachable() => failure = error.into(),
            Err(error) => return Err(error.into()),
        }
    }
    Err(failure)
}

pub(super) async fn put_value(call: Call) -> Outcome {
    let header = PutKvRequest {
        namespace: call.text('s'),
        key: call.text('k'),
        value: call.text('v'),
    };
    let asked = request(RequestCode::PUT_KV_CONFIG, |fields| header.write(fields));
    ask_any_server(&call, asked).await?;
    Ok(output::line(
        "create or update kv config to namespace success.",
    )?)
}

pub(super) async fn delete_value(call: Call) -> Outcome {
    let header = KvRequest {
        namespace: call.text('s'),
        key: call.text('k'),
    };
    let asked = request(RequestCode::DELETE_KV_CONFIG, |fields| header.write(fields));
    ask_any_server(&call, asked).await?;
    Ok(output::line("delete kv config from namespace success.")?)
}
