#!/usr/bin/env bash
# What three nodes do under far more load than they can take.
#
#   tests/bench/overload.sh target/release/gantry /tmp/overload [SECONDS]
#
# Measures the peak (closed loop), then offers FACTOR times as much by the clock for SECONDS, then half of the peak, and
# judges: the goodput under overload is at least 80 % of the peak, memory stays below what may be under way, the rate is
# back within 30 s after the overload ends, and a send that is refused hears so within 10 ms (p99, from when its bytes
# were handed to the socket) and why. One line of JSON for each phase on standard output; fails if a judgement fails. The
# data directory must be missing or empty. Needs jq. Variables:
#   BASE_PORT=23200  FACTOR=5  SIZE=1024  OUTSTANDING=20000  MEMORY_MIB=512
set -euo pipefail

die() {
    echo "overload.sh: $*" >&2
    exit 2
}

[ $# -ge 2 ] || die "usage: overload.sh GANTRY DATA_DIRECTORY [SECONDS]"
gantry=$1 data=$2 seconds=${3:-120}
base_port=${BASE_PORT:-23200} factor=${FACTOR:-5} size=${SIZE:-1024}
outstanding=${OUTSTANDING:-20000} memory_mib=${MEMORY_MIB:-512}
address=127.0.0.1:$base_port
[ -x "$gantry" ] || die "$gantry is not executable"
command -v jq >/dev/null || die "jq is missing"
if [ -d "$data" ] && [ -n "$(ls -A "$data")" ]; then die "$data is not empty"; fi
mkdir -p "$data"
dev='' pids=''

at_exit() {
    if [ -n "$dev" ]; then
        kill -TERM "$dev" 2>/dev/null || true
        timeout 30 tail --pid="$dev" -f /dev/null || kill -KILL ${pids//,/ } 2>/dev/null || true
    fi
    rm -rf "$data"
}
trap at_exit EXIT
trap 'exit 130' INT TERM

exec 3< <(exec "$gantry" dev --nodes 3 --groups 3 --data "$data/nodes" --base-port "$base_port" --json --no-hello \
    2>>"$data/dev.log")
dev=$!
read -r -t 60 line <&3 || die "the nodes are not ready after a minute: $(tail -n 3 "$data/dev.log")"
pids=$(jq -r '[.nodes[].pid] | join(",")' <<<"$line")

# bench LABEL ARGUMENT...: one line of JSON.
bench() {
    local label=$1
    shift
    "$gantry" bench "$@" --address "$address" --size "$size" --pid "$pids" --system "$label" -o json \
        | tee -a "$data/lines.json"
}

# peak_mib: the most that any node has had resident.
peak_mib() {
    for pid in ${pids//,/ }; do awk '/VmHWM/ { print int($2 / 1024) }' "/proc/$pid/status"; done | sort -n | tail -n 1
}

peak=$(bench peak produce --outstanding 512 --connections 12 --duration 10s | tee /dev/stderr | jq .msgs_per_s)
rate=$(jq -n "$peak * $factor | floor")
over=$(bench overload latency --rate "$rate" --outstanding "$outstanding" --connections 60 \
    --duration "${seconds}s" | tee /dev/stderr)
resident=$(peak_mib)
half=$(jq -n "$peak / 2 | floor")
after=$(bench after latency --rate "$half" --outstanding 4000 --connections 12 --warm-up 0s --duration 30s \
    | tee /dev/stderr)

failed=0
judge() {
    if jq -e -n "$2" >/dev/null; then echo "ok: $1" >&2; else echo "FAILED: $1" >&2; failed=1; fi
}
goodput=$(jq .msgs_per_s <<<"$over")
judge "goodput $goodput of a peak of $peak is at least 80 %" "$goodput >= 0.8 * $peak"
judge "$resident MiB resident are at most $memory_mib" "$resident <= $memory_mib"
judge "within 30 s half of the peak is served again" "$(jq .msgs_per_s <<<"$after") >= 0.95 * $half"
if [ "$(jq .failed <<<"$over")" -gt 0 ]; then
    refused=$(jq .refused_p99_ms <<<"$over")
    judge "99 of 100 refusals came within $refused ms, at most 10" "$refused != null and $refused <= 10"
    judge "a refusal says why" "$(jq '.first_failure // "" | contains("busy")' <<<"$over")"
fi
jq -n -c --argjson peak "$peak" --argjson offered "$rate" --argjson over "$over" --argjson after "$after" \
    --argjson resident "$resident" '{case: "overload", peak: $peak, offered: $offered,
    goodput: $over.msgs_per_s, failed: $over.failed, first_failure: $over.first_failure, refused_p99_ms: $over.refused_p99_ms,
    p99_ms: $over.p99_ms, resident_mib: $resident,
    after: $after.msgs_per_s, after_p99_ms: $after.p99_ms}'
exit "$failed"
