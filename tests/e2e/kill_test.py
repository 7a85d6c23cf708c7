#!/usr/bin/env python3
"""Kills the daemon and its workers at random moments and counts what became of the jobs.

usage: kill_test.py PARED [--kills=20] [--seed=N]

Exits with 77 (skipped) where the model is not on this machine. Jobs are submitted all the while, each under a key
of its own, again after each kill that left the answer unknown. At the end: as many jobs as keys, each succeeded, each chain
with one run, whose bytes are those of a job that nobody disturbed; and by the jobs' logs no pass that had ended ran again.
"""

import argparse
import collections
import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import tempfile
import time

import e2e_test
from e2e_test import FP16, INT8, MODEL, PRUNE, Daemon

FLAGS = ("--tries_max=100", "--jobs_max=2", "--threads=1")  # kills come faster than slow passes end
KILL_AFTER_MAX_S = 0.25  # a job takes about as long
CHAINS = {"p-int8": [PRUNE, INT8], "p-fp16": [PRUNE, FP16], "second": [{"pass": "second_order_prune"}, INT8]}


def spec_of(seed):
    """Each job has a seed of its own: none finds what another has left in the cache."""
    return {"model": "mnist-conv", "seed": seed, "calibration": {"dataset": "mnist-5k", "samples": 16},
            "chains": [{"name": name, "passes": passes} for name, passes in CHAINS.items()],
            "evaluate": {"dataset": "mnist-5k", "samples": 50, "runs": 0}}


class Storm:
    def __init__(self, folder, seed):
        self.folder = folder
        self.random = random.Random(seed)
        self.kills = collections.Counter()
        self.keys = 0
        self.unanswered = None  # a key whose answer a kill has taken
        self.daemon = Daemon(folder, *FLAGS)
        self.daemon.upload()

    def submit(self):
        """One job more, or the one that is in doubt again."""
        key = self.unanswered if self.unanswered is not None else self.keys
        self.keys = max(self.keys, key + 1)
        self.unanswered = key
        status, body = self.daemon.curl("/v1/jobs", "-H", f"Idempotency-Key: {key}", "-d", json.dumps(spec_of(key)))
        assert status == 201, (status, body)
        self.unanswered = None
        return json.loads(body)["id"]

    def workers(self):
        pids = []
        for task in pathlib.Path(f"/proc/{self.daemon.process.pid}/task").iterdir():
            try:
                pids += [int(pid) for pid in (task / "children").read_text().split()]
            except OSError:
                pass  # the thread has ended
        return pids

    def kill_one(self):
        time.sleep(self.random.uniform(0, KILL_AFTER_MAX_S))
        workers = self.workers()
        if workers and self.random.random() < 0.6:
            try:
                os.kill(self.random.choice(workers), signal.SIGKILL)
                self.kills["worker"] += 1
            except ProcessLookupError:
                pass  # it was faster
            return
        self.kill_daemon()

    def kill_daemon(self):
        """Half the time while a job is being submitted."""
        if self.random.random() < 0.5:
            self.unanswered = self.keys
            self.keys += 1
            sender = subprocess.Popen(
                ["curl", "-s", "-o", "/dev/null", "-H", f"Idempotency-Key: {self.unanswered}", "-d",
                 json.dumps(spec_of(self.unanswered)), self.daemon.url + "/v1/jobs"])
            time.sleep(self.random.uniform(0, 0.02))
            self.daemon.end(signal.SIGKILL)
            sender.wait()
        else:
            self.daemon.end(signal.SIGKILL)
        self.kills["daemon"] += 1
        self.daemon = Daemon(self.folder, *FLAGS)
        if self.unanswered is not None:
            self.submit()

    def waiting(self):
        return sum(len(self.daemon.get(f"/v1/jobs?state={state}&limit=1000")["jobs"])
                   for state in ("queued", "running"))


def events_of(daemon, job):
    text, after = "", 0
    while True:
        status, body = daemon.curl(f"/v1/jobs/{job}/log?after={after}")
        assert status == 200, (status, body)
        if not body:
            return [json.loads(line) for line in text.splitlines()]
        text += body.decode()
        after += len(body)


def check(storm, reference):
    """Returns how many steps were begun and not ended, which is what the kills have cost."""
    jobs = storm.daemon.get("/v1/jobs?limit=1000")["jobs"]
    assert len(jobs) == storm.keys, f"{storm.keys} jobs were submitted, {len(jobs)} are there"
    lost = 0
    for job in jobs:
        assert job["state"] == "succeeded", job
        runs = storm.daemon.get(f"/v1/jobs/{job['id']}")["runs"]
        artifacts = {run["chain"]: run["artifact"] for run in runs}
        assert len(runs) == len(artifacts) == len(CHAINS) + 1, runs
        assert artifacts == reference, (job["id"], artifacts, reference)
        begun, made = collections.Counter(), collections.Counter()
        for event in events_of(storm.daemon, job["id"]):
            if event["event"] == "step_begun":
                begun[event["step"]] += 1
            elif event["event"] == "step_ended":
                begun[event["step"]] -= 1
                made[event["step"]] += not event["cached"]
        assert max(made.values(), default=0) <= 1, f"job {job['id']}: a pass that had ended ran again: {made}"
        lost_here = sum(begun.values())
        # One thread works on one step at a time: a kill costs one at most.
        assert lost_here <= job["requeues"], (job["id"], begun, job["requeues"])
        lost += lost_here
    return lost


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("pared")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    options = parser.parse_args()
    if not MODEL.exists():
        print(f"skipped: no {MODEL}")
        return 77
    e2e_test.PARED = os.path.abspath(options.pared)
    print(f"--kills={options.kills} --seed={options.seed}", flush=True)
    with tempfile.TemporaryDirectory() as name:
        storm = Storm(pathlib.Path(name), options.seed)
        try:
            first = storm.daemon.wait_for_end(storm.submit())
            assert first["state"] == "succeeded", first
            reference = {run["chain"]: run["artifact"] for run in first["runs"]}
            while sum(storm.kills.values()) < options.kills:
                while storm.waiting() < 3:
                    storm.submit()
                storm.kill_one()
            deadline = time.monotonic() + 240
            while storm.waiting() and time.monotonic() < deadline:
                time.sleep(0.05)
            lost = check(storm, reference)
        finally:
            storm.daemon.end()
        print(f"{storm.kills['daemon']} kills of the daemon, {storm.kills['worker']} of workers: {storm.keys} jobs, "
              f"all done once with the same bytes; {lost} passes were begun and not ended")
    return 0


if __name__ == "__main__":
    sys.exit(main())
