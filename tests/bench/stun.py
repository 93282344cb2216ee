# SPDX-License-Identifier: Apache-2.0
"""
stun.py - stun/p95: how long a guest's writes wait at a switch-over.

A disk of 64 MiB under a guest with 8 outstanding 4 KiB writes moves to and fro.  Counted is
the longest that a write took in the time of the switch-over, as the guest sees it: from just
before the command to complete until the disk is the target and 20 ms have passed.  Beside:
the same for a writer on a file of the same store that nobody moves, and, as the limit, for the
guest itself in as long a time just before.  Ours and the peer take turns.  How long our gate
was shut is said too: the rest of a stall is not the switch-over's.
"""

import json
import os
import statistics
import subprocess
import time

from common import QUICK, SOURCE_DIR, TARGET_DIR, progress, record, remove
from movers import PROGRAMS, Ours, Peer

RUNS = int(os.environ.get("BENCH_STUN_RUNS") or (20 if QUICK else 200))
DISK_BYTES = 64 << 20
AFTER_S = 0.02
P95 = 0.95


class Writer:
    """bench_guest: a guest that can be asked how long it had to wait."""

    def __init__(self, where, depth):
        self.process = subprocess.Popen(
            [os.path.join(PROGRAMS, "bench_guest"), where, str(depth)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.process.kill()
        self.process.wait()

    def mark(self):
        """The longest wait since the last mark, in milliseconds."""
        self.process.stdin.write("mark\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())["longest_ns"] / 1e6


class Side:
    """One mover and its disk, which lives in either of two files."""

    def __init__(self, name, mover):
        self.paths = [os.path.join(SOURCE_DIR, f"stun-{name}-a.raw"),
                      os.path.join(TARGET_DIR, f"stun-{name}-b.raw")]
        make_disk(self.paths[0])
        remove(self.paths[1])
        self.disk = mover(self.paths[0])
        self.stalls, self.before, self.control, self.held = [], [], [], []

    def switch(self, control):
        with Writer(self.disk.uri, 8) as guest:
            move = self.disk.move(self.paths[1])
            guest.mark()
            time.sleep(AFTER_S)
            self.before.append(guest.mark())
            control.mark()
            move.complete()
            time.sleep(AFTER_S)
            self.stalls.append(guest.mark())
            self.control.append(control.mark())
            if hasattr(self.disk, "done"):
                self.held.append(self.disk.done["stun_ns"] / 1e6)
        self.disk.after_switch()
        remove(self.paths[0])
        self.paths.reverse()

    def close(self):
        self.disk.close()
        for path in self.paths:
            remove(path)


def make_disk(path):
    with open(path, "wb") as file:
        file.write(os.urandom(DISK_BYTES))
        os.fsync(file.fileno())


def p95(values):
    return sorted(values)[min(len(values) - 1, int(len(values) * P95))]


def main():
    control_path = os.path.join(SOURCE_DIR, "stun-control.raw")
    make_disk(control_path)
    sides = {"ours": Side("ours", Ours),
             "peer": Side("peer", lambda path: Peer(path, "write-blocking"))}
    try:
        with Writer(control_path, 1) as control:
            for run in range(RUNS):
                for name in ("ours", "peer") if run % 2 == 0 else ("peer", "ours"):
                    sides[name].switch(control)
    finally:
        for side in sides.values():
            side.close()
        remove(control_path)
    for name, side in sides.items():
        progress(f"stun {name}: p50 {statistics.median(side.stalls):.2f} ms, p95 "
                 f"{p95(side.stalls):.2f}, max {max(side.stalls):.2f}; just before p95 "
                 f"{p95(side.before):.2f}; control p95 {p95(side.control):.2f}")
        if side.held:
            progress(f"stun {name}: guest I/O held p50 {statistics.median(side.held):.2f} ms, p95 "
                     f"{p95(side.held):.2f}, max {max(side.held):.2f}")
    record("stun/p95", "ms", "lower",
           {"ours": [p95(sides["ours"].stalls)], "peer": [p95(sides["peer"].stalls)]},
           Peer.name + " (write-blocking)", p95(sides["ours"].before), runs=RUNS)


main()
