#!/usr/bin/env bash
# What features cost: delayed, transactional and idempotent sends beside plain ones, POP and filters beside plain pulls,
# and how late timers come when many wait. All on the same nodes, in turn.
#
#   tests/bench/features.sh                       # everything, some 15 minutes; JSON lines on standard output
#   tests/bench/features.sh sends timers=100000   # parts of it
#   tests/bench/features.sh table FILE...         # what was printed, as the tables of docs/performance.md
#
# Parts: sends reads timers; timers also with the number of those that wait.
#
# Builds the release binary, starts three nodes on this machine with `gantry dev`, drives them with `gantry bench`, and
# ends what it started. A line has what it was measured beside as "beside", and its turn: ratios are those of one turn.
# "gone" is how long it took after a load until no timer waited any more. Settings beside those of nodes.sh are variables:
#   GROUPS_EACH=1         groups of brokers                       READ_MESSAGES=1000000  messages of 1 KiB that are read
#   TIMERS_COUNT=100000   timers that come, beside those that     TIMERS_WITHIN=60s      the time over which they are due
#                         wait far longer                         TIMERS_AFTER=20s       when the first of them is due
set -euo pipefail

. "$(dirname "$0")/nodes.sh"

# table FILE...: medians and (least-most) of rates, and of their ratios to what was measured beside them in the same turn.
table() {
    jq -r -s '
        def median: sort | .[length / 2 | floor];
        def places($n): . * pow(10; $n) | round / pow(10; $n);
        def spread($n): "\(median | places($n)) (\(min | places($n))-\(max | places($n)))";
        def rate: .scanned_per_s // .msgs_per_s;
        def cpu: .cpu_us_per_msg * .msgs_per_s / rate;
        map(select(.beside)) as $loads
        | ($loads | map({("\(.beside) \(.system) \(.turn)"): rate}) | add // {}) as $rates
        | "| what | messages/s | of which given | ratio | p50 / p99 ms | CPU us/message |", "|---|---|---|---|---|---|",
        ($loads | group_by([.beside, .system])[] | "| \(.[0].system) | \(map(rate) | spread(0)) | "
            + "\(if .[0].scanned then map(.messages / .scanned) | median | places(2) else "all" end) | "
            + "\(map(rate / $rates["\(.beside) \(.beside) \(.turn)"]) | spread(2)) | "
            + "\(map(.p50_ms) | median | places(1)) / \(map(.p99_ms) | median | places(1)) | "
            + "\(map(cpu) | median | places(1)) |"),
        "", "| timers, others that wait | of which parked in time | late p50 / p99 / p99.9 / max, ms | early, again, missing |", "|---|---|---|---|",
        (.[] | select(.case == "timers") | "| \(.messages), \(.system) | \(.pending) | "
            + "\([.p50_ms, .p99_ms, .p999_ms, .max_ms] | map(places(1) | tostring) | join(" / ")) | "
            + "\(.early), \(.again), \(.missing) |"),
        "", "| what | resident MiB, most so far |", "|---|---|",
        (.[] | select(.case == "memory") | "| \(.system) | \(.rss_mib | max), \(.peak_mib | max) |"),
        (.[] | select(.case == "gone") | "| \(.system) | all timers gone after \(.seconds) s |")
    ' "$@"
}

if [ "${1:-}" = table ]; then
    shift
    table "$@"
    exit
fi
[ $# -gt 0 ] || set -- sends reads timers
for part in "$@"; do
    case $part in
        sends | reads | timers | timers=[1-9]*) ;;
        *) die "no part \"$part\"; there are sends reads timers, and for example timers=100000" ;;
    esac
done
broker_groups=${GROUPS_EACH:-1} read_messages=${READ_MESSAGES:-1000000}
timers_count=${TIMERS_COUNT:-100000} timers_after=${TIMERS_AFTER:-20s} timers_within=${TIMERS_WITHIN:-60s}
prepare "$root/target/features"

