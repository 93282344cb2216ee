# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# nfs_server.sh - sourced by tests: a real NFS server (nfs-ganesha, rpcbind) of their own.
#
# The server wants the port mapper's port and a folder in /run, so the test runs itself again in
# name spaces of its own: nothing of the system is touched, nothing is left.  Source it first,
# with the script's arguments:
#
#	. "$(dirname "$0")/../lib/nfs_server.sh"
#	nfs_own_space "$0" "$@"
#
# Gives: $dir and $nfs_dir (temporary), $nfs_host, $nfs_export (the exported folder, as the server sees it),
# start_nfs [EXPORT-OPTION...], kill_nfs (SIGKILL), and the trap that cleans up.
nfs_host=10.77.0.1
nfs_port=2049
mount_port=20048
nfs_pid=
rpcbind_pid=

nfs_own_space() {
	local tool
	if [ -z "${NFS_OWN_SPACE:-}" ]; then
		for tool in ganesha.nfsd rpcbind unshare ip; do
			PATH=$PATH:/usr/sbin:/sbin command -v $tool >/dev/null ||
				{ echo "skipped: $tool is not installed"; exit 77; }
		done
		[ "$(id -u)" -eq 0 ] || { echo "skipped: name spaces need root here"; exit 77; }
		unshare -mn --propagation private true 2>/dev/null ||
			{ echo "skipped: no name spaces here"; exit 77; }
		export NFS_OWN_SPACE=1
		exec unshare -mn --propagation private bash "$@"
	fi
	export PATH=$PATH:/usr/sbin:/sbin
	nfs_dir=$(mktemp -d)
	dir=$nfs_dir
	nfs_export=$nfs_dir/export
	trap nfs_clean_up EXIT
	trap 'exit 1' INT TERM
	mkdir -p "$nfs_export" "$nfs_dir/recovery"
	mount -t tmpfs none /run && mkdir -p /run/rpcbind /run/ganesha || exit 1
	# An address of lo alone is none that the server would bind.
	ip link set lo up && ip link add nfs0 type veth peer name nfs1 &&
		ip addr add $nfs_host/24 dev nfs0 && ip link set nfs0 up && ip link set nfs1 up ||
		exit 1
	rpcbind -f -w >"$nfs_dir/rpcbind.log" 2>&1 &
	rpcbind_pid=$!
}

nfs_clean_up() {
	[ -z "$nfs_pid" ] || kill -9 "$nfs_pid" 2>/dev/null
	[ -z "$rpcbind_pid" ] || kill -9 "$rpcbind_pid" 2>/dev/null
	wait 2>/dev/null
	rm -rf "$nfs_dir"
}

# Until the server takes connections and has told its ports; bounded.
nfs_await() {
	local _
	for _ in $(seq 300); do
		(exec 3<>/dev/tcp/$nfs_host/$nfs_port) 2>/dev/null &&
			(exec 3<>/dev/tcp/$nfs_host/$mount_port) 2>/dev/null && return 0
		kill -0 "$nfs_pid" 2>/dev/null || break
		sleep 0.1
	done
	echo "the NFS server did not start:"
	tail -n 20 "$nfs_dir/ganesha.log"
	exit 1
}

start_nfs() {
	local options=${*:-"Access_Type = RW; Squash = No_Root_Squash;"}
	cat >"$nfs_dir/ganesha.conf" <<-CONF
		NFS_CORE_PARAM { NFS_Protocols = 3; Bind_addr = $nfs_host; NFS_Port = $nfs_port;
			MNT_Port = $mount_port; Enable_NLM = false; Enable_RQUOTA = false; }
		NFSv4 { RecoveryRoot = $nfs_dir/recovery; Graceless = true; }
		EXPORT { Export_Id = 1; Path = $nfs_export; Pseudo = /export; Protocols = 3;
			Transports = TCP; SecType = sys; $options FSAL { Name = VFS; } }
	CONF
	ganesha.nfsd -F -f "$nfs_dir/ganesha.conf" -L "$nfs_dir/ganesha.log" -p "$nfs_dir/ganesha.pid" \
		-N NIV_EVENT >/dev/null 2>&1 &
	nfs_pid=$!
	nfs_await
}

kill_nfs() {
	kill -9 "$nfs_pid"
	wait "$nfs_pid" 2>/dev/null
	nfs_pid=
}
