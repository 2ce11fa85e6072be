#!/usr/bin/env bash
# install.sh FOLDER: installs axe-core, which finds what keeps people from using a page, at one version, and prints its file.
# Does nothing where it is there already. Needs npm and the package index that the machine is set up with.
set -euo pipefail

axe='axe-core@4.14.1'

fail() { printf 'tests/axe/install.sh: %s\n' "$*" >&2; exit 1; }

[ $# -eq 1 ] || fail 'say into which folder'
mkdir -p "$1"
to="$(cd "$1" && pwd)"

# Two test runs at once install once.
exec 9>"$to/lock"
flock 9

if [ "$(cat "$to/installed" 2>/dev/null)" != "$axe" ]; then
  rm -rf "$to/node_modules" "$to/installed"
  command -v npm >/dev/null || fail 'needs npm: apt-get install npm'
  npm install --prefix "$to" --silent --no-save --no-package-lock --no-audit --no-fund --ignore-scripts "$axe" >&2
  printf '%s\n' "$axe" > "$to/installed"
fi
printf '%s\n' "$to/node_modules/axe-core/axe.min.js"
