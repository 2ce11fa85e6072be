#!/bin/sh
# Updates the vendored libraries from npm's configured registry, within the major versions that the chat supports, and
# rewrites VENDORED.txt. Needs npm, tar and sha256sum. Runs from any directory:
#     static/vendor/update.sh
# marked and highlight.js are the published ES modules, unchanged. DOMPurify publishes its minified build as UMD only (the
# ES module is twice the size). Its file is unchanged too, but enclosed in two lines that give it a module scope, so that it
# neither sets a global nor uses an AMD loader of the embedding page.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"

unpack() { # NAME RANGE: unpacks the package into the directory NAME
    mkdir -p "$1"
    npm pack --silent "$1@$2" > /dev/null
    tar -xzf "$(packed "$1")" -C "$1" --strip-components=1
}
packed() { ls "$(echo "$1" | tr -d '@' | tr '/' '-')"-*.tgz; }
version() { packed "$1" | sed 's/^.*-\([0-9][0-9.]*\)\.tgz$/\1/'; }
sum() { sha256sum "$1" | cut -d ' ' -f 1; }

unpack marked 18
unpack dompurify 3.4
unpack @highlightjs/cdn-assets 11

cp marked/lib/marked.esm.js "$here/marked.esm.js"
cp marked/LICENSE "$here/LICENSE-marked"
{
    echo 'const module = { exports: {} }, exports = module.exports; // the published file follows, unchanged'
    cat dompurify/dist/purify.min.js
    printf '\nexport default module.exports;\n'
} > "$here/purify.esm.js"
cp dompurify/LICENSE "$here/LICENSE-dompurify"

# The languages in LANGUAGES of highlight.js (in the folder above).
languages='bash c cpp csharp css diff dockerfile go ini java javascript json kotlin markdown php python ruby rust shell
    sql swift typescript xml yaml'
rm -rf "$here/highlight"
mkdir "$here/highlight"
cp @highlightjs/cdn-assets/es/core.min.js "$here/highlight/"
for language in $languages; do
    cp "@highlightjs/cdn-assets/es/languages/$language.min.js" "$here/highlight/"
done
cp @highlightjs/cdn-assets/LICENSE "$here/LICENSE-highlight"

cat > "$here/VENDORED.txt" <<TXT
Third-party libraries, as published on npm. Updated by update.sh.

marked $(version marked)
  licence    MIT (LICENSE-marked)
  file       marked.esm.js: lib/marked.esm.js of the package, unchanged
  sha256     $(sum "$here/marked.esm.js")

DOMPurify $(version dompurify)
  licence    MPL-2.0 OR Apache-2.0, taken under Apache-2.0 (LICENSE-dompurify)
  file       purify.esm.js: dist/purify.min.js of the package between two lines that make it an ES module
  sha256     $(sum "$here/purify.esm.js")
  published  $(sum dompurify/dist/purify.min.js) (dist/purify.min.js)

highlight.js $(version @highlightjs/cdn-assets)
  licence    BSD-3-Clause (LICENSE-highlight)
  files      highlight/: es/core.min.js and some of es/languages of the package @highlightjs/cdn-assets, unchanged
$(cd "$here" && for file in highlight/*; do echo "  sha256     $(sum "$file") $file"; done)
TXT
cat "$here/VENDORED.txt"
