#!/usr/bin/env bash
# Runs every check and every test, from a clean checkout on a fresh Debian machine with Rust.
#
# What the tests need and the machine lacks is installed with apt-get, as root or through sudo; nothing is asked. The last
# thing printed is the summary of `cargo test`; the exit code is 0 only if all went well.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf '\n== %s\n' "$*"; }
fail() { printf 'tests/run.sh: %s\n' "$*" >&2; exit 1; }
has() { command -v "$1" >/dev/null 2>&1; }

fresh_lists=false
# install PACKAGE...: with whatever rights there are, or says what to do by hand.
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
# For the official OpenAI clients, which the tests of the API call, and for axe-core, which looks at the pages.
python3 -c 'import ensurepip, venv' 2>/dev/null || missing+=(python3-venv)
has npm || missing+=(npm)
if [ "${#missing[@]}" -gt 0 ]; then install "${missing[@]}"; fi

say 'cargo test --no-run'
cargo test --locked --no-run
# It looks at no clock that other work could hold up, so it runs beside the lints.
say 'tests/soak.sh 2, in the background'
soaked="$(mktemp)"
tests/soak.sh 2 >"$soaked" 2>&1 &
soak=$!
trap 'kill "$soak" 2>/dev/null || true; rm -f "$soaked"' EXIT

unchecked=()
if cargo fmt --version >/dev/null 2>&1; then
  say 'cargo fmt --check'
  cargo fmt --check
else
  unchecked+=('the formatting, for want of rustfmt: rustup component add rustfmt')
fi

if cargo clippy --version >/dev/null 2>&1; then
  say 'cargo clippy --all-targets -- -D warnings'
  cargo clippy --locked --all-targets -- -D warnings
else
  unchecked+=('the lints, for want of clippy: rustup component add clippy')
fi

say 'cargo doc --no-deps, no warnings'
RUSTDOCFLAGS='-D warnings' cargo doc --locked --no-deps

if [ -d tests/js ]; then
  if [ "$(node_version)" -lt 18 ]; then install nodejs; fi
  [ "$(node_version)" -ge 18 ] || fail "needs node 18 or later for tests/js, finds $(node_version)"
  # The files by name: newer versions of node take no folder.
  mapfile -t scripts < <(find tests/js -type f -name '*.test.*js' | sort)
  [ "${#scripts[@]}" -gt 0 ] || fail 'tests/js holds no *.test.js, *.test.mjs or *.test.cjs'
  say "node --test ${scripts[*]}"
  node --test "${scripts[@]}"
fi

say 'tests/sdk/install.sh'
tests/sdk/install.sh "${CARGO_TARGET_DIR:-$PWD/target}/sdk"
say 'tests/axe/install.sh'
tests/axe/install.sh "${CARGO_TARGET_DIR:-$PWD/target}/axe"

say 'the end of the soak'
wait "$soak" || { cat "$soaked"; fail 'the soak left something behind, torn or lost: see above'; }
cat "$soaked"
rm -f "$soaked"

for what in "${unchecked[@]}"; do say "NOT CHECKED: $what"; done
# Each wait in the tests has its limit; the one here is for what nobody thought of, so that a run ends and says which test it was in.
failed=()
tests() {
  say "cargo test $*"
  timeout --verbose --kill-after=20 1800 cargo test --locked --no-fail-fast "$@" || failed+=("cargo test $*")
}
tests --lib --bins
# They wait for sockets and timers more than they compute, so more of them run at once than there are cores; a browser computes more. An instance
# that Redis keeps waiting twice goes on alone, as it should: where that would spoil a test, nothing else is to run.
tests --test it -- --skip browser:: --skip cluster:: --skip binary::cluster --test-threads "$(($(nproc) * 3))"
tests --test it -- cluster:: binary::cluster --test-threads 1
tests --test it browser:: -- --test-threads "$(($(nproc) + 1))"
tests --doc
if [ "${#failed[@]}" -gt 0 ]; then fail "failed: $(printf '%s; ' "${failed[@]}")"; fi
