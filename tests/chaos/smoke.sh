#!/usr/bin/env bash
# Chaos in about three minutes, for every change: each class of the default list at least once, judged.
# Installs what it needs. Builds the release binaries, with the simulation: what is built together has the same
# features, and is not built again for each.
set -euo pipefail
cd "$(dirname "$0")/../.."

packages=(e2fsprogs faketime iproute2 nftables strace util-linux xfsprogs)
missing=()
for package in "${packages[@]}"; do
  dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
done
if ((${#missing[@]})); then
  apt-get install -y --no-install-recommends "${missing[@]}" ||
    { apt-get update && apt-get install -y --no-install-recommends "${missing[@]}"; }
fi

cargo build --release --locked -p gantry -p chaos -p simulation
out=${CARGO_TARGET_DIR:-target}/chaos
# Only a machine that lets nobody make namespaces and mounts is let off.
if ! unshare --mount --pid --net --fork --propagation private sh -c 'mount -t tmpfs none /mnt'; then
  printf '\nSKIPPED: chaos (this machine does not allow namespaces and mounts)\n\n'
  exit 0
fi
exec "${CARGO_TARGET_DIR:-target}/release/chaos" --seed "${CHAOS_SEED:-1}" --faults each --minutes 2.5 --round 6 \
  --out "$out" "$@"
