#!/usr/bin/env bash
# Runs every check and every test, from a clean checkout on a fresh Debian machine with Rust.
#
# Missing packages are installed with apt-get, as root or through sudo, without questions. The last thing printed is a summary of
# `cargo test`; the exit code is 0 only if everything passed. It takes about a quarter of an hour on two cores.
set -euo pipefail
cd "$(dirname "$0")/.."

# say TEXT...: a heading with the minutes since the start.
say() { printf '\n== %d:%02d %s\n' $((SECONDS / 60)) $((SECONDS % 60)) "$*"; }
fail() { printf 'tests/run.sh: %s\n' "$*" >&2; exit 1; }
has() { command -v "$1" >/dev/null 2>&1; }

fresh_lists=false
# install PACKAGE...: installs with the rights there are, or says what to do by hand.
install() {
  say "installing $*"
  has apt-get || fail "needs $*, and there is no apt-get here: install them by hand, then run this again"
  local sudo=()
  if [ "$(id -u)" -ne 0 ]; then
    has sudo && sudo -n true 2>/dev/null \
      || fail "needs $*, and this is neither root nor may it use sudo without a password: run  sudo apt-get install $*"
    sudo=(sudo -n)
  fi
  if ! $fresh_lists; then
    "${sudo[@]}" apt-get update -qq
    fresh_lists=true
  fi
  "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@"
}

node_version() { node -p 'process.versions.node.split(".")[0]' 2>/dev/null || echo 0; }

has cargo || fail 'needs Rust, and finds no cargo: see https://rustup.rs'

missing=()
has cc || missing+=(gcc libc6-dev)
has chromium || has google-chrome || missing+=(chromium)
has chromedriver || missing+=(chromium-driver)
# For the tests of several instances, and for Redis over TLS.
has redis-server || missing+=(redis-server)
has redis-cli || missing+=(redis-tools)
has openssl || missing+=(openssl)
# For the official OpenAI clients, which call the API, and for axe-core, which checks the pages.
python3 -c 'import ensurepip, venv' 2>/dev/null || missing+=(python3-venv)
has npm || missing+=(npm)
if [ "${#missing[@]}" -gt 0 ]; then install "${missing[@]}"; fi

target="${CARGO_TARGET_DIR:-$PWD/target}"
# A run from nothing uses each build once, so incremental data would only cost time.
if [ -n "${CI:-}" ]; then export CARGO_INCREMENTAL=0; fi
logs="$(mktemp -d)"
background=()
stop() {
  if [ "${#background[@]}" -gt 0 ]; then kill "${background[@]}" 2>/dev/null || true; fi
  rm -rf "$logs"
}
trap stop EXIT

# Started early, because they wait for the network.
say 'tests/sdk/install.sh and tests/axe/install.sh, in the background'
{ tests/sdk/install.sh "$target/sdk" && tests/axe/install.sh "$target/axe"; } >"$logs/install" 2>&1 &
installs=$!
background+=("$installs")

say 'cargo test --no-run'
cargo test --locked --no-run

if [ -d tests/js ]; then
  if [ "$(node_version)" -lt 18 ]; then install nodejs; fi
  [ "$(node_version)" -ge 18 ] || fail "needs node 18 or later for tests/js, finds $(node_version)"
  # The files by name: newer versions of node accept no folder.
  mapfile -t scripts < <(find tests/js -type f -name '*.test.*js' | sort)
  [ "${#scripts[@]}" -gt 0 ] || fail 'tests/js has no *.test.js, *.test.mjs or *.test.cjs'
  say "node --test ${scripts[*]}"
  node --test "${scripts[@]}"
fi

failed=()
# run_tests ARGUMENT...: every wait in the tests has its own limit; the one here ends a run that hangs all the same, and shows in
# which test.
run_tests() {
  say "cargo test $*"
  timeout --verbose --kill-after=20 1800 cargo test --locked --no-fail-fast "$@" || failed+=("cargo test $*")
}
# finish PROCESS NAME TEXT: waits for a background step and shows its output.
finish() {
  say "the end of: $3"
  wait "$1" || failed+=("$3")
  cat "$logs/$2"
}

# The soak depends on no clock that other load could delay, so it runs beside the unit tests.
say 'tests/soak.sh 2, in the background'
tests/soak.sh 2 >"$logs/soak" 2>&1 &
soak=$!
background+=("$soak")
run_tests --lib --bins
wait "$installs" || { cat "$logs/install"; fail 'the OpenAI clients or axe-core could not be installed: see above'; }

# These tests wait for sockets and timers more than they compute, so more of them run at once than there are cores.
run_tests --test it -- --skip browser:: --skip cluster:: --skip binary::cluster --test-threads "$(($(nproc) * 3))"
finish "$soak" soak 'tests/soak.sh 2'

# The lints use a target folder of their own, because cargo locks it, and the lowest priority.
lints() {
  export CARGO_TARGET_DIR="$target/lints"
  if cargo fmt --version >/dev/null 2>&1; then
    cargo fmt --check || return 1
  else
    echo 'NOT CHECKED: the formatting, because rustfmt is missing: rustup component add rustfmt'
  fi
  if cargo clippy --version >/dev/null 2>&1; then
    nice -n 19 cargo clippy --locked --all-targets -- -D warnings || return 1
  else
    echo 'NOT CHECKED: the lints, because clippy is missing: rustup component add clippy'
  fi
  RUSTDOCFLAGS='-D warnings' nice -n 19 cargo doc --locked --no-deps || return 1
}
say 'cargo fmt, clippy and doc without warnings, in the background'
lints >"$logs/lints" 2>&1 &
lints=$!
background+=("$lints")
# An instance that Redis delays twice continues alone, as it should. Other tests at the same time could cause that.
run_tests --test it -- cluster:: binary::cluster --test-threads 1
finish "$lints" lints 'cargo fmt, clippy, doc'

run_tests --test it browser:: -- --test-threads "$(($(nproc) + 1))"
run_tests --doc
if [ "${#failed[@]}" -gt 0 ]; then fail "failed: $(printf '%s; ' "${failed[@]}")"; fi
