#!/usr/bin/env bash
# install.sh FOLDER: installs axe-core, which finds what keeps people from using a page, at one version, and prints its file.
# Does nothing where it is there already. Needs npm and the package index that the machine is set up with.
set -euo pipefail
source "$(dirname "$0")/../run_once.sh"

axe='axe-core@4.14.1'

install() {
  rm -rf "$to/node_modules"
  packages "$to" "$axe"
}

[ $# -eq 1 ] || fail 'say into which folder'
once "$axe" "$1" install
printf '%s\n' "$to/node_modules/axe-core/axe.min.js"
