#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# nfs_device.sh - a file on a real NFS server as a block device; the server dies under it.
set -u
tool=${BUILD:-build}/tests/integration/nfs_tool
[ -x "$tool" ] || { echo "skipped: $tool is not built (make tests-build)"; exit 77; }
# shellcheck source=tests/lib/nfs_server.sh
. "$(dirname "$0")/../lib/nfs_server.sh"
nfs_own_space "$0" "$@"

fail() {
	echo "FAIL: $*"
	[ -s "$dir/err" ] && sed 's/^/  /' "$dir/err"
	exit 1
}
pass() { printf '[       OK ] %s\n' "$*"; }
client() { # VERB...
	timeout 100 "$tool" $nfs_host "$nfs_export" $nfs_port $mount_port "$@" 2>"$dir/err"
}
await_line() { # LINE FILE
	local _
	for _ in $(seq 300); do
		grep -qx "$1" "$2" 2>/dev/null && return 0
		sleep 0.1
	done
	fail "no '$1'"
}
bytes=$((128 << 20))

start_nfs
client write disk $bytes 7 || fail "write"
[ "$(stat -c %s "$nfs_export/disk")" = $bytes ] || fail "size"
client verify disk $bytes 7 || fail "verify"
client verify disk $bytes 8 2>/dev/null && fail "verify finds no difference"
pass "128 MiB over four connections: written, committed, read back"

# After a flush the server's death takes nothing.
client write kept $bytes 9 || fail "write"
kill_nfs
start_nfs
client verify kept $bytes 9 || fail "verify after SIGKILL"
pass "SIGKILL after a flush: nothing is lost"

# The server dies with writes that no COMMIT has covered, and is back at once.
mkfifo "$dir/go"
client lose lost $((16 << 20)) <"$dir/go" >"$dir/said" &
client_pid=$!
exec 7>"$dir/go"
await_line written "$dir/said"
kill_nfs
start_nfs
echo go >&7
exec 7>&-
wait $client_pid || fail "lose"
pass "SIGKILL before a flush: the flush fails, though the server is back"

client endure busy $((16 << 20)) >"$dir/said" &
client_pid=$!
await_line writing "$dir/said"
kill_nfs
wait $client_pid || fail "endure"
pass "SIGKILL under writes: all of them end, none is sent again"