# one TURN BESIDE LABEL CASE ARGUMENT...: one load, with its turn and what it is measured beside.
one() {
    local turn=$1 beside=$2
    shift 2
    repeat=1 load "$@" | jq -c --arg beside "$beside" --argjson turn "$turn" '. + {beside: $beside, turn: $turn}'
}

# timers_pending: how many messages wait for their time, as the node says where most do.
timers_pending() {
    local node
    for node in 0 1 2; do
        curl -sf --max-time 5 "http://127.0.0.1:$((base_port + 100 * node + 1))/metrics"
    done | awk '/^gantry_timers_pending/ { if ($2 > most) most = $2 } END { print most + 0 }'
}

# await_timers LABEL: until no message waits; says how long that took.
await_timers() {
    local began
    began=$(date +%s%N)
    until [ "$(timers_pending)" -eq 0 ]; do sleep 0.1; done
    jq -n -c --arg system "$1" --argjson ns $(($(date +%s%N) - began)) \
        '{system: $system, case: "gone", seconds: ($ns / 1e9)}'
}

# Sends. Those that are delayed come after a second, so that their coming is a part of the load.
measure_sends() {
    local turn
    launch "$broker_groups"
    "$gantry" topic create once --idempotent 10m --namesrv "$address" >&2
    for turn in $(seq "$repeat"); do
        one "$turn" plain plain produce --topic plain
        one "$turn" plain "delayed 1 s" produce --topic delayed --delay 1s
        await_timers "delayed 1 s"
        one "$turn" plain transactional produce --topic transactional --transactional
        one "$turn" plain "unique keys" produce --topic keyed --unique-keys
        one "$turn" plain idempotent produce --topic once --unique-keys
    done
    memory "after sends"
    finish
}

# Reads of the same messages from the first to the last: pulled, selected by the broker, and popped.
measure_reads() {
    # A load ends when everything is read.
    local turn seconds=120
    launch "$broker_groups"
    repeat=1 load fill consume --topic reads --queues 16 --fill "$read_messages" >&2
    for turn in $(seq "$repeat"); do
        one "$turn" pull pull consume --topic reads
        one "$turn" pull "tag, 1 of 10" consume --topic reads --tag t1
        one "$turn" pull "tags, 9 of 10" consume --topic reads --tag "t1||t2||t3||t4||t5||t6||t7||t8||t9"
        one "$turn" pull "filter, 1 of 10" consume --topic reads --filter "a = 1"
        one "$turn" pull "filter, 9 of 10" consume --topic reads --filter "a > 0"
        one "$turn" pull "pop, acks in batches" consume --topic reads --pop --acks batch
        one "$turn" pull "pop, an ack each" consume --topic reads --pop
    done
    memory "after reads"
    finish
}

# Timers: how late some come while many others wait, and what the nodes need for them.
measure_timers() {
    local count turn
    for count in "$@"; do
        launch "$broker_groups"
        memory "timers=0, idle"
        "$gantry" bench produce --address "$address" --topic far --delay 24h --outstanding 512 --duration 3600s \
            --warm-up 0s >/dev/null 2>>"$data/far.log" &
        driver=$!
        until [ "$(timers_pending)" -ge "$count" ]; do
            kill -0 "$driver" 2>/dev/null || die "timers cannot be parked: $(tail -n 1 "$data/far.log")"
            sleep 0.2
        done
        kill -INT "$driver"
        wait "$driver" || true
        driver=''
        memory "timers=$(timers_pending), pending"
        for turn in $(seq "$repeat"); do
            "$gantry" bench timers --address "$address" --pid "$pids" --system "timers=$count" -o json \
                --count "$timers_count" --after "$timers_after" --within "$timers_within"
        done
        memory "timers=$(timers_pending), after"
        finish
    done
}

for part in "$@"; do
    case $part in
        timers) measure_timers 1000000 ;;
        *=*) "measure_${part%%=*}" "${part#*=}" ;;
        *) "measure_$part" ;;
    esac
done
