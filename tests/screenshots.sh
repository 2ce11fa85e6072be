#!/usr/bin/env bash
# Makes the README's pictures anew, in docs/pictures, from the pages as they are now. Needs what tests/run.sh installs.
set -euo pipefail
cd "$(dirname "$0")/.."

cargo test --locked --test it -- --ignored --exact browser::screenshots::screenshots
ls -l docs/pictures
