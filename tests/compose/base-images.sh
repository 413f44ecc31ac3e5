#!/usr/bin/env bash
# Makes the base images of Dockerfile and docker-compose.yml available: those that are missing are pulled, and those
# that cannot be pulled (no registry within reach) are built here from Debian packages and the local Rust toolchain,
# under the same names. Grafana has no Debian package and is left out.
#
#   tests/compose/base-images.sh             # pull or build what is missing
#   tests/compose/base-images.sh --remove    # remove the images that were built here
#
# Building needs root (debootstrap). An image built here carries the label `gantry.base=local`.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

debian=$(image_debian) rust=$(image_rust) prometheus=$(image_prometheus)
work=$(mktemp -d)
trap 'rm -rf --one-file-system "$work"' EXIT

# The root file system as the official slim image has it: minimal, without manuals and package lists.
build_debian() {
    [ "$(id -u)" = 0 ] || die "debootstrap needs root"
    install_missing debootstrap debootstrap
    debootstrap --variant=minbase "$(echo "$debian" | sed 's/.*:\([a-z]*\).*/\1/')" "$work/root" >"$work/log" 2>&1 \
        || { tail -20 "$work/log" >&2; die "debootstrap failed"; }
    rm -rf "$work"/root/var/lib/apt/lists/* "$work"/root/var/cache/apt/* \
        "$work"/root/usr/share/{doc,info,locale,man}/*
    tar -C "$work/root" -c . | docker import -c 'CMD ["bash"]' -c 'LABEL gantry.base=local' - "$debian" >/dev/null
}

# The local toolchain at the paths of the official image, with a linker, and with this machine's own certificate
# authorities and Cargo settings, for a build that reaches its crates the way this machine does.
build_rust() {
    local wanted sysroot cargo_home
    wanted=$(echo "$rust" | sed 's/rust:\([0-9.]*\).*/\1/')
    rustc --version | grep -q "^rustc $wanted\." \
        || die "$rust is built from the local toolchain, which is not $wanted: $(rustc --version)"
    sysroot=$(rustc --print sysroot)
    cargo_home=${CARGO_HOME:-$HOME/.cargo}
    mkdir -p "$work/rust/toolchain" "$work/rust/authorities" "$work/rust/cargo"
    tar -C "$sysroot" -c --exclude share/doc --exclude share/man bin lib | tar -C "$work/rust/toolchain" -x
    find /usr/local/share/ca-certificates -name '*.crt' -exec cp {} "$work/rust/authorities/" \; 2>/dev/null || true
    [ ! -f "$cargo_home/config.toml" ] || cp "$cargo_home/config.toml" "$work/rust/cargo/"
    cat >"$work/rust/Dockerfile" <<EOF
FROM $debian
LABEL gantry.base=local
RUN apt-get update \\
    && apt-get install -y --no-install-recommends ca-certificates gcc libc6-dev \\
    && rm -rf /var/lib/apt/lists/*
COPY authorities/ /usr/local/share/ca-certificates/
RUN update-ca-certificates
COPY toolchain/ /usr/local/
COPY cargo/ /usr/local/cargo/
ENV CARGO_HOME=/usr/local/cargo
EOF
    docker build -q -t "$rust" "$work/rust" >/dev/null
}

# Debian's prometheus with the entry point, user and data directory of the official image.
build_prometheus() {
    mkdir -p "$work/prometheus"
    cat >"$work/prometheus/Dockerfile" <<EOF
FROM $debian
LABEL gantry.base=local
RUN apt-get update \\
    && apt-get install -y --no-install-recommends prometheus \\
    && rm -rf /var/lib/apt/lists/* \\
    && install -d -o nobody -g nogroup /prometheus
USER nobody
WORKDIR /prometheus
VOLUME /prometheus
EXPOSE 9090
ENTRYPOINT ["/usr/bin/prometheus"]
CMD ["--config.file=/etc/prometheus/prometheus.yml", "--storage.tsdb.path=/prometheus"]
EOF
    docker build -q -t "$prometheus" "$work/prometheus" >/dev/null
}

# provide IMAGE BUILDER: there already, or pulled, or built.
provide() {
    docker image inspect "$1" >/dev/null 2>&1 && { note "$1 is here"; return; }
    timeout 300 docker pull -q "$1" >/dev/null 2>&1 && { note "$1 pulled"; return; }
    note "$1 cannot be pulled: building it"
    "$2"
}

if [ "${1:-}" = --remove ]; then
    docker images -q --filter label=gantry.base=local | sort -u | xargs -r docker rmi -f
    exit
fi
[ $# -eq 0 ] || die "unknown argument $1; see the head of this script"
provide "$debian" build_debian
provide "$rust" build_rust
provide "$prometheus" build_prometheus
