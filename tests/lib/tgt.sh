# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash disable=SC2034,SC2154
# tgt.sh - a tgtd of the test's own on a loopback port; source it, after $dir is set.
#
# The control socket is in $dir and the port is free, so that tests, and a tgtd of the system,
# do not meet.  tgtd answers SIGTERM only without targets: it is killed.
tgt_pid=
tgt_port=

tgt_needs() {
	local program
	for program in tgtd tgtadm; do
		command -v "$program" >/dev/null || PATH=$PATH:/usr/sbin
		command -v "$program" >/dev/null || { echo "skipped: $program is not installed"; exit 77; }
	done
	[ "$(id -u)" -eq 0 ] || { echo "skipped: tgtd runs as root only"; exit 77; }
}

tgt_adm() { TGT_IPC_SOCKET=$dir/tgt.sock tgtadm --lld iscsi "$@"; }

tgt_start() {
	local try
	for try in 1 2 3 4 5; do
		[ -n "$tgt_port" ] && [ "$try" = 1 ] || tgt_port=$((20000 + RANDOM % 12000))
		TGT_IPC_SOCKET=$dir/tgt.sock tgtd -f --iscsi "portal=127.0.0.1:$tgt_port" \
			>"$dir/tgtd.log" 2>&1 &
		tgt_pid=$!
		# It is ready when its control socket answers; it ends when the port is taken.
		while kill -0 "$tgt_pid" 2>/dev/null; do
			tgt_adm --op show --mode target >/dev/null 2>&1 && return 0
			sleep 0.05
		done
		wait "$tgt_pid"
	done
	tgt_pid=
	return 1
}

tgt_kill() {
	[ -n "$tgt_pid" ] || return 0
	kill -9 "$tgt_pid" 2>/dev/null
	wait "$tgt_pid" 2>/dev/null
	tgt_pid=
	rm -f "$dir"/tgt.sock*
}

tgt_target() { # TID IQN
	tgt_adm --op new --mode target --tid "$1" -T "$2" && tgt_adm --op bind --mode target --tid "$1" -I ALL
}

tgt_lun() { # TID LUN FILE [PARAMS]
	tgt_adm --op new --mode logicalunit --tid "$1" --lun "$2" -b "$3" || return
	[ -z "${4:-}" ] || tgt_adm --op update --mode logicalunit --tid "$1" --lun "$2" --params "$4"
}
