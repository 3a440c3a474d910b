# Sourced by ./test and ./demo: finds what is missing and installs it, or says how.
#
# On Debian and Ubuntu packages come through apt-get, as root or with sudo; elsewhere the script stops and names what
# to install. What is there already, from wherever, is left alone.

apt_packages=() brew_packages=()

need_rust() {
  # An installation for one user is not on the path of a bare shell.
  if ! command -v cargo > /dev/null && [ -f "$HOME/.cargo/env" ]; then . "$HOME/.cargo/env"; fi
  command -v cargo > /dev/null && command -v cc > /dev/null && return
  if ! command -v cargo > /dev/null; then
    echo "Rust is missing. Install it with rustup (https://rustup.rs), then run this again." >&2
    exit 1
  fi
  apt_packages+=(build-essential)
}

# need_program PROGRAM "APT PACKAGES" "BREW PACKAGES"
need_program() {
  command -v "$1" > /dev/null && return
  # shellcheck disable=SC2206
  apt_packages+=($2) brew_packages+=($3)
}

has_postgres() {
  [ -n "${WALHOOK_PG_BIN:-}" ] && return
  local directory
  for directory in /usr/lib/postgresql/*/bin /usr/pgsql-*/bin /opt/homebrew/opt/postgresql*/bin \
    /usr/local/opt/postgresql*/bin /usr/local/pgsql/bin "$(pg_config --bindir 2> /dev/null || true)"; do
    [ -n "$directory" ] && [ -x "$directory/postgres" ] && [ -x "$directory/initdb" ] && return
  done
  command -v postgres > /dev/null && command -v initdb > /dev/null
}

need_postgres() {
  has_postgres && return
  apt_packages+=(postgresql) brew_packages+=(postgresql@17)
}

install_needed() {
  [ ${#apt_packages[@]} -eq 0 ] && return
  if ! command -v apt-get > /dev/null; then
    echo "Missing here. With Homebrew: brew install ${brew_packages[*]}" >&2
    echo "(with another package manager, its packages of: ${apt_packages[*]})" >&2
    return 1
  fi
  local sudo=()
  if [ "$(id -u)" -ne 0 ]; then
    if ! command -v sudo > /dev/null; then
      echo "Missing: ${apt_packages[*]}. Run as root or install sudo, so that they can be installed." >&2
      return 1
    fi
    sudo=(sudo)
  fi
  echo "Installing ${apt_packages[*]}"
  "${sudo[@]+"${sudo[@]}"}" apt-get update -q \
    && "${sudo[@]+"${sudo[@]}"}" env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends \
      "${apt_packages[@]}"
}
