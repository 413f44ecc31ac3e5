#!/usr/bin/env bash
# Whether anything grows or slows down over time: three nodes under a steady load.
#
#   tests/bench/soak.sh target/release/gantry /tmp/soak --minutes N [--rate MESSAGES_PER_SECOND]
#
# Every PART_SECONDS (default: a twentieth of the time, at least 15 s) sends at the rate and consumes through waiting
# pulls, and notes latency, resident memory and open descriptors of each node. Judges at the end, against the first
# quarter: p99 within 1.5 times, descriptors flat, resident memory growing by less than SLOPE_MIB an hour (default 1;
# short runs prove little: the caches fill first). One line of JSON for each part on standard output. Needs jq.
set -euo pipefail

die() {
    echo "soak.sh: $*" >&2
    exit 2
}

[ $# -ge 2 ] || die "usage: soak.sh GANTRY DATA_DIRECTORY --minutes N [--rate N]"
gantry=$1 data=$2 minutes=60 rate=2000
shift 2
while [ $# -gt 0 ]; do
    case "$1" in
        --minutes) minutes=$2 ;;
        --rate) rate=$2 ;;
        *) die "unknown option $1" ;;
    esac
    shift 2
done
base_port=${BASE_PORT:-23400} slope_mib=${SLOPE_MIB:-1}
part=${PART_SECONDS:-$((minutes * 3))}
[ "$part" -ge 15 ] || part=15
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

# nodes FIELD: a list with a number for each node.
resident() {
    for pid in ${pids//,/ }; do awk '/RssAnon/ { print $2 / 1024 }' "/proc/$pid/status"; done | jq -s -c .
}
descriptors() {
    for pid in ${pids//,/ }; do find "/proc/$pid/fd" -mindepth 1 | wc -l; done | jq -s -c .
}

end=$((SECONDS + minutes * 60))
while [ "$SECONDS" -lt "$end" ]; do
    measured=$("$gantry" bench end-to-end --address "127.0.0.1:$base_port" --topic soak --rate "$rate" --consumers 6 \
        --duration "${part}s" --warm-up 1s -o json)
    jq -n -c --argjson at "$SECONDS" --argjson measured "$measured" --argjson anon "$(resident)" \
        --argjson fds "$(descriptors)" '{case: "soak", at_s: $at, msgs_per_s: $measured.msgs_per_s,
        p50_ms: $measured.p50_ms, p99_ms: $measured.p99_ms, failed: $measured.failed, anon_mib: $anon, fds: $fds}' \
        | tee -a "$data/parts.json"
done

jq -s -e --argjson slope "$slope_mib" '
    def median: sort | .[length / 2 | floor];
    (length / 4 | ceil) as $quarter | .[:$quarter] as $first | .[-$quarter:] as $last
    | (($last[-1].at_s - $first[0].at_s) / 3600) as $hours
    | {case: "soak, judged", parts: length,
       p99_first_ms: ($first | map(.p99_ms) | median), p99_last_ms: ($last | map(.p99_ms) | median),
       fds_first: ($first | map(.fds | add) | median), fds_last: ($last | map(.fds | add) | median),
       anon_first_mib: ($first | map(.anon_mib | add) | median), anon_last_mib: ($last | map(.anon_mib | add) | median)}
    | .mib_per_hour_and_node = (if $hours > 0 then (.anon_last_mib - .anon_first_mib) / 3 / $hours else 0 end)
    | .ok = (.p99_last_ms <= 1.5 * .p99_first_ms and .fds_last <= .fds_first + 6
        and .mib_per_hour_and_node <= $slope) | ., if .ok then empty else error("not as steady as it should be") end' \
    "$data/parts.json"
