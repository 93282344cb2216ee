# SPDX-License-Identifier: Apache-2.0
"""movers.py - a disk behind an NBD export that can be moved: ours and QEMU's, driven alike.

    with Ours(store) as disk:           # or Qemu(store), or Qemu(store, "write-blocking")
        disk.uri                        # where a guest finds it
        move = disk.move(target)        # copies until in sync; move.synced_s
        move.complete()                 # switches over; move.total_s

Both make the target anew, read and write past the page cache, verify nothing, and say by
an event when they are in sync and when they are done: the clock is the caller's for both.
A move's first instant is when the command is sent, its last when the disk is the target.
"""

import json
import os
import socket
import subprocess
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
PROGRAMS = os.path.join(HERE, "..", "..", "build", "tests", "bench")
EVENT_TIMEOUT_S = 600


class BenchError(Exception):
    """Something that was measured failed: no figure is better than a wrong one."""


class Move:
    """One move under way; times in seconds of the monotonic clock, *_unix for fio's logs."""

    def __init__(self, disk):
        self.disk = disk
        self.started = time.monotonic()
        self.started_unix = time.time()

    def in_sync(self):
        self.synced_s = time.monotonic() - self.started
        self.synced_unix = time.time()

    def complete(self):
        begin = time.monotonic()
        self.disk.switch_over()
        self.switch_s = time.monotonic() - begin
        self.total_s = self.synced_s + self.switch_s
        self.ended_unix = time.time()
        return self


class Server:
    """A process that serves a disk; killed by its id whatever happens."""

    def __init__(self):
        self.dir = tempfile.mkdtemp(prefix="bm-bench-")
        self.socket_path = os.path.join(self.dir, "nbd.sock")
        self.uri = f"nbd+unix:///d1?socket={self.socket_path}"
        self.process = None

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()

    def stop(self):
        """Ask it to end."""
        self.process.terminate()

    def close(self):
        if self.process:
            self.stop()
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        for name in os.listdir(self.dir):
            os.unlink(os.path.join(self.dir, name))
        os.rmdir(self.dir)

    def move(self, target):
        self.prepare(target)
        move = Move(self)
        self.copy()
        move.in_sync()
        return move


class Ours(Server):
    name = "blkmirror"
    program = os.path.join(PROGRAMS, "bench_move")

    def __init__(self, path):
        super().__init__()
        self.process = subprocess.Popen(
            [self.program, self.socket_path, path],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)
        self.record = path + ".record"
        self.expect("ready")

    def say(self, line):
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def expect(self, event):
        while True:
            line = self.process.stdout.readline()
            if not line:
                raise BenchError(f"bench_move ended while we waited for '{event}'")
            answer = json.loads(line)
            if answer["event"] == "failed":
                raise BenchError(f"our move failed: {answer['cause']}")
            if answer["event"] == event:
                return answer

    def prepare(self, target):
        self.target = target

    def copy(self):
        self.say("move " + self.target)
        self.gate = self.expect("gate")
        self.expect("synced")

    def switch_over(self):
        self.say("complete")
        self.done = self.expect("done")

    def after_switch(self):
        self.expect("closed")

    def stop(self):
        if self.process.poll() is None:
            self.say("quit")

    def close(self):
        super().close()
        if os.path.exists(self.record):
            os.unlink(self.record)


class Qemu(Server):
    """qemu-storage-daemon: blockdev-mirror of the node that its NBD export serves."""

    name = "qemu-storage-daemon"

    def __init__(self, path, copy_mode="background"):
        super().__init__()
        qmp_path = os.path.join(self.dir, "qmp.sock")
        self.copy_mode = copy_mode
        self.node = "disk0"
        self.nodes = 1
        # It reports every client that goes away: kept for the day when it does not start.
        self.stderr = open(os.path.join(self.dir, "stderr"), "w+", encoding="utf-8")
        self.process = subprocess.Popen(
            ["qemu-storage-daemon",
             "--chardev", f"socket,id=qmp,path={qmp_path},server=on,wait=off",
             "--monitor", "chardev=qmp",
             "--blockdev", json.dumps(self.file_node("disk0", path)),
             "--nbd-server", f"addr.type=unix,addr.path={self.socket_path}",
             "--export", "type=nbd,id=e0,node-name=disk0,name=d1,writable=on"],
            stderr=self.stderr)
        self.connect(qmp_path)

    @staticmethod
    def file_node(name, path):
        return {"driver": "file", "node-name": name, "filename": path, "aio": "native",
                "cache": {"direct": True}, "discard": "unmap"}

    def connect(self, qmp_path):
        deadline = time.monotonic() + 10
        while True:
            self.qmp = socket.socket(socket.AF_UNIX)
            try:
                self.qmp.connect(qmp_path)
                break
            except OSError:
                self.qmp.close()
                if time.monotonic() > deadline or self.process.poll() is not None:
                    self.stderr.seek(0)
                    raise BenchError("qemu-storage-daemon did not start: " +
                                     self.stderr.read()) from None
                time.sleep(0.02)
        self.qmp.settimeout(EVENT_TIMEOUT_S)
        self.lines = self.qmp.makefile("r")
        self.events = []
        self.lines.readline()           # the greeting
        self.command("qmp_capabilities")
        while not os.path.exists(self.socket_path):
            time.sleep(0.02)

    def receive(self):
        line = self.lines.readline()
        if not line:
            raise BenchError("qemu-storage-daemon closed its monitor")
        return json.loads(line)

    def command(self, name, **arguments):
        self.qmp.sendall(json.dumps({"execute": name, "arguments": arguments}).encode())
        while True:
            answer = self.receive()
            if "error" in answer:
                raise BenchError(f"{name}: {answer['error']['desc']}")
            if "return" in answer:
                return answer["return"]
            self.events.append(answer)

    def expect(self, event):
        while True:
            for i, seen in enumerate(self.events):
                if seen.get("event") == "BLOCK_JOB_ERROR" or seen.get("data", {}).get("error"):
                    raise BenchError(f"QEMU's mirror failed: {seen}")
                if seen.get("event") == event:
                    del self.events[:i + 1]
                    return
            self.events.append(self.receive())

    def prepare(self, target):
        size = os.stat(self.path_of_disk()).st_size
        with open(target, "wb") as file:
            file.truncate(size)
        self.target_node = f"disk{self.nodes}"
        self.nodes += 1
        self.command("blockdev-add", **self.file_node(self.target_node, target))

    def path_of_disk(self):
        for node in self.command("query-named-block-nodes", flat=True):
            if node["node-name"] == self.node:
                return node["file"]
        raise BenchError(f"no node {self.node}")

    def copy(self):
        # The job id is the target's name: QEMU wants a new one each time.
        self.command("blockdev-mirror", **{
            "job-id": "j-" + self.target_node, "device": self.node, "target": self.target_node,
            "sync": "full", "copy-mode": self.copy_mode})
        self.expect("BLOCK_JOB_READY")

    def switch_over(self):
        self.command("block-job-complete", device="j-" + self.target_node)
        self.expect("BLOCK_JOB_COMPLETED")

    def close(self):
        super().close()
        self.stderr.close()

    def after_switch(self):
        self.command("blockdev-del", **{"node-name": self.node})
        self.node = self.target_node


class Baseline(Ours):
    """Another build of ours in the peer's place: before and after in one run."""

    name = "baseline"
    program = os.environ.get("BENCH_BASELINE")

    def __init__(self, path, copy_mode=None):
        del copy_mode
        super().__init__(path)


Peer = Baseline if Baseline.program else Qemu
