#!/bin/sh
# Renews the vendored libraries from the npm registry that npm is set up for, within the major versions that the
# page was written for, and rewrites VENDORED.txt. Needs npm, tar and sha256sum. Run it anywhere:
#     static/vendor/renew.sh
# marked is the published ES module, unchanged. DOMPurify publishes its minified build as UMD only (the ES module is
# twice the size); it is kept byte for byte between two lines that give it a module scope of its own, so that it
# neither sets a global nor speaks to an AMD loader on the page it is embedded in.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"

unpack() { # name range: fills the directory NAME
    mkdir "$1"
    npm pack --silent "$1@$2" > /dev/null
    tar -xzf "$1"-*.tgz -C "$1" --strip-components=1
}
version() { basename "$1"-*.tgz .tgz | sed "s/^$1-//"; }
sum() { sha256sum "$1" | cut -d ' ' -f 1; }

unpack marked 18
unpack dompurify 3.4

cp marked/lib/marked.esm.js "$here/marked.esm.js"
cp marked/LICENSE "$here/LICENSE-marked"
{
    echo 'const module = { exports: {} }, exports = module.exports; // the published file follows, unchanged'
    cat dompurify/dist/purify.min.js
    printf '\nexport default module.exports;\n'
} > "$here/purify.esm.js"
cp dompurify/LICENSE "$here/LICENSE-dompurify"

cat > "$here/VENDORED.txt" <<TXT
Libraries of others, as published on npm. Renewed by renew.sh.

marked $(version marked)
  licence    MIT (LICENSE-marked)
  file       marked.esm.js: lib/marked.esm.js of the package, unchanged
  sha256     $(sum "$here/marked.esm.js")

DOMPurify $(version dompurify)
  licence    MPL-2.0 OR Apache-2.0, taken under Apache-2.0 (LICENSE-dompurify)
  file       purify.esm.js: dist/purify.min.js of the package between two lines that make it an ES module
  sha256     $(sum "$here/purify.esm.js")
  published  $(sum dompurify/dist/purify.min.js) (dist/purify.min.js)
TXT
cat "$here/VENDORED.txt"
