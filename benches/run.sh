#!/usr/bin/env bash
# Measures what the service does to what passes through it, and writes the tables of docs/performance.md anew.
#
# Needs Linux, two cores at least, and Rust; takes about a quarter of an hour besides the build. `benches/run.sh --only NAME` measures one
# figure and writes nothing; `benches/run.sh --help` names them all. Whatever ends it, no process of it is left.
set -euo pipefail
cd "$(dirname "$0")/.."

fail() { printf 'benches/run.sh: %s\n' "$*" >&2; exit 1; }
for tool in cargo taskset setpriv; do
  command -v "$tool" >/dev/null || fail "needs $tool (cargo: https://rustup.rs; the others: util-linux)"
done
[ "$(nproc)" -ge 2 ] || fail 'needs two cores: one for what is measured, one for the load'
# Ten thousand sockets, on both sides.
ulimit -n "$(ulimit -Hn)"
[ "$(ulimit -n)" = unlimited ] || [ "$(ulimit -n)" -ge 16384 ] \
  || fail "needs 16384 open files, and $(ulimit -n) are allowed: raise the hard limit (ulimit -Hn)"

cargo build --release --locked --quiet --package failsoft --package failsoft-bench
built="${CARGO_TARGET_DIR:-$PWD/target}/release"
exec taskset -c 0 "$built/failsoft-bench" run --service "$built/failsoft" --document docs/performance.md "$@"
