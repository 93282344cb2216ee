#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# api_errors.sh - every mistake a client can make: its own id, a fitting status, a cause and a
# remedy, and nothing changed.
. "$(dirname "$0")/../lib/daemon.sh"
mkdir "$dir/a" "$dir/b" "$dir/outside"
start_daemon
api POST /v1/datastores "{\"name\":\"a\",\"url\":\"dir://$dir/a\"}"
check "add a" [ "$status" = 201 ]
api POST /v1/datastores "{\"name\":\"b\",\"url\":\"dir://$dir/b\"}"
api POST /v1/disks '{"disk":"a:used/used.vmdk","size":"16MiB"}'
check "create" [ "$status" = 201 ]
api POST /v1/disks '{"disk":"a:free/free.vmdk","size":"16MiB"}'
api POST /v1/disks '{"disk":"b:small/small.vmdk","size":"8MiB"}'
api POST /v1/disks/attach '{"disk":"a:used/used.vmdk","id":"used"}'
check "attach" [ "$status" = 201 ]
ln -s "$dir/outside" "$dir/a/link"

# What must stay as it is over every refusal.
picture() {
	(cd "$dir" && find a b outside -printf '%p %s %y\n' | sort)
	api GET /v1/disks
	jq -c 'del(.disks[].io)' "$dir/body"
	api GET '/v1/tasks?all=1'
	cat "$dir/body"
	api GET /v1/datastores
	jq -c '[.datastores[].name]' "$dir/body"
}

# refused NAME STATUS ID METHOD PATH [BODY]
refused() {
	local name=$1 want_status=$2 want_id=$3
	shift 3
	api "$@"
	check "$name: status $status, not $want_status" [ "$status" = "$want_status" ]
	check "$name: id" [ "$(jq -r .error.id "$dir/body")" = "$want_id" ]
	check "$name: cause" [ -n "$(jq -r '.error.cause // empty' "$dir/body")" ]
	check "$name: remedy" [ -n "$(jq -r '.error.remedy // empty' "$dir/body")" ]
}

