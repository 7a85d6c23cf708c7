#!/usr/bin/env python3
"""Print what a JUnit report of ctest holds: the skipped tests by name, then the closing line.

usage: summarize_tests.py REPORT.xml

Exits with 1 where a test failed or none ran.
"""
import sys
import xml.etree.ElementTree


def main():
    cases = list(xml.etree.ElementTree.parse(sys.argv[1]).getroot().iter("testcase"))
    skipped = [c for c in cases if c.find("skipped") is not None or c.get("status") in ("notrun", "disabled")]
    failed = [c for c in cases if c.find("failure") is not None or c.get("status") == "fail"]
    passed = len(cases) - len(skipped) - len(failed)
    for case in skipped:
        print(f"skipped: {case.get('name')}")
    for case in failed:
        print(f"failed: {case.get('name')}")
    tail = f", {len(skipped)} skipped" if skipped else ""
    print(f"{passed} passed, {len(failed)} failed{tail}")
    sys.exit(1 if failed or not passed else 0)


if __name__ == "__main__":
    main()
