//! The program as a user runs it: a cluster by `gantry dev`, and the commands against it.

#![allow(clippy::unwrap_used)]

#[path = "support/ports.rs"]
mod ports;

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use self::ports::Hundred;

const GANTRY: &str = env!("CARGO_BIN_EXE_gantry");

fn gantry(arguments: &[&str]) -> Output {
    Command::new(GANTRY)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

/// Runs a command that must succeed and print one JSON document.
fn json(arguments: &[&str]) -> Value {
    let output = gantry(arguments);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {errors}");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The standard error and exit code of a command that must fail.
fn refused(arguments: &[&str]) -> (String, i32) {
    let output = gantry(arguments);
    assert!(output.stdout.is_empty(), "{arguments:?}");
    (
        String::from_utf8(output.stderr).unwrap(),
        output.status.code().unwrap(),
    )
}

/// `gantry dev` with one node and two groups; stopped when dropped.
struct Dev {
    process: Child,
    data: tempfile::TempDir,
    nodes: Value,
    _ports: Hundred,
}

impl Dev {
    fn start() -> Dev {
        let ports = Hundred::claim();
        let data = tempfile::tempdir().unwrap();
        let mut process = Command::new(GANTRY)
            .args(["dev", "--json", "--nodes", "1", "--groups", "2"])
            .args(["--base-port", &ports.first.to_string(), "--data"])
            .arg(data.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let Ok(nodes) = serde_json::from_str(&line) else {
            let mut errors = String::new();
            process
                .stderr
                .take()
                .unwrap()
                .read_to_string(&mut errors)
                .unwrap();
            panic!("gantry dev printed {line:?} and {errors}");
        };
        Dev {
            process,
            data,
            nodes,
            _ports: ports,
        }
    }

    fn node(&self, member: &str) -> &str {
        self.nodes["nodes"][0][member].as_str().unwrap()
    }

    fn node_runs(&self) -> bool {
        let line = std::fs::read(format!("/proc/{}/cmdline", self.nodes["nodes"][0]["pid"]));
        line.is_ok_and(|line| !line.is_empty())
    }

    fn terminate(&mut self) -> i32 {
        let pid = rustix::process::Pid::from_raw(self.process.id() as i32).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        self.process.wait().unwrap().code().unwrap()
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        // Its node notices and stops too. After `terminate` there is nothing left to kill.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Sends the lines of a text.
fn send_lines(servers: &str, topic: &str, text: &str) -> Value {
    let mut process = Command::new(GANTRY)
        .args(["send", "--namesrv", servers, "--topic", topic, "-o", "json"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    process
        .stdin
        .take()
        .unwrap()
        .write_all(text.as_bytes())
        .unwrap();
    let output = process.wait_with_output().unwrap();
    assert!(output.status.success());
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Consumes so many messages in the name of a group; their bodies, sorted.
fn consume(servers: &str, topic: &str, group: &str, count: usize) -> Vec<String> {
    let output = gantry(&[
        "consume",
        "--namesrv",
        servers,
        "--topic",
        topic,
        "--group",
        group,
        "--count",
        &count.to_string(),
        "--timeout",
        "20s",
        "-o",
        "json",
    ]);
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let text = String::from_utf8(output.stdout).unwrap();
    let body = |line: &str| {
        let message: Value = serde_json::from_str(line).unwrap();
        message["body"].as_str().unwrap().to_string()
    };
    let mut bodies: Vec<String> = text.lines().map(body).collect();
    bodies.sort();
    bodies
}

#[test]
fn a_first_session() {
    let mut dev = Dev::start();
    let servers = dev.node("namesrv").to_string();
    let on = ["--namesrv", servers.as_str(), "-o", "json"];
    let ask = |words: &[&str]| json(&[words, &on].concat());

    assert_eq!(
        ask(&["topic", "create", "orders", "--queues", "2"])["queues"],
        2
    );
    assert_eq!(
        ask(&["topic", "list"])["topics"],
        serde_json::json!(["hello", "orders"])
    );

    let sent = send_lines(&servers, "orders", "a\nb\nc\n");
    assert_eq!(
        (&sent["sent"], &sent["failed"]),
        (&Value::from(3), &Value::from(0))
    );
    let numbered = ask(&[
        "send", "--topic", "orders", "--body", "m-{n}", "--count", "2",
    ]);
    assert_eq!(numbered["messages"].as_array().unwrap().len(), 2);

    assert_eq!(
        consume(&servers, "orders", "readers", 5),
        ["a", "b", "c", "m-1", "m-2"]
    );
    send_lines(&servers, "orders", "later\n");
    assert_eq!(
        consume(&servers, "orders", "readers", 1),
        ["later"],
        "goes on where it was"
    );
    assert_eq!(
        ask(&["group", "list"])["groups"],
        serde_json::json!(["readers"])
    );
    let group = ask(&["group", "describe", "readers"]);
    assert_eq!(group["online"], false);
    let lags = group["queues"]
        .as_array()
        .unwrap()
        .iter()
        .map(|queue| queue["lag"].as_i64().unwrap());
    assert_eq!(lags.sum::<i64>(), 0);

    let queues = ask(&["topic", "describe", "orders"])["queues"].take();
    let held = queues
        .as_array()
        .unwrap()
        .iter()
        .map(|queue| queue["max"].as_i64().unwrap());
    assert_eq!(
        (queues.as_array().unwrap().len(), held.sum::<i64>()),
        (4, 6)
    );

    assert_eq!(ask(&["topic", "delete", "orders"])["deleted"], "orders");
    let (message, code) = refused(&["topic", "describe", "orders", "--namesrv", &servers]);
    assert!(message.contains("does not exist") && code == 1, "{message}");

    let http = dev.node("http").to_string();
    assert!(
        gantry(&["status", "--http", &http, "--ready"])
            .status
            .success()
    );
    let status = json(&["status", "--http", &http, "-o", "json"]);
    assert_eq!(status["nodes"][0]["groups"][1]["role"], "leader");

    assert_eq!(dev.terminate(), 0);
    assert!(!dev.node_runs(), "a node outlives `gantry dev`");
    let (message, code) = refused(&["status", "--http", &http, "--ready"]);
    assert!(code == 1 && message.contains(&http), "{message}");
}

#[test]
fn a_node_does_not_outlive_a_killed_dev() {
    let mut dev = Dev::start();
    assert!(dev.node_runs());
    dev.process.kill().unwrap();
    dev.process.wait().unwrap();
    let started = Instant::now();
    while dev.node_runs() {
        assert!(
            started.elapsed() < Duration::from_secs(60),
            "the node goes on"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn ports_in_use_are_named_before_anything_is_started() {
    let dev = Dev::start();
    let port = dev.node("namesrv").rsplit_once(':').unwrap().1;
    let other = dev.data.path().join("other");
    let (message, code) = refused(&[
        "dev",
        "--nodes",
        "1",
        "--base-port",
        port,
        "--data",
        other.to_str().unwrap(),
    ]);
    assert!(
        message.contains(port) && message.contains("--base-port") && code == 1,
        "{message}"
    );
    assert!(!other.exists());
}

#[test]
fn a_failover_loses_nothing_and_fails_nothing() {
    let figures = json(&["demo", "failover", "--each", "1s", "-o", "json"]);
    assert_eq!(
        (&figures["lost"], &figures["failed"]),
        (&Value::from(0), &Value::from(0))
    );
    assert!(figures["acked"].as_u64().unwrap() > 0, "{figures}");
    assert_eq!(figures["group"], "broker-a");
}

/// Runs a benchmark for a short time; its JSON line, checked for what holds of every case.
fn bench(dev: &Dev, words: &[&str]) -> Value {
    let pid = dev.nodes["nodes"][0]["pid"].to_string();
    let always = [
        "--address",
        dev.node("namesrv"),
        "--pid",
        &pid,
        "--system",
        "here",
        "-o",
        "json",
    ];
    let line = json(&[&["bench"], words, &always].concat());
    let number = |name: &str| {
        line[name]
            .as_f64()
            .unwrap_or_else(|| panic!("{name}: {line}"))
    };
    assert_eq!(
        (&line["system"], &line["case"]),
        (&Value::from("here"), &Value::from(words[0]))
    );
    assert!(number("messages") > 0.0, "{line}");
    assert_eq!(
        (number("failed"), &line["first_failure"]),
        (0.0, &Value::Null),
        "{line}"
    );
    let close = |one: f64, other: f64| (one - other).abs() <= 0.01 * one.max(other) + 0.1;
    assert!(
        close(number("msgs_per_s"), number("messages") / number("seconds")),
        "{line}"
    );
    if line["size"].is_number() {
        let megabytes = number("msgs_per_s") * number("size") / 1e6;
        assert!(close(number("mb_per_s"), megabytes), "{line}");
    }
    let latencies = ["p50_ms", "p99_ms", "p999_ms", "max_ms"].map(number);
    assert!(latencies[0] > 0.0 && latencies.is_sorted(), "{line}");
    let cpu = number("server_cpu_pct") / 100.0 * number("seconds");
    let by_message = number("cpu_us_per_msg") * number("messages") / 1e6;
    // Percentages have one decimal, and CPU is accounted in hundredths of a second.
    assert!((cpu - by_message).abs() < 0.01, "{line}");
    assert!(
        number("rss_mb") > 1.0 && number("client_cpu_pct") >= 0.0,
        "{line}"
    );
    line
}

#[test]
fn every_benchmark_measures_what_it_says() {
    let dev = Dev::start();
    let short = ["--duration", "500ms", "--warm-up", "100ms"];
    let run = |words: &[&str]| bench(&dev, &[words, &short].concat());

    let produced = run(&["produce", "--outstanding", "7", "--size", "100"]);
    assert_eq!(
        (&produced["outstanding"], &produced["size"]),
        (&Value::from(7), &Value::from(100))
    );
    assert_eq!(
        (&produced["groups"], &produced["connections"]),
        (&Value::from(2), &Value::from(4))
    );
    let words = [
        "produce", "--topic", "b", "--topics", "2", "--queues", "1", "--batch", "10",
    ];
    let batched = run(&[&words[..], &["--header", "rocketmq"]].concat());
    assert_eq!(batched["messages"].as_u64().unwrap() % 10, 0);
    assert_eq!(
        (&batched["topics"], &batched["queues"]),
        (&Value::from(2), &Value::from(4))
    );
    let many = run(&[
        "produce",
        "--producers",
        "150",
        "--outstanding",
        "300",
        "--group",
        "broker-b",
    ]);
    assert_eq!(
        (&many["connections"], &many["groups"]),
        (&Value::from(150), &Value::from(1))
    );

    let read = run(&[
        "consume",
        "--topic",
        "c",
        "--fill",
        "500",
        "--size",
        "64",
        "--consumers",
        "2",
    ]);
    assert_eq!(
        (&read["messages"], &read["outstanding"]),
        (&Value::from(500), &Value::from(8))
    );
    let again = run(&["consume", "--topic", "c", "--header", "rocketmq"]);
    assert_eq!(
        (&again["messages"], &again["size"]),
        (&Value::from(500), &Value::Null)
    );

    let paced = run(&["latency", "--rate", "400"]);
    let through = run(&[
        "end-to-end",
        "--topic",
        "e",
        "--rate",
        "400",
        "--size",
        "16",
    ]);
    // Every message that was scheduled is accounted for, however late.
    assert_eq!(
        (&paced["messages"], &through["messages"]),
        (&Value::from(200), &Value::from(200))
    );
    let calm = run(&["failover", "--group", "broker-a"]);
    assert_eq!(calm["longest_gap_group"], "broker-a");
    assert!(calm["longest_gap_ms"].as_f64().unwrap() > 0.0);
}

#[test]
fn benchmarks_of_special_messages_do_what_they_say() {
    let dev = Dev::start();
    let short = ["--duration", "500ms", "--warm-up", "100ms"];
    let run = |words: &[&str]| bench(&dev, &[words, &short].concat());
    let count = |line: &Value, name: &str| line[name].as_u64().unwrap();

    let delayed = run(&["produce", "--topic", "d", "--delay", "50ms"]);
    assert_eq!(delayed["kind"], "delayed");
    let committed = run(&["produce", "--topic", "x", "--transactional"]);
    assert_eq!(committed["kind"], "transactional");
    let at = dev.node("namesrv");
    let create = [
        "topic",
        "create",
        "once",
        "--idempotent",
        "1m",
        "--namesrv",
        at,
    ];
    let created = gantry(&create);
    assert!(created.status.success(), "{created:?}");
    let keyed = run(&["produce", "--topic", "once", "--unique-keys"]);
    assert_eq!(
        (&keyed["kind"], &keyed["groups"]),
        (&Value::from("unique keys"), &Value::from(1))
    );
    // What was acknowledged is there; of what was delayed, what was due until now.
    for (topic, least) in [
        ("d", 1),
        ("x", count(&committed, "messages")),
        ("once", count(&keyed, "messages")),
    ] {
        let read = run(&["consume", "--topic", topic]);
        assert!(count(&read, "messages") >= least, "{topic}: {read}");
    }

    let filled = ["consume", "--topic", "f", "--fill", "500"];
    let filtered = run(&[&filled[..], &["--filter", "a > 5"]].concat());
    assert_eq!(
        (count(&filtered, "messages"), count(&filtered, "scanned")),
        (200, 500)
    );
    let tagged = run(&["consume", "--topic", "f", "--tag", "t1 || t2"]);
    assert_eq!(
        (count(&tagged, "messages"), count(&tagged, "scanned")),
        (100, 500)
    );
    for (acks, kind) in [("one", "pop"), ("batch", "pop, acks in batches")] {
        let popped = run(&["consume", "--topic", "f", "--pop", "--acks", acks]);
        assert_eq!(count(&popped, "messages"), 500);
        assert_eq!(popped["kind"], kind);
    }
}

#[test]
fn a_benchmark_of_timers_accounts_for_each_of_them() {
    let dev = Dev::start();
    let words = [
        "timers", "--count", "300", "--after", "2s", "--within", "1s",
    ];
    let line = bench(&dev, &words);
    for (name, wanted) in [
        ("messages", 300),
        ("pending", 300),
        ("early", 0),
        ("again", 0),
        ("missing", 0),
    ] {
        assert_eq!(line[name], wanted, "{name}: {line}");
    }
}

#[test]
fn a_benchmark_goes_on_after_a_kill() {
    let dev = Dev::start();
    let pid = dev.nodes["nodes"][0]["pid"].to_string();
    let bench = Command::new(GANTRY)
        .args([
            "bench",
            "failover",
            "--address",
            dev.node("namesrv"),
            "--kill-pid",
            &pid,
        ])
        .args([
            "--kill-after",
            "300ms",
            "--warm-up",
            "100ms",
            "--duration",
            "60s",
            "-o",
            "json",
        ])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    // Until then its ports and files are taken.
    let deadline = Instant::now() + Duration::from_secs(30);
    while std::path::Path::new(&format!("/proc/{pid}")).exists() {
        assert!(Instant::now() < deadline, "node {pid} was not killed");
        std::thread::sleep(Duration::from_millis(5));
    }
    let mut node = Command::new(GANTRY)
        .args(["server", "--config"])
        .arg(dev.data.path().join("node-1.toml"))
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let http = dev.node("http");
    while !gantry(&["status", "--http", http, "--ready"])
        .status
        .success()
    {
        let ended = node.try_wait().unwrap();
        assert!(ended.is_none(), "the node ended: {ended:?}");
        assert!(Instant::now() < deadline, "the node is not ready");
        std::thread::sleep(Duration::from_millis(20));
    }
    // Ctrl-C ends the measurement, once all is acknowledged.
    let bench_pid = rustix::process::Pid::from_raw(bench.id() as i32).unwrap();
    rustix::process::kill_process(bench_pid, rustix::process::Signal::INT).unwrap();
    let output = bench.wait_with_output().unwrap();
    node.kill().unwrap();
    node.wait().unwrap();
    assert!(output.status.success(), "{output:?}");
    let line: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(line["failed"], 0, "{line}");
    assert!(line["retried"].as_u64().unwrap() > 0, "{line}");
    assert!(line["seconds"].as_f64().unwrap() < 60.0, "{line}");
}

#[test]
fn leadership_is_asked_for_by_name() {
    let dev = Dev::start();
    let at = ["--http", dev.node("http")];
    let transfer = |group, node| ["transfer", group, "--to", node, at[0], at[1]];
    let moved = gantry(&transfer("broker-a", "1"));
    assert_eq!(moved.stdout, b"node 1 leads broker-a\n", "{moved:?}");
    for (group, node, named) in [
        ("broker-x", "1", "broker-a, broker-b"),
        ("broker-a", "2", "these have: [1]"),
    ] {
        let (message, code) = refused(&transfer(group, node));
        assert!(message.contains(named) && code == 1, "{code} {message}");
    }
}

#[test]
fn mistakes_in_benchmarks_are_explained() {
    let dev = Dev::start();
    let at = ["--address", dev.node("namesrv")];
    let refused = |words: &[&str]| refused(&[&["bench"], words, &at].concat());
    for (words, named) in [
        (&["produce", "--group", "broker-x"][..], "broker-a"),
        (
            &["produce", "--topic", "hello", "--queues", "9"],
            "--queues",
        ),
        (&["produce", "--pid", "8388608"], "--pid"),
        (&["produce", "--topic", "no blanks"], "' '"),
        (
            &["consume", "--topic", "few", "--consumers", "9"],
            "8 queues",
        ),
        (&["latency", "--batch", "2"], "--batch"),
        (&["produce", "--delay", "soon"], "--delay"),
        (
            &["produce", "--transactional", "--batch", "2"],
            "--transactional",
        ),
        (
            &["consume", "--pop", "--pull-batch", "64"],
            "32 messages at most",
        ),
        (&["timers", "--size", "15"], "16 bytes"),
    ] {
        let (message, code) = refused(words);
        assert!(
            message.contains(named) && code == 2,
            "{words:?}: {code} {message}"
        );
    }
    let (message, code) = refused(&["consume", "--topic", "hello", "--filter", "a >"]);
    assert!(
        message.contains("at byte 3 of the expression") && code == 1,
        "{code} {message}"
    );
}

#[test]
fn mistakes_are_explained() {
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().join("node.toml");
    std::fs::write(&config, "nod = 1\n").unwrap();
    let (message, code) = refused(&["server", "--config", config.to_str().unwrap()]);
    assert!(
        message.contains("did you mean `node`?") && code == 2,
        "{message}"
    );

    let (message, code) = refused(&[
        "send",
        "--namesrv",
        "nowhere",
        "--topic",
        "t",
        "--body",
        "b",
    ]);
    assert!(
        message.contains("not the address of a name server") && code == 2,
        "{message}"
    );
    let (message, code) = refused(&["topic", "create", "no blanks", "--namesrv", "127.0.0.1:1"]);
    assert!(message.contains("' '") && code == 2, "{message}");
    let (message, code) = refused(&["topic", "list", "--namesrv", "127.0.0.1:1"]);
    assert!(message.contains("--namesrv") && code == 1, "{message}");
}
