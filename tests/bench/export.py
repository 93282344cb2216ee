# SPDX-License-Identifier: Apache-2.0
"""
export.py - export/...: a file through our NBD export and through qemu-storage-daemon's.

fio is the client (its nbd engine, over a UNIX socket).  The limit is fio on the file itself.
All three servers run all the time, idle but for the one that is asked.
"""

from common import QUICK, RUNS, SIZE_BYTES, SOURCE, fio, order, progress, record
from movers import Ours, Peer

SECONDS = 1 if QUICK else 2

JOBS = [(f"export/{rw}-qd{depth}", rw, "4k", depth)
        for rw in ("randread", "randwrite") for depth in (1, 16, 64)]
JOBS += [("export/read-1m", "read", "1m", 8), ("export/write-1m", "write", "1m", 8)]


def measure(rw, block, depth, where):
    """Requests a second for small ones, MiB a second for large ones."""
    job = fio(*where, f"--rw={rw}", f"--bs={block}", f"--iodepth={depth}", "--time_based",
              f"--runtime={SECONDS}", "--ramp_time=200ms", f"--size={SIZE_BYTES}",
              "--norandommap")
    side = job["read" if "read" in rw else "write"]
    return side["iops"] if block == "4k" else side["bw_bytes"] / (1 << 20)


def main():
    with Ours(SOURCE) as ours, Peer(SOURCE) as peer, Peer(SOURCE) as twin:
        sides = [("ours", ours), ("peer", peer), ("twin", twin)]
        for name, rw, block, depth in JOBS:
            values = {side: [] for side, _ in sides}
            limits = []
            for run in range(RUNS):
                for side, server in order(sides, run):
                    where = ["--ioengine=nbd", "--uri=" + server.uri]
                    values[side].append(measure(rw, block, depth, where))
                where = ["--ioengine=libaio", "--direct=1", "--filename=" + SOURCE]
                limits.append(measure(rw, block, depth, where))
            progress(f"{name}: " + ", ".join(
                f"{side} {sorted(values[side])[RUNS // 2]:.0f}" for side in values))
            record(name, "IOPS" if block == "4k" else "MiB/s", "higher", values, Peer.name,
                   sorted(limits)[len(limits) // 2])


main()
