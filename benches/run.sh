#!/usr/bin/env bash
# Measures the latency, CPU time and memory which the service adds, and updates the tables of docs/performance.md.
#
# Needs Linux, at least two cores, and Rust. Takes about a quarter of an hour plus the build. `benches/run.sh --only NAME` measures
# one figure and writes nothing; `benches/run.sh --help` lists the figures. It leaves no process behind, however it ends.
set -euo pipefail
cd "$(dirname "$0")/.."

fail() { printf 'benches/run.sh: %s\n' "$*" >&2; exit 1; }
for tool in cargo taskset setpriv; do
  command -v "$tool" >/dev/null || fail "needs $tool (cargo: https://rustup.rs; the others: util-linux)"
done
[ "$(nproc)" -ge 2 ] || fail 'needs two cores: one for the measured process, one for the load'
# Ten thousand sockets on each side.
ulimit -n "$(ulimit -Hn)"
[ "$(ulimit -n)" = unlimited ] || [ "$(ulimit -n)" -ge 16384 ] \
  || fail "needs 16384 open files, and $(ulimit -n) are allowed: raise the hard limit (ulimit -Hn)"

cargo build --release --locked --quiet --package failsoft --package failsoft-bench
built="${CARGO_TARGET_DIR:-$PWD/target}/release"
exec taskset -c 0 "$built/failsoft-bench" run --service "$built/failsoft" --document docs/performance.md "$@"
