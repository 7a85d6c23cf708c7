"""The store as others read it, while the daemon writes: sqlite3, pandas, DuckDB, Datasette.

usage: readers_test.py PARED PARE

Run by the Python of .venv-tools it reads with all four; by another, those that it lacks are skipped
by name. Exits 77 (skipped) where the model or the digits are not on this machine.
"""

import json
import os
import pathlib
import sqlite3
import subprocess
import sys
import threading
import time
import unittest
import urllib.request

import e2e_test
import pare_test
from e2e_test import DIGITS, MODEL

STORM_S = 3

# Every view with its columns: promises to those who read the store.
VIEWS = {
    "runs_wide": ["id", "job", "experiment", "model", "chain", "created_ms", "created", "failed",
                  "artifact", "note", "cpu", "isa", "version", "top1", "agreement", "sqnr_db",
                  "cosine", "size_bytes", "size_compressed_bytes", "size_ratio", "sparsity",
                  "latency_ms_p50", "latency_ratio", "peak_activation_bytes"],
    "metrics_long": ["run", "job", "experiment", "model", "chain", "created_ms", "name", "value"],
    "jobs_wide": ["id", "state", "model", "experiment", "priority", "tries", "created", "waited_s",
                  "ran_s", "chains", "error_code", "error", "candidates", "best_run"],
    "passes_long": ["run", "job", "experiment", "model", "chain", "position", "pass", "options",
                    "seconds"],
    "tags_long": ["run", "experiment", "model", "chain", "name", "value"],
    "lineage": ["run", "job", "model", "chain", "model_sha256", "calibration",
                "calibration_sha256", "evaluation", "evaluation_sha256", "version", "seed",
                "artifact"],
}


