#!/usr/bin/env bash
# Make the passwords of database, server and worker: three files that systemd and compose read, each for its service alone.
set -euo pipefail

usage() {
    cat <<'TEXT'
secrets.sh DIRECTORY [--database HOST:PORT] [--server URL]

Write database.env, server.env and worker.env into DIRECTORY, mode 600, with new random passwords. Files that are there
are kept: nothing is written then.

  --database HOST:PORT  where the server finds PostgreSQL; default 127.0.0.1:5432, in compose database:5432
  --server URL          where workers and people find the server; default http://127.0.0.1:4200/api
TEXT
}

refuse() {
    printf 'secrets.sh: %s\n' "$1" >&2
    exit 2
}

secret() { od -An -v -tx1 -N24 /dev/urandom | tr -d ' \n'; }

[[ " $* " != *" --help "* ]] || { usage; exit 0; }
directory=${1:-}
[[ -n $directory && $directory != --* ]] || refuse "name a directory for the files, not ${directory:-nothing}"
shift
database=127.0.0.1:5432 server=http://127.0.0.1:4200/api
while (($#)); do
    (($# > 1)) || refuse "$1 needs a value after it"
    case $1 in
    --database) database=$2 ;;
    --server) server=$2 ;;
    *) refuse "the options are --database and --server, not $1; see secrets.sh --help" ;;
    esac
    shift 2
done

umask 077
mkdir -p "$directory"
for name in database server worker; do
    [[ ! -e $directory/$name.env ]] || refuse "$directory/$name.env is there; remove all three to make new passwords"
done

password=$(secret) auth=genpipe:$(secret)
printf 'POSTGRES_USER=prefect\nPOSTGRES_DB=prefect\nPOSTGRES_PASSWORD=%s\n' "$password" >"$directory/database.env"
cat >"$directory/server.env" <<TEXT
PREFECT_API_DATABASE_CONNECTION_URL=postgresql+asyncpg://prefect:$password@$database/prefect
PREFECT_SERVER_API_AUTH_STRING=$auth
PREFECT_SERVER_CSRF_PROTECTION_ENABLED=true
TEXT
cat >"$directory/worker.env" <<TEXT
PREFECT_API_URL=$server
PREFECT_API_AUTH_STRING=$auth
PREFECT_CLIENT_CSRF_SUPPORT_ENABLED=true
TEXT
