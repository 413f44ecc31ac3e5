#!/usr/bin/env bash
# What a user of docker-compose.yml does, checked: start three nodes, send and consume from the host and from inside
# the network, kill a node and go on, start it again, stop one in an orderly way, look at Prometheus, take it all down.
#
#   tests/compose/failover.sh            # exit status 0 when every line says PASS
#   tests/compose/failover.sh --short    # the same with fewer messages, and without stopping all nodes at once
#   KEEP=1 tests/compose/failover.sh     # leave the cluster running
#
# Needs Docker; installs docker-compose, curl and python3 when they are missing (Debian, as root), and pulls or builds
# the base images (base-images.sh). It has a project name of its own, so it touches no other cluster's volumes, but it
# publishes the same ports.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

export COMPOSE_PROJECT_NAME=gantry-failover
topic=compose-failover
host_servers="127.0.0.1:9876;127.0.0.1:9877;127.0.0.1:9878"
network_servers="gantry1:9876;gantry2:9876;gantry3:9876"
nodes="gantry1 gantry2 gantry3"
client_label=$COMPOSE_PROJECT_NAME.client
work=$(mktemp -d)
failures=0
messages=1000 # for each producer while something happens to a node: 20 s
traffic_before=4
short=
case ${1:-} in
    "") ;;
    --short) short=1 messages=300 traffic_before=2 ;;
    *) die "unknown argument $1; see the head of this script" ;;
esac

pass() { echo "PASS $*"; }
fail() { echo "FAIL $*"; failures=$((failures + 1)); }

# check WHAT COMMAND...: one PASS or FAIL line; the command's output is shown when it fails.
check() {
    local what=$1 started=$SECONDS
    shift
    if "$@" >"$work/out" 2>&1; then
        pass "$what ($((SECONDS - started)) s)"
    else
        fail "$what ($((SECONDS - started)) s)"
        tail -30 "$work/out" | sed 's/^/     /'
    fi
}

# await SECONDS COMMAND...: until the command succeeds.
await() {
    local deadline=$((SECONDS + $1))
    shift
    until "$@"; do
        [ $SECONDS -lt $deadline ] || return 1
        sleep 0.2
    done
}

remove_clients() { docker ps -a -q --filter "label=$client_label" | xargs -r docker rm -f -v >/dev/null 2>&1 || true; }

finish() {
    local status=$?
    remove_clients
    if [ $status -ne 0 ] || [ $failures -ne 0 ]; then
        note "the last lines of each service"
        compose logs --no-color --tail 40 || true
    fi
    if [ -n "${KEEP:-}" ]; then
        note "left running; remove it with: docker compose -p $COMPOSE_PROJECT_NAME down -v"
    else
        compose down -v --timeout 5 >/dev/null 2>&1 || true
    fi
    rm -rf "$work"
}

