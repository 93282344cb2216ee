#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# nfs_datastore.sh - an export as a datastore: disks come, go, are listed, marked and locked.
set -u
tool=${BUILD:-build}/tests/integration/ds_tool
command -v qemu-img >/dev/null || { echo "skipped: qemu-img is not installed"; exit 77; }
[ -x "$tool" ] || { echo "skipped: $tool is not built (make tests-build)"; exit 77; }
# shellcheck source=tests/lib/nfs_server.sh
. "$(dirname "$0")/../lib/nfs_server.sh"
nfs_own_space "$0" "$@"

fail() {
	exec 7>&-
	echo "FAIL: $*"
	[ -s "$dir/err" ] && sed 's/^/  /' "$dir/err"
	exit 1
}
pass() { printf '[       OK ] %s\n' "$*"; }
url="nfs://$nfs_host$nfs_export?version=3&nfsport=$nfs_port&mountport=$mount_port"
export DS_TOOL_HOST=9
ds() { timeout 100 "$tool" "$url" "$@" 2>"$dir/err"; }
refused() { # ID VERB ...
	local id=$1
	shift
	ds "$@" && fail "not refused: $*"
	grep -q "^$id " "$dir/err" || fail "not $id: $*"
}
# Holds PATH as the host $1 until descriptor 7 is closed.
hold() { # HOST PATH
	rm -f "$dir/go" "$dir/held"
	mkfifo "$dir/go"
	DS_TOOL_HOST=$1 timeout 200 "$tool" "$url" hold "$2" rw <"$dir/go" >"$dir/held" 2>"$dir/held.err" &
	holder=$!
	exec 7>"$dir/go"
	for _ in $(seq 300); do
		grep -qx held "$dir/held" && return 0
		kill -0 $holder 2>/dev/null || break
		sleep 0.1
	done
	cat "$dir/held.err"
	fail "the disk is not held"
}
let_go() {
	exec 7>&-
	wait $holder || fail "the holder ended badly: $(cat "$dir/held.err")"
}
# The process of the tool itself, below timeout.
holder_pid() { pgrep -P $holder; }

refused BM-2000 stat x.img
refused_url() { # ID URL
	timeout 60 "$tool" "$2" stat x.img 2>"$dir/err" && fail "not refused: $2"
	grep -q "^$1 " "$dir/err" || fail "not $1: $2"
}
refused_url BM-2003 "nfs://$nfs_host$nfs_export?version=4"
start_nfs
refused_url BM-2001 "nfs://$nfs_host$nfs_export-none?nfsport=$nfs_port&mountport=$mount_port"
pass "no server, version 4, no such export: refused when it is opened"

# ---- disks ----
for provision in thin thick eager; do
	ds create "vm/$provision.vmdk" $((8 << 20)) $provision || fail "create $provision"
	ds stat "vm/$provision.vmdk" >"$dir/stat" || fail "stat $provision"
	grep -q "^size=8388608 .* provision=$provision generation=1 role=live identity=1$" \
		"$dir/stat" || fail "$(cat "$dir/stat")"
	qemu-img info "$nfs_export/vm/$provision.vmdk" | grep -q 'virtual size: 8 MiB' ||
		fail "qemu-img does not read $provision.vmdk"
done
[ "$(stat -c %b "$nfs_export/vm/thin-flat.vmdk")" = 0 ] || fail "thin has blocks"
[ "$(stat -c %b "$nfs_export/vm/eager-flat.vmdk")" -ge 16384 ] || fail "eager has no blocks"
refused BM-1201 create vm/thin.vmdk $((8 << 20)) thin
refused BM-1106 create vm/large.vmdk $((40 << 40)) thick
[ ! -e "$nfs_export/vm/large-flat.vmdk" ] || fail "left over"
ds create raw.img $((4 << 20)) thin || fail "create raw"
ds resize raw.img $((6 << 20)) || fail "resize"
ds resize vm/thin.vmdk $((16 << 20)) || fail "resize"
ds stat vm/thin.vmdk | grep -q '^size=16777216 ' || fail "size after resize"
ds list vm >"$dir/list" || fail "list"
cat >"$dir/expected" <<-LIST
	data 8388608 eager-flat.vmdk
	disk 8388608 eager.vmdk
	data 16777216 thin-flat.vmdk
	disk 16777216 thin.vmdk
	data 8388608 thick-flat.vmdk
	disk 8388608 thick.vmdk
