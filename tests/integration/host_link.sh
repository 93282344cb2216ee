#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# host_link.sh - two daemons in two network namespaces know each other by key, link over TLS and
# measure the way; who shows another key, or none, is refused, and nothing is harmed.
set -u
cd "$(dirname "$0")/../.." || exit 1
bin=${BIN:-${B:-build}/bin}
for tool in ip jq python3; do
	command -v $tool >/dev/null || { echo "$tool is not installed"; exit 77; }
done
dir=$(mktemp -d)
a=bmwa$$ b=bmwb$$
declare -A pid=()
failures=0 checks=0

cleanup()
{
	for host in "${!pid[@]}"; do
		kill -9 "${pid[$host]}" 2>/dev/null
		wait "${pid[$host]}" 2>/dev/null
	done
	ip netns del $a 2>/dev/null
	ip netns del $b 2>/dev/null
	rm -rf "$dir"
}
trap cleanup EXIT
trap 'exit 1' INT TERM

if ! ip netns add $a 2>"$dir/why" || ! ip netns add $b 2>>"$dir/why" ||
	! ip link add ea netns $a type veth peer name eb netns $b 2>>"$dir/why" ||
	! ip link add fa netns $a type veth peer name fb netns $b 2>>"$dir/why"; then
	echo "no network namespaces here: $(tail -n 1 "$dir/why")"
	exit 77
fi
# Two ways between the hosts.
ip -n $a addr add 10.77.1.1/24 dev ea
ip -n $b addr add 10.77.1.2/24 dev eb
ip -n $a addr add 10.77.2.1/24 dev fa
ip -n $b addr add 10.77.2.2/24 dev fb
ip -n $a link set lo up && ip -n $a link set ea up && ip -n $a link set fa up
ip -n $b link set lo up && ip -n $b link set eb up && ip -n $b link set fb up

check()
{
	local name=$1
	shift
	checks=$((checks + 1))
	"$@" && return 0
	failures=$((failures + 1))
	echo "FAILED: $name ($*)"
	return 0
}

# start HOST NAMESPACE [OPTION]...
start()
{
	local host=$1 namespace=$2
	shift 2
	ip netns exec "$namespace" "$bin/blkmirrord" --state-dir "$dir/$host/state" \
		--run-dir "$dir/$host/run" --socket-holder none "$@" >>"$dir/$host.log" 2>&1 &
	pid[$host]=$!
	for _ in $(seq 200); do
		cli "$host" --json host list >/dev/null 2>&1 && return 0
		kill -0 "${pid[$host]}" 2>/dev/null || break
		sleep 0.05
	done
	echo "the daemon of $host did not start:"
	cat "$dir/$host.log"
	exit 1
}

stop()
{
	kill -TERM "${pid[$1]}"
	wait "${pid[$1]}"
	check "orderly stop of $1" [ $? = 0 ]
	unset "pid[$1]"
}

# cli HOST ARGUMENT...
cli()
{
	local host=$1
	shift
	timeout 60 "$bin/blkmirror" --socket "$dir/$host/run/api.sock" "$@"
}

show()
{
	cli "$1" --json host show "$2" >"$dir/shown"
	status=$?
}

