#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# cli.sh - the command line: help at each level, exit codes, --json shapes, waiting, restart,
# completion, and that each option stands in its man page.
. "$(dirname "$0")/../lib/daemon.sh"
mkdir "$dir/a" "$dir/b"
b() { timeout 60 "$bin/blkmirror" "$@"; }
# code WANT COMMAND...: the exit code; output in $dir/out and $dir/err
code() {
	local want=$1 got
	shift
	b "$@" >"$dir/out" 2>"$dir/err"
	got=$?
	check "$*: exit $got, not $want: $(cat "$dir/err")" [ $got = "$want" ]
}
shape() { check "shape of $1" jq -e "$2" "$dir/out" >/dev/null; }

# Pages write --no-wait as "Fl \-no\-wait".
in_page() {
	local name=${1#--}
	grep -qF -- "Fl \\-${name//-/\\-}" "$2"
}

# ---- help, usage, no daemon ----
code 0 --help
check "help names every noun" [ "$(grep -cE '^  (datastore|disk|vm|host|task|events|recover) ' "$dir/out")" -ge 7 ]
code 2
code 0 --version
grep -E '^  (datastore|disk|vm|host|task|events|recover) ' <(b --help) | while read -r noun verb _; do
	case $noun in events | recover) verb= ;; esac
	b "$noun" $verb --help >"$dir/help" || echo "no help for $noun $verb"
	grep -q "^Usage: blkmirror $noun" "$dir/help" || echo "odd help for $noun $verb"
	grep -oE -- '^  --[a-z-]+' "$dir/help" | while read -r option; do
		in_page "$option" man/blkmirror.1 ||
			echo "$noun $verb $option is not in blkmirror.1"
	done
done >"$dir/help-faults"
check "help of every verb, every option in the man page: $(cat "$dir/help-faults")" [ ! -s "$dir/help-faults" ]
"$bin/blkmirrord" --help | grep -oE -- '^  --[a-z-]+' | while read -r option; do
	in_page "$option" man/blkmirrord.8 || echo "$option"
done >"$dir/help-faults"
check "blkmirrord.8 has every option: $(cat "$dir/help-faults")" [ ! -s "$dir/help-faults" ]
if command -v mandoc >/dev/null; then
	# Whether the other pages are installed is not the pages' fault.
	mandoc -Tlint man/blkmirror.1 man/blkmirrord.8 man/blkmirror-wire.7 2>&1 |
		grep -v 'referenced manual not found\|outdated mandoc.db' >"$dir/lint"
	check "man pages are clean: $(cat "$dir/lint")" [ ! -s "$dir/lint" ]
fi
for noun in datastore disk vm host task; do
	code 0 $noun --help
	code 2 $noun
done
code 2 nonsense
code 2 disk nonsense
code 2 --nonsense
code 2 disk create a:x --size 4
code 2 disk create a:x
code 2 disk relocate d1
code 2 disk relocate d1 --to b --keep-source --delete-source
code 5 disk list
check "three lines to people" [ "$(wc -l <"$dir/err")" = 3 ]
code 5 --json disk list
shape "an error" '.error | .id == "BM-1007" and (.cause | length > 0) and (.remedy | length > 0)'

# ---- verbs ----
start_daemon
code 0 datastore add a "dir://$dir/a"
code 0 --json datastore add b "dir://$dir/b"
shape "datastore add" '.name == "b" and .state == "up"'
code 0 --json datastore list
shape "datastore list" '.datastores | length == 2'
code 0 --json datastore set b --bandwidth 500MiB/s --budget 64
shape "datastore set" '.bandwidth_bytes_per_s == 524288000 and .budget_units == 64'
code 0 --json disk create a:web01/web01.vmdk --size 64MiB
shape "disk create" '.disk == "a:web01/web01.vmdk" and .size_bytes == 67108864 and .authoritative.this_copy'
code 0 --json disk attach a:web01/web01.vmdk
shape "disk attach" '.id == "d1" and .disk == "a:web01/web01.vmdk" and .export == "nbd" and (.uri | startswith("nbd+unix:///d1?socket=")) and (.socket | endswith("/d1.sock"))'
uri=$(jq -r .uri "$dir/out")
code 0 --json disk list
shape "disk list" '.disks | length == 1'
if command -v qemu-io >/dev/null; then
	check "a guest writes" qemu-io -f raw -c 'write -q -P 7 1M 6M' "$uri"
