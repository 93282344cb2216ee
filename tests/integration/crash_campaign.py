# SPDX-License-Identifier: Apache-2.0
"""kill -9 of the daemon at random moments of relocations, under a client with a ledger.

One disk wanders between datastores while ledger_client works on its export.  Again and again
a moment is chosen (a phase of a move, a verb, the start itself; all as often), then a random
instant in it, and the daemon is killed and started anew.  The daemon's own words say when:
its events are followed, nothing is polled for.

Every restart is judged:
  - the export serves again, and the client goes on (it sends again what was not answered)
  - active extents never above 5 % of the disk
  - a move that resumes starts with no more to copy than was dirty or active at the kill, and
    copies no more than that once
  - a move that does not resume left one copy of the disk, live, and no record (and, killed
    between the switch and the end of its comparison, the source, retired, for an operator)
Every VERIFY_EVERY kills, and at the end, the whole disk is held against the client's ledger,
and a copy that a move kept is compared by qemu-img with the client held.

usage: crash_campaign.py BIN CLIENT WORK   (knobs: KILLS KILLS_LEAST SEED DISK_MIB MINUTES
       VERIFY_EVERY DEPTH RATE MORE_PLACES, from the environment; WORK/log is the daemon's log)
"""
import http.client
import json
import os
import queue
import random
import select
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time

MIB = 1 << 20
ENDED = ("completed", "failed", "cancelled")
MOMENTS = ("reserve", "copy", "copy-slow", "mirror", "verify", "switchover", "cleanup", "paused",
           "resumed", "cancel", "idle", "start")


def knob(name, default):
    return int(os.environ.get(name) or default)


class Failure(Exception):
    pass


# ---- the daemon ----

class Api:
    """One request a connection, on a UNIX socket."""

    def __init__(self, path):
        self.path = path

    def connect(self, timeout):
        connection = http.client.HTTPConnection("daemon", timeout=timeout)
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.settimeout(timeout)
        connection.sock.connect(self.path)
        return connection

    def call(self, method, path, body=None):
        connection = self.connect(60)
        try:
            connection.request(method, path, json.dumps(body) if body is not None else None)
            answer = connection.getresponse()
            text = answer.read()
        finally:
            connection.close()
        return answer.status, json.loads(text) if text else None

    def get(self, path):
        status, answer = self.call("GET", path)
        if status != 200:
            raise Failure(f"GET {path}: {status} {answer}")
        return answer

    def post(self, path, body=None):
        status, answer = self.call("POST", path, body)
        if status >= 300:
            raise Failure(f"POST {path} {body}: {status} {answer}")
        return answer


class Follower(threading.Thread):
    """Server-sent events of one daemon's life, into the campaign's queue."""

    def __init__(self, api, path, put):
        super().__init__(daemon=True)
        self.connection = api.connect(None)
        self.connection.request("GET", path)
        self.put = put
        self.start()

    def run(self):
        try:
            answer = self.connection.getresponse()
            for line in answer:
                if line.startswith(b"data:"):
                    self.put(json.loads(line[5:]))
        except (OSError, http.client.HTTPException, ValueError):
            pass
        self.connection.close()


