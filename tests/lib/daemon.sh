# SPDX-License-Identifier: Apache-2.0
# daemon.sh - sourced by tests: a daemon of their own with datastores a and b, and its end.
#
# Gives: $dir (temporary), $sock, start_daemon, stop_daemon, api METHOD PATH [BODY] (prints the
# body, status in $status), check NAME CONDITION..., finish.
set -u
bin=${BIN:-${B:-build}/bin}
for tool in curl jq; do
	command -v $tool >/dev/null || { echo "$tool is not installed"; exit 77; }
done
[ -x "$bin/blkmirrord" ] || { echo "no $bin/blkmirrord"; exit 1; }
dir=$(mktemp -d)
sock=$dir/run/api.sock
daemon_pid=
failures=0 checks=0
export BLKMIRROR_SOCKET=$sock

cleanup() {
	[ -z "$daemon_pid" ] || kill -9 "$daemon_pid" 2>/dev/null
	[ -z "$daemon_pid" ] || wait "$daemon_pid" 2>/dev/null
	rm -rf "$dir"
}
trap cleanup EXIT
trap 'exit 1' INT TERM

# The socket is there when the daemon has attached what it had: wait for it, bounded.
start_daemon() {
	"$bin/blkmirrord" --state-dir "$dir/state" --run-dir "$dir/run" "$@" >>"$dir/log" 2>&1 &
	daemon_pid=$!
	for _ in $(seq 300); do
		[ -S "$sock" ] && curl -s --unix-socket "$sock" -o /dev/null http://x/v1/datastores && return 0
		kill -0 $daemon_pid 2>/dev/null || break
		sleep 0.05
	done
	echo "the daemon did not start:"
	cat "$dir/log"
	exit 1
}

stop_daemon() {
	kill -"${1:-TERM}" "$daemon_pid"
	wait "$daemon_pid" 2>/dev/null
	stop_status=$?
	daemon_pid=
}

api() {
	local method=$1 path=$2
	shift 2
	if [ $# -gt 0 ]; then
		set -- --data-binary "$@"
	fi
	status=$(curl -sS --max-time 30 --unix-socket "$sock" -X "$method" -o "$dir/body" \
		-w '%{http_code}' "http://x$path" "$@")
}

check() {
	local name=$1
	shift
	checks=$((checks + 1))
	if "$@"; then
		return 0
	fi
	failures=$((failures + 1))
	echo "FAILED: $name ($*)"
	[ ! -f "$dir/body" ] || { echo "  answer: $status $(head -c 600 "$dir/body")"; }
	return 0
}

finish() {
	if grep -n 'CHECK failed\|Sanitizer\|runtime error' "$dir/log"; then
		failures=$((failures + 1))
	fi
	echo "$checks checks, $failures failed"
	[ $failures -eq 0 ]
	exit $?
}