container() { compose ps -a -q "$1"; }
metrics_port() { echo $((5556 + ${1#gantry})); }
metrics() { curl -sS --fail --max-time 5 "http://127.0.0.1:$(metrics_port "$1")/metrics"; }
healthy() { [ "$(docker inspect -f '{{.State.Health.Status}}' "$(container "$1")")" = healthy ]; }

# A client on the host: the host's own network, so it sees what is published there and no container's name.
on_host() { docker run --rm --label "$client_label" --network host "$image" "$@"; }
# A client inside the compose network, in a container of its own so that it outlives any node. Like the nodes it does
# not wait 5 s for the answer about a name that is gone with its container.
in_network() {
    docker run --rm --label "$client_label" --network "${COMPOSE_PROJECT_NAME}_default" \
        --dns-opt timeout:1 --dns-opt attempts:3 "$image" "$@"
}

# send WHERE SERVERS PREFIX COUNT INTERVAL_MS: COUNT messages "PREFIX-1".. to the topic; fails when one send fails.
send() {
    local result
    result=$("$1" send --namesrv "$2" --topic "$topic" --count "$4" --interval-ms "$5" --body "$3-{n}" -o json) \
        || { echo "$result"; return 1; }
    echo "$result"
    echo "$result" | tail -1 | python3 -c '
import json, sys
result = json.load(sys.stdin)
sys.exit(result["sent"] != int(sys.argv[1]) or result["failed"] != 0)' "$4" || return 1
    # One file for each prefix: two producers may run at the same time.
    seq -f "$3-%.0f" "$4" >"$work/acked.$3"
}

# consume WHERE SERVERS GROUP: a new consumer group reads until nothing more comes, and that is all that was
# acknowledged so far. A producer that had to try again may have stored a message twice, which is no fault.
consume() {
    sort -u "$work"/acked.* >"$work/expected"
    "$1" consume --namesrv "$2" --topic "$topic" --group "$3" --from first --timeout 5s -o json >"$work/consumed" \
        || return 1
    python3 -c '
import json, sys
for line in sys.stdin:
    print(json.loads(line)["body"])' <"$work/consumed" | sort -u >"$work/bodies"
    diff "$work/expected" "$work/bodies"
}

# index_of METRIC NODE: lines of "group value", sorted by group.
index_of() {
    metrics "$2" | sed -n "s/^$1{.*group=\"\([^\"]*\)\".*} \([0-9.e+]*\)\$/\1 \2/p" \
        | awk '{ printf "%s %d\n", $1, $2 }' | sort
}

# caught_up NODE: it has applied at least what another node had agreed on in each group when asked.
caught_up() {
    local other=gantry2
    [ "$1" != gantry2 ] || other=gantry3
    index_of gantry_raft_committed_index "$other" >"$work/committed" || return 1
    index_of gantry_raft_applied_index "$1" >"$work/applied" || return 1
    [ -s "$work/committed" ] || return 1
    join "$work/committed" "$work/applied" | awk '$3 < $2 { behind = 1 } END { exit behind || NR != 3 }'
}

promtool() {
    docker run --rm -i --entrypoint promtool -v "$repository:/repository:ro" -w /repository \
        "$(image_prometheus)" "$@"
}

# query EXPRESSION: Prometheus' answer; fails when it refuses the expression.
query() { curl -sS --fail --max-time 5 --get --data-urlencode "query=$1" http://127.0.0.1:9090/api/v1/query; }
# holds EXPRESSION: the answer has at least one sample.
holds() { query "$1" 2>/dev/null | grep -q '"value":\['; }

dashboard_expressions_are_valid() {
    local expression
    "$repository/tests/compose/metric_names.py" --expressions | while read -r expression; do
        query "$expression" >/dev/null || { echo "refused: $expression"; return 1; }
    done
}

scraped_metrics_agree() {
    local node
    for node in $nodes; do
        metrics "$node" >"$work/$node.txt" || return 1
        promtool check metrics <"$work/$node.txt" || return 1
    done
    "$repository/tests/compose/metric_names.py" "$work"/gantry?.txt
}

prepare() {
    install_missing curl curl
    install_missing python3 python3
    docker info >/dev/null 2>&1 || die "no Docker daemon answers"
    docker compose version >/dev/null 2>&1 || install_missing docker-compose docker-compose
    "$repository/tests/compose/base-images.sh"
    trap finish EXIT
    remove_clients
    compose down -v --timeout 5 >/dev/null 2>&1 || true
}

static_checks() {
    check "docker-compose.yml is valid" compose config -q
    check "Prometheus' configuration and rules are valid" promtool check config deploy/prometheus/prometheus.yml
    check "the alerts fire when they should" promtool test rules tests/compose/alerts_test.yml
    check "rules and dashboard use documented metrics" tests/compose/metric_names.py
}

bring_up() {
    note "building the image and starting the cluster"
    # The service names keep Grafana out, whose image cannot be built without a registry.
    # shellcheck disable=SC2086
    compose up --build -d $nodes prometheus >"$work/up" 2>&1 || { tail -40 "$work/up"; fail "compose up"; exit 1; }
    image=$(docker inspect -f '{{.Config.Image}}' "$(container gantry1)")
    for node in $nodes; do
        check "$node is healthy" await 120 healthy "$node"
    done
    [ $failures -eq 0 ] || exit 1
    check "the process is not root" test "$(docker exec "$(container gantry1)" id -u)" != 0
}

send_and_consume() {
    check "topic create" on_host topic create "$topic" --namesrv "$host_servers"
    check "200 messages sent from the host" send on_host "$host_servers" host 200 0
    check "200 messages sent from the network" send in_network "$network_servers" network 200 0
    check "all consumed on the host" consume on_host "$host_servers" reader-host
    check "all consumed in the network" consume in_network "$network_servers" reader-network
}

# sending_while TAG DESCRIPTION COMMAND...: two producers, on the host and in the network, send messages 20 ms apart;
# the command runs while they do.
sending_while() {
    local tag=$1 what=$2 host_sender network_sender
    shift 2
    send on_host "$host_servers" "host-$tag" "$messages" 20 >"$work/sender-host" 2>&1 &
    host_sender=$!
    send in_network "$network_servers" "network-$tag" "$messages" 20 >"$work/sender-network" 2>&1 &
    network_sender=$!
    sleep $traffic_before # Not a wait for anything: the traffic before the event.
    "$@"
    check "no send failed on the host while $what" finished_well "$host_sender" "$work/sender-host"
    check "no send failed in the network while $what" finished_well "$network_sender" "$work/sender-network"
}
finished_well() { wait "$1" || { cat "$2"; return 1; }; }

kill_node() { check "kill -9 of gantry1" docker kill -s KILL "$(container gantry1)"; }
stop_node() {
    local started=$SECONDS
    check "gantry2 stops" compose stop gantry2
    check "in less than stop_grace_period: $((SECONDS - started)) s" test $((SECONDS - started)) -lt 60
    check "its exit status is 0" exited_well gantry2
}
exited_well() {
    local status
    status=$(docker inspect -f '{{.State.Status}} {{.State.ExitCode}}' "$(container "$1")")
    [ "$status" = "exited 0" ] || { echo "$1: $status"; return 1; }
}

failover() {
    note "killing gantry1 while messages are sent"
    sending_while kill "a node was killed" kill_node
    check "every group has a leader without gantry1" \
        await 20 holds 'count(max by (group) (gantry_raft_is_leader{instance!~"gantry1:.*"}) == 1) == 3'
    check "all that was acknowledged is consumed without gantry1" consume on_host "$host_servers" reader-failover
    check "Prometheus saw the node go down" await 30 holds 'up{instance="gantry1:5557"} == 0'

    note "starting gantry1 again"
    check "gantry1 starts" compose start gantry1
    check "gantry1 is healthy again" await 120 healthy gantry1
    check "gantry1 has caught up" await 60 caught_up gantry1
    check "all is consumed through gantry1" consume on_host 127.0.0.1:9876 reader-back
}

planned_stop() {
    note "stopping gantry2 while messages are sent"
    sending_while stop "a node was stopped" stop_node
    check "gantry2 starts" compose start gantry2
    check "gantry2 is healthy again" await 120 healthy gantry2
    check "gantry2 has caught up" await 60 caught_up gantry2
    check "all is consumed in the network" consume in_network "$network_servers" reader-stop
}

# All at once, as `docker compose stop` or a reboot does it, and with a client that never leaves: no node has anybody
# to hand its groups to, and one waits in vain for its client.
stop_all() {
    local node started
    note "stopping all nodes, one with a client that stays"
    exec 9<>/dev/tcp/127.0.0.1/9878
    started=$SECONDS
    # shellcheck disable=SC2086
    check "all nodes stop" compose stop $nodes
    check "in less than stop_grace_period: $((SECONDS - started)) s" test $((SECONDS - started)) -lt 60
    exec 9>&-
    for node in $nodes; do
        check "the exit status of $node is 0" exited_well "$node"
    done
    # shellcheck disable=SC2086
    check "all nodes start" compose start $nodes
    for node in $nodes; do
        check "$node is healthy again" await 120 healthy "$node"
    done
    check "all is consumed after all nodes were stopped" consume on_host "$host_servers" reader-all
}

# A node that is down, or one that stops, must not make the others (or itself) log, and so try, without end.
quiet() {
    local node lines
    for node in $nodes; do
        lines=$(docker logs "$(container "$node")" 2>&1 | tee "$work/log" | wc -l)
        [ "$lines" -lt 1000 ] || { echo "$node logged $lines lines:"; tail -10 "$work/log"; return 1; }
    done
}

observed() {
    check "Prometheus scrapes all three nodes" await 30 holds 'sum(up{job="gantry"}) == 3'
    check "Prometheus has loaded the rules" await 10 \
        sh -c 'curl -sS --fail http://127.0.0.1:9090/api/v1/rules | grep -q GantryNodeDown'
    check "no alert about a group without leader remains" \
        await 60 holds 'absent(ALERTS{alertname=~"GantryGroupWithoutLeader|GantryNodeDown"})'
    # Over time, because the nodes have been stopped since and count from 0 again.
    check "Prometheus counted the messages" await 30 holds \
        'sum(max_over_time(rocketmq_messages_in_total[15m])) > 400'
    check "the dashboard's expressions are valid" dashboard_expressions_are_valid
    check "the nodes logged little" quiet
    check "what the nodes expose is well-formed and documented" scraped_metrics_agree
}

take_down() {
    [ -z "${KEEP:-}" ] || return 0
    check "compose down -v" compose down -v
    check "no volume is left" test -z "$(docker volume ls -q --filter "name=^${COMPOSE_PROJECT_NAME}_")"
}

cd "$repository"
prepare
static_checks
bring_up
send_and_consume
failover
planned_stop
[ -n "$short" ] || stop_all
observed
# With a failure `finish` takes it down, after it has shown what the services say.
[ $failures -ne 0 ] || take_down
if [ $failures -ne 0 ]; then
    echo "FAIL $failures checks failed"
    exit 1
fi
echo "PASS all checks"
