# SPDX-License-Identifier: Apache-2.0
"""common.py - what every benchmark shares: settings, fio, the order of runs, results."""

import json
import os
import statistics
import subprocess
import sys

SOURCE_DIR = os.environ["BENCH_SOURCE_DIR"]
TARGET_DIR = os.environ["BENCH_TARGET_DIR"]
RESULTS = os.environ["BENCH_RESULTS"]
SIZE_BYTES = int(os.environ["BENCH_SIZE_BYTES"])
RUNS = int(os.environ["BENCH_RUNS"])
PREFIX = os.environ.get("BENCH_PREFIX", "")      # of the figures' names: which store
QUICK = os.environ.get("BENCH_QUICK") == "1"

SOURCE = os.path.join(SOURCE_DIR, "source.raw")
TARGET = os.path.join(TARGET_DIR, "target.raw")


def progress(text):
    print("  " + text, file=sys.stderr, flush=True)


def order(sides, run):
    """ABBA: whatever drifts with time meets both sides alike."""
    return sides if run % 2 == 0 else list(reversed(sides))


def remove(path):
    if os.path.exists(path):
        os.unlink(path)


def fio(*options):
    """One fio job; gives back its own figures ('read' and 'write' as in fio's JSON)."""
    done = subprocess.run(["fio", "--name=job", "--output-format=json", *options],
                          capture_output=True, text=True, check=True, cwd=SOURCE_DIR)
    return json.loads(done.stdout[done.stdout.index("{"):])["jobs"][0]


def record(name, unit, better, values, peer_name, limit=None, runs=None):
    """
    values: lists by side, 'ours' and 'peer', and where there is one 'twin': the peer a second
    time, whose ratio to the peer shows what a ratio of 1 looks like here.
    """
    row = {"name": PREFIX + name, "unit": unit, "better": better, "peer_name": peer_name,
           "ours": statistics.median(values["ours"]), "peer": statistics.median(values["peer"]),
           "runs": runs or len(values["ours"]), "samples": values}
    row["ratio"] = row["ours"] / row["peer"] if row["peer"] else None
    if values.get("twin"):
        row["control"] = row["peer"] and statistics.median(values["twin"]) / row["peer"]
    if limit:
        row["limit"] = limit
    with open(RESULTS, "a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")
