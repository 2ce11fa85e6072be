#!/usr/bin/env bash
# install.sh FOLDER: installs the official OpenAI clients for Python and JavaScript, each at one version, and prints the folder.
# Does nothing where they are there already. Needs python3 with venv, node, npm, and the package indexes that the machine is set up with.
set -euo pipefail

javascript='openai@6.49.0'

fail() { printf 'tests/sdk/install.sh: %s\n' "$*" >&2; exit 1; }

[ $# -eq 1 ] || fail 'say into which folder'
mkdir -p "$1"
to="$(cd "$1" && pwd)"
cd "$(dirname "$0")"

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
