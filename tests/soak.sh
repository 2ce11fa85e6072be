#!/usr/bin/env bash
# Runs the service under random traffic and faults for so many minutes (2 by default), and prints a report: tests/soak.sh 10
#
# FAILSOFT_SOAK_SEED chooses other traffic. Fails where anything is left behind, torn or lost.
set -euo pipefail
cd "$(dirname "$0")/.."
export FAILSOFT_SOAK_MINUTES="${1:-2}"
exec cargo test --locked --test it -- --ignored --exact --nocapture binary::soak::soak