class Daemon:
    def __init__(self, program, work):
        self.program, self.work = program, work
        self.api = Api(os.path.join(work, "run", "api.sock"))
        self.process = None
        self.starts = 0
        self.log = open(os.path.join(work, "log"), "ab", buffering=0)
        self.notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.notify.bind(os.path.join(work, "notify"))
        self.changed = threading.Condition()
        self.tasks = {}                 # id -> the last that was heard of it
        self.told = []                  # events of tasks, in order
        self.max_active = 0

    def spawn(self):
        self.starts += 1
        self.log.write(b"==== start %d\n" % self.starts)
        self.process = subprocess.Popen(
            [self.program, "--state-dir", f"{self.work}/state", "--run-dir", f"{self.work}/run"],
            stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log,
            env={**os.environ, "NOTIFY_SOCKET": os.path.join(self.work, "notify")})

    def await_ready(self, seconds=60):
        """READY=1 of this process; older ones' words may still be in the socket."""
        pidfd = os.pidfd_open(self.process.pid)
        end = time.monotonic() + seconds
        try:
            while True:
                left = end - time.monotonic()
                ready = select.select([self.notify, pidfd], [], [], max(left, 0))[0]
                if self.notify in ready:
                    text, ancillary = self.notify.recvmsg(4096)[:2]
                    if b"READY=1" in text and self.is_listening():
                        break
                elif pidfd in ready:
                    raise Failure(f"the daemon ended: {self.process.wait()}")
                else:
                    raise Failure(f"the daemon is not ready after {seconds} s")
        finally:
            os.close(pidfd)
        with self.changed:
            self.tasks, self.told = {}, []
        Follower(self.api, "/v1/events?follow=1", self.heard_event)
        Follower(self.api, "/v1/tasks/watch", self.heard_task)

    def is_listening(self):
        try:
            self.api.connect(10).close()
            return True
        except OSError:
            return False

    def heard_event(self, event):
        if not event.get("event", "").startswith("task_") or "phase" not in event["data"]:
            return                      # of no task, or of one's figures only
        with self.changed:
            self.told.append({"at": time.monotonic(), "event": event["event"], **event["data"]})
            self.changed.notify_all()

    def heard_task(self, task):
        with self.changed:
            self.tasks[task["id"]] = {**task, "at": time.monotonic()}
            for disk in task.get("disks") or []:
                self.max_active = max(self.max_active, disk.get("active_bytes", 0))
            self.changed.notify_all()

    def await_told(self, task_id, wanted, seconds):
        """Until an event of the task is as wanted (or it has ended); None: not in time."""
        end = time.monotonic() + seconds
        seen = 0
        with self.changed:
            while True:
                for event in self.told[seen:]:
                    if event.get("id") == task_id and (wanted(event) or event["state"] in ENDED):
                        return event
                seen = len(self.told)
                if time.monotonic() >= end or self.process.poll() is not None:
                    return None
                self.changed.wait(max(0, end - time.monotonic()))

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        return self.process.returncode

    def task(self, task_id):
        return self.api.get(f"/v1/tasks/{task_id}")

    def live_tasks(self):
        return [t for t in self.api.get("/v1/tasks")["tasks"] if t["state"] not in ENDED]


# ---- the client ----

class Client:
    def __init__(self, program, work, uri, seed, fill_bytes):
        self.ledger = os.path.join(work, "ledger")
        self.log = open(os.path.join(work, "client.log"), "w", buffering=1)
        self.lines = queue.Queue()
        self.process = subprocess.Popen(
            [program, "--ledger", self.ledger, "--seed", str(seed), "--fill", str(fill_bytes),
             "--depth", str(knob("DEPTH", 16)), "--rate", str(knob("RATE", 1500)), uri],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            bufsize=1)
        threading.Thread(target=self.read, daemon=True).start()

    def read(self):
        for line in self.process.stdout:
            self.log.write(f"{time.strftime('%H:%M:%S')} {line}")
            word = line.split(" ", 1)[0].strip()
            if word in ("mismatch", "error", "late", "ended", "gave"):
                print(f"  client: {line.strip()}", flush=True)
            self.lines.put(line.strip())
        self.lines.put(None)

    def await_line(self, prefix, seconds):
        end = time.monotonic() + seconds
        while True:
            try:
                line = self.lines.get(timeout=max(0, end - time.monotonic()))
            except queue.Empty:
                raise Failure(f"the client did not say '{prefix}' in {seconds} s") from None
            if line is None:
                raise Failure(f"the client ended before '{prefix}'")
            if line.startswith(prefix):
                return {k: int(v) for k, _, v in (w.partition("=") for w in line.split()[1:])
                        if v.isdigit()}

    def ask(self, command, prefix, seconds=120):
        self.process.stdin.write(command + "\n")
        return self.await_line(prefix, seconds)

    def served(self):
        said = self.ask("report", "report")
        return said["reads"] + said["writes"] + said["flushes"] + said["zeroes"] + said["trims"]


