"""`pare export mlflow` against a real MLflow tracking server, on loopback.

usage: mlflow_test.py PARED PARE MLFLOW_PYTHON

MLFLOW_PYTHON is the interpreter of a venv with MLflow (scripts/make_tools_venv). Exits 77 (skipped)
where it, the model or the digits are not on this machine.
"""

import json
import os
import pathlib
import socket
import subprocess
import sys
import time
import unittest
import urllib.request

import e2e_test
import pare_test
from e2e_test import DIGITS, MODEL

PYTHON = ""
START_S = 90


class Server:
    """An MLflow tracking server with a store of its own."""

    def __init__(self, folder):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        self.log = open(folder / "mlflow.log", "wb")
        self.process = subprocess.Popen(
            [PYTHON, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port),
             "--workers", "1", "--no-serve-artifacts",
             "--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}",
             "--default-artifact-root", str(folder / "mlflow-artifacts")],
            stdout=self.log, stderr=self.log, start_new_session=True,
            env={**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"})
        self._await(folder)

    def _await(self, folder):
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                with urllib.request.urlopen(self.url + "/health", timeout=2):
                    return
            except OSError:
                time.sleep(0.1)
        self.end()
        raise AssertionError((folder / "mlflow.log").read_text())

    def ask(self, call, body=None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.url}/api/2.0/mlflow/{call}", data,
                                         {"content-type": "application/json"})
        with urllib.request.urlopen(request, timeout=30) as reply:
            return json.load(reply)

    def end(self):
        if self.process.poll() is None:
            os.killpg(self.process.pid, 15)
            self.process.wait(timeout=20)
        self.log.close()


class MlflowTest(pare_test.PareBase):
    def setUp(self):
        super().setUp()
        self.submit()
        self.pare("tag", "2", "keep=yes")
        self.pare("note", "2", "the one to ship")
        self.mlflow = Server(self.folder)
        self.addCleanup(self.mlflow.end)

    def export(self, *more):
        return self.pare("export", "mlflow", "--to", self.mlflow.url, "--as", "digits", *more)

    def exported(self):
        """Runs by chain, as MLflow gives them."""
        experiment = self.mlflow.ask("experiments/get-by-name?experiment_name=digits")
        identity = experiment["experiment"]["experiment_id"]
        runs = self.mlflow.ask("runs/search", {"experiment_ids": [identity]})["runs"]
        found = {}
        for run in runs:
            data = run["data"]
            flat = {kind: {entry["key"]: entry["value"] for entry in data.get(kind, [])}
                    for kind in ("params", "metrics", "tags")}
            found[flat["params"]["chain"]] = {**flat, "info": run["info"]}
        self.assertEqual(len(found), len(runs))
        return found

    def test_runs_params_metrics_tags_and_links_are_there_once(self):
        self.assertEqual(json.loads(self.export("--json"))["new"], 3)
        self.pare("tag", "2", "keep=no")
        again = json.loads(self.export("--json"))
        self.assertEqual((again["new"], again["updated"]), (0, 3))

        found = self.exported()
        self.assertEqual(set(found), {"baseline", "p50-int8", "cast_fp16"})
        ours = json.loads(self.pare("show", "2", "--json"))
        theirs = found["p50-int8"]
        self.assertEqual(theirs["params"]["1.magnitude_prune.sparsity"], "0.5")
        self.assertEqual(theirs["params"]["model"], "mnist")
        self.assertIn("2.quantize_int8.granularity", theirs["params"])
        for name, value in ours["metrics"].items():
            self.assertAlmostEqual(theirs["metrics"][name], value, delta=1e-9 * abs(value), msg=name)
        tags = theirs["tags"]
        self.assertEqual(tags["keep"], "no")
        self.assertEqual(tags["mlflow.note.content"], "the one to ship")
        self.assertEqual(tags["pared.artifact_sha256"], ours["artifact"])
        self.assertEqual(tags["pared.model.sha256"], ours["lineage"]["model"]["sha256"])
        with urllib.request.urlopen(tags["pared.artifact"], timeout=30) as reply:  # the link leads there
            self.assertEqual(reply.status, 200)
        self.assertEqual(theirs["info"]["status"], "FINISHED")
        self.assertEqual(int(theirs["info"]["start_time"]), ours["created_ms"])

        # A filter, and a server that is none.
        few = self.pare("export", "mlflow", 'chain = "cast_fp16"', "--to", self.mlflow.url,
                        "--as", "few")
        self.assertIn("1 runs exported", few)
        self.pare("export", "mlflow", "--to", self.daemon.url, "--as", "x", code=1)


if __name__ == "__main__":
    e2e_test.PARED = os.path.abspath(sys.argv.pop(1))
    pare_test.PARE = os.path.abspath(sys.argv.pop(1))
    PYTHON = sys.argv.pop(1)
    for needed in (MODEL, DIGITS / "dataset.json", pathlib.Path(PYTHON)):
        if not needed.exists():
            print(f"skipped: no {needed}")
            sys.exit(77)
    unittest.main(verbosity=2)
