#!/usr/bin/env bash
# install.sh FOLDER: installs the official OpenAI clients for Python and JavaScript, each at one version, and prints the folder.
# Does nothing where they are there already. Needs python3 with venv, node, npm, and the package indexes that the machine is set up with.
set -euo pipefail
here="$(cd "$(dirname "$0")" && pwd)"
source "$here/../run_once.sh"

javascript='openai@6.49.0'

install() {
  rm -rf "$to/python" "$to/javascript"
  python3 -m venv "$to/python" || fail 'needs python3 with venv: apt-get install python3-venv'
  "$to/python/bin/pip" install --quiet --disable-pip-version-check -r "$here/requirements.txt"
  mkdir "$to/javascript"
  packages "$to/javascript" "$javascript"
}

[ $# -eq 1 ] || fail 'say into which folder'
once "$(cat "$here/requirements.txt") $javascript" "$1" install
printf '%s\n' "$to"