fi
code 0 --json disk relocate d1 --to b --check
shape "a check" '.ok and (.errors == []) and (.warnings | type == "array") and (.estimate | has("bytes") and has("seconds"))'
code 3 disk relocate d1 --to a
code 3 --json disk relocate d1 --to a --check
shape "a refusing check" '(.ok | not) and .errors[0].id == "BM-1300"'
code 0 --json disk relocate d1 --to b --keep-source
shape "a task" '.id == "t1" and .type == "relocate" and .state == "completed" and .disks[0].authoritative == "target" and .disks[0].verified and (.switchover.stun_us | type == "number") and .error == null'
check "source kept, retired" [ "$(b --json disk show a:web01/web01.vmdk | jq -r .identity.role)" = retired ]
code 0 --json disk show d1
shape "disk show" '.disk == "b:web01/web01.vmdk" and .attached.id == "d1" and .identity.generation == 2'
check "the URI stays" [ "$(jq -r .attached.uri "$dir/out")" = "$uri" ]
if command -v qemu-io >/dev/null; then
	check "the data are there" qemu-io -f raw -r -c 'read -q -P 7 1M 6M' -c 'read -q -P 0 7M 57M' "$uri"
fi
code 0 disk fork a:web01/web01.vmdk
code 1 disk fork a:web01/web01.vmdk

# ---- hold, pause, wait, cancel ----
code 6 disk relocate d1 --to a:moved/moved.vmdk --hold
check "says how to complete" grep -q 'task complete t2' "$dir/err"
code 6 task wait t2
code 1 disk detach d1
check "moving" grep -q BM-1203 "$dir/err"
code 0 task pause t2
code 6 task wait t2
code 0 task set t2 --bandwidth 100MiB/s --priority high
code 0 task resume t2
code 6 task wait t2
code 0 task cancel t2
code 6 task wait t2
code 0 --json task show t2
shape "a cancelled task" '.state == "cancelled" and .error.id == "BM-1403"'
check "unfinished target removed" [ ! -e "$dir/a/moved" ]
code 1 task cancel t2
check "ended" grep -q BM-1401 "$dir/err"
code 0 --json disk relocate d1 --to a:moved/moved.vmdk --hold --no-wait
shape "a queued task" '.id == "t3" and .state == "queued"'
code 6 task wait t3
code 0 task complete t3
code 0 task wait t3 --timeout 30s
code 0 --json task list
shape "live tasks" '.tasks == []'
code 0 --json task list --all
shape "all tasks" '[.tasks[].id] == ["t1", "t2", "t3"]'
code 0 --json task show t1
shape "an old task" '.state == "completed"'

# ---- Ctrl-C and time-outs leave the task running ----
if command -v qemu-io >/dev/null; then
	# So slow that it runs until it is cancelled.
	set -m
	"$bin/blkmirror" disk relocate d1 --to b:slow/slow.vmdk --bandwidth 64KiB/s >"$dir/out" 2>"$dir/err" &
	waiting=$!
	set +m
	for _ in $(seq 100); do grep -q copy "$dir/out" && break; sleep 0.05; done
	kill -INT $waiting
	wait $waiting
	check "Ctrl-C: exit 4" [ $? = 4 ]
	check "Ctrl-C: says how to cancel" grep -q 'task cancel t4' "$dir/err"
	code 4 task wait t4 --timeout 200ms
	code 0 --json task show t4
	shape "it goes on" '.state == "running" and .phase == "copy"'
	code 3 disk relocate d1 --to b:other/other.vmdk
	check "one move at a time" grep -q BM-1203 "$dir/err"
	code 0 task cancel t4
	code 6 task wait t4
	if command -v script >/dev/null; then
		script -qec "stty cols 72; $bin/blkmirror task list --all" /dev/null </dev/null >"$dir/tty"
		check "a table on a terminal" grep -q '^.\[1mID' "$dir/tty"
		script -qec "stty cols 60; NO_COLOR=1 $bin/blkmirror disk relocate d1 --to b:tty/tty.vmdk" \
			/dev/null </dev/null >"$dir/tty"
		check "a bar on a terminal" grep -q '##' "$dir/tty"
		check "never wider than it" [ "$(tr '\r' '\n' <"$dir/tty" | sed 's/\x1b\[[0-9]*[A-Z]//g' | wc -L)" -le 60 ]
		code 0 disk relocate d1 --to a:moved/moved.vmdk
	fi
fi

