# shellcheck shell=bash
# A Debian that has never seen the project, in a folder: made by debootstrap from this machine's own package
# sources, entered in namespaces of its own. Needs root, debootstrap and about 4 GB.
#
#   bare_debian_make ROOT PACKAGE…    a minimal system with these packages
#   bare_debian_rust ROOT             this machine's Rust at /opt/rust (a new machine has one by rustup)
#   bare_debian_crates ROOT HOME      the crates of Cargo.lock for HOME's cargo, so that nothing is downloaded twice
#   bare_debian_run ROOT COMMAND…     runs as root inside; whatever it leaves running is killed when it ends
#   bare_debian_left ROOT             what was left behind in the temporary folders and as a database server's socket

BARE_DEBIAN_SUITE="${BARE_DEBIAN_SUITE:-bookworm}"

bare_debian_make() {
  local root=$1
  shift
  local include
  include=$(IFS=,; echo "$*")
  debootstrap --variant=minbase ${include:+--include="$include"} "$BARE_DEBIAN_SUITE" "$root" \
    "$(bare_debian_mirror)" >"$root.debootstrap.log" 2>&1 </dev/null || {
    tail -n 20 "$root.debootstrap.log" >&2
    return 1
  }
  rm -f "$root.debootstrap.log"
  # How this machine reaches its package sources: proxies, certificates, credentials.
  apt-config dump | grep -E '^Acquire::(Check|http|https|Retries|ForceIPv)' >"$root/etc/apt/apt.conf.d/90host" || true
  cp -r /etc/apt/auth.conf.d "$root/etc/apt/" 2>/dev/null || true
  # The same for pip and npm.
  cp /etc/pip.conf /etc/npmrc "$root/etc/" 2>/dev/null || true
  mkdir -p "$root/usr/local/share/ca-certificates"
  cp /usr/local/share/ca-certificates/*.crt "$root/usr/local/share/ca-certificates/" 2>/dev/null || true
  cp -L /etc/resolv.conf "$root/etc/resolv.conf"
  printf '127.0.0.1 localhost\n::1 localhost\n' >"$root/etc/hosts"
  # No service manager runs inside.
  printf '#!/bin/sh\nexit 101\n' >"$root/usr/sbin/policy-rc.d"
  chmod +x "$root/usr/sbin/policy-rc.d"
}

# The first archive (not a security one) among this machine's sources, in either of apt's formats.
bare_debian_mirror() {
  local found
  found=$(cat /etc/apt/sources.list /etc/apt/sources.list.d/*.list /etc/apt/sources.list.d/*.sources 2>/dev/null |
    grep -oE '^(deb .*|URIs: *.*)' | grep -oE '(https?|file|copy)://[^ ]+' | grep -E '/debian/?$' | head -n 1)
  [[ -n $found ]] || { echo "no Debian archive among this machine's package sources" >&2; return 1; }
  echo "$found"
}

bare_debian_rust() {
  local root=$1 sysroot
  sysroot=$(rustc --print sysroot)
  mkdir -p "$root/opt/rust"
  tar -C "$sysroot" --exclude=./share -cf - . | tar -C "$root/opt/rust" -xf -
  # shellcheck disable=SC2016
  echo 'export PATH="/opt/rust/bin:$PATH"' >"$root/etc/profile.d/rust.sh"
}

bare_debian_crates() {
  local root=$1 home=$2 cache="${CARGO_HOME:-$HOME/.cargo}/registry"
  cargo fetch --locked --quiet
  mkdir -p "$root$home/.cargo/registry"
  cp -r "$cache/index" "$cache/cache" "$root$home/.cargo/registry/"
  printf '[net]\noffline = true\n' >"$root$home/.cargo/config.toml"
}

# A process namespace of its own ends with the command, and a mount namespace takes its mounts with it: nothing is
# left to unmount or to kill, whatever happened inside.
bare_debian_run() {
  local root=$1
  shift
  # shellcheck disable=SC2016 # expanded inside
  unshare --mount --pid --ipc --fork --kill-child --propagation private bash -euc '
    root=$1
    shift
    mount -t proc proc "$root/proc"
    mount -t tmpfs -o mode=755,size=1m tmpfs "$root/dev"
    for node in null zero full random urandom tty; do
      touch "$root/dev/$node"
      mount --bind "/dev/$node" "$root/dev/$node"
    done
    ln -s /proc/self/fd "$root/dev/fd"
    mkdir "$root/dev/shm" "$root/dev/pts"
    mount -t tmpfs -o mode=1777 tmpfs "$root/dev/shm"
    mount -t devpts -o newinstance,ptmxmode=0666 devpts "$root/dev/pts"
    ln -s pts/ptmx "$root/dev/ptmx"
    exec chroot "$root" /usr/bin/env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
      LANG=C.UTF-8 HOME=/root TERM=dumb "$@"
  ' bare-debian "$root" "$@" </dev/null
}

bare_debian_left() {
  find "$1/tmp" "$1/var/tmp" "$1/run/postgresql" -mindepth 1 2>/dev/null
}
