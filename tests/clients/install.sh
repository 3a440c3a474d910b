#!/bin/sh
# Installs what tests/walhook/api/clients.rs and contract.rs drive: what validates the API's description, makes clients of
# it, and tries the API against it. Every version is pinned in python/requirements.txt and typescript/package-lock.json,
# with checksums. Goes into ${WALHOOK_TEST_CACHE:-$HOME/.cache/walhook-tests}; does nothing for what is already there.
#
# To take newer versions: change requirements.in and run, with uv,
#   uv pip compile --universal --generate-hashes --no-header --no-annotate --no-emit-index-url --python-version 3.11 \
#     requirements.in -o requirements.txt
# and in typescript: npm install --package-lock-only --omit-lockfile-registry-resolved
set -eu

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
cache=${WALHOOK_TEST_CACHE:-$HOME/.cache/walhook-tests}

say() { echo "tests/clients/install.sh: $*" >&2; }

# done_already NAME STAMP: whether this stamp was left by an earlier, finished run.
done_already() { [ "$(cat "$cache/$1.stamp" 2>/dev/null)" = "$2" ]; }
mark_done() { printf '%s\n' "$2" >"$cache/$1.stamp"; }

mkdir -p "$cache"
for command in python3 node npm; do
    if ! command -v "$command" >/dev/null 2>&1; then
        say "the command $command is missing; install it and try again"
        exit 1
    fi
done

stamp="$(cksum <"$here/python/requirements.txt") $(python3 --version)"
if ! done_already clients-python "$stamp"; then
    if ! python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
        say "Python 3.11 or newer is needed; this is $(python3 --version)"
        exit 1
    fi
    say "installing openapi-python-client, openapi-spec-validator and schemathesis"
    rm -rf "$cache/clients-python"
    if ! python3 -m venv "$cache/clients-python" >&2; then
        say "Python cannot make an environment of its own; on Debian and Ubuntu the package python3-venv is missing"
        exit 1
    fi
    "$cache/clients-python/bin/python" -m pip install --quiet --disable-pip-version-check --require-hashes \
        --requirement "$here/python/requirements.txt" >&2
    mark_done clients-python "$stamp"
fi

stamp="$(cat "$here/typescript/package.json" "$here/typescript/package-lock.json" | cksum)"
if ! done_already clients-typescript "$stamp"; then
    say "installing openapi-typescript, openapi-fetch and typescript"
    rm -rf "$cache/clients-typescript"
    mkdir -p "$cache/clients-typescript"
    cp "$here/typescript/package.json" "$here/typescript/package-lock.json" "$cache/clients-typescript"
    (cd "$cache/clients-typescript" && npm ci --silent --no-audit --no-fund --ignore-scripts >&2)
    mark_done clients-typescript "$stamp"
fi
