# SPDX-License-Identifier: Apache-2.0
"""
guest.py fixed|closed - guest-NAME/...: what a writing guest keeps while its disk is copied.

fixed: 2,000 random 4 KiB writes a second; closed: 8 outstanding, as fast as they go.  Through
the export of the disk that moves.  Each figure is a fraction of the same side's own figure
without the other load: IOPS and p99 against the guest alone, just before; copy time against
a copy without a guest.  The peer mirrors with copy-mode=write-blocking, which converges
under any load as our mirror does.

The limit of fixed's p99: the same guest on the same export while no disk moves, but fio reads
as much as our copy did in the same time, and writes as much, evenly, to the store that the
guest writes to (a mirrored write goes where the copy goes).  That is what this store and this
machine do to a guest beside so much traffic, whoever causes it.
"""

import os
import statistics
import sys
import time

from common import (QUICK, RUNS, SIZE_BYTES, SOURCE, SOURCE_DIR, TARGET, fio, order, progress,
                    record, remove)
from fio_guest import Guest, felt, settle
from movers import Ours, Peer

ALONE_S = 2 if QUICK else 5
BESIDE_BYTES = 256 << 20        # is overwritten: the store may have no room for a second disk
LOADS = {"fixed": (2000, 16), "closed": (0, 8)}         # IOPS, depth


class PeerBlocking(Peer):
    def __init__(self, path):
        super().__init__(path, "write-blocking")


SIDES = [("ours", Ours), ("peer", PeerBlocking)]


def idle_copy(mover):
    try:
        with mover(SOURCE) as disk:
            return disk.move(TARGET).complete().synced_s
    finally:
        remove(TARGET)


def copy_under_load(mover, rate, depth):
    """The copy's seconds, and what the guest felt alone and meanwhile: (IOPS, p99 in ns)."""
    try:
        with mover(SOURCE) as disk, Guest(disk.uri, SIZE_BYTES, rate, depth) as guest:
            time.sleep(1)
            alone = settle(ALONE_S)
            move = disk.move(TARGET)
            guest.stop()
            move.complete()
            rows = guest.read()
            if isinstance(disk, Ours):
                progress(f"  at the gate: p99 {disk.gate['alone_p99_ns'] / 1e6:.2f} ms alone, "
                         f"{disk.gate['p99_ns'] / 1e6:.2f} meanwhile")
            return (move.synced_s, felt(rows, *alone),
                    felt(rows, move.started_unix, move.synced_unix))
    finally:
        remove(TARGET)


def felt_beside_fio(rate, depth, copy_s):
    """p99 beside fio's even traffic of the same volume in the same time, as a multiple of alone."""
    traffic = ["--ioengine=libaio", "--direct=1", "--bs=256k", "--iodepth=4",
               f"--rate={int(SIZE_BYTES / copy_s)}", f"--io_size={SIZE_BYTES}"]
    written = os.path.join(SOURCE_DIR, "beside.raw")
    try:
        with Ours(SOURCE) as disk, Guest(disk.uri, SIZE_BYTES, rate, depth) as guest:
            time.sleep(1)
            alone = settle(ALONE_S)
            begin = time.time()
            fio(f"--filename={SOURCE}", "--rw=read", f"--size={SIZE_BYTES}", *traffic,
                "--name=written", f"--filename={written}", "--rw=write",
                f"--size={min(SIZE_BYTES, BESIDE_BYTES)}", *traffic)
            end = time.time()
            guest.stop()
            rows = guest.read()
            return felt(rows, begin, end)[1] / felt(rows, *alone)[1]
    finally:
        remove(written)


def measure(mover, rate, depth):
    alone_s = idle_copy(mover)
    loaded_s, alone, meanwhile = copy_under_load(mover, rate, depth)
    # A guest that got nothing done at all has waited for the whole copy.
    p99_ns = meanwhile[1] or loaded_s * 1e9
    progress(f"  alone {alone[0]:.0f} IOPS, p99 {alone[1] / 1e6:.2f} ms; meanwhile "
             f"{meanwhile[0]:.0f}, {p99_ns / 1e6:.2f} ms; copy {alone_s:.2f} s, {loaded_s:.2f} s")
    return {"iops": meanwhile[0] / alone[0], "p99": p99_ns / alone[1],
            "time": loaded_s / alone_s}, loaded_s


def main(load):
    values = {what: {side: [] for side, _ in SIDES} for what in ("iops", "p99", "time")}
    limits = []

    for run in range(RUNS):
        for side, mover in order(SIDES, run):
            got, copy_s = measure(mover, *LOADS[load])
            for what, value in got.items():
                values[what][side].append(value)
            progress(f"guest-{load} {run + 1}/{RUNS}: {side} keeps {got['iops']:.0%} of its IOPS,"
                     f" p99 x {got['p99']:.1f}, copy x {got['time']:.2f}")
            if side == "ours" and load == "fixed":
                limits.append(felt_beside_fio(*LOADS[load], copy_s))
                progress(f"  beside fio at that pace: p99 x {limits[-1]:.1f}")
    peer_name = Peer.name + " (write-blocking)"
    record(f"guest-{load}/iops", "of idle", "higher", values["iops"], peer_name)
    if load == "fixed":
        record(f"guest-{load}/p99", "x idle", "lower", values["p99"], peer_name,
               statistics.median(limits))
    record(f"guest-{load}/time", "x idle copy", "lower", values["time"], peer_name)


main(sys.argv[1])
