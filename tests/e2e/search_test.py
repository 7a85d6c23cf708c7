#!/usr/bin/env python3
"""Searches over a real model, through the real binary.

usage: search_test.py PARED [unittest arguments]

Exits with 77 (skipped) where the model or the digits are not on this machine. Each artifact is run in onnxruntime, where
the Python that runs this has it.
"""

import json
import os
import pathlib
import signal
import sys
import tempfile
import time
import unittest

import e2e_test
from e2e_test import DIGITS, FP16, INT8, MODEL, PRUNE, Daemon

# 200 digits: a candidate takes a tenth of a second.
EVALUATE = {"dataset": "mnist-5k", "samples": 200, "runs": 0}
SPARSITY = {"pass": "magnitude_prune", "option": "sparsity", "from": 0.3, "to": 0.95, "step": 0.05}


def spec_of(search, **others):
    return {"model": "mnist-conv", "calibration": {"dataset": "mnist-5k", "samples": 32},
            "chains": [{"name": "p-int8", "passes": [PRUNE, INT8]}], "evaluate": EVALUATE, "search": search, **others}


SMALL = {"objectives": [{"metric": "size_compressed_bytes"}, {"metric": "top1_drop"}],
         "bounds": [{"metric": "top1_drop", "max": 0.01}], "over": [SPARSITY], "budget": {"candidates": 12}}


