#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# vm_move_kills.sh - the daemon is killed at any moment of the relocation of a machine that is off,
# ROUNDS times (24): afterwards there is one VMX that is registered, and it names disks that are
# live and hold what they held; and nothing is lost of the small files.
. "$(dirname "$0")/../lib/daemon.sh"
b() { timeout 60 "$bin/blkmirror" "$@"; }
mkdir -p "$dir/a/g" "$dir/b" "$dir/c"
cat >"$dir/a/g/g.vmx" <<END
displayName = "g"
memSize = "64"
scsi0.present = "TRUE"
scsi0.virtualDev = "pvscsi"
scsi0:0.present = "TRUE"
scsi0:0.fileName = "g.vmdk"
scsi0:1.present = "TRUE"
scsi0:1.fileName = "g2.vmdk"
END
head -c 100000 /dev/urandom >"$dir/a/g/g.nvram"
cp "$dir/a/g/g.nvram" "$dir/nvram"
start_daemon
for ds in a b c; do b datastore add $ds "dir://$dir/$ds" >/dev/null; done
for disk in g g2; do
	head -c 3M /dev/urandom >"$dir/$disk.raw"
	b disk import "$dir/$disk.raw" "a:g/$disk.vmdk" >/dev/null
done
b vm register a:g/g.vmx >/dev/null

# What the VMX that is registered comes to.
sound() {
	local show disk file n=0
	show=$(b --json vm show vm1)
	check "$1: the VMX is in order: $(jq -c '[.vmx, .errors]' <<<"$show")" [ "$(jq -c .errors <<<"$show")" = '[]' ]
	while read -r disk; do
		n=$((n + 1))
		check "$1: $disk is live" [ "$(b --json disk show "$disk" | jq -r .identity.role)" = live ]
		file=$dir/${disk%%:*}/${disk#*:}
		check "$1: $disk holds what it held" cmp -s "${file%.vmdk}-flat.vmdk" "$dir/$(basename "${disk%.vmdk}").raw"
	done < <(jq -r '.config.drives[]?.file' <<<"$show")
	check "$1: two disks" [ $n = 2 ]
	file=$(jq -r .vmx <<<"$show")
	only_retired "$1"
	check "$1: small files" cmp -s "$dir/nvram" "$dir/${file%%:*}/g/g.nvram"
}
# A kill between the switch-over and the word that the copy is verified leaves the source: retired.
only_retired() {
	local disk role live=0
	while read -r disk; do
		role=$(b --json disk show "$disk" | jq -r .identity.role)
		[ "$role" != live ] || live=$((live + 1))
		[ "$role" != retired ] || b disk delete "$disk" >/dev/null
		check "$1: $disk is $role" grep -qxE 'live|retired' <<<"$role"
	done < <(cd "$dir" && find a b c -name '*.vmdk' ! -name '*-flat.vmdk' | sed 's|/|:|')
	check "$1: $live disks are live" [ $live = 2 ]
	check "$1: one VMX" [ "$(find "$dir/a" "$dir/b" "$dir/c" -name '*.vmx' | wc -l)" = 1 ]
	check "$1: one of the small file" [ "$(find "$dir/a" "$dir/b" "$dir/c" -name '*.nvram' | wc -l)" = 1 ]
}
rounds=${ROUNDS:-24}
places=("--to b --disk scsi0:1=c" "--to a" "--config-to c" "--to c --config-to b" "--to a --config-to c" "--config-to a" "--disk scsi0:0=b --disk scsi0:1=b")
declare -A ends=()
for round in $(seq "$rounds"); do
	place=${places[$((round % 7))]}
	# shellcheck disable=SC2086 # words are meant
	task=$(b --json vm relocate vm1 $place --no-wait 2>/dev/null | jq -r '.id // empty')
	[ -n "$task" ] || { ends[there]=$((${ends[there]:-0} + 1)); continue; }
	sleep "0.$(printf %03d $((RANDOM % 160)))"
	stop_daemon KILL
	start_daemon
	b task wait "$task" --timeout 30s >/dev/null 2>&1
	end=$(b --json task show "$task" | jq -r '.state + " " + (.error.id // "")')
	ends[$end]=$((${ends[$end]:-0} + 1))
	check "round $round, $place: it has ended: $end" grep -qE '^(completed|failed|cancelled)' <<<"$end"
	check "round $round, $place: free again" [ "$(b --json vm show vm1 | jq -r .task)" = null ]
	sound "round $round, $place"
	[ $failures = 0 ] || { tail -40 "$dir/log"; break; }
done
for end in "${!ends[@]}"; do echo "$end: ${ends[$end]}"; done
check "it went on at least once" [ "${ends[completed ]:-0}" -gt 0 ]
stop_daemon
check "orderly stop" [ "$stop_status" = 0 ]
finish
