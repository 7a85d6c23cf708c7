#!/usr/bin/env python3
"""Every test that tests/faults.md names is there, and every fault has one: check_faults.py BUILD_FOLDER

A row of the document: | number | what goes wrong | `test`, `test`, ... |, a test as ctest lists it. `*` stands for any
text, a leading `G/` for the graphs that run through every pass.
"""
import fnmatch
import os
import re
import subprocess
import sys

GRAPHS = "Graphs/EveryPass.KeepsWhatTheGraphPromises/"
FAULTS = 111


def listed(build):
    text = subprocess.run(["ctest", "--test-dir", build, "-N"], capture_output=True, text=True, check=True).stdout
    return re.findall(r"^ *Test +#\d+: (\S+)", text, re.M)


def main():
    tests = listed(sys.argv[1])
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "faults.md")
    seen, faults, names = set(), [], 0
    with open(path, encoding="utf-8") as document:
        for number, line in enumerate(document, 1):
            cells = [cell.strip() for cell in line.strip().strip("|").split(" | ")]
            row = re.fullmatch(r"\d+|R\d", cells[0])
            if not row:
                continue
            named = re.findall(r"`([^`]+)`", cells[-1])
            if not named:
                faults.append(f"{path}:{number}: no test")
            names += len(named)
            seen.add(cells[0])
            for name in named:
                pattern = GRAPHS + name[2:] if name.startswith("G/") else name
                if not fnmatch.filter(tests, pattern):
                    faults.append(f"{path}:{number}: no test {pattern}")
    for fault in range(1, FAULTS + 1):
        if str(fault) not in seen:
            faults.append(f"{path}: fault {fault} has no row")
    print("\n".join(faults) or f"{names} tests for {len(seen)} faults, of {len(tests)} in all")
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
