# Three nodes to measure, for the scripts beside this one, which read it. Says what is shared: the settings GANTRY,
# DATA, BASE_PORT, REPEAT and SECONDS_EACH, how nodes start and end, loads, and memory. Needs jq and curl.

die() {
    echo "$(basename "$0"): $*" >&2
    exit 2
}

for tool in jq curl; do command -v "$tool" >/dev/null || die "$tool is missing"; done
root=$(cd "$(dirname "$0")/../.." && pwd)
base_port=${BASE_PORT:-23000} repeat=${REPEAT:-3} seconds=${SECONDS_EACH:-5}
address=127.0.0.1:$base_port
dev='' driver='' pids=''

# prepare DIRECTORY: finds or builds the binary, and makes the directory for data unless DATA names another one. Whatever
# happens from here on, nothing stays behind.
prepare() {
    data=${DATA:-$1}
    if [ -n "${GANTRY:-}" ]; then
        gantry=$GANTRY
        [ -x "$gantry" ] || die "GANTRY=$gantry is not executable"
    else
        (cd "$root" && cargo build --release --locked --bin gantry) >&2
        gantry=${CARGO_TARGET_DIR:-$root/target}/release/gantry
    fi
    if [ -d "$data" ] && [ -n "$(ls -A "$data")" ]; then die "$data is not empty"; fi
    mkdir -p "$data"
    trap at_exit EXIT
    trap 'exit 130' INT TERM
}

# launch GROUPS: three nodes over what the data directory holds; returns when all are ready. Sets dev and pids.
launch() {
    local line
    exec 3< <(exec "$gantry" dev --nodes 3 --groups "$1" --data "$data/nodes" --base-port "$base_port" \
        --json --no-hello 2>>"$data/dev.log")
    dev=$!
    read -r -t 60 line <&3 || die "the nodes are not ready after a minute: $(tail -n 3 "$data/dev.log")"
    pids=$(jq -r '[.nodes[].pid] | join(",")' <<<"$line")
}

# halt: the nodes stop; their data stays.
halt() {
    if [ -n "$dev" ]; then
        kill -TERM "$dev" 2>/dev/null || true
        await_end "$dev" ${pids//,/ }
    fi
    dev='' pids=''
}

# finish: the nodes stop; their data goes.
finish() {
    halt
    rm -rf "$data/nodes"
}

# await_end PID...: until none of these processes runs; they need not be children of this shell.
await_end() {
    local pid
    for pid in "$@"; do
        timeout 30 tail --pid="$pid" -f /dev/null || die "process $pid does not end"
    done
}

# at_exit: whatever happened, nothing stays behind.
at_exit() {
    if [ -n "$driver" ]; then kill "$driver" 2>/dev/null || true; fi
    if [ -n "$pids" ]; then kill -KILL ${pids//,/ } 2>/dev/null || true; fi
    finish
    rm -rf "$data"
}

# memory LABEL: one line with the resident sets of the three nodes. "anon" is the heap and stacks, "file" pages of the
# binary and of libraries, "peak" the most that was resident since the start.
memory() {
    local pid
    for pid in ${pids//,/ }; do
        jq -R -s 'split("\n") | map(capture("^(?<key>Vm|Rss)(?<of>RSS|HWM|Anon|File):\\s+(?<kib>[0-9]+)"))
            | map({(.of): (.kib | tonumber / 102.4 | round / 10)}) | add' "/proc/$pid/status"
    done | jq -s -c --arg system "$1" '{system: $system, case: "memory", rss_mib: map(.RSS),
        anon_mib: map(.Anon), file_mib: map(.File), peak_mib: map(.HWM)}'
}

# load LABEL CASE ARGUMENT...: `gantry bench` for the given time, repeated.
load() {
    local label=$1 kind=$2
    shift 2
    "$gantry" bench "$kind" --address "$address" --pid "$pids" --system "$label" -o json \
        --duration "${seconds}s" --warm-up 2s --repeat "$repeat" "$@"
}

# median FIELD: the median of a field of the lines on standard input.
median() {
    jq -s --arg field "$1" 'map(.[$field]) | sort | .[length / 2 | floor]'
}
