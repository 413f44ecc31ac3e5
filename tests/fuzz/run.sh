#!/usr/bin/env bash
# Fuzzes every decoder and the broker with libFuzzer: tests/fuzz/run.sh [--seconds N] [--jobs N] [TARGET...]
#
# Installs cargo-fuzz if it is missing. Works with the pinned stable compiler: coverage is asked for with
# RUSTC_BOOTSTRAP. No sanitizer: there is no unsafe code to sanitize, and runs are twice as many without.
# New inputs go to tests/fuzz/harness/corpus/ (not kept), findings to tests/fuzz/harness/artifacts/. The inputs in
# tests/fuzz/corpus/ are the ones in the repository.
set -euo pipefail
cd "$(dirname "$0")"

seconds=60
jobs=1
targets=()
while [ $# -gt 0 ]; do
  case "$1" in
    --seconds) seconds=$2; shift 2 ;;
    --jobs) jobs=$2; shift 2 ;;
    --help|-h) sed -n '2,7p' "$0"; exit 0 ;;
    -*) printf 'unknown option %s; see --help\n' "$1" >&2; exit 2 ;;
    *) targets+=("$1"); shift ;;
  esac
done
if [ ${#targets[@]} -eq 0 ]; then
  targets=(frames messages filter recovery round_trips peers requests)
fi

if ! cargo fuzz --version >/dev/null 2>&1; then
  cargo install --locked cargo-fuzz
fi
export RUSTC_BOOTSTRAP=1
cargo fuzz build --fuzz-dir harness --sanitizer none

built=harness/target/$(rustc -vV | sed -n 's/^host: //p')/release
failed=()
for target in "${targets[@]}"; do
  work=harness/corpus/$target
  mkdir -p "$work" "harness/artifacts/$target"
  dictionary=()
  if [ -f "dictionaries/$target.dict" ]; then
    dictionary=("-dict=dictionaries/$target.dict")
  fi
  log=harness/artifacts/$target.log
  printf '=== %s, %s s\n' "$target" "$seconds"
  if ! "$built/$target" "$work" "corpus/$target" -rss_limit_mb=512 -timeout=5 -max_len=4096 \
    -max_total_time="$seconds" -fork="$jobs" -artifact_prefix="harness/artifacts/$target/" \
    "${dictionary[@]}" >"$log" 2>&1; then
    failed+=("$target")
    grep -aE "panicked|ERROR|SUMMARY|artifact" -A2 "$log" | tail -n 20
  fi
  tail -n 1 "$log"
done

if [ ${#failed[@]} -gt 0 ]; then
  printf 'findings in: %s\nEach becomes a unit test where it belongs; its input goes to tests/fuzz/corpus/.\n' \
    "${failed[*]}"
  exit 1
fi
printf 'no findings\n'
