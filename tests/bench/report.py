# SPDX-License-Identifier: Apache-2.0
"""
report.py RESULTS OUT - the table on stdout, and OUT as JSON for programs.

ratio is ours / peer, of medians.  control is the peer's twin / peer: what a ratio of 1 looks
like on this machine at this moment.  spread is (largest - smallest) / median of either side.
A figure is marked noisy where the control is off by more than 10 % or a side spreads by more
than a third.  bar is what we want of it (BARS), met or missed; a missed one does not fail the run.
"""

import json
import math
import sys

# What is judged, and its bound: "ours" as it is, "ratio" to the peer, "limit": to the raw limit.
BARS = {
    "copy/time": [("ratio", "<=", 1.05)],
    "throttled/copy/time": [("ratio", "<=", 1.05), ("limit", "<=", 1.07)],
    "guest-fixed/iops": [("ours", ">=", 0.9)],
    "guest-fixed/p99": [("ours", "<=", 3)],
    "guest-fixed/time": [("ours", "<=", 1.5)],
    "guest-closed/iops": [("ours", ">=", 0.4)],
    "guest-closed/time": [("ours", "<=", 3)],
    "stun/p95": [("ours", "<=", 5), ("ratio", "<=", 1)],
}
EXPORT_BAR = [("ratio", ">=", 0.95)]
EXPORT_MEAN_BAR = 1.0

KEYS = ("name", "ours", "peer", "peer_name", "ratio", "unit", "better", "runs", "control", "limit",
        "spread", "noisy")


def spread(samples):
    middle = sorted(samples)[len(samples) // 2]
    return (max(samples) - min(samples)) / middle if middle else 0.0


def judge(row):
    row["spread"] = {side: round(spread(row["samples"][side]), 3) for side in ("ours", "peer")}
    control = row.get("control")
    row["noisy"] = max(row["spread"].values()) > 1 / 3 or \
        (control is not None and abs(control - 1) > 0.1)
    return {key: row[key] for key in KEYS if key in row}


def bars_of(name):
    if "export/" in name:
        return EXPORT_BAR
    return BARS.get(name) or BARS.get(name.removeprefix("throttled/"), [])


def bar(row):
    """"met", or what was missed; "" where there is no bar."""
    missed = []
    for what, how, bound in bars_of(row["name"]):
        if what == "limit":
            value = row["ours"] / row["limit"] if row.get("limit") else None
        else:
            value = row[what]
        if value is not None and not (value <= bound if how == "<=" else value >= bound):
            missed.append(f"{what} {how} {bound}")
    if missed:
        return "missed: " + ", ".join(missed)
    return "met" if bars_of(row["name"]) else ""


def export_mean(rows):
    """The geometric mean of the export's ratios, and whether it is enough."""
    ratios = [row["ratio"] for row in rows if "export/" in row["name"] and row["ratio"]]
    if not ratios:
        return None
    mean = math.exp(sum(map(math.log, ratios)) / len(ratios))
    return f"export: geometric mean of {len(ratios)} ratios {mean:.2f}: " + \
        ("met" if mean >= EXPORT_MEAN_BAR else f"missed: >= {EXPORT_MEAN_BAR}")


def number(value):
    if value is None:
        return "-"
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def line(row):
    ratio = row["ratio"]
    good = ratio is not None and (ratio >= 1 if row["better"] == "higher" else ratio <= 1)
    return (row["name"], number(row["ours"]), number(row["peer"]), row["unit"],
            "-" if ratio is None else f"{ratio:.2f}", "better" if good else "worse",
            number(row.get("control")), number(row.get("limit")),
            f"{row['spread']['ours']:.0%}/{row['spread']['peer']:.0%}", str(row["runs"]),
            "noisy" if row["noisy"] else "", bar(row))


HEAD = ("name", "ours", "peer", "unit", "ratio", "", "A/A", "limit", "spread", "runs", "", "bar")


def main(results, out):
    with open(results, encoding="utf-8") as file:
        rows = [judge(json.loads(text)) for text in file]
    table = [HEAD] + [line(row) for row in rows]
    widths = [max(len(cells[i]) for cells in table) for i in range(len(HEAD))]
    for cells in table:
        print("  ".join(cell.ljust(width) if i in (0, 3, 5, 11) else cell.rjust(width)
                        for i, (cell, width) in enumerate(zip(cells, widths))).rstrip())
    mean = export_mean(rows)
    if mean:
        print(mean)
    with open(out, "w", encoding="utf-8") as file:
        json.dump(rows, file, indent=1)
        file.write("\n")


main(*sys.argv[1:])
