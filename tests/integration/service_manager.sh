#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# service_manager.sh - the daemon under a service manager: READY, reload, watchdog, stored sockets.
#
# The manager is a few lines of Python with a real notify socket, a store of descriptors and
# LISTEN_FDS, as systemd has them: the tests need no systemd.
set -u
cd "$(dirname "$0")/../.." || exit 1
command -v python3 >/dev/null || { echo "python3 is not installed"; exit 77; }
# shellcheck source=tests/lib/daemon.sh
. tests/lib/daemon.sh
mkdir "$dir/a"
start_daemon --socket-holder none
api POST /v1/datastores "{\"name\":\"a\",\"url\":\"dir://$dir/a\"}"
check "a datastore" [ "$status" = 201 ]
"$bin/blkmirror" disk create a:x.img --size 16MiB >/dev/null
stop_daemon

# ---- without a manager: --release ----

is_listening()
{
	python3 -c 'import socket, sys
socket.socket(socket.AF_UNIX).connect(sys.argv[1])' "$dir/run/disks/d1.sock" 2>/dev/null
}
release()
{
	"$bin/blkmirrord" --release --run-dir "$dir/run" 2>"$dir/body"
}
check "nothing to release is no error" release
start_daemon --socket-holder process
"$bin/blkmirror" disk attach a:x.img --id d1 >/dev/null
check "a living daemon's sockets are not released" eval '! release'
check "and it says why" grep -q BM-1503 "$dir/body"
stop_daemon
check "stopped in order, its sockets listen" is_listening
check "until they are released" release
check "then nobody listens" eval '! is_listening'
start_daemon --socket-holder none
check "the next one serves" is_listening
"$bin/blkmirror" disk detach d1 >/dev/null
stop_daemon
check "systemd that is not there is a mistake" eval '! "$bin/blkmirrord" --socket-holder systemd \
	--state-dir "$dir/state" --run-dir "$dir/run" 2>"$dir/body"'
check "of the configuration" grep -q BM-1010 "$dir/body"

# ---- with one ----

cat >"$dir/conf" <<'EOF_CONF'
[daemon]
log_level = info
EOF_CONF
python3 - "$bin/blkmirrord" "$bin/blkmirror" "$dir" <<'EOF_PYTHON'
import array, fcntl, os, signal, socket, struct, subprocess, sys, time

daemon, cli, top = sys.argv[1:]
notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
notify.bind(top + "/notify")
notify.settimeout(60)
store = {}                      # name: descriptor
pid = None
log = open(top + "/log", "ab")


def start(watchdog_s=0):
    """As systemd does: notify socket, watchdog and what is stored, from descriptor 3."""
    global pid
    env = dict(os.environ, NOTIFY_SOCKET=top + "/notify", FDSTORE="4096")
    args = [daemon, "--config", top + "/conf", "--state-dir", top + "/state",
            "--run-dir", top + "/run"]
    pid = os.fork()
    if pid:
        return
    try:
        if watchdog_s:
            env.update(WATCHDOG_USEC=str(int(watchdog_s * 1000000)), WATCHDOG_PID=str(os.getpid()))
        copies = [fcntl.fcntl(fd, fcntl.F_DUPFD, 100) for fd in store.values()]
        os.dup2(log.fileno(), 2)
        for i, fd in enumerate(copies):
            os.dup2(fd, 3 + i)
            os.close(fd)
        if copies:
            env.update(LISTEN_FDS=str(len(copies)), LISTEN_PID=str(os.getpid()),
                       LISTEN_FDNAMES=":".join(store))
        os.execvpe(daemon, args, env)
    finally:
        os._exit(99)


def receive():
    """The next message as a dict; stores, removes and passes barriers on the way."""
    data, fds, flags, _ = socket.recv_fds(notify, 65536, 4)
    message = dict(line.split("=", 1) for line in data.decode().split("\n") if "=" in line)
    name = message.get("FDNAME")
    if "FDSTORE" in message:
        assert message.get("FDPOLL") == "0" and len(fds) == 1, message
        store[name] = fds[0]
        print("stored", name)
    elif "FDSTOREREMOVE" in message:
        os.close(store.pop(name))
        print("removed", name)
    else:
        for fd in fds:          # BARRIER=1
            os.close(fd)
    return message