start a $a --listen 10.77.1.1:7701
start b $b --listen 0.0.0.0:7702
key_a=$(cli a host fingerprint)
key_b=$(cli b host fingerprint)
check "a fingerprint" [ ${#key_a} = 50 ]
check "two keys" [ "$key_a" != "$key_b" ]
check "the key is secret" [ "$(stat -c %a "$dir/a/state/host-key.pem")" = 600 ]
check "this host" grep -q "$key_a" <(cli a host show)

# ---- one knows the other: that is not enough ----

check "add b" cli a host add b 10.77.1.2:7702,10.77.2.2:7702 --fingerprint "$key_b" >/dev/null
show a b
check "a stranger to b: exit $status" [ "$status" = 1 ]
check "... with its id" [ "$(jq -r '.error.id' "$dir/shown")" = BM-1806 ]
check "... b says whose key" grep -q "no host has the key $key_a" "$dir/b.log"

# ---- both do ----

check "add a" cli b host add a 10.77.1.1:7701 --fingerprint "$key_a" >/dev/null
show a b
check "b is reachable" [ "$status" = 0 ]
check "... says its version" [ "$(jq -r .version "$dir/shown")" = "$("$bin/blkmirrord" --version | cut -d' ' -f2)" ]
check "... and its identity" [ "$(jq -r .uuid "$dir/shown")" = "$(cat "$dir/b/state/host-uuid")" ]
check "... in some time" [ "$(jq -r .round_trip_us "$dir/shown")" -gt 0 ]
check "... at the first address" [ "$(jq -r .address "$dir/shown")" = 10.77.1.2:7702 ]
show b a
check "a is reachable from b" [ "$(jq -r .reachable "$dir/shown")" = true ]

# ---- what goes over the wire cannot be read ----

say()
{
	ip netns exec $a timeout 20 python3 - "$1" <<'PYTHON'
import socket, sys
s = socket.create_connection(("10.77.1.2", 7702), timeout=10)
s.sendall(sys.argv[1].encode().decode("unicode_escape").encode("latin-1"))
heard = b""
try:
    while True:
        got = s.recv(4096)
        if not got:
            break
        heard += got
except ConnectionResetError:
    pass
print(heard.decode("latin-1"))
PYTHON
}
hello='{"blkmirror":1,"oldest":1,"host":"01020300-0000-0000-0000-000000000000","software":"x","role":"control"}\n'
check "no control without encryption" grep -q BM-1805 <(say "$hello")
check "no session in the answer" [ "$(say "$hello" | grep -c session)" = 0 ]
say 'GET / HTTP/1.1\r\n\r\n' >/dev/null
say '\x16\x03\x01\x00\x05random' >/dev/null
show a b
check "b serves on" [ "$(jq -r .reachable "$dir/shown")" = true ]

# ---- the first way is gone ----

ip -n $b addr del 10.77.1.2/24 dev eb
show a b
check "the second address serves" [ "$(jq -r .address "$dir/shown")" = 10.77.2.2:7702 ]
ip -n $b addr add 10.77.1.2/24 dev eb

# ---- another key than the pinned one ----

check "remove b" cli a host remove b
other=SHA256:${key_b:8}${key_b:7:1}
check "add b with another key" cli a host add b 10.77.1.2:7702 --fingerprint "$other" >/dev/null
show a b
check "refused: exit $status" [ "$status" = 1 ]
check "... with its id" [ "$(jq -r .error.id "$dir/shown")" = BM-1805 ]
check "... naming the key it has" grep -qF "$key_b" "$dir/shown"
check "remove it" cli a host remove b
check "unknown now" [ "$(cli a --json host show b | jq -r .error.id)" = BM-1800 ]

# ---- what is known outlasts a restart, and so does the key ----

check "add b again" cli a host add b 10.77.1.2:7702 --fingerprint "$key_b" --plain-data >/dev/null
stop a
start a $a
check "the same key" [ "$(cli a host fingerprint)" = "$key_a" ]
check "the same host" [ "$(cli a --json host list | jq -c '.hosts[] | [.name, .addresses, .plain_data]')" = '["b",["10.77.1.2:7702"],true]' ]
show a b
check "reachable" [ "$(jq -r .reachable "$dir/shown")" = true ]
# Nobody asked it to listen this time.
check "a does not listen" [ -z "$(ip netns exec $a ss -Hltn 2>/dev/null)" ]
show b a
check "... and is not reachable" [ "$(jq -r .error.id "$dir/shown")" = BM-1804 ]

# ---- a cut while it is asked: told in time, not hanging ----

ip -n $b link set eb down
show a b
check "a dead way is told" [ "$(jq -r .reachable "$dir/shown")" = false ]
ip -n $b link set eb up
stop a
stop b
if grep -n 'CHECK failed\|Sanitizer\|runtime error' "$dir"/*.log; then
	failures=$((failures + 1))
fi
[ $failures = 0 ] || tail -n 20 "$dir"/*.log
echo "$checks checks, $failures failed"
[ $failures = 0 ]
