# run_once.sh, to be sourced: what the tests fetch is fetched once, also where two runs begin at the same time.

fail() { printf '%s: %s\n' "$0" "$*" >&2; exit 1; }

# once WANTED FOLDER INSTALL: calls INSTALL, with the whole path of FOLDER in $to, unless what is there is WANTED already. Whatever it prints goes to
# stderr; stdout is for what the script has to say.
once() {
  local wanted="$1" install="$3"
  mkdir -p "$2"
  to="$(cd "$2" && pwd)"
  exec 9>"$to/lock"
  flock 9
  if [ "$(cat "$to/installed" 2>/dev/null)" != "$wanted" ]; then
    rm -f "$to/installed"
    "$install" >&2
    printf '%s\n' "$wanted" > "$to/installed"
  fi
}

# packages FOLDER NAME@VERSION...: into FOLDER, from the npm index, as published and running nothing of theirs.
packages() {
  command -v npm >/dev/null || fail 'needs npm: apt-get install npm'
  npm install --prefix "$1" --silent --no-save --no-package-lock --no-audit --no-fund --ignore-scripts --omit=peer "${@:2}"
}
