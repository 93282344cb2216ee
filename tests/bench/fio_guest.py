# SPDX-License-Identifier: Apache-2.0
"""fio_guest.py - fio as a guest on an NBD export, judged over any stretch of time.

fio logs every request (its end, how long it took) in milliseconds of wall-clock time; what
a guest felt while a copy ran is read from that log, not from the averages of a longer run.
"""

import bisect
import os
import shutil
import subprocess
import tempfile
import time


class Guest:
    """4 KiB random writes, `depth` at once, at `rate` a second (0: as fast as they go)."""

    def __init__(self, uri, size_bytes, rate, depth):
        self.dir = tempfile.mkdtemp(prefix="bm-guest-")
        command = [
            "fio", "--name=guest", "--ioengine=nbd", f"--uri={uri}", "--rw=randwrite", "--bs=4k",
            f"--size={size_bytes}", f"--iodepth={depth}", "--time_based", "--runtime=3600",
            "--norandommap", "--randrepeat=0", "--refill_buffers",
            "--write_lat_log=guest", "--log_unix_epoch=1", "--output=fio.out"]
        if rate:
            command.append(f"--rate_iops={rate}")
        self.process = subprocess.Popen(command, cwd=self.dir, stdout=subprocess.DEVNULL)

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.stop()
        shutil.rmtree(self.dir)

    def stop(self):
        """fio writes its log when it is interrupted."""
        if self.process.poll() is None:
            self.process.send_signal(2)
            try:
                self.process.wait(60)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def read(self):
        """(end in seconds of wall-clock time, latency in ns) of every request, by time."""
        rows = []
        with open(os.path.join(self.dir, "guest_lat.1.log"), encoding="ascii") as log:
            for line in log:
                at_ms, latency_ns, _ = line.split(",", 2)
                rows.append((int(at_ms) / 1000, int(latency_ns)))
        rows.sort()
        return rows


def felt(rows, begin_unix, end_unix):
    """(requests a second, p99 in ns) of what ended within."""
    first = bisect.bisect_left(rows, (begin_unix, 0))
    last = bisect.bisect_left(rows, (end_unix, 0))
    latencies = sorted(row[1] for row in rows[first:last])
    if not latencies:
        return 0.0, None
    iops = len(latencies) / (end_unix - begin_unix)
    return iops, latencies[min(len(latencies) - 1, len(latencies) * 99 // 100)]


def settle(seconds):
    """Let the guest run alone; gives back the stretch to judge."""
    begin = time.time()
    time.sleep(seconds)
    return begin, time.time()