class ReadersTest(pare_test.PareBase):
    def setUp(self):
        super().setUp()
        self.submit()
        self.pare("tag", "2", "keep=yes")
        self.pare("note", "3", "half")
        self.path = self.folder / "data" / "pared.db"
        self.runs = [json.loads(self.pare("show", str(id), "--json")) for id in (1, 2, 3)]

    def connect(self, **options):
        connection = sqlite3.connect(f"file:{self.path}?mode=ro", uri=True, **options)
        connection.row_factory = sqlite3.Row
        self.addCleanup(connection.close)
        return connection

    def rows(self, query):
        return [dict(row) for row in self.connect().execute(query)]

    def test_every_view_has_the_columns_that_were_promised(self):
        there = {row["name"] for row in self.rows("SELECT name FROM sqlite_schema WHERE type = 'view'")}
        self.assertLessEqual(set(VIEWS), there)
        for view, columns in VIEWS.items():
            cursor = self.connect().execute(f"SELECT * FROM {view}")
            self.assertEqual([column[0] for column in cursor.description], columns, view)
            self.assertGreater(len(cursor.fetchall()), 0, view)

    def test_runs_wide_and_metrics_long_say_what_the_api_says(self):
        wide = self.rows("SELECT * FROM runs_wide ORDER BY id")
        self.assertEqual(len(wide), 3)
        for row, run in zip(wide, self.runs):
            for name in ("id", "job", "experiment", "model", "chain", "created_ms", "artifact", "note"):
                self.assertEqual(row[name], run[name], name)
            for name in ("cpu", "isa", "version"):
                self.assertEqual(row[name], run["machine"][name], name)
            for name in VIEWS["runs_wide"][13:]:
                self.assertEqual(row[name], run["metrics"].get(name), name)
            self.assertEqual(row["failed"], 0)
        metrics = {(row["run"], row["name"]): row["value"] for row in self.rows("SELECT * FROM metrics_long")}
        self.assertEqual(metrics, {(run["id"], name): value for run in self.runs
                                   for name, value in run["metrics"].items()})

    def test_jobs_passes_tags_and_lineage_say_what_the_api_says(self):
        job = self.daemon.get("/v1/jobs/1")
        row = self.rows("SELECT * FROM jobs_wide")[0]
        self.assertEqual((row["state"], row["model"], row["chains"], row["error"]),
                         ("succeeded", "mnist", 2, None))
        self.assertAlmostEqual(row["ran_s"], (job["finished_ms"] - job["started_ms"]) / 1000)
        self.assertAlmostEqual(row["waited_s"], (job["started_ms"] - job["created_ms"]) / 1000)

        passes = self.rows("SELECT * FROM passes_long WHERE run = 2 ORDER BY position")
        steps = self.runs[1]["steps"]
        self.assertEqual([row["pass"] for row in passes], [step["pass"] for step in steps])
        for row, step, report in zip(passes, steps, self.runs[1]["reports"]):
            self.assertEqual({"pass": step["pass"], **json.loads(row["options"])}, step)
            self.assertEqual(row["seconds"], report["seconds"])

        tags = self.rows("SELECT run, chain, name, value FROM tags_long")
        self.assertEqual(tags, [{"run": 2, "chain": "p50-int8", "name": "keep", "value": "yes"}])

        for row, run in zip(self.rows("SELECT * FROM lineage ORDER BY run"), self.runs):
            self.assertEqual(row["model_sha256"], run["lineage"]["model"]["sha256"])
            self.assertEqual(row["calibration_sha256"], run["lineage"]["calibration"]["sha256"])
            self.assertEqual(row["evaluation"], "digits")
            self.assertEqual(row["artifact"], run["artifact"])

    def test_pandas_reads_every_view(self):
        try:
            import pandas
        except ImportError:
            self.skipTest("no pandas")
        for view, columns in VIEWS.items():
            frame = pandas.read_sql(f"SELECT * FROM {view}", self.connect())
            self.assertEqual(list(frame.columns), columns)
        frame = pandas.read_sql("SELECT * FROM runs_wide", self.connect()).set_index("chain")
        self.assertEqual(frame.loc["p50-int8", "size_bytes"], self.runs[1]["metrics"]["size_bytes"])

    def test_duckdb_reads_every_view(self):
        try:
            import duckdb
        except ImportError:
            self.skipTest("no duckdb")
        package = pathlib.Path(duckdb.__file__).parent.parent / "duckdb_extension_sqlite_scanner"
        extension = next(package.rglob("*.duckdb_extension"))
        connection = duckdb.connect()
        connection.execute(f"LOAD '{extension}'")
        connection.execute(f"ATTACH '{self.path}' AS store (TYPE sqlite, READ_ONLY)")
        for view in VIEWS:
            ours = self.rows(f"SELECT count(*) AS n FROM {view}")[0]["n"]
            self.assertEqual(connection.execute(f"SELECT count(*) FROM store.{view}").fetchone()[0], ours)
        smallest = connection.execute("SELECT chain FROM store.runs_wide ORDER BY size_bytes").fetchone()
        self.assertEqual(smallest[0], "p50-int8")

    def test_datasette_reads_every_view(self):
        tool = pathlib.Path(sys.executable).parent / "datasette"
        if not tool.exists():
            self.skipTest("no datasette")
        for view, columns in VIEWS.items():
            done = subprocess.run([tool, str(self.path), "--get", f"/pared/{view}.json?_shape=array"],
                                  capture_output=True, text=True, timeout=60)
            self.assertEqual(done.returncode, 0, done.stderr[-500:])
            self.assertEqual(list(json.loads(done.stdout)[0]), columns)

    def test_readers_see_no_lock_while_the_daemon_writes(self):
        """Not one "database is locked", though no reader is ready to wait."""
        end = time.monotonic() + STORM_S
        failures, counts = [], {"read": 0, "written": 0}

        def read():
            while time.monotonic() < end:
                try:
                    connection = sqlite3.connect(f"file:{self.path}?mode=ro", uri=True, timeout=0)
                    for view in VIEWS:
                        connection.execute(f"SELECT * FROM {view}").fetchall()
                    connection.close()
                    counts["read"] += 1
                except sqlite3.Error as error:
                    failures.append(str(error))

        def write(number):
            while time.monotonic() < end:
                body = json.dumps({"tags": {f"t{number}": str(time.monotonic())}}).encode()
                request = urllib.request.Request(self.daemon.url + "/v1/runs/1", body, method="PATCH",
                                                 headers={"content-type": "application/json"})
                with urllib.request.urlopen(request, timeout=30):
                    counts["written"] += 1

        threads = [threading.Thread(target=read) for _ in range(3)]
        threads += [threading.Thread(target=write, args=(i,)) for i in range(2)]
        for thread in threads:
            thread.start()
        self.submit()  # and a job
        for thread in threads:
            thread.join()
        self.assertEqual(failures, [])
        self.assertGreater(counts["read"], 10)
        self.assertGreater(counts["written"], 50)


if __name__ == "__main__":
    e2e_test.PARED = os.path.abspath(sys.argv.pop(1))
    pare_test.PARE = os.path.abspath(sys.argv.pop(1))
    for needed in (MODEL, DIGITS / "dataset.json"):
        if not needed.exists():
            print(f"skipped: no {needed}")
            sys.exit(77)
    unittest.main(verbosity=2)
