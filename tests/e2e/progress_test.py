#!/usr/bin/env python3
"""What a job tells of its progress: pass, layer, percent, the estimated end; to watchers, to pare and in the job.

usage: progress_test.py PARED PARE [unittest arguments]
"""

import subprocess
import sys
import threading
import time
import unittest

from service import ServiceTest, read_events, write_dataset

PARE = "build/dev/pare"
LAYERS = 12
SIZE = 384
# Solves for each row of each layer what is left of it: long enough to be seen.
PRUNE = {"pass": "magnitude_prune", "sparsity": 0.3, "reconstruct": "on"}


class Progress(ServiceTest):
    def setUp(self):
        super().setUp()
        self.service = self.start(threads=1)
        self.service.put_model(size=SIZE, layers=LAYERS)
        write_dataset(self.folder / "data/datasets/noise", 256, SIZE)
        self.spec = {"passes": (PRUNE, "quantize_weights"), "calibration": {"dataset": "noise"},
                     "evaluate": {"runs": 20}, "cache": False}

    def watch(self, spec):
        """The events of a job, with the time at which each came."""
        job = self.service.submit(**spec)
        connection = self.service.connect()
        connection.request("GET", f"/v1/jobs/{job}/events")
        events = [(time.time(), event) for event in read_events(connection.getresponse())]
        connection.close()
        self.assertEqual(events[-1][1]["state"], "succeeded", events[-1])
        return [(when, event["progress"]) for when, event in events if event["progress"]]

    def test_pass_layer_percent_and_end(self):
        events = self.watch(self.spec)
        percents = [progress["percent"] for _, progress in events]
        self.assertEqual(percents, sorted(percents))
        self.assertEqual(percents[-1], 100)
        self.assertTrue(any(0 < percent < 100 for percent in percents), percents)
        steps = [progress["step"] for _, progress in events]
        self.assertTrue(set(steps) & {"magnitude_prune", "magnitude_prune+quantize_weights"}, steps)
        layers = [progress for _, progress in events if "layer" in progress]
        self.assertTrue(layers, steps)
        names = [f"{letter}{i}" for letter in ("layer", "w") for i in range(LAYERS)]
        for progress in layers:
            self.assertEqual(progress["chain"], "c")
            self.assertEqual(progress["layer_count"], LAYERS)
            self.assertTrue(1 <= progress["layer_index"] <= LAYERS, progress)
            self.assertIn(progress["layer"].removeprefix("MatMul "), names, progress)

    def test_the_second_time_it_knows_how_long_it_takes(self):
        first = self.watch(self.spec)
        took_s = first[-1][0] - first[0][0]
        second = self.watch(self.spec)
        estimates = [(when, progress["estimated_end_ms"] / 1000) for when, progress in second
                     if "estimated_end_ms" in progress]
        end = second[-1][0]
        self.assertTrue(estimates)
        when, said = estimates[0]
        self.assertLess(when - second[0][0], 0.3 * took_s + 0.5)  # from the beginning
        # The machine may be busier than it was; a guess that knew nothing would not be of this size at all.
        self.assertLess(abs(said - end), 2 * took_s + 2, (said - when, end - when, took_s))

    def test_pare_shows_it(self):
        job = self.service.submit(**self.spec)
        done = subprocess.run([PARE, "--url", f"http://127.0.0.1:{self.service.port}", "watch", str(job)],
                              capture_output=True, text=True, timeout=120)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertRegex(done.stdout, r"running  \d+ %  chains \d/2  ")
        self.assertRegex(done.stdout, r"\d+:\d\d left\n")

    def test_watchers_of_all_jobs_see_it_too(self):
        seen = []

        def watch():
            connection = self.service.connect()
            connection.request("GET", "/v1/events")
            for event in read_events(connection.getresponse()):
                seen.append(event)
                if event["state"] == "succeeded":
                    break
            connection.close()

        thread = threading.Thread(target=watch)
        thread.start()
        time.sleep(0.5)
        job = self.service.submit(**self.spec)
        thread.join(timeout=120)
        self.assertFalse(thread.is_alive())
        running = [event["progress"] for event in seen if event["id"] == job and event["progress"]]
        self.assertTrue(any("estimated_end_ms" in progress for progress in running), running)
        self.assertEqual(running[-1]["percent"], 100)


if __name__ == "__main__":
    ServiceTest.PARED, PARE = sys.argv[1:3]
    unittest.main(argv=[sys.argv[0], *sys.argv[3:]])
