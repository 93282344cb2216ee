/* SPDX-License-Identifier: Apache-2.0 */
/*
 * err_ids.h - the catalogue of every refusal and failure a user can meet.
 *
 * One row: ERR_ROW(symbol, number, http_status, remedy).  The id shown is BM-number
 * and never changes once released; the cause is written where the error is raised,
 * the remedy here is the default and may be made more exact there (err_remedy()).
 * The set is bounded, so it also serves as the failure reason of the metrics.
 *
 *   10xx usage and general      11xx datastores    12xx disks
 *   13xx relocation and checks  14xx tasks         15xx exports
 *   16xx journal and recovery   17xx VMs           18xx hosts and migration
 *   19xx VMFS                   20xx NFS           21xx iSCSI        22xx NBD client
 */
#ifndef BM_BASE_ERR_IDS_H
#define BM_BASE_ERR_IDS_H

// clang-format off
#define ERR_CATALOGUE(ERR_ROW) \
	ERR_ROW(ERR_INTERNAL,            1000, 500, "This is a fault in blkmirror: please report it with the daemon's log.") \
	ERR_ROW(ERR_USAGE,               1001, 400, "See --help, or the man page, for what the command takes.") \
	ERR_ROW(ERR_BAD_JSON,            1002, 400, "Send one JSON object as GET /v1/openapi.json describes it.") \
	ERR_ROW(ERR_BAD_FIELD,           1003, 400, "Correct the named field; GET /v1/openapi.json lists them.") \
	ERR_ROW(ERR_NO_ROUTE,            1004, 404, "GET /v1/openapi.json lists every path.") \
	ERR_ROW(ERR_BAD_UNIT,            1005, 400, "Give a size with a unit (4GiB, 500MB), a rate as 200MiB/s, a time as 100ms, 5s or 2min.") \
	ERR_ROW(ERR_NO_MEMORY,           1006, 503, "Free memory on this host, or run fewer moves at once.") \
	ERR_ROW(ERR_NO_DAEMON,           1007, 503, "Start blkmirrord, or name its socket with --socket or BLKMIRROR_SOCKET.") \
	ERR_ROW(ERR_TOO_LARGE,           1008, 413, "Send a smaller request.") \
	ERR_ROW(ERR_BAD_NAME,            1009, 400, "Use 1 to 64 letters, digits, '.', '_' or '-', beginning with a letter or digit.") \
	ERR_ROW(ERR_BAD_CONFIG,          1010, 400, "Correct the named line of the configuration and start again.") \
	ERR_ROW(ERR_STATE_DIR,           1011, 500, "Give the daemon a state directory it can write, and that no other daemon uses.") \
	ERR_ROW(ERR_SHUTTING_DOWN,       1012, 503, "Wait for the daemon to be started again and repeat the command.") \
	ERR_ROW(ERR_NOT_SUPPORTED,       1013, 501, "This version cannot do it; the manual says what it can.") \
	ERR_ROW(ERR_BAD_METHOD,          1014, 405, "GET /v1/openapi.json lists what each path takes.") \
	ERR_ROW(ERR_KEY_REUSED,          1015, 409, "Give each request that differs an Idempotency-Key of its own.") \
	ERR_ROW(ERR_BUSY,                1016, 503, "Repeat the command a little later.") \
	ERR_ROW(ERR_NOT_ALLOWED,         1017, 403, "Run it as root or as a member of the group blkmirror.") \
	ERR_ROW(ERR_LOCAL_FILE,          1018, 409, "Name a file that the daemon's user can read (import), or a new one in a folder it can write (export).") \
	ERR_ROW(ERR_DS_UNKNOWN,          1100, 404, "'blkmirror datastore list' shows the datastores that exist.") \
	ERR_ROW(ERR_DS_EXISTS,           1101, 409, "Choose another name, or remove the other datastore first.") \
	ERR_ROW(ERR_DS_BAD_URL,          1102, 400, "A URL looks like dir:///srv/ds1; the man page lists every kind.") \
	ERR_ROW(ERR_DS_SECRET_IN_URL,    1103, 400, "Put user and password into a file and give it with --secret-file.") \
	ERR_ROW(ERR_DS_UNREACHABLE,      1104, 409, "Check that the path, export or target exists and that this host may use it.") \
	ERR_ROW(ERR_DS_IN_USE,           1105, 409, "Detach its disks and finish or cancel its tasks first.") \
	ERR_ROW(ERR_DS_NO_SPACE,         1106, 409, "Free space on the datastore, or choose another.") \
	ERR_ROW(ERR_DS_READ_ONLY,        1107, 409, "Make the datastore writable for this host, or choose another.") \
	ERR_ROW(ERR_DS_PATH_ESCAPE,      1108, 400, "Name a path below the datastore's root, without '..' and without links that leave it.") \
	ERR_ROW(ERR_DS_NOT_ALLOWED,      1109, 403, "Ask for the path to be put into allowed_roots, or use one that is.") \
	ERR_ROW(ERR_DS_IO,               1110, 500, "Look at the store's own log; the operation may be repeated when it is healthy.") \
	ERR_ROW(ERR_DS_PERMISSION,       1111, 403, "Give the daemon's user the right to read and write there.") \
	ERR_ROW(ERR_DS_SECRET_FILE,      1112, 400, "Give a file that only its owner can read, with lines user=, password=, mutual-user= and mutual-password=.") \
	ERR_ROW(ERR_DISK_UNKNOWN,        1200, 404, "'blkmirror disk list' and 'blkmirror datastore files DS' show what there is.") \
	ERR_ROW(ERR_DISK_EXISTS,         1201, 409, "Choose another path, or delete what is there first.") \
	ERR_ROW(ERR_DISK_IN_USE,         1202, 409, "Detach it there first; if that host is dead, see 'disk unlock'.") \
	ERR_ROW(ERR_DISK_MOVING,         1203, 409, "Wait for the relocation to end, or cancel it.") \
	ERR_ROW(ERR_DISK_BAD_SIZE,       1204, 400, "Give a size of at least 1 MiB and at most 62 TiB, in whole sectors.") \
	ERR_ROW(ERR_DISK_BAD_FORMAT,     1205, 400, "Convert it with qemu-img, or attach it through qemu-nbd as an nbd datastore.") \
	ERR_ROW(ERR_DISK_BAD_DESCRIPTOR, 1206, 400, "Restore the .vmdk descriptor from a backup, or write a new one for its flat file.") \
	ERR_ROW(ERR_DISK_ATTACHED,       1207, 409, "Detach the disk first.") \
	ERR_ROW(ERR_DISK_NOT_ATTACHED,   1208, 409, "Attach the disk first.") \
	ERR_ROW(ERR_DISK_IO,             1209, 500, "Look at the store's own log; nothing was changed.") \
	ERR_ROW(ERR_DISK_CHAIN,          1210, 409, "Merge the snapshot or backing chain into one disk first.") \
	ERR_ROW(ERR_DISK_SHRINK,         1211, 400, "A disk can only grow.") \
	ERR_ROW(ERR_DISK_READ_ONLY,      1212, 409, "Attach it without --read-only.") \
	ERR_ROW(ERR_DISK_RETIRED,        1213, 409, "It is the old copy of a disk that moved; 'disk fork' makes it a disk of its own.") \
	ERR_ROW(ERR_DISK_MARKED,         1214, 409, "Run 'blkmirror recover' on the host that is named, or give your word with 'recover ID --keep'.") \
	ERR_ROW(ERR_DISK_ID_TAKEN,       1215, 409, "Choose another --id, or leave it out.") \
	ERR_ROW(ERR_DISK_NOT_RETIRED,    1216, 409, "Only a retired copy can be forked.") \
	ERR_ROW(ERR_MOVE_SAME,           1300, 409, "Choose another target.") \
	ERR_ROW(ERR_MOVE_TARGET_SMALL,   1301, 409, "Choose a target at least as large as the source.") \
	ERR_ROW(ERR_MOVE_TARGET_EXISTS,  1302, 409, "Choose another target path, or delete what is there first.") \
	ERR_ROW(ERR_MOVE_SOURCE_READ,    1303, 500, "Check the source's store; the data there stay as they are and authoritative.") \
	ERR_ROW(ERR_MOVE_TARGET_WRITE,   1304, 500, "Mend the target's store and 'task resume', or cancel the task.") \
	ERR_ROW(ERR_MOVE_VERIFY,         1305, 500, "Do not trust the target's store: test it, then relocate to another.") \
	ERR_ROW(ERR_MOVE_STUN,           1306, 409, "Raise --max-stun, or complete when the guest writes less.") \
	ERR_ROW(ERR_MOVE_NO_CONVERGE,    1307, 409, "Raise --bandwidth, or wait until the guest writes less.") \
	ERR_ROW(ERR_MOVE_TARGET_STUCK,   1308, 504, "Mend the target's store and 'task resume', or cancel the task.") \
	ERR_ROW(ERR_MOVE_SECTOR,         1309, 409, "Choose a target with sectors no larger than the disk's.") \
	ERR_ROW(ERR_MOVE_COMMIT,         1310, 500, "Guest I/O is held: make the state directory writable; nothing falls back by itself now.") \
	ERR_ROW(ERR_MOVE_SUSPECT,        1311, 409, "Restart the target's server, or cancel and relocate onto a new target.") \
	ERR_ROW(ERR_MOVE_HOST_LOCAL,     1312, 409, "Let no other host use that export or LUN before the move has ended.") \
	ERR_ROW(ERR_MOVE_PHYSICAL,       1313, 409, "Expect small writes to cost more there; or choose a target with the same physical blocks.") \
	ERR_ROW(ERR_MOVE_THIN,           1314, 409, "Watch the target's free space as the disk grows, or choose a larger datastore.") \
	ERR_ROW(ERR_MOVE_LEFTOVER,       1315, 409, "'blkmirror recover list' shows what is left; the daemon tries again at its next start.") \
	ERR_ROW(ERR_MOVE_THREADS,        1316, 409, "Attach the disks of one machine with the same group, or relocate them one by one.") \
	ERR_ROW(ERR_MOVE_UNVERIFIED,     1317, 409, "Leave verification on, or delete the retired source by hand when you trust the target.") \
	ERR_ROW(ERR_MOVE_TARGET_FULL,    1320, 409, "Free space on the target's datastore (or enlarge it) and 'task resume', or cancel the task.") \
	ERR_ROW(ERR_MOVE_SLOW_TARGET,    1321, 409, "Let it go on, or raise it with 'task set ID --latency-budget' (0 mirrors all) if it does not converge.") \
	ERR_ROW(ERR_TASK_UNKNOWN,        1400, 404, "'blkmirror task list --all' shows every task.") \
	ERR_ROW(ERR_TASK_ENDED,          1401, 409, "The task has ended; start a new one.") \
	ERR_ROW(ERR_TASK_STATE,          1402, 409, "'blkmirror task show' tells the state it is in.") \
	ERR_ROW(ERR_TASK_CANCELLED,      1403, 409, "It was cancelled by an operator; the source is unchanged and authoritative.") \
	ERR_ROW(ERR_TASK_COMMITTED,      1404, 409, "The switch-over is durable: let the task finish.") \
	ERR_ROW(ERR_TASK_INTERRUPTED,    1405, 409, "'blkmirror recover list' shows what is authoritative; start the relocation again.") \
	ERR_ROW(ERR_TASK_QUEUE_FULL,     1406, 503, "Wait until some of the queued tasks have ended.") \
	ERR_ROW(ERR_EXPORT_SOCKET,       1500, 409, "Choose another socket path in a directory the daemon may write.") \
	ERR_ROW(ERR_EXPORT_KIND,         1501, 400, "Use --export nbd or --export vhost-user.") \
	ERR_ROW(ERR_EXPORT_BUSY,         1502, 409, "Disconnect the client (stop the VM) first.") \
	ERR_ROW(ERR_SOCKET_HOLDER,       1503, 500, "Guests go on; end 'blkmirrord --hold-sockets' with 'blkmirrord --release', or set socket_holder, before the next restart.") \
	ERR_ROW(ERR_JOURNAL_DAMAGED,     1600, 500, "Keep both copies; decide with 'blkmirror recover ID --keep source|target'.") \
	ERR_ROW(ERR_JOURNAL_IO,          1601, 500, "Check the disk under the state directory.") \
	ERR_ROW(ERR_RECOVER_UNKNOWN,     1602, 404, "'blkmirror recover list' shows what waits for a word.") \
	ERR_ROW(ERR_RECOVER_PROVED,      1603, 409, "Nothing to decide: the journal proves which copy is authoritative.") \
	ERR_ROW(ERR_HOST_UNKNOWN,        1800, 404, "'blkmirror host list' shows the hosts that this one knows.") \
	ERR_ROW(ERR_HOST_EXISTS,         1801, 409, "Choose another name, or remove the other entry first.") \
	ERR_ROW(ERR_HOST_ADDRESS,        1802, 400, "Give 1 to 8 addresses as 192.0.2.7:7701 or [2001:db8::7]:7701, separated by commas.") \
	ERR_ROW(ERR_HOST_FINGERPRINT,    1803, 400, "Give what 'blkmirror host fingerprint' prints on the other host: SHA256: and 43 characters.") \
	ERR_ROW(ERR_HOST_UNREACHABLE,    1804, 409, "Check that blkmirrord listens there (--listen) and that this host reaches the address.") \
	ERR_ROW(ERR_HOST_KEY,            1805, 403, "Compare with 'blkmirror host fingerprint' on the other host; if its key was replaced on purpose, remove the host and add it again.") \
	ERR_ROW(ERR_HOST_REFUSED,        1806, 403, "Add this host on the other one, with the fingerprint that 'blkmirror host fingerprint' prints here.") \
	ERR_ROW(ERR_HOST_SELF,           1807, 409, "Name another host; this fingerprint is this daemon's own.") \
	ERR_ROW(ERR_HOST_KEY_FILE,       1808, 500, "Restore host-key.pem in the state directory from a backup; or remove it, restart, and give the other hosts the new fingerprint.") \
	ERR_ROW(ERR_WIRE_VERSION,        1809, 409, "Bring both hosts to versions of blkmirror that speak with each other.") \
	ERR_ROW(ERR_WIRE_PROTOCOL,       1810, 500, "Look at both daemons' logs: what came is not what blkmirror-wire(7) allows.") \
	ERR_ROW(ERR_WIRE_LOST,           1811, 409, "Check the network between the hosts; the operation can be repeated.") \
	ERR_ROW(ERR_MEM_ATTACH,          1850, 500, "Look at the cause; nothing was changed in QEMU, and the guest goes on.") \
	ERR_ROW(ERR_MEM_PERMISSION,      1851, 403, "Run the daemon as root, or give it CAP_SYS_PTRACE, and let no security module forbid it.") \
	ERR_ROW(ERR_MEM_KERNEL,          1852, 501, "Use Linux 6.7 or newer on x86-64 for exact tracking; the hash tracker does without.") \
	ERR_ROW(ERR_MEM_NOT_SHARED,      1853, 409, "Start QEMU with all of its RAM in '-object memory-backend-memfd,share=on'.") \
	ERR_ROW(ERR_MEM_TRACED,          1854, 409, "End the debugger, strace or other migration that holds QEMU, then try again.") \
	ERR_ROW(ERR_MEM_TRACK,           1855, 500, "The guest goes on where it is; look at the cause, then migrate again.") \
	ERR_ROW(ERR_MEM_PROTOCOL,        1856, 409, "Use the same version of blkmirror on both hosts; the guest goes on where it was.") \
	ERR_ROW(ERR_MEM_RECEIVE,         1857, 500, "Look at the memory of the receiving host; the guest goes on where it was.") \
	ERR_ROW(ERR_MEM_SEND,            1858, 500, "Look at the link between the hosts; the guest goes on where it is.") \
	ERR_ROW(ERR_MEM_LATE_WRITE,      1859, 500, "A device wrote into the stopped guest's memory: the guest goes on where it is; report it with the machine's devices.") \
	ERR_ROW(ERR_VMX_SYNTAX,          1700, 400, "Correct the named line of the VMX file; nothing was changed.") \
	ERR_ROW(ERR_VMX_LIMIT,           1701, 400, "Take out of the VMX file what the machine does not need.") \
	ERR_ROW(ERR_VMX_DUPLICATE,       1702, 400, "Leave one line for that key in the VMX file.") \
	ERR_ROW(ERR_VMX_BAD_VALUE,       1703, 400, "Correct that value in the VMX file; docs/VMX.md tells what each key takes.") \
	ERR_ROW(ERR_VM_HARDWARE,         1704, 409, "Change the machine's hardware in its VMX file; docs/VMX.md lists what can be had.") \
	ERR_ROW(ERR_VM_IGNORED,          1705, 409, "Nothing to do, if the machine can live without it.") \
	ERR_ROW(ERR_VM_GUEST_DRIVER,     1706, 409, "Make sure that the guest has the driver, or choose another controller while it still runs.") \
	ERR_ROW(ERR_VM_NO_MIGRATE,       1707, 409, "Move the disks to another controller before you rely on that.") \
	ERR_ROW(ERR_VM_FOREIGN_SUSPEND,  1708, 409, "Resume it there and shut it down, or clear checkpoint.vmState: the guest then starts as after a power cut.") \
	ERR_ROW(ERR_VM_NETWORK,          1709, 409, "Add that network to [networks] in the daemon's configuration, or change the machine's.") \
	ERR_ROW(ERR_VM_QMP,              1710, 500, "Look at the machine's qemu.log; 'blkmirror vm show' tells where it is.") \
	ERR_ROW(ERR_VM_QMP_REFUSED,      1711, 500, "Look at the machine's qemu.log; 'blkmirror vm show' tells where it is.") \
	ERR_ROW(ERR_VM_QMP_LATE,         1712, 504, "QEMU hangs: see whether its disks answer, then repeat the command or stop the machine with --force.") \
	ERR_ROW(ERR_VM_FIRMWARE,         1713, 409, "Install OVMF and name it with efi_code and efi_vars in the daemon's configuration.") \
	ERR_ROW(ERR_VM_KERNEL,           1714, 403, "Ask for the folder to be put into kernel_roots, or boot the machine from a disk.") \
	ERR_ROW(ERR_VM_START,            1715, 500, "Look at the cause and at the machine's qemu.log; nothing runs.") \
	ERR_ROW(ERR_VM_STATE,            1716, 409, "'blkmirror vm show' tells the state it is in.") \
	ERR_ROW(ERR_VM_DIED,             1717, 500, "Look at the machine's qemu.log; start it again when the cause is mended.") \
	ERR_ROW(ERR_VM_SUSPEND,          1718, 500, "The guest goes on; look at the cause and at the datastore's free space.") \
	ERR_ROW(ERR_VM_RESUME,           1719, 500, "The image is still there: try again, or throw it away with 'vm stop --force' and start the guest afresh.") \
	ERR_ROW(ERR_VM_UNKNOWN,          1720, 404, "'blkmirror vm list' shows the machines that are registered.") \
	ERR_ROW(ERR_VM_EXISTS,           1721, 409, "Unregister the other one first, or name the machine by its id.") \
	ERR_ROW(ERR_VM_DISK,             1722, 409, "Stop the machine first; its disks are detached then.") \
	ERR_ROW(ERR_VM_MOVING,           1723, 409, "Wait for the task that is named, or cancel it.") \
	ERR_ROW(ERR_VM_CONFIG_STAYED,    1724, 500, "The machine starts from where its VMX is; mend the other datastore, then 'vm relocate --config-to'.") \
	ERR_ROW(ERR_VMFS_NOT_ONE,        1900, 409, "Name the partition or image that holds the volume, not the whole disk or a file in it.") \
	ERR_ROW(ERR_VMFS_DAMAGED,        1901, 500, "Run 'vmfsctl fsck'; nothing was changed.") \
	ERR_ROW(ERR_VMFS_UNSUPPORTED,    1902, 501, "This version cannot do it on such a volume; vmfsctl(8) says what it can.") \
	ERR_ROW(ERR_VMFS_EXTENT,         1903, 409, "Name all devices of the volume, each once; 'vmfsctl info' on one of them says how many there are.") \
	ERR_ROW(ERR_VMFS_IO,             1904, 500, "Look at the store's own log; the operation may be repeated when it is healthy.") \
	ERR_ROW(ERR_VMFS_IN_USE,         1905, 409, "Unmount the volume there first; 'vmfsctl locks' shows who uses it.") \
	ERR_ROW(ERR_VMFS_NO_SPACE,       1906, 409, "Free space in the volume, or choose another; 'vmfsctl df' shows what is full.") \
	ERR_ROW(ERR_VMFS_NO_ENTRY,       1907, 404, "'vmfsctl ls' shows what there is.") \
	ERR_ROW(ERR_VMFS_EXISTS,         1908, 409, "Choose another name, or remove what is there first.") \
	ERR_ROW(ERR_VMFS_KIND,           1909, 409, "'vmfsctl stat' shows what it is.") \
	ERR_ROW(ERR_VMFS_NOT_EMPTY,      1910, 409, "Remove what the folder holds first.") \
	ERR_ROW(ERR_VMFS_READ_ONLY,      1911, 409, "Open the volume for writing; VMFS3 and VMFS6 volumes can only be read.") \
	ERR_ROW(ERR_VMFS_NAME,           1912, 400, "Use a name of 1 to 127 bytes without '/'.") \
	ERR_ROW(ERR_VMFS_BAD_SIZE,       1913, 400, "A volume needs at least 273 MiB on each device, and takes at most 2 TiB of each.") \
	ERR_ROW(ERR_VMFS_LIMIT,          1914, 409, "The volume's format holds no more; use another volume.") \
	ERR_ROW(ERR_VMFS_BUSY,           1915, 409, "Close it where it is open first.") \
	ERR_ROW(ERR_VMFS_UNCLEAN,        1916, 409, "Nothing was changed; 'vmfsctl fsck' listed what it found.") \
	ERR_ROW(ERR_NFS_UNREACHABLE,     2000, 409, "Check that the NFS server runs, that its ports are open to this host, and nfsport= and mountport= in the URL.") \
	ERR_ROW(ERR_NFS_NO_EXPORT,       2001, 409, "'showmount -e HOST' lists what the server exports; name one of these, and let this host in there.") \
	ERR_ROW(ERR_NFS_DENIED,          2002, 403, "Let this host in at the server's export list; a server that wants reserved ports needs the daemon to run as root.") \
	ERR_ROW(ERR_NFS_VERSION,         2003, 501, "Use version=3 in the URL, and a server that offers NFS version 3 over TCP.") \
	ERR_ROW(ERR_NFS_PROTOCOL,        2004, 500, "Look at the NFS server's log; its answers make no sense.") \
	ERR_ROW(ERR_NFS_NO_FENCE,        2005, 409, "Stop a host for good before another takes over its disks: NFS version 3 cannot shut it out.") \
	ERR_ROW(ERR_ISCSI_CONNECT,       2100, 409, "Check that the iSCSI portal runs there and that this host reaches it.") \
	ERR_ROW(ERR_ISCSI_LOGIN,         2101, 403, "Check the names and secrets in the secret file, and the target's list of initiators.") \
	ERR_ROW(ERR_ISCSI_NO_TARGET,     2102, 404, "Check the target's name in the URL; the portal lists what it offers to a discovery.") \
	ERR_ROW(ERR_ISCSI_NO_LUN,        2103, 404, "'blkmirror datastore files DS' shows the disks of the target.") \
	ERR_ROW(ERR_ISCSI_PROTOCOL,      2104, 500, "Look at the iSCSI target's log; its answers make no sense.") \
	ERR_ROW(ERR_ISCSI_READ_ONLY,     2105, 409, "Take the write protection from the LUN at the target.") \
	ERR_ROW(ERR_ISCSI_COMMAND,       2106, 500, "Look at the iSCSI target's log; the operation may be repeated when it is healthy.") \
	ERR_ROW(ERR_ISCSI_FENCED,        2107, 409, "Another host holds the LUN: let go of it there first.") \
	ERR_ROW(ERR_NBD_CONNECT,         2200, 409, "Check that the NBD server runs and offers that export.") \
	ERR_ROW(ERR_NBD_PROTOCOL,        2201, 500, "Look at the NBD server's log; its answers make no sense.") \
	ERR_ROW(ERR_NBD_READ_ONLY,       2202, 409, "Export it writable.")
// clang-format on
#endif
