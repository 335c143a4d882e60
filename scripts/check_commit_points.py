# SPDX-License-Identifier: Apache-2.0
"""Every COMMIT(name) comment has its kill point, and every kill point its comment.

A kill point that only marks an operation's beginning ends in ".enter" and needs no comment. Each
comment says what holds if the process is killed before the store, and after it.
With --list: prints the names of all kill points, one per line.
"""

from __future__ import annotations

import re
import sys
from collections import defaultdict
from pathlib import Path

from sources import CPP, Finding, files, finish, lines

COMMIT = re.compile(r"//\s*COMMIT\(([^)]*)\)(.*)")
SAYS_WHAT_HOLDS = re.compile(r"killed before( or after)?:.*after\b|killed before or after:")
KILL_POINT = re.compile(r'SHOAL_KILL_POINT\("([^"]*)"\)')
NAME = re.compile(r"[a-z][a-z0-9_]*(\.[a-z0-9_]+)+$")
FAR = 25  # lines between a comment and its kill point

Places = dict[str, list[tuple[Path, int]]]


def collect() -> tuple[Places, Places, list[Finding]]:
    commits: Places = defaultdict(list)
    kill_points: Places = defaultdict(list)
    findings: list[Finding] = []
    for path in files(*CPP, folders=("src", "include", "bindings")):
        if path.name.endswith("_test.cpp") or "testing" in path.parts:
            continue
        text = lines(path)
        for number, line in enumerate(text, 1):
            if match := COMMIT.search(line):
                commits[match[1]].append((path, number))
                comment = " ".join(text[number - 1 : number + 5])
                if not SAYS_WHAT_HOLDS.search(comment):
                    findings.append((path, number, f"{match[1]}: say 'killed before:', 'after:'"))
            for name in KILL_POINT.findall(line):
                if "//" not in line.split("SHOAL_KILL_POINT")[0]:
                    kill_points[name].append((path, number))
    return commits, kill_points, findings


def compare(commits: Places, kill_points: Places) -> list[Finding]:
    findings: list[Finding] = []
    for name, places in commits.items():
        if not NAME.match(name):
            findings.append((*places[0], f"{name}: names look like ring.push.slot"))
        for path, number in places:
            at = [n for p, n in kill_points.get(name, []) if p == path]
            if not any(number < n <= number + FAR for n in at):
                findings.append((path, number, f"COMMIT({name}) has no kill point right after it"))
    for name, places in kill_points.items():
        for path, number in places:
            at = [n for p, n in commits.get(name, []) if p == path]
            if not name.endswith(".enter") and not any(number - FAR <= n < number for n in at):
                findings.append((path, number, f"kill point {name} has no COMMIT comment"))
    return findings


def main() -> None:
    commits, kill_points, findings = collect()
    if sys.argv[1:] == ["--list"]:
        print(*sorted(kill_points), sep="\n")
        return
    finish(f"commit points ({len(kill_points)})", findings + compare(commits, kill_points))


if __name__ == "__main__":
    main()
