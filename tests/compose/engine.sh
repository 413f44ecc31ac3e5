#!/usr/bin/env bash
# Whether a Docker engine answers. Where none does, Debian's is installed (as root) and started; an engine that was
# started stays. Exit status 1, after the reason, when there is none to be had.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

no_engine() { echo "no Docker engine: $*" >&2; exit 1; }
answers() { timeout 10 docker info >/dev/null 2>&1; }

# answers_soon: an engine that was just started answers after some seconds.
answers_soon() {
    local deadline=$((SECONDS + 30))
    until answers; do
        [ $SECONDS -lt $deadline ] || return 1
        sleep 0.5
    done
}

(install_missing docker docker.io) || no_engine "docker is not there and cannot be installed"
answers && exit
[ -z "${DOCKER_HOST:-}" ] || no_engine "nothing answers at DOCKER_HOST=$DOCKER_HOST"
[ "$(id -u)" = 0 ] || no_engine "only root can start one"
command -v dockerd >/dev/null 2>&1 || (install_missing dockerd docker.io) || no_engine "dockerd cannot be installed"
note "starting the Docker engine"
if command -v service >/dev/null 2>&1 && service docker start >/dev/null 2>&1 && answers_soon; then
    exit
fi
log=$(mktemp)
setsid dockerd >"$log" 2>&1 </dev/null &
answers_soon && exit
kill $! 2>/dev/null || true
tail -5 "$log" >&2
no_engine "it does not start"
