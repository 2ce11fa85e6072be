#!/usr/bin/env bash
# Installs the official OpenAI clients for Python and JavaScript, each at one version, below the build folder, and prints where.
# Does nothing where they are there already. Needs python3 with venv, node 18 or later, npm, and the machine's own package indexes.
set -euo pipefail
cd "$(dirname "$0")"

javascript='openai@6.49.0'

fail() { printf 'tests/sdk/install.sh: %s\n' "$*" >&2; exit 1; }

to="${1:-../../target/sdk}"
mkdir -p "$to"
to="$(cd "$to" && pwd)"

# Two test runs at once install once.
exec 9>"$to/lock"
flock 9

wanted="$(cat requirements.txt) $javascript"
if [ "$(cat "$to/installed" 2>/dev/null)" != "$wanted" ]; then
  rm -rf "$to/python" "$to/javascript" "$to/installed"
  {
    python3 -m venv "$to/python" || fail 'needs python3 with venv: apt-get install python3-venv'
    "$to/python/bin/pip" install --quiet --disable-pip-version-check -r requirements.txt
    command -v npm >/dev/null || fail 'needs npm: apt-get install npm'
    mkdir "$to/javascript"
    npm install --prefix "$to/javascript" --silent --no-save --no-package-lock --no-audit --no-fund --ignore-scripts \
      --omit=peer "$javascript"
  } >&2
  printf '%s\n' "$wanted" > "$to/installed"
fi
printf '%s\n' "$to"
