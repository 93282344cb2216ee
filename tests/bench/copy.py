# SPDX-License-Identifier: Apache-2.0
"""
copy.py - copy/time: move a disk of random data while its guest is idle.

From the command to the moment when the disk is the target, the target flushed.  Beside it
the time that fio needs to read the same file (sequentially, 1 MiB, depth 16, O_DIRECT), and
the peer's twin.
"""

from common import (RUNS, SIZE_BYTES, SOURCE, TARGET, fio, order, progress, record, remove)
from movers import Ours, Peer

SIDES = [("ours", Ours), ("peer", Peer), ("twin", Peer)]


def copy_once(mover):
    try:
        with mover(SOURCE) as disk:
            move = disk.move(TARGET).complete()
            if move.switch_s > 0.5:
                progress(f"  {disk.name}: {move.switch_s:.2f} s of it in the switch-over")
            return move.total_s
    finally:
        remove(TARGET)


def read_limit():
    job = fio(f"--filename={SOURCE}", "--rw=read", "--bs=1M", "--iodepth=16",
              "--ioengine=libaio", "--direct=1")
    return job["read"]["runtime"] / 1000 * SIZE_BYTES / job["read"]["io_bytes"]


def main():
    values = {side: [] for side, _ in SIDES}
    limits = []

    for run in range(RUNS):
        limits.append(read_limit())
        for side, mover in order(SIDES, run):
            values[side].append(copy_once(mover))
        progress(f"copy {run + 1}/{RUNS}: " +
                 ", ".join(f"{side} {values[side][-1]:.2f} s" for side in values) +
                 f", fio read {limits[-1]:.2f} s")
    record("copy/time", "s", "lower", values, Peer.name, sorted(limits)[len(limits) // 2])


main()
