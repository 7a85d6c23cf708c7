#!/usr/bin/env python3
"""The service as others check it: its OpenAPI document, what schemathesis finds with it, /metrics as Prometheus reads
it, its log as JSON.

usage: api_test.py PARED [unittest arguments]        with the Python of .venv-api (scripts/make_api_venv)

Exits 77 (skipped) where a package is missing.
"""

import json
import pathlib
import subprocess
import sys
import unittest

from service import ServiceTest

try:
    from openapi_spec_validator import validate
    from prometheus_client.parser import text_string_to_metric_families
except ImportError as missing:
    print(f"skipped: no {missing.name}")
    sys.exit(77)

# What is generated may name models that are not there: a spec that is right in form is refused with 400 all the same.
NOT_CHECKED = "positive_data_acceptance"
SECONDS_MAX = 60


class Api(ServiceTest):
    def start_with_history(self, **settings):
        """A daemon that has something to tell of everything: a model, a job that succeeded."""
        service = self.start(**settings)
        service.put_model()
        service.wait_for_end(service.submit())
        status, _, _ = service.ask("PUT", "/v1/models/broken", b"no model")
        self.assertEqual(status, 400)
        return service

    def test_document_is_openapi(self):
        service = self.start()
        document = service.get("/openapi.json")
        validate(document)
        self.assertTrue(document["openapi"].startswith("3.1."))
        paths = document["paths"]
        self.assertIn("get", paths["/v1/jobs/{id}/events"])
        for path, operations in paths.items():
            for verb, operation in operations.items():
                named = [p["name"] for p in operation["parameters"] if p["in"] == "path"]
                self.assertEqual(named, [part[1:-1] for part in path.split("/") if part.startswith("{")], (verb, path))
        self.assertEqual(paths["/v1/jobs"]["get"]["parameters"][0]["schema"]["enum"],
                         ["queued", "running", "succeeded", "failed", "cancelled", "goal_not_met"])

    def test_schemathesis_finds_nothing(self):
        service = self.start_with_history(queued_max=20, idle_s=5)
        log = self.folder / "schemathesis.log"
        with open(log, "wb") as out:
            done = subprocess.run(
                [pathlib.Path(sys.executable).with_name("schemathesis"), "run", f"http://127.0.0.1:{service.port}/openapi.json",
                 "--exclude-path=/v1/events",  # which does not end
                 "--phases=coverage,fuzzing", "--generation-deterministic", "--max-examples=5",
                 f"--max-time={SECONDS_MAX}", "--request-timeout=10", f"--exclude-checks={NOT_CHECKED}", "--no-color"],
                cwd=self.folder, stdout=out, stderr=subprocess.STDOUT, timeout=3 * SECONDS_MAX)
        said = log.read_text(encoding="utf-8")
        self.assertEqual(done.returncode, 0, said[-6000:])
        self.assertNotIn("❌", said)
        for phase in ("Coverage", "Fuzzing"):  # both came to something, and to no fault
            self.assertRegex(said, phase + r" \(in [^)]*\)\s+✅ +\d+ passed\s")
        self.assertEqual(service.get("/healthz")["status"], "ok")
        for line in service.log_lines():
            self.assertNotIn('"request_failed"', line)

    def test_metrics_are_prometheus_text(self):
        service = self.start_with_history()
        status, headers, body = service.ask("GET", "/metrics")
        self.assertEqual(status, 200)
        self.assertEqual(headers["Content-Type"], "text/plain; version=0.0.4; charset=utf-8")
        families = {family.name: family for family in text_string_to_metric_families(body.decode())}
        for family in families.values():
            self.assertEqual(family.type, "gauge", family.name)
            self.assertTrue(family.documentation, family.name)
            self.assertTrue(family.name.startswith("pared_"))
        values = {(sample.name, *sample.labels.values()): sample.value
                  for family in families.values() for sample in family.samples}
        self.assertEqual(values["pared_jobs", "succeeded"], 1)
        self.assertEqual(values["pared_jobs", "queued"], 0)
        self.assertEqual(values["pared_runs",], 2)
        self.assertEqual(values["pared_models",], 1)
        self.assertEqual(len(families["pared_jobs"].samples), 6)

    def test_every_line_of_the_log_is_json(self):
        service = self.start_with_history(log_level="debug")
        connection = service.connect()
        connection.putrequest("GET", "/v1/models/%ff%22%0a", skip_host=True)
        connection.putheader("Host", "localhost")
        connection.endheaders()
        self.assertEqual(connection.getresponse().status, 400)
        connection.close()
        job = service.get("/v1/jobs")["jobs"][0]["id"]
        status, _, body = service.ask("GET", f"/v1/jobs/{job}/log")
        self.assertEqual(status, 200)
        names = [json.loads(line)["event"] for line in body.decode().splitlines()]
        self.assertEqual(names[0], "job_started")
        self.assertIn("step_ended", names)
        self.assertEqual(names[-1], "job_ended")
        self.assertEqual(service.stop(), 0)
        for line in service.log_lines():
            event = json.loads(line)
            self.assertLessEqual({"time", "level", "event"}, event.keys())
            self.assertIn(event["level"], ("debug", "info", "warning", "error"))
        self.assertEqual(json.loads(service.log_lines()[-1])["event"], "stopping")


if __name__ == "__main__":
    ServiceTest.PARED = sys.argv[1]
    unittest.main(argv=[sys.argv[0], *sys.argv[2:]])