LIST
diff <(sort -k3 "$dir/expected") <(sort -k3 "$dir/list") || fail "list"
pass "thin, thick and eager disks: created, read by qemu-img, listed, grown"

ln -s /etc "$nfs_export/etc" && ln -s raw.img "$nfs_export/link.img"
refused BM-1108 stat etc/passwd
refused BM-1108 stat link.img
refused BM-1108 create etc/x.img $((4 << 20)) thin
refused BM-1200 stat none/x.img
pass "no link is followed"
truncate -s 3M "$nfs_export/q.img" && printf 'QFI\xfb' | dd of="$nfs_export/q.img" conv=notrunc status=none
refused BM-1205 stat q.img
ds delete vm/thick.vmdk || fail "delete"
ds delete vm/eager.vmdk || fail "delete"
ds delete vm/thin.vmdk || fail "delete"
[ ! -e "$nfs_export/vm" ] || fail "left over: $(ls -A "$nfs_export/vm")"
pass "the last disk takes its folder with it, locks included"

# ---- locks ----
hold 1 raw.img
DS_TOOL_HOST=2 refused BM-1202 open raw.img rw
grep -q "locked by the host '$(hostname)'" "$dir/err" || fail "the holder is not named"
DS_TOOL_HOST=2 refused BM-1202 delete raw.img
let_go
DS_TOOL_HOST=2 ds open raw.img rw || fail "not free after it was given back"
pass "a disk that another host has is refused, and the holder named"

hold 1 raw.img
kill -9 "$(holder_pid)"
wait $holder 2>/dev/null
exec 7>&-
DS_TOOL_HOST=2 refused BM-1202 open raw.img rw
begun=$SECONDS
DS_TOOL_HOST=2 ds wait raw.img || fail "a dead holder's lock is never free"
[ $((SECONDS - begun)) -ge 19 ] || fail "taken over after $((SECONDS - begun)) s"
pass "a killed holder's lock is taken over after its lease ($((SECONDS - begun)) s)"

hold 3 raw.img
kill -9 "$(holder_pid)"
wait $holder 2>/dev/null
exec 7>&-
begun=$SECONDS
DS_TOOL_HOST=3 ds open raw.img rw || fail "our own former life holds the disk"
[ $((SECONDS - begun)) -ge 7 ] || fail "what it had sent was not waited for"
[ $((SECONDS - begun)) -lt 19 ] || fail "waited for a whole lease of our own"
pass "our own former life's lock is free when nothing of it can land any more"

hold 4 raw.img
DS_TOOL_HOST=5 ds unlock raw.img || fail "unlock"
DS_TOOL_HOST=5 ds open raw.img rw || fail "not free after unlock"
let_go
grep -q 'is lost' "$dir/held.err" || sleep 4
pass "the operator's word breaks a lock"
ls -A "$nfs_export" >"$dir/left"
[ "$(grep -c blkmirror-lock "$dir/left")" -le 6 ] || fail "lock files pile up: $(cat "$dir/left")"
ds delete raw.img || fail "delete"
! ls -A "$nfs_export" | grep -q blkmirror-lock || fail "lock files left"
kill_nfs

# ---- refusals of the server ----
start_nfs "Access_Type = RO; Squash = No_Root_Squash;"
refused BM-1107 stat q.img
kill_nfs
chmod 755 "$nfs_export"
start_nfs "Access_Type = RW; Squash = All_Squash; Anonymous_Uid = 65534; Anonymous_Gid = 65534;"
refused BM-1111 stat q.img
pass "an export that is read-only, or not ours to write: said when it is opened"
