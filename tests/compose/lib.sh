# Shared by the scripts of this directory; sourced, never run.

repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)

note() { echo "---- $*"; }

die() { echo "ERROR $*" >&2; exit 2; }

# install_missing COMMAND PACKAGE: installs a Debian package when its command is not there.
install_missing() {
    command -v "$1" >/dev/null 2>&1 && return
    command -v apt-get >/dev/null 2>&1 || die "$1 is missing; install it (Debian package: $2)"
    [ "$(id -u)" = 0 ] || die "$1 is missing and only root can install it: apt-get install $2"
    note "installing $2"
    DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$2" >/dev/null \
        || { apt-get update >/dev/null && DEBIAN_FRONTEND=noninteractive \
            apt-get install -y --no-install-recommends "$2" >/dev/null; } \
        || die "cannot install $2"
}

# The image names that the repository uses are read from it, so that they are written down in one place.
image_debian() { sed -n 's/^FROM \(debian:[^ ]*\).*/\1/p' "$repository/Dockerfile"; }
image_rust() { sed -n 's/^FROM \(rust:[^ ]*\).*/\1/p' "$repository/Dockerfile"; }
image_prometheus() { sed -n 's/^ *image: *\(prom\/prometheus:[^ ]*\).*/\1/p' "$repository/docker-compose.yml"; }

# compose ARGUMENTS...: the plugin when it is installed, else the older stand-alone program.
compose() {
    if docker compose version >/dev/null 2>&1; then
        docker compose "$@"
    else
        docker-compose "$@"
    fi
}
