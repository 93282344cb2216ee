#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# nfs_server.sh - the NFS client's session against a real server: mount, names, files, refusals.
set -u
tool=("${BUILD:-build}/tests/integration/nfs_tool")
[ -x "${tool[0]}" ] || { echo "skipped: ${tool[0]} is not built (make tests-build)"; exit 77; }
# shellcheck source=tests/lib/nfs_server.sh
. "$(dirname "$0")/../lib/nfs_server.sh"
nfs_own_space "$0" "$@"

fail() {
	echo "FAIL: $*"
	[ -s "$dir/err" ] && sed 's/^/  /' "$dir/err"
	exit 1
}
pass() { printf '[       OK ] %s\n' "$*"; }
client() { # PATH NFSPORT MOUNTPORT VERB...
	timeout 60 "${tool[@]}" $nfs_host "$@" >"$dir/out" 2>"$dir/err"
}
refused() { # ID PATH NFSPORT MOUNTPORT VERB...
	local id=$1
	shift
	client "$@" && fail "not refused: $*"
	grep -q "^$id " "$dir/err" || fail "not $id: $*"
}

refused BM-2000 "$nfs_export" $nfs_port $mount_port mount
pass "no server: unreachable"
refused BM-2003 "$nfs_export" 0 0 mount
pass "a port mapper that knows no NFS: no version 3"

start_nfs
client "$nfs_export" $nfs_port $mount_port mount || fail "mount"
grep -q '^read=1048576 write=1048576$' "$dir/out" || fail "$(cat "$dir/out")"
client "$nfs_export" 0 0 mount || fail "mount by the port mapper"
pass "mount, by ports and by the port mapper"
refused BM-2001 "$nfs_export-none" $nfs_port $mount_port mount
refused BM-2000 "$nfs_export" $nfs_port 1 mount
refused BM-2000 "$nfs_export" 1 $mount_port mount
pass "no such export, no such port"
client "$nfs_export" $nfs_port $mount_port files || fail "files"
[ -z "$(ls -A "$nfs_export")" ] || fail "left over: $(ls -A "$nfs_export")"
pass "names, folders, bytes, sizes, space"
for i in 1 2 3; do
	client "$nfs_export" $nfs_port $mount_port race "lock-$i" 8 || fail "race"
done
pass "R-F4: of eight who create the same file one does"
kill -STOP "$nfs_pid"
refused BM-2000 "$nfs_export" $nfs_port $mount_port mount
grep -q 'did not answer in time' "$dir/err" || fail "not the deadline"
kill -CONT "$nfs_pid"
client "$nfs_export" $nfs_port $mount_port mount || fail "mount after the freeze"
pass "a server that takes connections and is silent: a deadline ends it"
kill_nfs

start_nfs "Access_Type = RO; Squash = No_Root_Squash;"
client "$nfs_export" $nfs_port $mount_port mount || fail "mount read-only"
refused BM-1107 "$nfs_export" $nfs_port $mount_port create new
kill_nfs
start_nfs "Access_Type = RW; Squash = All_Squash; Anonymous_Uid = 65534; Anonymous_Gid = 65534;"
chmod 755 "$nfs_export"
refused BM-1111 "$nfs_export" $nfs_port $mount_port create new
kill_nfs
pass "an export that is read-only, or not ours to write: each in its own words"

start_nfs "Access_Type = None; CLIENT { Clients = 10.99.0.1; Access_Type = RW; }"
refused BM-2001 "$nfs_export" $nfs_port $mount_port mount
kill_nfs
start_nfs "Access_Type = RW; PrivilegedPort = true;"
client "$nfs_export" $nfs_port $mount_port mount || fail "mount from a reserved port"
# Without privileges there is no port below 1024 to be had.
install -m 755 "${tool[0]}" "$dir/tool" && chmod 755 "$dir" || fail "install"
tool=(setpriv --reuid 65534 --regid 65534 --clear-groups "$dir/tool")
refused BM-2002 "$nfs_export" $nfs_port $mount_port mount
pass "not exported to this host; exported, but denied"