def until(key, value=None):
    while True:
        message = receive()
        if key in message and (value is None or message[key] == value):
            return message


def quiet(seconds):
    """Nothing for that long."""
    notify.settimeout(seconds)
    try:
        return receive()
    except TimeoutError:
        return None
    finally:
        notify.settimeout(60)


def end(number):
    os.kill(pid, number)
    status = os.waitpid(pid, 0)[1]
    return os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


def command(*args):
    # In the background: what it asks for may wait for us.
    return subprocess.Popen([cli, "--socket", top + "/run/api.sock", *args],
                            stdout=subprocess.DEVNULL)


def connect(name):
    client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    client.settimeout(60)
    client.connect(top + "/run/disks/" + name + ".sock")
    return client


try:
    # A socket is stored when its disk is attached.
    start()
    until("READY", "1")
    asked = command("disk", "attach", "a:x.img", "--id", "d1")
    while not store:
        receive()
    until("BARRIER")
    assert asked.wait(60) == 0
    name, = store
    assert name.startswith("disk-") and name.endswith("-d1"), name

    # SIGHUP: RELOADING with a time, then READY; the new level is in force.
    with open(top + "/conf", "w") as conf:
        conf.write("[daemon]\nlog_level = debug\n")
    before_us = time.monotonic_ns() // 1000
    os.kill(pid, signal.SIGHUP)
    reloading = until("RELOADING", "1")
    assert before_us - 1000000 <= int(reloading["MONOTONIC_USEC"]) <= time.monotonic_ns() // 1000
    until("READY", "1")
    # A mistake changes nothing, and the daemon is ready all the same.
    with open(top + "/conf", "w") as conf:
        conf.write("[daemon]\nlog_level = loud\n")
    os.kill(pid, signal.SIGHUP)
    until("RELOADING", "1")
    until("READY", "1")
    with open(top + "/conf", "w") as conf:
        conf.write("[daemon]\nlog_level = info\n")

    # Killed: who connects waits for the next life.
    assert end(signal.SIGKILL) == signal.SIGKILL
    client = connect("d1")
    start(watchdog_s=1.5)
    assert client.recv(8, socket.MSG_WAITALL) == b"NBDMAGIC"
    client.close()
    until("READY", "1")
    # The watchdog is patted again and again.
    for _ in range(3):
        until("WATCHDOG", "1")

    # An orderly end, and READY only when the disk is served again: its lock is held.
    os.kill(pid, signal.SIGTERM)
    until("STOPPING", "1")
    os.waitpid(pid, 0)
    assert list(store) == [name]
    disk = os.open(top + "/a/x.img", os.O_RDWR)
    fcntl.fcntl(disk, 37, struct.pack("hhqqhxxxx", fcntl.F_WRLCK, os.SEEK_SET, 201, 1, 0))
    client = connect("d1")
    while quiet(0.01):          # of the life that has ended
        pass
    start()
    message = quiet(1)
    assert message is None, message
    os.close(disk)
    assert client.recv(8, socket.MSG_WAITALL) == b"NBDMAGIC"
    client.close()
    until("READY", "1")

    # Detached: it is not stored any more.
    asked = command("disk", "detach", "d1", "--force")
    while store:
        receive()
    assert asked.wait(60) == 0

    # A descriptor that is none of ours is let go of.
    assert end(signal.SIGTERM) == 0
    stranger = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    store["what-is-this"] = os.dup(stranger.fileno())
    start()
    until("READY", "1")
    while store:
        receive()
    assert end(signal.SIGTERM) == 0
    print("manager: ok")
except BaseException:
    if pid:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
    raise
EOF_PYTHON
check "the daemon serves its manager" [ $? -eq 0 ]
[ $failures -eq 0 ] || tail -n 30 "$dir/log"
finish
