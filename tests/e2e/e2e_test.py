#!/usr/bin/env python3
"""Drives the real binary with curl over a real model.

usage: e2e_test.py PARED [unittest arguments]

Exits with 77 (skipped) where the model or the digits are not on this machine. The comparison with
onnxruntime is skipped by name where the Python that runs this has none.
"""

import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time
import unittest
import urllib.parse

from service import PATIENCE

MODELS = pathlib.Path(os.environ.get("PARED_MODELS", pathlib.Path.home() / ".cache/pared-models"))
MODEL = MODELS / "mnist-conv/mnist-conv.onnx"
DATASETS = MODELS / "datasets"
DIGITS = DATASETS / "mnist-5k"
PARED = ""
TOP1_FLOAT = 0.9936  # what onnxruntime finds for this model on these digits

PRUNE = {"pass": "magnitude_prune", "sparsity": 0.8}
INT8 = {"pass": "quantize_int8"}
FP16 = {"pass": "cast_fp16"}
FOUR_CHAINS = {
    "model": "mnist-conv",
    "experiment": "e2e",
    "calibration": {"dataset": "mnist-5k", "samples": 100},
    "chains": [
        {"name": "p80-int8", "passes": [PRUNE, INT8]},
        {"name": "int8", "passes": [INT8]},
        {"name": "fp16", "passes": [FP16]},
        {"name": "p80-fp16", "passes": [PRUNE, FP16]},
    ],
    "evaluate": {"dataset": "mnist-5k", "runs": 50},
}


def timed_spec(chains, runs):
    """A job that spends its time on timed runs."""
    return {
        "model": "mnist-conv",
        "chains": [{"name": f"c{i}", "passes": [FP16]} for i in range(chains)],
        "evaluate": {"runs": runs},
    }


LONG = timed_spec(chains=60, runs=100_000)


class Daemon:
    """`pared serve` on a free port, over a folder that outlives it."""

    def __init__(self, folder, *flags):
        self.log = open(folder / "pared.log", "ab+")
        begin = self.log.seek(0, os.SEEK_END)
        arguments = ["serve", "--port=0", f"--data_dir={folder / 'data'}",
                     f"--datasets_dir={DATASETS}", *flags]
        self.process = subprocess.Popen([PARED, *arguments], stderr=self.log)
        self.url = f"http://127.0.0.1:{self._port(begin)}"

    def _port(self, begin):
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            self.log.seek(begin)
            for line in self.log.read().splitlines():
                if b'"listening"' in line:
                    return json.loads(line)["port"]
            if self.process.poll() is not None:
                break
            time.sleep(0.01)
        self.log.seek(begin)
        raise AssertionError(f"pared did not start: {self.log.read().decode()}")

    def curl(self, path, *arguments):
        """Status and body."""
        done = subprocess.run(
            ["curl", "-s", "-w", "\n%{http_code}", *arguments, self.url + path],
            capture_output=True, check=True)
        body, _, status = done.stdout.rpartition(b"\n")
        return int(status), body

    def get(self, path):
        status, body = self.curl(path)
        assert status == 200, (status, body)
        return json.loads(body)

    def upload(self):
        status, body = self.curl("/v1/models/mnist-conv", "-T", str(MODEL))
        assert status in (200, 201), (status, body)

    def submit(self, spec):
        status, body = self.curl("/v1/jobs", "-d", json.dumps(spec))
        assert status == 201, (status, body)
        return json.loads(body)["id"]

    def wait(self, job, holds, seconds=120):
        deadline = time.monotonic() + seconds * PATIENCE
        while time.monotonic() < deadline:
            state = self.get(f"/v1/jobs/{job}")
            if holds(state):
                return state
            time.sleep(0.02)
        raise AssertionError(f"job {job} stays {state}")

    def wait_for_end(self, job, seconds=240):
        return self.wait(job, lambda j: j["state"] not in ("queued", "running"), seconds)

    def wait_for_worker(self, job):
        """The worker's process id, once it has told of progress."""
        self.wait(job, lambda j: j["state"] == "running" and j["progress"])
        for task in pathlib.Path(f"/proc/{self.process.pid}/task").iterdir():
            children = (task / "children").read_text().split()
            if children:
                return int(children[0])
        raise AssertionError("the daemon has no child")

    def end(self, number=signal.SIGTERM):
        if self.process.poll() is None:
            self.process.send_signal(number)
        code = self.process.wait(timeout=20)
        self.log.close()
        return code