picture >"$dir/before"
refused "bad JSON" 400 BM-1002 POST /v1/disks '{"disk":'
refused "key twice" 400 BM-1002 POST /v1/disks '{"disk":"a:x","disk":"a:y","size":"1G"}'
refused "no object" 400 BM-1002 POST /v1/disks '[]'
refused "deep" 400 BM-1002 POST /v1/disks "{\"a\":$(printf '[%.0s' $(seq 200))"
refused "no UTF-8" 400 BM-1002 POST /v1/disks $'{"disk":"\xff"}'
refused "unknown field" 400 BM-1003 POST /v1/disks '{"disk":"a:x","size":"1G","colour":"red"}'
refused "missing field" 400 BM-1003 POST /v1/disks '{"disk":"a:x"}'
refused "wrong type" 400 BM-1003 POST /v1/disks '{"disk":7,"size":"1G"}'
refused "no unit" 400 BM-1005 POST /v1/disks '{"disk":"a:x","size":"100"}'
refused "bare number" 400 BM-1005 POST /v1/disks '{"disk":"a:x","size":100}'
refused "rate without /s" 400 BM-1005 POST /v1/disks/relocate '{"disk":"used","to":"b","bandwidth":"1MiB"}'
refused "too small" 400 BM-1204 POST /v1/disks '{"disk":"a:x","size":"1K"}'
refused "bad name" 400 BM-1009 POST /v1/datastores '{"name":"a/b","url":"dir:///x"}'
refused "no such path" 404 BM-1004 GET /v1/nothing
refused "wrong method" 405 BM-1014 PUT /v1/disks '{}'
refused "wrong method on an id" 405 BM-1014 DELETE /v1/tasks/t1
head -c 70000 /dev/zero | tr '\0' ' ' >"$dir/large"
refused "large body" 413 BM-1008 POST /v1/disks "@$dir/large"
status=$(curl -sS --max-time 30 --unix-socket "$sock" -H 'Transfer-Encoding: chunked' -H 'Expect:' \
	-o "$dir/body" -w '%{http_code}' -X POST --data-binary "@$dir/large" http://x/v1/disks)
check "large body in chunks" [ "$status $(jq -r .error.id "$dir/body")" = "413 BM-1008" ]
refused "datastore twice" 409 BM-1101 POST /v1/datastores "{\"name\":\"a\",\"url\":\"dir://$dir/b\"}"
refused "bad URL" 400 BM-1102 POST /v1/datastores '{"name":"c","url":"ftp://x"}'
refused "unreachable" 409 BM-1104 POST /v1/datastores "{\"name\":\"c\",\"url\":\"dir://$dir/none\"}"
refused "unknown datastore" 404 BM-1100 POST /v1/disks '{"disk":"zz:x","size":"1G"}'
refused "unknown datastore to remove" 404 BM-1100 DELETE /v1/datastores/zz
refused "unknown datastore to move to" 404 BM-1100 POST /v1/disks/relocate '{"disk":"used","to":"zz"}'
refused "datastore in use" 409 BM-1105 DELETE /v1/datastores/a
refused "path escape" 400 BM-1108 POST /v1/disks '{"disk":"a:../x","size":"1G"}'
refused "path escape through a link" 400 BM-1108 POST /v1/disks '{"disk":"a:link/x.vmdk","size":"1G"}'
refused "absolute path" 400 BM-1108 POST /v1/disks '{"disk":"a:/etc/x","size":"1G"}'
refused "folder escape" 400 BM-1108 GET '/v1/datastores/a/files?dir=../b'
refused "disk exists" 409 BM-1201 POST /v1/disks '{"disk":"a:free/free.vmdk","size":"16MiB"}'
refused "unknown disk" 404 BM-1200 POST /v1/disks/attach '{"disk":"a:no/no.vmdk"}'
refused "unknown id" 404 BM-1200 POST /v1/disks/detach '{"id":"d99"}'
refused "unknown disk to show" 404 BM-1200 GET '/v1/disks/show?disk=a:no'
refused "attached twice" 409 BM-1207 POST /v1/disks/attach '{"disk":"a:used/used.vmdk"}'
refused "id taken" 409 BM-1215 POST /v1/disks/attach '{"disk":"a:free/free.vmdk","id":"used"}'
refused "export kind" 400 BM-1003 POST /v1/disks/attach '{"disk":"a:free/free.vmdk","export":"smb"}'
refused "delete what is attached" 409 BM-1207 POST /v1/disks/delete '{"disk":"a:used/used.vmdk"}'
refused "resize what is attached" 409 BM-1207 POST /v1/disks/resize '{"disk":"a:used/used.vmdk","size":"1G"}'
refused "shrink" 400 BM-1211 POST /v1/disks/resize '{"disk":"a:free/free.vmdk","size":"8MiB"}'
refused "fork what is live" 409 BM-1216 POST /v1/disks/fork '{"disk":"a:free/free.vmdk"}'
refused "unlock without force" 400 BM-1001 POST /v1/disks/unlock '{"disk":"a:free/free.vmdk"}'
refused "same source and target" 409 BM-1300 POST /v1/disks/relocate '{"disk":"used","to":"a"}'
check "... with the check's answer" [ "$(jq -r .check.ok "$dir/body")" = false ]
refused "target exists" 409 BM-1302 POST /v1/disks/relocate '{"disk":"used","to":"b:small/small.vmdk"}'
refused "compare with itself" 409 BM-1300 POST /v1/disks/verify '{"disk":"a:free/free.vmdk","other":"a:free/free.vmdk"}'
refused "no unverified deletion" 400 BM-1001 POST /v1/disks/relocate '{"disk":"used","to":"b","verify":false,"keep_source":false}'
key_of_nobody=SHA256:0000000000000000000000000000000000000000000
own_key=$(api GET /v1/hosts; jq -r .this_host.fingerprint "$dir/body")
refused "unknown host" 404 BM-1800 GET /v1/hosts/zz
refused "unknown host to remove" 404 BM-1800 DELETE /v1/hosts/zz
refused "host by name" 400 BM-1802 POST /v1/hosts "{\"name\":\"h\",\"addresses\":\"there:1\",\"fingerprint\":\"$key_of_nobody\"}"
refused "host without a port" 400 BM-1802 POST /v1/hosts "{\"name\":\"h\",\"addresses\":\"127.0.0.1\",\"fingerprint\":\"$key_of_nobody\"}"
refused "too many addresses" 400 BM-1802 POST /v1/hosts "{\"name\":\"h\",\"addresses\":\"$(printf '127.0.0.1:1,%.0s' $(seq 8))127.0.0.1:1\",\"fingerprint\":\"$key_of_nobody\"}"
refused "no fingerprint" 400 BM-1803 POST /v1/hosts '{"name":"h","addresses":"127.0.0.1:1","fingerprint":"SHA256:x"}'
refused "a fingerprint and more" 400 BM-1803 POST /v1/hosts "{\"name\":\"h\",\"addresses\":\"127.0.0.1:1\",\"fingerprint\":\"${key_of_nobody}0\"}"
refused "this host itself" 409 BM-1807 POST /v1/hosts "{\"name\":\"h\",\"addresses\":\"127.0.0.1:1\",\"fingerprint\":\"$own_key\"}"
refused "unknown task" 404 BM-1400 GET /v1/tasks/t99
refused "unknown task to cancel" 404 BM-1400 POST /v1/tasks/t99/cancel '{}'
refused "no task at all" 404 BM-1400 GET /v1/tasks/bogus
refused "verb with a field" 400 BM-1003 POST /v1/tasks/t99/cancel '{"x":1}'
refused "unknown recovery" 404 BM-1602 POST /v1/recover/t99 '{"keep":"source"}'
refused "relative file" 400 BM-1003 POST /v1/disks/import '{"file":"x","disk":"a:i"}'
picture >"$dir/after"
check "nothing has changed" cmp -s "$dir/before" "$dir/after"
diff "$dir/before" "$dir/after"

# No space: refused by the check, before anything is made.  A small tmpfs, where one may be had.
mkdir "$dir/tiny"
if mount -t tmpfs -o size=4M none "$dir/tiny" 2>/dev/null; then
	trap 'umount "$dir/tiny" 2>/dev/null; cleanup' EXIT
	api POST /v1/datastores "{\"name\":\"tiny\",\"url\":\"dir://$dir/tiny\"}"
	refused "no space" 409 BM-1106 POST /v1/disks '{"disk":"tiny:x.vmdk","size":"64MiB","provision":"thick"}'
	refused "no space to move" 409 BM-1106 POST /v1/disks/relocate \
		'{"disk":"used","to":"tiny","provision":"thick"}'
	check "nothing left on it" [ -z "$(find "$dir/tiny" -type f)" ]
	# An import that finds no space half-way takes away what it made.
	head -c 8M /dev/urandom >"$dir/in.raw"
	api POST /v1/disks/import "{\"file\":\"$dir/in.raw\",\"disk\":\"tiny:i/i.vmdk\"}"
	check "import queued" [ "$status" = 202 ]
	task=$(jq -r .id "$dir/body")
	for _ in $(seq 100); do
		api GET "/v1/tasks/$task"
		[ "$(jq -r .finished "$dir/body")" = null ] || break
		sleep 0.1
	done
	check "it failed" [ "$(jq -r '.state + " " + .error.id' "$dir/body")" = "failed BM-1106" ]
	check "nothing of it is left" [ -z "$(find "$dir/tiny" -type f)" ]
fi

# A key stands for one request.
key() {
	curl -sS --max-time 30 --unix-socket "$sock" -H "Idempotency-Key: $1" -o "$dir/body" \
		-w '%{http_code}' -X POST --data-binary "$3" "http://x$2"
}
status=$(key k1 /v1/disks '{"disk":"a:k/k.vmdk","size":"4MiB"}')
check "first" [ "$status" = 201 ]
status=$(key k1 /v1/disks '{"disk":"a:k/k.vmdk","size":"4MiB"}')
check "repeated: the first answer" [ "$status" = 201 ]
status=$(key k1 /v1/disks '{"disk":"a:l/l.vmdk","size":"4MiB"}')
check "reused" [ "$status $(jq -r .error.id "$dir/body")" = "409 BM-1015" ]
check "... and nothing made" [ ! -e "$dir/a/l" ]

# A machine and its disk while they move: what would be in the way is refused, with its reason.
mkdir "$dir/a/vm"
printf 'displayName = "moved"\nmemSize = "64"\nscsi0.present = "TRUE"\nscsi0.virtualDev = "virtio"\nscsi0:0.present = "TRUE"\nscsi0:0.fileName = "vm.vmdk"\n' >"$dir/a/vm/vm.vmx"
cp "$dir/a/vm/vm.vmx" "$dir/vm.vmx"
api POST /v1/disks '{"disk":"a:vm/vm.vmdk","size":"16MiB"}'
api POST /v1/vms '{"vmx":"a:vm/vm.vmx"}'
check "register" [ "$status" = 201 ]
vm=$(jq -r .id "$dir/body")
refused "nowhere to" 400 BM-1003 POST "/v1/vms/$vm/relocate" '{}'
refused "no such machine" 404 BM-1720 POST /v1/vms/vm99/relocate '{"to":"b"}'
refused "no such drive" 400 BM-1003 POST "/v1/vms/$vm/relocate" '{"disks":"scsi3:3=b"}'
refused "a drive twice" 400 BM-1003 POST "/v1/vms/$vm/relocate" '{"disks":"scsi0:0=b,scsi0:0=a"}'
refused "no drive at all" 400 BM-1003 POST "/v1/vms/$vm/relocate" '{"disks":"b"}'
refused "there already" 409 BM-1300 POST "/v1/vms/$vm/relocate" '{"to":"a"}'
refused "path escape" 400 BM-1108 POST "/v1/vms/$vm/relocate" '{"disks":"scsi0:0=b:../x"}'
refused "unknown datastore of the VMX" 404 BM-1100 POST "/v1/vms/$vm/relocate" '{"config_to":"zz"}'
api POST "/v1/vms/$vm/relocate" '{"to":"b","hold":true}'
check "relocate" [ "$status" = 202 ]
task=$(jq -r .id "$dir/body")
for _ in $(seq 100); do
	api GET "/v1/tasks/$task"
	[ "$(jq -r .state "$dir/body")" != held ] || break
	sleep 0.1
done
check "held" [ "$(jq -r .state "$dir/body")" = held ]
refused "a second move" 409 BM-1723 POST "/v1/vms/$vm/relocate" '{"to":"a"}'
refused "start" 409 BM-1723 POST "/v1/vms/$vm/start" '{}'
refused "unregister" 409 BM-1723 DELETE "/v1/vms/$vm"
refused "move the disk" 409 BM-1203 POST /v1/disks/relocate '{"disk":"a:vm/vm.vmdk","to":"b:x.vmdk"}'
refused "resize" 409 BM-1203 POST /v1/disks/resize '{"disk":"a:vm/vm.vmdk","size":"32MiB"}'
refused "delete" 409 BM-1203 POST /v1/disks/delete '{"disk":"a:vm/vm.vmdk"}'
refused "attach" 409 BM-1203 POST /v1/disks/attach '{"disk":"a:vm/vm.vmdk"}'
api POST "/v1/tasks/$task/cancel" '{}'
for _ in $(seq 100); do
	api GET "/v1/tasks/$task"
	[ "$(jq -r .finished "$dir/body")" = null ] || break
	sleep 0.1
done
check "cancelled" [ "$(jq -r .state "$dir/body")" = cancelled ]
check "the VMX is as it was" cmp -s "$dir/vm.vmx" "$dir/a/vm/vm.vmx"
check "nothing at b" [ ! -e "$dir/b/vm" ]
api DELETE "/v1/vms/$vm"
check "free again" [ "$status" = 200 ]

# A second daemon on the same state.
"$bin/blkmirrord" --state-dir "$dir/state" --run-dir "$dir/run2" >"$dir/second" 2>&1
check "second daemon refused" [ $? = 1 ]
check "... with its id" grep -q BM-1011 "$dir/second"
"$bin/blkmirrord" --state-dir "$dir/state3" --run-dir "$dir/run3" --listen 192.0.2.1:1 >"$dir/second" 2>&1
check "--listen at an address of another host" grep -q BM-1010 "$dir/second"
stop_daemon
check "orderly stop" [ "$stop_status" = 0 ]
finish
