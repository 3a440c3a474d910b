#!/usr/bin/env bash
# The PostgreSQL project's own regression scripts, for the tests: .config/regress.sh MAJOR
#
# Prints the directory that WALHOOK_REGRESS takes: `src/test/regress` of the source package that the system's own
# archive has for that version (Debian and Ubuntu: `postgresql-MAJOR`). It is fetched once, into a cache outside the tree:
# /var/cache/walhook/regress for root (whose servers run as the user `postgres`, who reads the data files), else
# ${XDG_CACHE_HOME:-$HOME/.cache}/walhook/regress. The system's own lists of packages stay as they are, and nothing is
# built. What cannot be had is told on standard error, and the exit code is then 1.
set -uo pipefail

[ $# -eq 1 ] || { sed -n '2,8s/^# \{0,1\}//p' "$0"; exit 2; }
major=$1
if [ "$(id -u)" -eq 0 ]; then cache=/var/cache/walhook/regress; else cache=${XDG_CACHE_HOME:-$HOME/.cache}/walhook/regress; fi
home=$cache/$major

cannot() { echo "regression scripts of PostgreSQL $major: $1" >&2; exit 1; }

# The system's sources of packages, asked for source packages instead: in both of the formats that apt reads.
source_lists() {
  local file
  for file in /etc/apt/sources.list /etc/apt/sources.list.d/*; do
    case $file in
      *.sources) grep -q '^URIs:.*\(debian\|ubuntu\)' "$file" && sed 's/^Types:.*/Types: deb-src/' "$file" > "$1/$(basename "$file")" ;;
      *.list) grep -s '^deb .*\(debian\|ubuntu\)' "$file" | sed 's/^deb /deb-src /' > "$1/$(basename "$file")" ;;
    esac
  done
}

fetch() (
  umask 022
  work=$home.$$
  mkdir -p "$work/parts" "$work/lists/partial" || exit 1
  trap 'rm -rf "$work"' EXIT
  cd "$work" || exit 1
  source_lists "$work/parts"
  options=(-q -o Dir::Etc::sourcelist=/dev/null -o "Dir::Etc::sourceparts=$work/parts" -o "Dir::State::lists=$work/lists"
    -o Dir::Cache::srcpkgcache= -o Dir::Cache::pkgcache= -o APT::Sandbox::User=)
  # An archive that has no sources is no failure, as long as another has these.
  timeout 300 apt-get "${options[@]}" update > update.log 2>&1
  # Nor is a version that an archive names and does not have, as long as there is an older one.
  for version in $(apt-cache "${options[@]}" showsrc "postgresql-$major" 2> /dev/null | sed -n 's/^Version: //p' | sort -Vru); do
    timeout 300 apt-get "${options[@]}" source --download-only "postgresql-$major=$version" >> source.log 2>&1 && break
    rm -f postgresql-*
  done
  ls postgresql-"$major"_*.orig.tar.* > /dev/null 2>&1 || { tail -n 3 update.log source.log >&2; exit 1; }
  tar -xf postgresql-"$major"_*.orig.tar.* --wildcards --strip-components=1 '*/src/test/regress/*' \
    && test -f src/test/regress/parallel_schedule \
    && chmod -R a+rX src \
    && mkdir -p "$home" \
    && rm -rf "$home/src" \
    && mv src "$home/src"
)

if [ ! -f "$home/src/test/regress/parallel_schedule" ]; then
  command -v apt-get > /dev/null || cannot "there is no apt-get here to fetch them with"
  echo "regression scripts of PostgreSQL $major: fetching them into $home" >&2
  fetch || cannot "they could not be fetched"
fi
echo "$home/src/test/regress"
