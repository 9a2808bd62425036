#!/usr/bin/env bash
# Runs the build steps of our Dockerfiles in bare Debian systems, for machines without a container engine or image
# registry, and starts what they built: the release image's binary is the production one, has a health check that
# answers, and ends on SIGTERM; the demo image's demo holds. COPY takes what is committed.
#
#   dockerfile-steps.sh [DOCKERFILE…]
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=.ci/bare-debian.sh
source .ci/bare-debian.sh

main() {
  [[ $(id -u) -eq 0 ]] || { echo "needs root (chroot)" >&2; exit 1; }
  command -v debootstrap >/dev/null || apt-get install -y --no-install-recommends debootstrap
  work=$(mktemp -d /var/tmp/pgpassport-docker.XXXXXX)
  trap 'rm -rf --one-file-system "$work"' EXIT
  trap 'exit 130' INT TERM
  echo "base: $BARE_DEBIAN_SUITE"
  bare_debian_make "$work/base"
  local file
  for file in "${@:-docker/Dockerfile}"; do
    build "$file"
    "check_$(basename "$file" | tr -c '[:alnum:]\n' _)"
    rm -rf --one-file-system "${work:?}/stage" "$work"/*.stage
  done
}

# State of the stage that is being built.
root='' workdir=/ user=root healthcheck=''
declare -a entrypoint=()

build() {
  local instruction rest
  while read -r instruction rest; do
    echo "== $instruction $rest"
    case $instruction in
      FROM) from "$rest" ;;
      WORKDIR) workdir=$rest && mkdir -p "$root$rest" ;;
      COPY) copy "$rest" ;;
      RUN) inside "$rest" ;;
      USER) user=$rest ;;
      ENTRYPOINT) mapfile -t entrypoint < <(json_texts "$rest") ;;
      HEALTHCHECK) healthcheck=${rest#*CMD } ;;
      EXPOSE | VOLUME | CMD | STOPSIGNAL) ;;
      *) echo "this script does not know $instruction" >&2 && return 1 ;;
    esac
  done < <(instructions "$1")
}

# One instruction a line: comments go, continued lines are joined.
instructions() {
  grep -vE '^[[:space:]]*#' "$1" | sed -e ':join' -e '/\\$/{N;s/[[:space:]]*\\\n[[:space:]]*/ /;b join' -e '}' |
    grep -vE '^[[:space:]]*$'
}

from() {
  local image=$1 name=last
  [[ $image =~ ^([^ ]+)\ AS\ ([a-z]+)$ ]] && image=${BASH_REMATCH[1]} name=${BASH_REMATCH[2]}
  root="$work/$name.stage" workdir=/ user=root healthcheck='' entrypoint=()
  cp -a "$work/base" "$root"
  case $image in
    debian:*-slim) ;;
    rust:*)
      # What that image has: Rust, a C compiler, git, certificates.
      inside 'apt-get update -qq && apt-get install -y -qq --no-install-recommends gcc libc6-dev ca-certificates'
      bare_debian_rust "$root"
      bare_debian_crates "$root" /root
      ;;
    *) echo "this script does not know the image $image" >&2 && return 1 ;;
  esac
}

copy() {
  local from_stage=
  [[ $1 =~ ^--from=([a-z]+)\ (.*)$ ]] && from_stage=${BASH_REMATCH[1]} && set -- "${BASH_REMATCH[2]}"
  local source=${1% *} target=${1#* }
  [[ $target == /* ]] || target=$workdir/$target
  if [[ -n $from_stage ]]; then
    cp -a "$work/$from_stage.stage$source" "$root$target"
  elif [[ $source == . ]]; then
    git -c safe.directory='*' archive HEAD | tar -C "$root$target" -xf -
  else
    cp -a "$source" "$root$target"
  fi
}

inside() {
  bare_debian_run "$root" setpriv --reuid "$user" --regid "$user" --init-groups \
    env PATH=/opt/rust/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    sh -euc "cd $workdir; $1"
}

# The texts of a JSON list of texts without escapes.
json_texts() {
  grep -oE '"[^"]*"' <<<"$1" | tr -d '"'
}

check_Dockerfile() {
  [[ $user == pgpassport && -n $healthcheck ]]
  bash .ci/no-demo.sh "$root/usr/local/bin/pgpassport"
  inside "${entrypoint[*]} --version"
  echo 'without a config it ends with 78'
  local status=0
  inside "${entrypoint[*]} serve --config /etc/pgpassport/pgpassport.toml" || status=$?
  [[ $status -eq 78 ]]
  echo 'with one it serves, answers its health check, and ends on SIGTERM'
  openssl req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=localhost \
    -keyout "$root/etc/pgpassport/tls.key" -out "$root/etc/pgpassport/tls.crt" 2>/dev/null
  chmod 0640 "$root/etc/pgpassport/tls.key"
  chgrp 10001 "$root/etc/pgpassport/tls.key"
  inside "${entrypoint[*]} audit key --new /tmp/audit.key --name audit.contoso.example"
  mv "$root/tmp/audit.key" "$root/etc/pgpassport/audit.key"
  # No network is there: the issuer is nobody.
  sed -E 's|^# authority = .*|authority = "https://127.0.0.1:1"|' config/example.toml >"$root/etc/pgpassport/pgpassport.toml"
  printf '%s\n' "$healthcheck" >"$root/healthcheck"
  # shellcheck disable=SC2016 # expanded inside
  unshare --net bash -euc 'ip link set lo up; exec "$@"' offline bash -euc '
    source .ci/bare-debian.sh
    bare_debian_run "$1" setpriv --reuid pgpassport --regid pgpassport --init-groups bash -uc "
      pgpassport serve --config /etc/pgpassport/pgpassport.toml & proxy=\$!
      for _ in \$(seq 100); do sh /healthcheck 2>/dev/null && break; sleep 0.2; done
      sh /healthcheck || exit 1
      kill -TERM \$proxy && wait \$proxy"' offline "$root"
}

check_demo_Dockerfile() {
  [[ $user == demo ]]
  inside "${entrypoint[*]} --check"
}

main "$@"
