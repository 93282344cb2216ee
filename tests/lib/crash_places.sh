# SPDX-License-Identifier: Apache-2.0
# crash_places.sh - sourced by the crash tests: places for datastores, and the campaign's run.
#
# Gives: $dir (temporary), run_campaign.  Datastores: a and b on $TMPDIR's file system; with root,
# c on a file system of its own, behind a loop device in memory (tmpfs itself has sectors of
# 4 KiB, on which a disk of 512 B sectors cannot go).
set -u
bin=${BIN:-${B:-build}/bin}
client=${B:-build}/tests/integration/ledger_client
here=$(dirname "$0")
skip() { echo "skipped: $1"; exit 77; }
[ -x "$bin/blkmirrord" ] || { echo "no $bin/blkmirrord"; exit 1; }
[ -x "$client" ] || { echo "no $client: make tests-build"; exit 1; }
python3 -c 'import os; os.pidfd_open' 2>/dev/null || skip "no python3 of at least 3.9"

dir=$(mktemp -d)
shm=
campaign_pid=
cleanup() {
	# The campaign ends its daemon and client when it is told to end.
	[ -z "$campaign_pid" ] || kill "$campaign_pid" 2>/dev/null
	[ -z "$campaign_pid" ] || wait "$campaign_pid" 2>/dev/null
	! mountpoint -q "$dir/loop" || umount "$dir/loop" || umount -l "$dir/loop"
	[ -z "$shm" ] || rm -rf "$shm"
	rm -rf --one-file-system "$dir"
}
trap cleanup EXIT
trap 'exit 1' INT TERM

free_mib() { df --output=avail -B 1M "$1" | tail -n 1; }

# Where there is no room or no right to it, the campaign goes on with the other places.
add_memory() { # MIB
	[ "$(id -u)" -eq 0 ] && [ -w /dev/shm ] && [ "$(free_mib /dev/shm)" -gt $(($1 * 3)) ] &&
		shm=$(mktemp -d /dev/shm/blkmirror.XXXXXX) && mkdir "$dir/loop" &&
		truncate -s $(($1 * 2))M "$shm/image" && mkfs.ext4 -q -F "$shm/image" &&
		mount -o loop "$shm/image" "$dir/loop" ||
		{ echo "no file system in memory can be mounted here: one datastore less"; return 0; }
	MORE_PLACES="c=$dir/loop/store"
}

run_campaign() { # DISK_MIB
	[ "$(free_mib "$dir")" -gt $(($1 * 5)) ] || skip "less than $(($1 * 5)) MiB free in $dir"
	export DISK_MIB=$1 MORE_PLACES
	python3 "$campaign" "$bin" "$client" "$dir" &
	campaign_pid=$!
	wait "$campaign_pid"
	rc=$?
	campaign_pid=
	if [ $rc -ne 0 ]; then
		echo "--- the daemon's last words"
		tail -n 60 "$dir/log"
		[ -z "${KEEP:-}" ] || cp -r "$dir/log" "$dir/client.log" "$dir/state" "$KEEP/"
	fi
	return $rc
}
