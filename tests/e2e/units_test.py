#!/usr/bin/env python3
"""The systemd units, as `systemd-analyze verify` reads them, with programs where the units expect them.

usage: units_test.py            exits 77 (skipped) where systemd-analyze is missing
"""

import pathlib
import shutil
import subprocess
import sys
import tempfile

UNITS = pathlib.Path(__file__).parents[2] / "scripts/systemd"


def main():
    if not shutil.which("systemd-analyze"):
        print("skipped: no systemd-analyze")
        sys.exit(77)
    with tempfile.TemporaryDirectory(prefix="pared-units-") as name:
        folder = pathlib.Path(name)
        program = folder / "program"
        program.write_text("#!/bin/sh\n")
        program.chmod(0o755)
        units = []
        for unit in sorted(UNITS.iterdir()):
            text = unit.read_text()
            for installed in ("/usr/local/bin/pared", "/usr/local/bin/nightly"):
                text = text.replace(installed, str(program))
            units.append(folder / unit.name)
            units[-1].write_text(text)
        done = subprocess.run(["systemd-analyze", "verify", "--man=no", *units], capture_output=True, text=True)
    # What it says of units that are the machine's is not ours.
    ours = [line for line in done.stderr.splitlines() if any(unit.name in line for unit in units)]
    print("\n".join(ours) or f"{len(units)} units in order")
    sys.exit(1 if ours else 0)


if __name__ == "__main__":
    main()