def is_alive(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


class EndToEnd(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="pared-e2e-")
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        self.daemon = None

    def start(self, *flags):
        self.daemon = Daemon(self.folder, *flags)
        self.addCleanup(self.daemon.end, signal.SIGKILL)
        return self.daemon

    def start_with_model(self, *flags):
        daemon = self.start(*flags)
        daemon.upload()
        return daemon


class FourChains(EndToEnd):
    def setUp(self):
        super().setUp()
        daemon = self.start_with_model()
        self.job = daemon.submit(FOUR_CHAINS)
        ended = daemon.wait_for_end(self.job)
        self.assertEqual(ended["state"], "succeeded", ended["error"])
        runs = daemon.get(f"/v1/runs?job={self.job}")["runs"]
        self.runs = {run["chain"]: run for run in runs}

    def metric(self, chain, name):
        return self.runs[chain]["metrics"][name]

    def test_every_chain_is_a_measured_run(self):
        chains = {"baseline", "p80-int8", "int8", "fp16", "p80-fp16"}
        self.assertEqual(set(self.runs), chains)
        for chain in chains:
            self.assertIsNone(self.runs[chain]["error"], chain)
            self.assertGreater(self.metric(chain, "latency_ms_p50"), 0, chain)
            self.assertGreater(self.metric(chain, "size_compressed_bytes"), 0, chain)
        self.assertAlmostEqual(self.metric("baseline", "top1"), TOP1_FLOAT, places=6)
        self.assertEqual(self.metric("baseline", "size_bytes"), MODEL.stat().st_size)
        self.assertAlmostEqual(self.metric("int8", "top1"), TOP1_FLOAT, delta=0.003)
        self.assertAlmostEqual(self.metric("fp16", "top1"), TOP1_FLOAT, delta=0.001)
        self.assertEqual(self.metric("baseline", "int8_weight_share"), 0)
        self.assertGreater(self.metric("int8", "int8_weight_share"), 0.9)
        self.assertGreater(self.metric("int8", "int8_mac_share"), 0.9)
        self.assertGreater(self.metric("p80-int8", "sparsity"), 0.75)
        self.assertGreaterEqual(self.metric("p80-int8", "sparsity"),
                                self.metric("p80-fp16", "sparsity") - 1e-9)
        self.assertLess(self.metric("int8", "size_ratio"), 0.6)
        self.assertLess(self.metric("fp16", "size_ratio"), 0.7)
        self.assertLess(self.metric("p80-int8", "size_compressed_bytes"),
                        self.metric("int8", "size_compressed_bytes"))

    def test_every_file_predicts_in_onnxruntime_as_in_pared(self):
        try:
            import numpy
            import onnxruntime
        except ImportError as missing:
            self.skipTest(f"no {missing.name}")
        images = numpy.load(DIGITS / "images.npy")
        labels = numpy.load(DIGITS / "labels.npy")
        for chain, run in self.runs.items():
            path = self.folder / f"{chain}.onnx"
            status, _ = self.daemon.curl(f"/v1/runs/{run['id']}/model", "-o", str(path))
            self.assertEqual(status, 200)
            outputs = self.folder / f"{chain}.npy"
            subprocess.run([PARED, "evaluate", str(path), f"--dataset={DIGITS}",
                            f"--outputs={outputs}"], check=True, capture_output=True)
            ours = numpy.load(outputs).reshape(len(labels), -1).argmax(axis=1)
            options = onnxruntime.SessionOptions()
            # Without VNNI its products of u8 and s8 saturate at 16 bits otherwise.
            options.add_session_config_entry("session.x64quantprecision", "1")
            session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
            name = session.get_inputs()[0].name
            theirs = numpy.array([session.run(None, {name: image[None]})[0].argmax()
                                  for image in images])
            same = (ours == theirs).mean()
            print(f"{chain}: same predictions {same:.4f}, top-1 pared {(ours == labels).mean():.4f} "
                  f"onnxruntime {(theirs == labels).mean():.4f}")
            self.assertGreaterEqual(same, 0.995, chain)
            self.assertAlmostEqual((ours == labels).mean(), run["metrics"]["top1"], places=6)

    def test_the_front_and_the_passes_can_be_asked_for(self):
        front = self.daemon.get("/v1/pareto?experiment=e2e&cost=size_bytes&quality=top1")["runs"]
        sizes = [run["metrics"]["size_bytes"] for run in front]
        self.assertEqual(sizes, sorted(sizes))
        self.assertGreater(len(front), 0)
        names = {entry["name"] for entry in self.daemon.get("/v1/passes")["passes"]}
        self.assertLessEqual({"magnitude_prune", "quantize_int8", "cast_fp16"}, names)


class Nights(EndToEnd):
    def run_night(self, daemon, **more):
        spec = {"root": str(self.zoo), "calibration": {"dataset": "mnist-5k", "samples": 16},
                "evaluate": {"dataset": "mnist-5k", "samples": 100, "runs": 1},
                "chains": [{"name": "int8", "passes": [{"pass": "quantize_int8"}]}], **more}
        status, body = daemon.curl("/v1/batches", "-d", json.dumps(spec))
        self.assertEqual(status, 201, body)
        batch = json.loads(body)["id"]
        for _ in range(10):
            night = daemon.get(f"/v1/batches/{batch}?wait=30")
            if night["state"] in ("ended", "failed", "cancelled"):
                break
        self.assertEqual(night["state"], "ended", night)
        return night, daemon.get(f"/v1/batches/{batch}/report")

    def decisions(self, night):
        return {item["model"]: item["decision"] for item in night["items"]}

    def assert_marked(self, daemon, wanted):
        """The marks are put on after the last job has ended."""
        for _ in range(100):
            runs = daemon.get("/v1/runs?" + urllib.parse.urlencode({"filter": 'tags.regression like "%"'}))["runs"]
            if {run["id"] for run in runs} == wanted:
                return
            time.sleep(0.1)
        self.fail(f"{runs} are not {wanted}")

    def test_a_night_runs_what_has_changed_and_no_bad_model_stops_it(self):
        self.zoo = self.folder / "zoo"
        self.zoo.mkdir()
        (self.zoo / "digits.onnx").write_bytes(MODEL.read_bytes())
        (self.zoo / "broken.onnx").write_bytes(b"no model")
        daemon = self.start(f"--model_roots={self.zoo}")
        night, report = self.run_night(daemon)
        self.assertEqual(self.decisions(night), {"digits": "run", "broken": "refused"})
        self.assertEqual([entry["model"] for entry in report["failed_newly"]], ["broken"])

        night, report = self.run_night(daemon)
        self.assertEqual(self.decisions(night)["digits"], "unchanged")
        self.assertEqual((report["verdict"], report["failed_newly"]), ("ok", []))
        self.assertEqual([entry["model"] for entry in report["failed_still"]], ["broken"])

        # Another recipe that halves the fidelity is run, and is worse.
        harsh = [{"name": "int8", "passes": [{"pass": "magnitude_prune", "sparsity": 0.9, "reconstruct": "off"},
                                             {"pass": "quantize_int8"}]}]
        night, report = self.run_night(daemon, chains=harsh)
        self.assertEqual(self.decisions(night)["digits"], "run")
        self.assertEqual(report["verdict"], "worse")
        worse = {entry["metric"] for entry in report["worse"]} | {entry["chain"] for entry in report["failed_newly"]}
        self.assertTrue(worse & {"sqnr_db", "top1", "int8"}, report)
        self.assert_marked(daemon, {entry["run"] for entry in report["worse"] + report["failed_newly"] if "run" in entry})
        status, text = daemon.curl("/v1/batches/3/report?format=md")
        self.assertEqual(status, 200)
        self.assertIn(b"digits", text)


class Faults(EndToEnd):
    def wait_for_latency(self, daemon, job):
        """Into the long part of LONG: each try that gets there has come as far as the one before."""
        daemon.wait(job, lambda j: j["state"] == "running" and (j["progress"] or {}).get("step", "").startswith("latency"))

    def test_a_worker_killed_again_and_again_fails_its_job_only(self):
        daemon = self.start_with_model("--tries_max=2")
        job = daemon.submit(LONG)
        self.wait_for_latency(daemon, job)
        os.kill(daemon.wait_for_worker(job), signal.SIGKILL)
        daemon.wait(job, lambda j: j["tries"] == 2 and j["requeues"] == 1)
        self.wait_for_latency(daemon, job)
        os.kill(daemon.wait_for_worker(job), signal.SIGKILL)
        ended = daemon.wait_for_end(job)
        self.assertEqual(ended["state"], "failed")
        self.assertIn("signal 9", ended["error"]["message"])
        self.assertIn("2 tries", ended["error"]["message"])
        after = daemon.submit(timed_spec(chains=1, runs=10))
        self.assertEqual(daemon.wait_for_end(after)["state"], "succeeded")

    def test_cancel_ends_a_running_job_and_its_worker(self):
        daemon = self.start_with_model()
        job = daemon.submit(LONG)
        worker = daemon.wait_for_worker(job)
        status, _ = daemon.curl(f"/v1/jobs/{job}", "-X", "DELETE")
        self.assertEqual(status, 202)
        ended = daemon.wait_for_end(job)
        self.assertEqual(ended["state"], "cancelled")
        self.assertFalse(is_alive(worker))
        status, _ = daemon.curl(f"/v1/jobs/{job}", "-X", "DELETE")
        self.assertEqual(status, 409)

    def test_a_wrong_spec_is_refused_at_its_place(self):
        daemon = self.start_with_model()
        spec = json.loads(json.dumps(FOUR_CHAINS))
        spec["chains"][0]["passes"][0]["sparsity"] = 1.8
        status, body = daemon.curl("/v1/jobs", "-d", json.dumps(spec))
        self.assertEqual(status, 400)
        self.assertEqual(json.loads(body)["errors"][0]["pointer"],
                         "/chains/0/passes/0/sparsity")
        self.assertEqual(daemon.get("/v1/jobs")["jobs"], [])

    def test_packed_models_come_back_byte_for_byte(self):
        daemon = self.start_with_model()
        spec = timed_spec(chains=1, runs=1)
        plain, packed = (daemon.submit({**spec, "artifact": form}) for form in ("onnx", "packed"))
        runs = [daemon.wait_for_end(job)["runs"][1] for job in (plain, packed)]
        self.assertEqual(runs[0]["artifact"], runs[1]["artifact"])
        self.assertLess(runs[1]["metrics"]["size_packed_bytes"], runs[1]["metrics"]["size_bytes"])
        files = [self.folder / name for name in ("plain", "expanded", "packed")]
        for file, run, form in zip(files, (runs[0], runs[1], runs[1]), ("onnx", "onnx", "packed")):
            daemon.curl(f"/v1/runs/{run['id']}/model?form={form}", "-o", str(file))
        self.assertEqual(files[0].read_bytes(), files[1].read_bytes())
        subprocess.run([PARED, "unpack", str(files[2]), f"--out={self.folder}"], check=True, capture_output=True)
        self.assertEqual((self.folder / "model.onnx").read_bytes(), files[0].read_bytes())

    def test_a_model_comes_as_tensorflow_lite_too(self):
        daemon = self.start_with_model()
        spec = {**FOUR_CHAINS, "artifact": "tflite", "evaluate": {"dataset": "mnist-5k", "samples": 500, "runs": 0}}
        spec["chains"] = [chain for chain in FOUR_CHAINS["chains"] if chain["name"] in ("int8", "fp16")]
        ended = daemon.wait_for_end(daemon.submit(spec))
        self.assertEqual(ended["state"], "succeeded", ended["error"])
        for run in ended["runs"][1:]:
            metrics = run["metrics"]
            self.assertGreater(metrics["tflite_sqnr_db"], 30)
            file = self.folder / f"{run['chain']}.tflite"
            daemon.curl(f"/v1/runs/{run['id']}/model?form=tflite", "-o", str(file))
            self.assertEqual(file.stat().st_size, metrics["size_tflite_bytes"])
            done = subprocess.run([PARED, "evaluate", str(file), f"--reference={MODEL}", f"--dataset={DIGITS}",
                                   "--samples=500"], check=True, capture_output=True)
            # The file is as good as the ONNX model that was measured.
            self.assertAlmostEqual(json.loads(done.stdout)["metrics"]["top1"], metrics["top1"], delta=0.005)
        status, body = daemon.curl(f"/v1/runs/{ended['runs'][0]['id']}/model?form=tflite")
        self.assertEqual(status, 404)
        self.assertIn(b"it is the input model", body)

    def test_the_time_limit_ends_a_job(self):
        daemon = self.start_with_model()
        job = daemon.submit({**LONG, "limits": {"time_s": 1}})
        ended = daemon.wait_for_end(job)
        self.assertEqual(ended["state"], "failed")
        self.assertEqual(ended["error"]["where"], "/limits/time_s")
        chains = {run["chain"] for run in daemon.get(f"/v1/runs?job={job}")["runs"]}
        self.assertIn("baseline", chains)  # what it had reached is kept

    def test_a_full_queue_answers_503(self):
        daemon = self.start_with_model("--queued_max=1")
        daemon.wait_for_worker(daemon.submit(LONG))
        daemon.submit(LONG)
        status, _ = daemon.curl("/v1/jobs", "-d", json.dumps(LONG))
        self.assertEqual(status, 503)
        self.assertEqual(daemon.curl("/healthz")[0], 200)

    def test_a_killed_daemon_goes_on_where_it_was(self):
        daemon = self.start_with_model()
        job = daemon.submit(timed_spec(chains=4, runs=20_000))
        later = daemon.submit(timed_spec(chains=1, runs=10))
        worker = daemon.wait_for_worker(job)
        daemon.end(signal.SIGKILL)
        deadline = time.monotonic() + 2
        while is_alive(worker) and time.monotonic() < deadline:
            time.sleep(0.01)
        self.assertFalse(is_alive(worker), "the worker outlived its daemon")
        daemon = self.start()
        self.assertEqual(daemon.wait_for_end(job)["state"], "succeeded")
        self.assertEqual(daemon.wait_for_end(later)["state"], "succeeded")
        chains = [run["chain"] for run in daemon.get(f"/v1/runs?job={job}")["runs"]]
        self.assertEqual(sorted(chains), ["baseline", "c0", "c1", "c2", "c3"])

    def test_a_job_that_kills_the_daemon_at_the_same_place_is_failed(self):
        daemon = self.start_with_model("--tries_max=3")
        job = daemon.submit(LONG)
        for tries in (1, 2, 3):
            self.wait_for_latency(daemon, job)
            self.assertEqual(daemon.get(f"/v1/jobs/{job}")["tries"], tries)
            daemon.end(signal.SIGKILL)
            daemon = self.start("--tries_max=3")
        ended = daemon.wait_for_end(job)
        self.assertEqual(ended["state"], "failed")
        for part in ("the daemon died", "3 tries in a row", "tries_max, 3"):
            self.assertIn(part, ended["error"]["message"])

    def test_sigterm_puts_the_running_job_back(self):
        daemon = self.start_with_model()
        job = daemon.submit(LONG)
        daemon.wait_for_worker(job)
        begin = time.monotonic()
        self.assertEqual(daemon.end(signal.SIGTERM), 0)
        self.assertLess(time.monotonic() - begin, 10)
        daemon = self.start()
        daemon.wait_for_worker(job)
        self.assertEqual(daemon.get(f"/v1/jobs/{job}")["state"], "running")


class DiskFull(unittest.TestCase):
    """The data folder on a file system of 96 MB that the test fills."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="pared-e2e-")
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=96m", "none", folder.name], capture_output=True)
        if mounted.returncode != 0:
            self.skipTest("a tmpfs cannot be mounted here: " + mounted.stderr.decode().strip())
        self.addCleanup(subprocess.run, ["umount", folder.name], check=True)
        self.daemon = Daemon(self.folder)
        self.addCleanup(self.daemon.end, signal.SIGKILL)
        self.daemon.upload()

    def fill(self, left):
        """Leaves so many bytes, rounded to pages."""
        with open(self.folder / "filler", "wb", buffering=0) as filler:
            for size in (1 << 20, 4096):
                try:
                    while filler.write(b"x" * size) == size:
                        pass
                except OSError:
                    pass
            filler.truncate(filler.tell() - left)

    def artifacts(self):
        return {path for path in (self.folder / "data" / "artifacts").rglob("*") if path.is_file()}

    def test_a_job_fails_by_name_and_the_daemon_goes_on(self):
        self.assertEqual(self.daemon.curl("/readyz")[0], 200)
        self.fill(left=256 << 10)
        status, body = self.daemon.curl("/readyz")
        self.assertEqual(status, 503)
        self.assertRegex(json.loads(body)["detail"], "the disk has 0 MB left")
        # Its 60 models have 13 kB each.
        ended = self.daemon.wait_for_end(self.daemon.submit(timed_spec(chains=60, runs=0)))
        self.assertEqual(ended["state"], "failed")
        self.assertRegex(ended["error"]["message"], "No space left on device|disk is full")
        self.assertEqual(self.daemon.curl("/healthz")[0], 200)
        (self.folder / "filler").unlink()
        self.assertEqual(self.daemon.curl("/readyz")[0], 200)
        after = self.daemon.submit(timed_spec(chains=1, runs=1))
        self.assertEqual(self.daemon.wait_for_end(after)["state"], "succeeded")

    def test_nothing_half_written_stays_where_there_is_no_room_at_all(self):
        before = self.artifacts()
        self.fill(left=0)
        status, body = self.daemon.curl("/v1/models/other", "-T", str(MODEL))
        self.assertEqual(status, 503, body)
        status, body = self.daemon.curl("/v1/jobs", "-d", json.dumps(timed_spec(chains=1, runs=0)))
        self.assertIn(status, (201, 503), body)  # the write-ahead log may have room for one
        (self.folder / "filler").unlink()
        if status == 201:
            self.daemon.wait_for_end(json.loads(body)["id"])
        self.assertEqual([m["name"] for m in self.daemon.get("/v1/models")["models"]], ["mnist-conv"])
        self.assertLessEqual(before, self.artifacts())
        for path in self.artifacts() - before:
            self.assertEqual(path.name, "model.onnx")  # whole: of a job that found room in the end


if __name__ == "__main__":
    PARED = os.path.abspath(sys.argv.pop(1))
    for needed in (MODEL, DIGITS / "dataset.json"):
        if not needed.exists():
            print(f"skipped: no {needed}")
            sys.exit(77)
    unittest.main(verbosity=2)