# ---- import, export, verify ----
head -c 5242880 /dev/urandom >"$dir/in.raw"
truncate -s 32M "$dir/in.raw"
code 0 --json disk import "$dir/in.raw" b:imp/imp.vmdk
shape "import" '.state == "completed" and .copy.copied_bytes <= 6291456'
code 0 disk export b:imp/imp.vmdk "$dir/out.raw"
check "exported as imported" cmp -s "$dir/in.raw" "$dir/out.raw"
check "sparse" [ "$(du -k "$dir/out.raw" | cut -f1)" -le 6400 ]
code 1 disk export b:imp/imp.vmdk "$dir/out.raw"
check "never over a file" cmp -s "$dir/in.raw" "$dir/out.raw"
code 0 disk import "$dir/in.raw" a:imp/imp.vmdk
code 0 --json disk verify a:imp/imp.vmdk b:imp/imp.vmdk
shape "verify" '.identical and .differing_bytes == 0 and (.hash | length == 32)'
if command -v xxh128sum >/dev/null; then
	check "the hash is XXH3" [ "$(xxh128sum <"$dir/in.raw" | cut -d' ' -f1)" = "$(jq -r .hash "$dir/out")" ]
fi
printf X | dd of="$dir/b/imp/imp-flat.vmdk" bs=1 seek=20000000 conv=notrunc status=none
code 1 --json disk verify a:imp/imp.vmdk b:imp/imp.vmdk
shape "verify of what differs" '(.identical | not) and .differing_bytes == 1'
code 0 disk resize b:imp/imp.vmdk --size 40MiB
code 1 disk verify a:imp/imp.vmdk b:imp/imp.vmdk
code 1 disk import "$dir/none.raw" b:none/none.vmdk
check "no disk of a failed import" [ ! -e "$dir/b/none" ]
code 0 disk delete b:imp/imp.vmdk
check "deleted, folder too" [ ! -e "$dir/b/imp" ]

# ---- events and completion ----
code 0 --json events
shape "events" '.events | map(.event) | contains(["task_state"])'
timeout 5 "$bin/blkmirror" --json events --follow >"$dir/follow" 2>/dev/null &
follow=$!
sleep 0.5
code 0 disk create b:ev/ev.vmdk --size 1MiB
code 0 disk attach b:ev/ev.vmdk --id ev
code 0 disk detach ev
for _ in $(seq 40); do grep -q disk_detached "$dir/follow" && break; sleep 0.1; done
check "followed" grep -q disk_detached "$dir/follow"
kill $follow 2>/dev/null
wait $follow 2>/dev/null
code 0 --json recover list
shape "recover" '.recover == []'
completions() {
	PATH=$bin:$PATH bash -c '. completions/blkmirror.bash; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _blkmirror; printf "%s\n" "${COMPREPLY[@]}"' _ "$@"
}
check "completes nouns" [ "$(completions blkmirror da)" = datastore ]
check "completes verbs" [ "$(completions blkmirror disk reloc)" = relocate ]
check "completes options" [ "$(completions blkmirror disk relocate d1 --keep)" = --keep-source ]
check "completes live ids" [ "$(completions blkmirror disk detach d)" = d1 ]
check "completes datastores" [ "$(completions blkmirror datastore remove b)" = b ]

# ---- restarts ----
stop_daemon
check "orderly stop" [ "$stop_status" = 0 ]
start_daemon
code 0 --json disk list
shape "attached again" '.disks[0] | .id == "d1" and .state == "attached" and .disk == "a:moved/moved.vmdk"'
code 6 disk relocate d1 --to b:again/again.vmdk --hold
last=$(b --json task list | jq -r '.tasks[0].id')
stop_daemon KILL
start_daemon
code 0 --json disk list
shape "attached, and moving still" '.disks[0] | .state == "attached" and .disk == "a:moved/moved.vmdk"'
for _ in $(seq 100); do
	[ "$(b --json task show "$last" | jq -r .state)" = held ] && break
	sleep 0.1
done
code 0 --json task show "$last"
shape "an interrupted task goes on" '.state == "held" and .error == null and .disks[0].resumed_bytes >= 0'
code 0 task cancel "$last"
for _ in $(seq 100); do
	[ "$(b --json task show "$last" | jq -r .state)" = cancelled ] && break
	sleep 0.1
done
check "cancelled: its target is gone" [ ! -e "$dir/b/again" ]
code 0 disk relocate d1 --to b:again/again.vmdk
check "ids go on" [ "$(b --json task list --all | jq -r '.tasks[-1].id')" = "t$((${last#t} + 1))" ]
code 0 disk detach d1
code 0 datastore remove b
stop_daemon
finish
