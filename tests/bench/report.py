# SPDX-License-Identifier: Apache-2.0
"""
report.py RESULTS OUT - the table on stdout, and OUT as JSON for programs.

ratio is ours / peer, of medians.  control is the peer's twin / peer: what a ratio of 1 looks
like on this machine at this moment.  spread is (largest - smallest) / median of either side.
A figure is marked noisy where the control is off by more than 10 % or a side spreads by more
than a third.
"""

import json
import sys

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
            "noisy" if row["noisy"] else "")


HEAD = ("name", "ours", "peer", "unit", "ratio", "", "A/A", "limit", "spread", "runs", "")


def main(results, out):
    with open(results, encoding="utf-8") as file:
        rows = [judge(json.loads(text)) for text in file]
    table = [HEAD] + [line(row) for row in rows]
    widths = [max(len(cells[i]) for cells in table) for i in range(len(HEAD))]
    for cells in table:
        print("  ".join(cell.ljust(width) if i in (0, 3, 5) else cell.rjust(width)
                        for i, (cell, width) in enumerate(zip(cells, widths))).rstrip())
    with open(out, "w", encoding="utf-8") as file:
        json.dump(rows, file, indent=1)
        file.write("\n")


main(*sys.argv[1:])
