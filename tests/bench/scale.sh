#!/usr/bin/env bash
# How Gantry scales: memory, rates and latency against groups, queues, producers, a long log and cold readers.
#
#   tests/bench/scale.sh                          # everything, some 20 minutes; JSON lines on standard output
#   tests/bench/scale.sh queues=10000 restart     # parts of it
#   tests/bench/scale.sh table FILE...            # what was printed, as the table of docs/performance.md
#
# Parts: groups queues producers half cold restart; groups, queues, producers and half also with one number of what
# they count, as in groups=9.
#
# Builds the release binary, starts three nodes on this machine with `gantry dev`, drives them with `gantry bench`, and
# ends what it started. Lines with the case "memory" are the resident sets, in MiB, of the three nodes; those with the
# case "ready" are the seconds from the start of three killed nodes until all say that they are ready (`/readyz`: every
# group has a leader that serves), and "spread" until every group is led by the node that prefers it, which `gantry dev`
# waits for. Needs jq and curl. Settings are variables:
#   GANTRY           a binary to measure instead of building one
#   DATA             directory for the nodes, missing or empty, on a real disk; removed at the end. Default
#                    target/scale; `cold` and `restart` write three times their log into it
#   BASE_PORT=23000  first port, see `gantry dev --help`      REPEAT=3      how often each load is measured
#   SECONDS_EACH=5   length of a load                         LOG_GIB=10    log of each node in restart
#   BACKLOG_GIB=4    log of each node in cold                 IDLE_SECONDS  wait so long after a load of groups, and
#                                                             look at the memory again
set -euo pipefail

. "$(dirname "$0")/nodes.sh"

# table FILE...: medians, by what was measured, and (least-most) of the rates; memory is of the largest node.
table() {
    jq -r -s '
        def median: sort | .[length / 2 | floor];
        def places($n): . * pow(10; $n) | round / pow(10; $n);
        "| what | msgs/s | p50 / p99 ms | CPU us/msg |", "|---|---|---|---|",
        (map(select(.msgs_per_s)) | group_by([.system, .case])[] | "| \(.[0].system), \(.[0].case) | "
            + "\(map(.msgs_per_s) | median | round) (\(map(.msgs_per_s) | "\(min | round)-\(max | round)")) | "
            + "\(map(.p50_ms // 0) | median | places(1)) / \(map(.p99_ms // 0) | median | places(1)) | "
            + "\(map(.cpu_us_per_msg // 0) | median | places(1)) |"),
        "", "| what | resident MiB |", "|---|---|",
        (.[] | select(.case == "memory") | "| \(.system) | \(.rss_mib | max) |"),
        (.[] | select(.case == "ready" or .case == "spread") | "| \(.system) | \(.case) after \(.seconds) s |")
    ' "$@"
}

if [ "${1:-}" = table ]; then
    shift
    table "$@"
    exit
fi
[ $# -gt 0 ] || set -- groups queues producers half cold restart
for part in "$@"; do
    case $part in
        groups | queues | producers | half | cold | restart) ;;
        groups=[1-9]* | queues=[1-9]* | producers=[1-9]* | half=[1-9]*) ;;
        *) die "no part \"$part\"; there are groups queues producers half cold restart, and for example queues=100" ;;
    esac
done
log_gib=${LOG_GIB:-10} backlog_gib=${BACKLOG_GIB:-4} idle_seconds=${IDLE_SECONDS:-}
prepare "$root/target/scale"

# log_mib: the log of the first node, in MiB.
log_mib() {
    du -s -m "$data/nodes/node-1/groups" | cut -f 1
}

# fill TOPIC GIB: messages of 16 KiB until the log of each node is as large.
fill() {
    local before
    while [ "$(log_mib)" -lt $(($2 * 1024)) ]; do
        before=$(log_mib)
        "$gantry" bench produce --address "$address" --topic "$1" --size 16KiB --outstanding 128 --duration 2s \
            --warm-up 0s -o json --system "fill of $1" >>"$data/fill.json"
        [ "$(log_mib)" -gt "$before" ] || die "the log does not grow; old segments go when the disk fills up"
    done
}

# Groups: the memory of idle nodes, and rate and memory under load, by the number of groups.
measure_groups() {
    local groups
    for groups in "$@"; do
        launch "$groups"
        memory "groups=$groups, idle"
        load "groups=$groups" produce
        memory "groups=$groups, after the load"
        if [ -n "$idle_seconds" ]; then
            sleep "$idle_seconds"
            memory "groups=$groups, $idle_seconds s later"
        fi
        finish
    done
}

