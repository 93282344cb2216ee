#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# iscsi_link.sh - log in to a real target, with CHAP both ways, and judge its LUNs.
set -u
tool=${BUILD:-build}/tests/integration/iscsi_tool
# shellcheck source=tests/lib/tgt.sh
. "$(dirname "$0")/../lib/tgt.sh"
tgt_needs
[ -x "$tool" ] || { echo "skipped: $tool is not built (make tests-build)"; exit 77; }

dir=$(mktemp -d)
silent=
# shellcheck disable=SC2329
clean_up() {
	tgt_kill
	[ -z "$silent" ] || kill "$silent" 2>/dev/null
	rm -rf "$dir"
}
trap clean_up EXIT
fail() {
	echo "FAIL: $*"
	for file in err out tgtd.log; do
		[ ! -s "$dir/$file" ] || sed "s/^/  $file: /" "$dir/$file"
	done
	exit 1
}
pass() { printf '[       OK ] %s\n' "$*"; }
url() { echo "iscsi://127.0.0.1:$tgt_port/$1"; }
iscsi() { timeout 60 "$tool" "$@" >"$dir/out" 2>"$dir/err"; }
refused() { # ID ARGS...
	local id=$1
	shift
	iscsi "$@" && fail "not refused: $*"
	grep -q "^$id " "$dir/err" || fail "not $id: $*"
	! grep -q -e "$good" -e "$other" "$dir/err" || fail "a secret is in the message"
}
good=s3cretOfTheHost other=s3cretOfTheStore
secret() { # FILE LINES...
	local file=$dir/$1
	shift
	(umask 077 && printf '%s\n' "$@" >"$file")
}

truncate -s 64M "$dir/a.img" "$dir/b.img"
tgt_start || fail "tgtd does not start"
iqn=iqn.2026-11.net.example:a
tgt_target 1 $iqn || fail "new target"
tgt_lun 1 1 "$dir/a.img" thin_provisioning=1 || fail "new LUN"
tgt_lun 1 2 "$dir/b.img" readonly=1 || fail "new read-only LUN"

iscsi "$(url $iqn)" - || fail "list"
for lun in lun1 lun2; do
	grep -qx $lun "$dir/out" || fail "list: $lun"
done
iscsi "$(url $iqn)" 1 || fail "probe"
grep -q '^size=67108864 block=512 physical=4096 thin=1 zero=1 write_same_unmap=1 unmap=1 fua=1 protected=0 ' \
	"$dir/out" || fail "thin LUN"
iscsi "$(url $iqn)" 2 || fail "probe"
grep -q 'thin=0 zero=0 write_same_unmap=0 unmap=0 .*protected=1' "$dir/out" || fail "read-only LUN"
pass "a target's LUNs are listed and judged"

iscsi "$(url $iqn)" "fence 1" || fail "fence"
pass "R-F2: a holder's key beats, and a preempted host can neither beat nor reserve"

refused BM-2103 "$(url $iqn)" 9
refused BM-2103 "$(url $iqn)" 0
grep -q 'no disk' "$dir/err" || fail "the controller at LUN 0"
refused BM-2102 "$(url iqn.2026-11.net.example:none)" -
pass "a LUN or target that is not there, and one that is no disk, are told apart"

tgt_target 2 $iqn-chap || fail "new target"
tgt_lun 2 1 "$dir/a.img" || fail "new LUN"
tgt_adm --op new --mode account --user host --password $good || fail "account"
tgt_adm --op new --mode account --user store --password $other || fail "account"
tgt_adm --op bind --mode account --tid 2 --user host || fail "bind account"
secret one user=host password=$good
secret wrong user=host password=${good}x
refused BM-2101 "$(url $iqn-chap)" -
refused BM-2101 "$(url $iqn-chap)" - "$dir/wrong"
iscsi "$(url $iqn-chap)" - "$dir/one" || fail "CHAP"
pass "CHAP: the secret decides"

tgt_adm --op bind --mode account --tid 2 --user store --outgoing || fail "bind account"
secret both user=host password=$good mutual-user=store mutual-password=$other
secret false user=host password=$good mutual-user=store mutual-password=${other}x
secret stranger user=host password=$good mutual-user=storf mutual-password=$other
iscsi "$(url $iqn-chap)" - "$dir/both" || fail "mutual CHAP"
refused BM-2101 "$(url $iqn-chap)" - "$dir/false"
refused BM-2101 "$(url $iqn-chap)" - "$dir/stranger"
pass "mutual CHAP: a target that cannot prove itself is refused"

secret half user=host
secret odd user=host password=$good colour=red
cp "$dir/one" "$dir/open" && chmod 644 "$dir/open"
refused BM-1112 "$(url $iqn-chap)" - "$dir/half"
refused BM-1112 "$(url $iqn-chap)" - "$dir/odd"
refused BM-1112 "$(url $iqn-chap)" - "$dir/open"
refused BM-1112 "$(url $iqn-chap)" - "$dir/nowhere"
refused BM-1112 "$(url $iqn-chap)" - "$dir"
pass "a secret file that is none, or that others may read, is refused"

tgt_kill
refused BM-2100 "$(url $iqn)" -
pass "a portal that is not there is said so"

# A server that takes connections and says nothing.
python3 - "$dir/port" <<'PY' &
import os, socket, sys, time
listener = socket.socket()
listener.bind(("127.0.0.1", 0))
listener.listen(8)
with open(sys.argv[1] + ".new", "w") as file:
    file.write(str(listener.getsockname()[1]))
os.rename(sys.argv[1] + ".new", sys.argv[1])
time.sleep(60)
PY
silent=$!
while [ ! -e "$dir/port" ]; do
	kill -0 "$silent" 2>/dev/null || fail "the silent server"
	sleep 0.05
done
tgt_port=$(cat "$dir/port")
refused BM-2100 "$(url $iqn)" -
grep -q 'did not answer in time' "$dir/err" || fail "a silent server"
pass "a server that never answers is given up in time"