# ---- the campaign ----

class Campaign:
    def __init__(self, binaries, client_program, work):
        self.work = work
        self.client_program = client_program
        self.seed = knob("SEED", time.time_ns() % 10**9)
        self.random = random.Random(self.seed)
        self.kills_wanted = knob("KILLS", 200)
        self.disk_bytes = knob("DISK_MIB", 1024) * MIB
        self.verify_every = knob("VERIFY_EVERY", 20)
        self.end = time.monotonic() + 60 * knob("MINUTES", 60)
        self.daemon = Daemon(os.path.join(binaries, "blkmirrord"), work)
        self.client = None
        self.places = {}                # datastore -> directory
        self.task_id = None             # of the live move
        self.at_kill = None             # what was known of it
        self.kills = 0
        self.resumed = {}               # live moves that did: id -> (resumed_bytes, most to copy)
        self.max_stun_us = 0
        self.counts = {}                # moment/phase -> kills
        self.outcomes = {}
        self.problems = []
        self.mounts = []

    # -- set-up --

    def add_place(self, name, directory):
        os.makedirs(directory, exist_ok=True)
        self.places[name] = directory
        self.daemon.api.post("/v1/datastores", {"name": name, "url": f"dir://{directory}"})

    def set_up(self):
        self.daemon.spawn()
        self.daemon.await_ready()
        self.add_place("a", f"{self.work}/a")
        self.add_place("b", f"{self.work}/b")
        for line in os.environ.get("MORE_PLACES", "").split():
            name, _, directory = line.partition("=")
            self.add_place(name, directory)
        api = self.daemon.api
        api.post("/v1/disks", {"disk": "a:web/web.vmdk", "size": f"{self.disk_bytes}B"})
        uri = api.post("/v1/disks/attach", {"disk": "a:web/web.vmdk", "id": "web"})["uri"]
        self.client = Client(self.client_program, self.work, uri, self.seed,
                             self.disk_bytes * 6 // 10)
        self.client.await_line("filled", 120)

    def wrong(self, text):
        self.problems.append(f"kill {self.kills}: {text}")
        print(f"  WRONG: {text}", flush=True)

    # -- where things are --

    def attachment(self):
        return self.daemon.api.get("/v1/disks")["disks"][0]

    def place(self):
        return self.attachment()["disk"].split(":")[0]

    def copies(self):
        """Datastores that have any file of the disk."""
        return sorted(name for name, directory in self.places.items()
                      if any(files for _, _, files in os.walk(f"{directory}/web")))

    def records(self):
        moves = f"{self.work}/state/moves"
        return sorted(os.listdir(moves)) if os.path.isdir(moves) else []

    # -- moves --

    def start_move(self, **options):
        targets = [name for name in self.places if name != self.place()]
        body = {"disk": "web", "to": self.random.choice(targets), "max_stun": "2s", **options}
        task = self.daemon.api.post("/v1/disks/relocate", body)
        self.task_id = task["id"]
        return task

    def verb(self, name):
        status, answer = self.daemon.api.call("POST", f"/v1/tasks/{self.task_id}/{name}")
        return status < 300

    def live_move(self):
        live = self.daemon.live_tasks()
        return live[0] if live else None

    def finish_move(self, seconds=120):
        """The live move, if there is one, to its end, whatever it waits for."""
        end = time.monotonic() + seconds
        while True:
            task = self.live_move()
            if not task:
                break
            self.task_id = task["id"]
            if task["state"] == "paused":
                self.verb("resume")
            elif task["state"] == "held":
                self.verb("complete")
            else:
                self.daemon.api.call("PATCH", f"/v1/tasks/{self.task_id}", {"bandwidth": "none"})
            state = task["state"]
            self.daemon.await_told(self.task_id, lambda e, s=state: e["state"] != s, 2)
            if time.monotonic() > end:
                raise Failure(f"the move does not end: {json.dumps(task)}")
        if self.task_id:
            self.judge_ended(self.daemon.task(self.task_id))
        self.task_id = None

    def judge_ended(self, task):
        """A move that resumed copies, once, no more than was dirty when it did."""
        resumed, most = self.resumed.pop(task["id"], (0, 0))
        stun_us = (task.get("switchover") or {}).get("stun_us") or 0
        self.max_stun_us = max(self.max_stun_us, stun_us)
        if task["state"] == "failed":
            self.wrong(f"{task['id']} failed: {task['error']}")
        if not resumed or task["state"] != "completed":
            return
        disk = task["disks"][0]
        once = (disk["copied_bytes"] + disk["zero_bytes"] + disk["hole_bytes"]
                - disk["recopied_bytes"])
        to_copy = self.disk_bytes - resumed
        print(f"  {task['id']} had resumed: to_copy={to_copy} copied_once={once} "
              f"recopied={disk['recopied_bytes']}", flush=True)
        if once > most:
            self.wrong(f"{task['id']} copied {once} after a resume with {to_copy} to copy")

    def judge_those_that_resumed(self):
        for task_id in list(self.resumed):
            task = self.daemon.task(task_id)
            if task["state"] in ENDED:
                self.judge_ended(task)

    # -- the moments --

    def moment_start(self):
        """The instant is in the start of the daemon: chosen in restart()."""
        return self.moment_copy()

    def moment_idle(self):
        self.finish_move()
        return {}, None, 1.0

    def moment_reserve(self):
        return {}, lambda e: e["phase"] in ("check", "reserve"), 0.03

    def moment_copy(self):
        return {}, lambda e: e["phase"] == "copy", 1.0

    def moment_copy_slow(self):
        rate = self.random.choice((60, 120, 250))
        return {"bandwidth": f"{rate}MiB/s"}, lambda e: e["phase"] == "copy", 4.0

    def moment_mirror(self):
        return {"hold": True}, lambda e: e["state"] == "held" or e["phase"] == "mirror", 1.0

    def moment_verify(self):
        return {}, lambda e: e["phase"] == "verify", 0.4

    def moment_switchover(self):
        return {}, lambda e: e["phase"] == "switchover", self.random.choice((0.002, 0.02))

    def moment_cleanup(self):
        return {}, lambda e: e["phase"] == "cleanup", 0.03

    def moment_cancel(self):
        return ({"hold": True} if self.random.random() < 0.5 else {},
                lambda e: e["phase"] in ("copy", "mirror") or e["state"] == "held", 0.01)

    def moment_paused(self):
        return {"bandwidth": "200MiB/s"}, lambda e: e["phase"] == "copy", 0.5

    def moment_resumed(self):
        return {"bandwidth": "200MiB/s"}, lambda e: e["phase"] == "copy", 0.5

    def reach(self, moment):
        """Bring the move to the moment; what has to be waited for yet is the answer, in s."""
        options, wanted, spread = getattr(self, "moment_" + moment.replace("-", "_"))()
        if wanted is None:
            return self.random.uniform(0, spread)
        task = self.live_move()
        if task and moment in ("reserve", "mirror", "cancel"):
            self.finish_move()
            task = None
        if task:
            self.task_id = task["id"]
            if task["state"] in ("paused", "held"):
                self.verb("resume" if task["state"] == "paused" else "complete")
        else:
            self.start_move(**options)
        # One that went on after a restart may be there already, and nothing more is told.
        if not task or not wanted(self.daemon.task(self.task_id)):
            self.daemon.await_told(self.task_id, wanted, 60)
        if moment in ("cancel", "paused", "resumed"):
            time.sleep(self.random.uniform(0, 0.5))
            self.verb("cancel" if moment == "cancel" else "pause")
        if moment == "resumed":
            self.daemon.await_told(self.task_id, lambda e: e["state"] == "paused", 10)
            self.verb("resume")
        return self.random.uniform(0, spread)

    # -- kill and restart --

    def note_kill(self, moment):
        with self.daemon.changed:
            told = [e for e in self.daemon.told if e.get("id") == self.task_id]
            task = self.daemon.tasks.get(self.task_id)
        last = told[-1] if told else {}
        disk = ((task or {}).get("disks") or [{}])[0]
        self.at_kill = {
            "moment": moment, "task": self.task_id, "phase": last.get("phase") or "-",
            "state": last.get("state") or "-", "dirty": disk.get("dirty_bytes", 0),
            "active": disk.get("active_bytes", 0),
            "journal": disk.get("journal_dirty_bytes") if disk.get("copied_bytes") else self.disk_bytes,
            "copied": disk.get("copied_bytes", 0),
            "resumed": disk.get("resumed_bytes", 0), "from": self.was_at,
        }
        if last.get("state") == "failed":
            self.wrong(f"{self.task_id} failed: {last.get('error')}")
        key = moment if moment in ("start", "idle") else self.at_kill["phase"]
        if last.get("state") in ENDED:
            key = "ended"
        self.counts[key] = self.counts.get(key, 0) + 1
        return key

    def restart(self, moment):
        chance = self.random.random()
        if chance < 0.4:
            time.sleep(self.random.uniform(0, 0.5))
        self.daemon.spawn()
        began = time.monotonic()
        if moment == "start":
            for _ in range(self.random.randint(1, 3)):
                time.sleep(self.random.uniform(0, 0.12))
                self.daemon.kill()
                self.daemon.spawn()
        self.daemon.await_ready()
        return time.monotonic() - began

    def judge_restart(self):
        """Returns the words for the line."""
        before = self.client.served()
        end = time.monotonic() + 30
        attachment = self.attachment()
        if attachment["state"] != "attached":
            self.wrong(f"not attached: {attachment}")
        while self.client.served() <= before:
            if time.monotonic() > end:
                self.wrong("the client is not served")
                break
            time.sleep(0.02)
        task = None
        if self.at_kill["task"]:
            status, task = self.daemon.api.call("GET", f"/v1/tasks/{self.at_kill['task']}")
            if status == 404 and self.at_kill["state"] in ("-", "queued"):
                task = None             # queued, and killed before that was durable
                self.at_kill["task"] = None
            elif status != 200:
                raise Failure(f"{self.at_kill['task']} is forgotten: {task}")
        if task and task["state"] not in ENDED:
            return self.judge_resumed(task)
        self.task_id = None
        return self.judge_settled(task)

    def figures_hold(self, task):
        """Figures are a fifth of a second old: small disks, several starts in a row and guests'
        writes under a pause make more dirty in that time than they allow for."""
        return (self.disk_bytes >= 1 << 30 and task["state"] != "paused"
                and self.at_kill["moment"] not in ("start", "paused"))

    def judge_resumed(self, task):
        disk = (task.get("disks") or [{}])[0]
        resumed = disk.get("resumed_bytes", 0)
        at_kill = self.at_kill
        # Until the target is open again guests' writes are not mirrored: they add to it.
        if not self.figures_hold(task):
            resumed = 0
        self.resumed[task["id"]] = (resumed, max(self.disk_bytes - resumed,
                                                 disk.get("dirty_bytes", 0))
                                    + self.disk_bytes // 100)
        resumed = disk.get("resumed_bytes", 0)
        # Known up to 200 ms before the kill: what was activated since adds to it.
        # On a small disk that is nothing: its log has one extent, and each write takes another.
        bound = at_kill["journal"] + max(at_kill["active"], self.disk_bytes // 20)
        if disk and self.figures_hold(task) and self.disk_bytes - resumed > bound:
            self.wrong(f"resumed with {self.disk_bytes - resumed} to copy, at the kill "
                       f"{at_kill['journal']} were persisted as dirty, {at_kill['active']} active")
        return (f"resumed resumed={resumed} dirty={disk.get('dirty_bytes', 0)} "
                f"active={disk.get('active_bytes', 0)} recopied={disk.get('recopied_bytes', 0)}")

    def show(self, place):
        return self.daemon.api.get(f"/v1/disks/show?disk={place}:web/web.vmdk")

    def remove_retired(self, place):
        """Killed after the switch, before the source was allowed to go: it stays, retired, for
        the operator, which we are.  Returns how many."""
        others = [other for other in self.copies() if other != place]
        for other in others:
            role = self.show(other)["identity"]["role"]
            if role != "retired" or place == self.at_kill["from"]:
                self.wrong(f"the copy at {other} is {role}, attached is {place}")
                continue
            self.daemon.api.post("/v1/disks/delete", {"disk": f"{other}:web/web.vmdk"})
        return len(others)

    def judge_settled(self, task):
        """No move is live: one copy, live, no record."""
        place = self.place()
        waits = self.daemon.api.get("/v1/recover")["recover"]
        if waits:
            self.wrong(f"waits for an operator: {json.dumps(waits)}")
        retired = self.remove_retired(place)
        if self.copies() != [place]:
            self.wrong(f"attached from {place}, but there are copies in {self.copies()}")
        if self.records():
            self.wrong(f"records are left: {self.records()}")
        show = self.show(place)
        if not (show.get("authoritative") or {}).get("this_copy") or \
                show["identity"]["role"] != "live":
            self.wrong(f"the copy at {place} is not live: {json.dumps(show)}")
        outcome = "forward" if place != self.at_kill["from"] else "back"
        if task and task["state"] in ("completed", "cancelled"):
            outcome = task["state"]
        if retired:
            outcome += "+retired"
        return f"{outcome} resumed=0 dirty=0 active=0 recopied=0 at={place}"

    def judge_active(self):
        if self.daemon.max_active > self.disk_bytes // 20:
            self.wrong(f"{self.daemon.max_active} bytes active, 5 % are {self.disk_bytes // 20}")

    def one_kill(self, moment):
        self.task_id = None
        self.judge_those_that_resumed()
        task = self.live_move()
        self.was_at = self.place()
        if task:
            self.task_id = task["id"]
        delay = self.reach(moment)
        time.sleep(delay)
        key = self.note_kill(moment)
        code = self.daemon.kill()
        self.kills += 1
        if code != -signal.SIGKILL:
            self.wrong(f"the daemon had ended by itself: {code}")
        took = self.restart(moment)
        words = self.judge_restart()
        self.judge_active()
        at_kill = self.at_kill
        outcome = words.split(" ", 1)[0]
        self.outcomes[outcome] = self.outcomes.get(outcome, 0) + 1
        print(f"kill {self.kills} moment={moment} in={key} after_ms={delay * 1000:.1f} "
              f"task={at_kill['task']} state={at_kill['state']} dirty={at_kill['dirty']} "
              f"active={at_kill['active']} copied={at_kill['copied']} ready_ms={took * 1000:.0f} "
              f"| {words}", flush=True)

    # -- verification --

    def verify(self):
        said = self.client.ask("verify", "verified", 300)
        print(f"verified {said}", flush=True)
        if said["lost"] or said["early"] or said["damaged"]:
            self.wrong(f"the disk is not as the ledger says: {said}")

    def compare_kept(self):
        """A move with the client held, its source kept: two images, equal to the byte."""
        self.finish_move()
        source = self.place()
        self.client.ask("hold", "held")
        self.start_move(keep_source=True)
        self.finish_move()
        target = self.place()
        images = [f"{self.places[name]}/web/web-flat.vmdk" for name in (source, target)]
        if target == source:
            self.wrong("the move that was to be compared did not complete")
        elif shutil.which("qemu-img"):
            done = subprocess.run(["qemu-img", "compare", "-f", "raw", "-F", "raw", *images],
                                  capture_output=True, text=True)
            print(f"qemu-img compare: {done.stdout.strip()}", flush=True)
            if done.returncode:
                self.wrong(f"qemu-img compare: {done.stdout} {done.stderr}")
        if target != source:
            self.daemon.api.post("/v1/disks/delete", {"disk": f"{source}:web/web.vmdk"})
        self.client.ask("go", "going")

    def run(self):
        self.set_up()
        print(f"seed={self.seed} kills={self.kills_wanted} disk={self.disk_bytes} "
              f"places={','.join(self.places)}", flush=True)
        deck = []
        while self.kills < self.kills_wanted and time.monotonic() < self.end:
            if not deck:
                deck = list(MOMENTS)
                self.random.shuffle(deck)
            self.one_kill(deck.pop())
            if self.kills % self.verify_every == 0:
                self.verify()
                self.compare_kept()
        self.finish()

    def finish(self):
        self.finish_move()
        self.verify()
        self.client.process.stdin.write("stop\n")
        final = self.client.await_line("final", 180)
        if self.client.process.wait(30):
            self.wrong(f"the client has something to complain of: {final}")
        place = self.place()
        self.at_kill = {"task": None, "from": place}
        self.judge_settled(None)
        self.daemon.api.post("/v1/disks/detach", {"id": "web", "force": True})
        image = f"{self.places[place]}/web/web-flat.vmdk"
        done = subprocess.run([self.client_program, "--ledger", self.client.ledger, "--verify",
                               image], capture_output=True, text=True)
        print(f"image: {done.stdout.strip()}", flush=True)
        if done.returncode:
            self.wrong(f"the image is not as the ledger says: {done.stdout}{done.stderr}")
        self.daemon.process.terminate()
        if self.daemon.process.wait(90):
            self.wrong("the daemon did not stop orderly")
        print(f"client: {final}")
        print(f"killed in: {self.counts}")
        print(f"outcomes: {self.outcomes}")
        print(f"longest switch-over: {self.max_stun_us} us, the guest's longest wait for a "
              f"served request: {final['longest_served_ms']} ms")
        print(f"active extents: at most {self.daemon.max_active} bytes, "
              f"{100 * self.daemon.max_active / self.disk_bytes:.2f} % of the disk")

    def judge_log(self):
        with open(f"{self.work}/log", errors="replace") as log:
            for line in log:
                if any(w in line for w in ("CHECK failed", "Sanitizer", "runtime error")):
                    self.wrong(f"log: {line.strip()}")

    def clean_up(self):
        for process in (self.daemon.process, self.client and self.client.process):
            if process and process.poll() is None:
                process.kill()
                process.wait()


def told_to_end(*_):
    raise Failure("told to end")


def main():
    signal.signal(signal.SIGTERM, told_to_end)
    campaign = Campaign(*sys.argv[1:4])
    try:
        campaign.run()
    except (Failure, OSError, http.client.HTTPException, KeyError) as problem:
        campaign.wrong(f"{type(problem).__name__}: {problem}")
    finally:
        campaign.clean_up()
    campaign.judge_log()
    for problem in campaign.problems:
        print(f"FAILED: {problem}")
    print(f"{campaign.kills} kills, {len(campaign.problems)} failures, seed {campaign.seed}")
    least = min(campaign.kills_wanted, knob("KILLS_LEAST", 1))
    if campaign.kills < least:
        print(f"FAILED: there was time for {campaign.kills} kills, {least} are the least")
    return 1 if campaign.problems or campaign.kills < least else 0


if __name__ == "__main__":
    sys.exit(main())