# Queues of one group, so that each node has just as many, in topics of up to 1,000: memory when they are new, when
# each was written to, and when the nodes have started again, without the tail of the log that a load leaves in memory.
measure_queues() {
    local queues topics topic
    for queues in "$@"; do
        topics=$(((queues + 999) / 1000))
        launch 1
        memory "queues=0, idle"
        for topic in $(seq 0 $((topics - 1))); do
            [ "$topics" -gt 1 ] && topic=bench-$topic || topic=bench
            "$gantry" topic create "$topic" --queues $((queues / topics)) --namesrv "$address" >&2
        done
        memory "queues=$queues, idle"
        load "queues=$queues" produce --topics "$topics" --queues $((queues / topics))
        memory "queues=$queues, after the load"
        halt
        launch 1
        memory "queues=$queues, started again"
        finish
    done
}

# Producers, each with a connection of its own, on three groups.
measure_producers() {
    local producers
    launch 3
    for producers in "$@"; do
        load "producers=$producers" produce --producers "$producers" --outstanding 1000
        memory "producers=$producers, after the load"
    done
    finish
}

# Latency at half of the greatest rate: p99 against p50.
measure_half() {
    local groups most
    for groups in "$@"; do
        launch "$groups"
        load "most, groups=$groups" produce | tee "$data/most.json"
        most=$(median msgs_per_s <"$data/most.json")
        load "half, groups=$groups" latency --rate "$(jq -n "$most / 2 | floor")"
        finish
    done
}

# Producers at 40 percent of the greatest rate, in turn without and with a consumer that reads a backlog from its start.
measure_cold() {
    local most rate turn
    launch 3
    load "most" produce --topic hot | tee "$data/most.json"
    most=$(median msgs_per_s <"$data/most.json")
    rate=$(jq -n "$most * 0.4 | floor")
    fill backlog "$backlog_gib"
    memory "backlog of $(log_mib) MiB, before cold readers"
    for turn in $(seq "$repeat"); do
        repeat=1 load "without cold reader" latency --topic hot --rate "$rate"
        read_cold >"$data/cold-$turn.json" &
        driver=$!
        repeat=1 load "with cold reader" latency --topic hot --rate "$rate"
        # Ends after the round it is in, which its lines then count.
        touch "$data/enough"
        wait "$driver"
        driver=''
        rm "$data/enough"
        cat "$data/cold-$turn.json"
    done
    memory "backlog of $(log_mib) MiB, after cold readers"
    finish
}

# read_cold: reads the backlog from its start, over and over, until told that it is enough.
read_cold() {
    until [ -e "$data/enough" ]; do
        "$gantry" bench consume --address "$address" --topic backlog --from start --pid "$pids" --system "cold reader" \
            --duration "${seconds}s" --warm-up 0s -o json
    done
}

# A long log: nodes killed while they write, and how soon they are ready again.
measure_restart() {
    local turn began spread
    launch 3
    fill log "$log_gib"
    memory "log of $(log_mib) MiB, written"
    for turn in $(seq "$repeat"); do
        kill_under_load
        began=$(date +%s%N)
        await_ready >"$data/ready" &
        driver=$!
        launch 3
        spread=$(date +%s%N)
        wait "$driver" || die "the nodes are not ready"
        driver=''
        jq -n -c --arg system "restart $turn over $(log_mib) MiB" --argjson ready $(($(cat "$data/ready") - began)) \
            --argjson spread $((spread - began)) '{system: $system, case: ("ready", "spread"),
            seconds: $ready} | if .case == "spread" then .seconds = $spread end | .seconds |= (. / 1e6 | round / 1e3)'
        memory "restart $turn, ready"
    done
    load "after the restart" produce --topic log
    memory "restart $repeat, after a load"
    finish
}

# await_ready: when all three nodes say that they are ready, in nanoseconds since 1970.
await_ready() {
    local node
    for node in 0 1 2; do
        timeout 60 sh -c 'until curl -sf --max-time 1 "$1" >/dev/null; do sleep 0.02; done' - \
            "http://127.0.0.1:$((base_port + 100 * node + 1))/readyz" || return 1
    done
    date +%s%N
}

# kill_under_load: all three nodes at once, by SIGKILL, while they take messages.
kill_under_load() {
    local before
    before=$(log_mib)
    "$gantry" bench produce --address "$address" --topic log --duration 60s --warm-up 0s -o json \
        >>"$data/fill.json" 2>>"$data/fill.log" &
    driver=$!
    until [ "$(log_mib)" -gt $((before + 64)) ]; do sleep 0.05; done
    kill -KILL ${pids//,/ }
    kill -KILL "$driver"
    wait "$driver" 2>/dev/null || true
    driver=''
    # What started the nodes would wait for somebody to look.
    halt
}

for part in "$@"; do
    case $part in
        groups) measure_groups 1 3 9 ;;
        queues) measure_queues 1 100 1000 10000 ;;
        producers) measure_producers 1 10 100 1000 ;;
        half) measure_half 1 3 ;;
        *=*) "measure_${part%%=*}" "${part#*=}" ;;
        *) "measure_$part" ;;
    esac
done