class Search(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.temp = tempfile.TemporaryDirectory()
        cls.folder = pathlib.Path(cls.temp.name)
        cls.daemon = Daemon(cls.folder, "--threads=1")
        cls.daemon.upload()

    @classmethod
    def tearDownClass(cls):
        cls.daemon.end()
        cls.temp.cleanup()

    def runs_of(self, job):
        return self.daemon.get(f"/v1/runs?job={job}&limit=1000")["runs"]

    def candidates_of(self, job):
        return [run for run in self.runs_of(job) if run["chain"] != "baseline"]

    def fetch(self, path):
        file = self.folder / "fetched.onnx"
        status, _ = self.daemon.curl(path, "-o", str(file))
        self.assertEqual(status, 200, path)
        return file

    def check_model(self, file):
        """Loads it in onnxruntime and counts digits: the model is one that others can use."""
        try:
            import numpy
            import onnxruntime
        except ImportError:
            return None
        session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
        images, labels = (numpy.load(DIGITS / f"{name}.npy")[:200] for name in ("images", "labels"))
        feed = session.get_inputs()[0]
        hits = 0
        for image, label in zip(images, labels):
            hits += int(session.run(None, {feed.name: image[None]})[0].argmax() == label)
        return hits / 200

    def test_bound_met(self):
        job = self.daemon.wait_for_end(self.daemon.submit(spec_of(SMALL)))
        self.assertEqual(job["state"], "succeeded", job["error"])
        self.assertEqual(job["progress"]["percent"], 100)
        search = job["search"]
        self.assertTrue(search["goal_met"])
        self.assertLessEqual(search["best"]["values"]["top1_drop"], 0.01)
        candidates = self.candidates_of(job["id"])
        self.assertEqual(search["candidates"], len(candidates))
        # The best is the smallest of those that meet the bound, by the runs themselves.
        base = next(run for run in self.runs_of(job["id"]) if run["chain"] == "baseline")["metrics"]["top1"]
        good = [run for run in candidates if not run["error"] and base - run["metrics"]["top1"] <= 0.01]
        smallest = min(good, key=lambda run: run["metrics"]["size_compressed_bytes"])
        best = next(run for run in candidates if run["id"] == search["best"]["run"])
        self.assertEqual(best["metrics"]["size_compressed_bytes"], smallest["metrics"]["size_compressed_bytes"])
        top1 = self.check_model(self.fetch(f"/v1/jobs/{job['id']}/model"))
        if top1 is not None:
            self.assertAlmostEqual(top1, best["metrics"]["top1"], delta=0.011)
        for entry in search["front"]:
            self.check_model(self.fetch(f"/v1/runs/{entry['run']}/model"))
        # Candidates are found by what they are made of.
        sparsity = search["best"]["choice"]["magnitude_prune.sparsity"]
        found = self.daemon.get(f"/v1/runs?job={job['id']}&filter=passes.magnitude_prune.sparsity=" + str(sparsity))["runs"]
        self.assertIn(best["id"], [run["id"] for run in found])

    def test_the_same_job_tries_the_same_candidates(self):
        first, second = (self.daemon.wait_for_end(self.daemon.submit(spec_of(SMALL))) for _ in range(2))
        choices = [[(run["chain"], run["steps"], run["artifact"]) for run in self.candidates_of(job["id"])]
                   for job in (first, second)]
        self.assertEqual(*choices)

    def test_bound_not_met(self):
        search = {**SMALL, "bounds": [{"metric": "size_compressed_ratio", "max": 0.01}], "budget": {"candidates": 5}}
        job = self.daemon.wait_for_end(self.daemon.submit(spec_of(search)))
        self.assertEqual(job["state"], "goal_not_met")
        self.assertEqual(job["error"]["code"], "goal_not_met")
        self.assertIn("size_compressed_ratio at most 0.01", job["error"]["message"])
        self.assertFalse(job["search"]["goal_met"])
        self.assertTrue(job["search"]["front"])
        self.assertEqual(job["search"]["best"]["broken"], ["size_compressed_ratio at most 0.01"])
        self.check_model(self.fetch(f"/v1/jobs/{job['id']}/model"))

    def test_a_candidate_that_fails_is_recorded_and_the_search_goes_on(self):
        # No such node: the pass fails where it is chosen.
        search = {**SMALL, "over": [SPARSITY, {"pass": "quantize_int8", "option": "exclude", "values": [[], ["gone"]]}],
                  "budget": {"candidates": 8}}
        job = self.daemon.wait_for_end(self.daemon.submit(spec_of(search)))
        self.assertEqual(job["state"], "succeeded", job["error"])
        self.assertEqual(job["search"]["candidates"], 8)
        self.assertTrue(job["search"]["failed"])
        reasons = {run["chain"]: run["reason"] for run in job["search"]["failed"]}
        gone = [run["chain"] for run in self.candidates_of(job["id"]) if run["tags"]["quantize_int8.exclude"] != "[]"]
        self.assertTrue(gone)
        for chain in gone:
            self.assertIn('"gone" matches no node', reasons[chain])

    def test_what_space_there_is_without_over(self):
        search = {"objectives": SMALL["objectives"], "bounds": SMALL["bounds"], "budget": {"candidates": 14}}
        job = self.daemon.wait_for_end(self.daemon.submit(spec_of(search)))
        self.assertEqual(job["state"], "succeeded", job["error"])
        chosen = {name for run in self.candidates_of(job["id"]) for name in run["tags"]}
        self.assertLessEqual({"magnitude_prune.sparsity", "magnitude_prune.pattern", "quantize_int8.min_sqnr_db"}, chosen)

    def test_prefixes_are_made_once(self):
        search = {"objectives": SMALL["objectives"], "budget": {"candidates": 3},
                  "over": [{"pass": "quantize_int8", "option": "method", "values": ["minmax", "percentile", "mse"]}]}
        job = self.daemon.wait_for_end(self.daemon.submit(spec_of(search, seed=11)))
        cached = [self.daemon.get(f"/v1/runs/{run['id']}")["reports"][0].get("cached", False)
                  for run in self.candidates_of(job["id"])]
        self.assertEqual(cached, [False, True, True])

    def test_statistics_are_taken_once(self):
        search = {"objectives": [{"metric": "size_compressed_bytes"}], "budget": {"candidates": 4},
                  "over": [{"pass": "quantize_int8", "option": "method", "values": ["minmax", "percentile", "mse", "auto"]}]}
        job = self.daemon.wait_for_end(self.daemon.submit(spec_of(search, seed=12, cache=False)))
        self.assertEqual(job["state"], "succeeded", job["error"])
        runs = self.candidates_of(job["id"])
        shared = [set(report["report"].get("shared", [])) for run in runs
                  for report in self.daemon.get(f"/v1/runs/{run['id']}")["reports"] if report["pass"] == "quantize_int8"]
        self.assertEqual(shared[0], set())
        for names in shared[1:]:
            self.assertLessEqual({"calibration", "outputs"}, names)
        # Each alone is the same model.
        for run in runs:
            spec = {**spec_of(None, seed=12, cache=False), "chains": [{"name": "alone", "passes": run["steps"]}]}
            del spec["search"]
            alone = self.daemon.wait_for_end(self.daemon.submit(spec))["runs"][1]
            kept = next((entry for entry in job["search"]["front"] if entry["run"] == run["id"]), None)
            if kept:
                self.assertEqual(alone["artifact"], run["artifact"])
            self.assertEqual(alone["metrics"]["size_compressed_bytes"], run["metrics"]["size_compressed_bytes"])

    def test_models_of_the_front_stay_and_others_go(self):
        search = {**SMALL, "budget": {"candidates": 8}}
        job = self.daemon.wait_for_end(self.daemon.submit(spec_of(search, seed=13)))
        kept = {entry["run"] for entry in job["search"]["front"]} | {job["search"]["best"]["run"]}
        runs = self.candidates_of(job["id"])
        self.assertEqual({run["id"] for run in runs if run["artifact"]}, kept)
        beaten = next(run for run in runs if run["id"] not in kept)
        status, body = self.daemon.curl(f"/v1/runs/{beaten['id']}/model")
        self.assertEqual(status, 404)
        self.assertIn("was not kept", json.loads(body)["detail"])
        everything = self.daemon.wait_for_end(self.daemon.submit(spec_of({**search, "keep": "all"}, seed=13)))
        self.assertTrue(all(run["artifact"] for run in self.candidates_of(everything["id"]) if not run["error"]))

    def test_the_best_can_be_fetched_while_it_runs_and_a_cancel_keeps_what_is_there(self):
        search = {**SMALL, "over": [{**SPARSITY, "step": 0.01}], "budget": {"candidates": 60}}
        id = self.daemon.submit(spec_of(search, evaluate={**EVALUATE, "samples": 1000}, seed=5))
        job = self.daemon.wait(id, lambda j: j["search"] and j["search"]["best"] and j["search"]["candidates"] >= 2)
        self.assertEqual(job["state"], "running")
        self.check_model(self.fetch(f"/v1/jobs/{id}/model"))
        self.daemon.curl(f"/v1/jobs/{id}", "-X", "DELETE")
        job = self.daemon.wait_for_end(id)
        self.assertEqual(job["state"], "cancelled")
        self.assertGreaterEqual(job["search"]["candidates"], 2)
        self.assertEqual(job["search"]["candidates"], len(self.candidates_of(id)))
        self.check_model(self.fetch(f"/v1/jobs/{id}/model"))

    def test_kills_cost_one_candidate_at_most(self):
        spec = spec_of({**SMALL, "budget": {"candidates": 10}}, seed=7)
        whole = self.daemon.wait_for_end(self.daemon.submit(spec))
        reference = [(run["chain"], run["artifact"]) for run in self.candidates_of(whole["id"])]
        id = self.daemon.submit({**spec, "cache": False})
        begun = 0
        for kills in range(1, 4):  # a try that has come on does not count
            job = self.daemon.wait(id, lambda j: j["search"] and j["search"]["candidates"] > begun)
            if job["state"] != "running":
                break
            begun = job["search"]["candidates"]
            if kills == 2:
                os.kill(self.daemon.wait_for_worker(id), signal.SIGKILL)
            else:
                self.daemon.end(signal.SIGKILL)
                type(self).daemon = Daemon(self.folder, "--threads=1")
        job = self.daemon.wait_for_end(id)
        self.assertEqual(job["state"], "succeeded", job["error"])
        self.assertEqual([(run["chain"], run["artifact"]) for run in self.candidates_of(id)], reference)
        self.assertGreaterEqual(begun, 2)
        events = self.daemon.curl(f"/v1/jobs/{id}/log")[1].decode().splitlines()
        ended = [json.loads(line)["chain"] for line in events if '"chain_ended"' in line and "p-int8." in line]
        self.assertLessEqual(len(ended) - len(set(ended)), kills)

    def test_max_accuracy_drop_of_a_job_without_a_search(self):
        spec = {"model": "mnist-conv", "chains": [{"name": "hard", "passes": [{**PRUNE, "sparsity": 0.97, "reconstruct": "off"}]}],
                "evaluate": {**EVALUATE, "max_accuracy_drop": 0.001, "min_sqnr_db": -200, "min_agreement": 0}}
        job = self.daemon.wait_for_end(self.daemon.submit(spec))
        self.assertEqual(job["state"], "goal_not_met", job)
        run = next(run for run in job["runs"] if run["chain"] == "hard")
        self.assertEqual(run["error"]["code"], "goal_not_met")
        self.assertGreater(run["metrics"]["accuracy_drop"], 0.001)
        self.check_model(self.fetch(f"/v1/runs/{run['id']}/model"))
        spec["evaluate"] = {**spec["evaluate"], "max_accuracy_drop": 1}
        self.assertEqual(self.daemon.wait_for_end(self.daemon.submit(spec))["state"], "succeeded")

    def test_faults_of_a_spec_are_told_at_once(self):
        def refused(where, search, **others):
            status, body = self.daemon.curl("/v1/jobs", "-d", json.dumps(spec_of(search, **others)))
            self.assertEqual((status, json.loads(body)["errors"][0]["pointer"]), (400, where), body)
        refused("/search/over/0/option", {"over": [{"pass": "quantize_int8", "option": "metod", "values": [1]}]})
        refused("/search/over/0/values/1", {"over": [{**SPARSITY, "from": 0, "to": 0, "step": 0, "values": [0.5, 1.5]}]})
        refused("/search/over/0/pass", {"over": [{"pass": "cast_fp16", "leave_out": True}]})
        refused("/search/bounds/0", {"bounds": [{"metric": "top1"}]})
        refused("/search/objectives/0/metric", {"objectives": [{"metric": "latency_ms_p50"}]})

    def test_a_metric_that_is_not_measured_is_told_before_the_first_candidate(self):
        job = self.daemon.wait_for_end(self.daemon.submit(spec_of({"objectives": [{"metric": "map50"}]})))
        self.assertEqual(job["state"], "failed")
        self.assertEqual(job["error"]["where"], "/search/objectives/0/metric")
        self.assertEqual(self.candidates_of(job["id"]), [])


def main():
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    if not MODEL.exists() or not DIGITS.exists():
        print(f"skipped: no {MODEL} or no {DIGITS}")
        return 77
    e2e_test.PARED = os.path.abspath(sys.argv.pop(1))
    return 0 if unittest.main(exit=False).result.wasSuccessful() else 1


if __name__ == "__main__":
    sys.exit(main())
