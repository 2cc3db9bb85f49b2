#!/usr/bin/env bash
# Start Ray on this machine, with a token, as the head of a cluster or as one of its workers.
set -euo pipefail

usage() {
    cat <<'TEXT'
start.sh head [--interface ADDRESS] [--port PORT] [--token FILE] [-- RAY-START-WORDS]
start.sh worker HEAD:PORT [--interface ADDRESS] [--token FILE] [-- RAY-START-WORDS]

Start Ray on this machine; genpipe's environment is active. Prints what to call on the next machine and the exports
for whoever calls genpipe: eval "$(deploy/ray/start.sh head)".

  --interface ADDRESS  the address of this machine that the others reach. Without it a head listens on loopback alone,
                       for this machine alone. With it Ray listens on all interfaces: let a firewall keep strangers out
  --port PORT          of the head, 1024 to 65535; default 6379
  --token FILE         the cluster's secret, mode 600; default $RAY_AUTH_TOKEN_PATH, else ~/.ray/auth_token.
                       A head makes it where there is none; give each worker a copy
  -- WORDS             for `ray start`: -- --num-cpus 8 --num-gpus 1; -- --block stays in the foreground.
                       Without --temp-dir, Ray's files lie in ray-UID, closed to other users, below $RAY_TMPDIR, $TMPDIR or /tmp
TEXT
}

refuse() {
    printf 'start.sh: %s\n' "$1" >&2
    exit 2
}

socket() { # call Python's socket.$1 with the address $2:$3; print why it failed, or nothing
    python3 -c '
import socket, sys
verb, host, port = sys.argv[1:]
socket.setdefaulttimeout(10)
try:
    getattr(socket, verb)((host, int(port))).close()
except (OSError, OverflowError, ValueError) as error:
    print(getattr(error, "strerror", None) or error)' "$@"
}

is_loopback() { [[ $1 == localhost || $1 == 127.* || $1 == ::1 ]]; }

[[ " $* " != *" --help "* ]] || { usage; exit 0; }
role=${1:-nothing}
[[ $role == head || $role == worker ]] || refuse "the role must be head or worker, not $role; see start.sh --help"
shift

head=''
if [[ $role == worker ]]; then
    head=${1:-nothing}
    [[ $head =~ ^[^:/[:space:]]+:[0-9]{1,5}$ ]] || refuse "worker must be followed by the head's HOST:PORT, not $head"
    shift
fi

interface='' port=6379 token=${RAY_AUTH_TOKEN_PATH:-$HOME/.ray/auth_token}
while (($#)); do
    case $1 in
    --) shift; break ;;
    --interface | --port | --token) (($# > 1)) || refuse "$1 needs a value after it" ;;&
    --interface) interface=$2; shift 2 ;;
    --port)
        [[ $role == head ]] || refuse "--port is the head's; a worker's port is that in HOST:PORT"
        port=$2; shift 2 ;;
    --token) token=$2; shift 2 ;;
    *) refuse "the options are --interface, --port, --token and --, not $1; see start.sh --help" ;;
    esac
done

[[ $port =~ ^[1-9][0-9]{3,4}$ ]] || refuse "--port: must be 1024 to 65535, not $port"
((port >= 1024 && port <= 65535)) || refuse "--port: must be 1024 to 65535, not $port"
[[ $interface != 0.0.0.0 ]] || refuse "--interface: must be the address that the others reach, not 0.0.0.0"
command -v ray >/dev/null || refuse "found no ray; activate genpipe's environment first"

if [[ $role == head ]]; then
    if [[ -z $interface ]] || is_loopback "$interface"; then
        interface=127.0.0.1
        # Without it Ray takes 127.0.0.1 for this machine's outward address, and listens everywhere.
        export RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER=0
    fi
    reason=$(socket create_server "$interface" "$port")
    [[ -z $reason ]] || refuse "cannot listen at $interface:$port ($reason); name another --interface or --port"
else
    ! is_loopback "${head%:*}" ||
        refuse "$head is this machine alone; start the head with --interface, and name that address"
    ! is_loopback "$interface" ||
        refuse "--interface: must be the address that the others reach, not $interface"
    reason=$(socket create_connection "${head%:*}" "${head##*:}")
    [[ -z $reason ]] || refuse "no head answers at $head ($reason); start it, or open the firewall"
    [[ -z $interface ]] || reason=$(socket create_server "$interface" 0)
    [[ -z $reason ]] || refuse "--interface: $interface is no address of this machine ($reason)"
fi

if [[ $role == head && ! -e $token ]]; then
    mkdir -p -m 700 "$(dirname "$token")"
    (umask 077 && od -An -v -tx1 -N32 /dev/urandom | tr -d ' \n' >"$token")
fi
[[ -s $token ]] || refuse "$token: the cluster's token is not there; copy it from the head, mode 600"
[[ -n $(find -L "$token" -prune -perm 600) ]] ||
    refuse "$token: must have mode 600, since whoever reads it owns the cluster; chmod 600 it"
token=$(realpath "$token")

unset RAY_AUTH_TOKEN # it would win over the file
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=$token RAY_USAGE_STATS_ENABLED=0
export RAY_worker_niceness=0 # Ray's 15 starves the workers beside any other program

words=()
if [[ " $* " != *" --temp-dir"[\ =]* ]]; then
    # Ray opens its directory to all users of the machine, so it lies below one that is closed. Short: sockets lie in it.
    closed=${RAY_TMPDIR:-${TMPDIR:-/tmp}}/ray-$UID
    mkdir -m 700 "$closed" 2>/dev/null || true
    [[ -n $(find "$closed" -prune -type d -uid "$UID" -perm 700 2>/dev/null) ]] ||
        refuse "$closed: must be a directory of this user alone, with mode 700; remove it, or name another place in RAY_TMPDIR"
    words+=(--temp-dir "$closed/r")
fi
if [[ $role == head ]]; then
    address=$interface:$port
    words+=(--head --port "$port" --node-ip-address "$interface" --dashboard-host 127.0.0.1)
else
    address=$head
    words+=(--address "$head")
    [[ -z $interface ]] || words+=(--node-ip-address "$interface")
fi

if [[ $interface == 127.0.0.1 ]]; then
    echo "# a cluster of this machine alone: others can join a head that has an --interface"
    echo "export RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER=0"
else
    echo "# on the next machine, with the same packages and a copy of the token (mode 600):"
    printf '#   deploy/ray/start.sh worker %s --token %q\n' "$address" "$token"
fi
echo "# where genpipe is called:"
printf 'export RAY_ADDRESS=%s RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=%q\n' "$address" "$token"
exec ray start "${words[@]}" "$@" >/dev/null
