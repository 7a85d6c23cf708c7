"""`pare` and the real daemon, on a real model: submit, watch, fetch, do again.

usage: pare_test.py PARED PARE [unittest arguments]

Exits 77 (skipped) where the model or the digits are not on this machine.
"""

import ast
import hashlib
import http.server
import json
import os
import pathlib
import shutil
import ssl
import subprocess
import sys
import tempfile
import threading
import unittest

import e2e_test
from e2e_test import DIGITS, MODEL, EndToEnd

PARE = ""
SAMPLES = 300


def write_head(source, target, samples, change=False):
    """The first `samples` of a .npy file; `change` flips a bit of each byte of the first."""
    data = source.read_bytes()
    end = 10 + int.from_bytes(data[8:10], "little")
    header = ast.literal_eval(data[10:end].decode("latin1"))
    shape = header["shape"]
    sample_bytes = (len(data) - end) // shape[0]
    header["shape"] = (samples, *shape[1:])
    text = repr(header).encode("latin1")
    text += b" " * (63 - (10 + len(text)) % 64) + b"\n"
    body = bytearray(data[end:end + samples * sample_bytes])
    if change:
        for i in range(sample_bytes):
            body[i] ^= 1
    target.write_bytes(data[:8] + len(text).to_bytes(2, "little") + text + body)


class PareBase(EndToEnd):
    def setUp(self):
        super().setUp()
        self.write_digits()
        self.start(f"--datasets_dir={self.folder / 'datasets'}")
        self.pare("push", str(MODEL), "--as", "mnist")

    def write_digits(self, change=False):
        folder = self.folder / "datasets" / "digits"
        folder.mkdir(parents=True, exist_ok=True)
        manifest = json.loads((DIGITS / "dataset.json").read_text())
        (folder / "dataset.json").write_text(json.dumps(manifest))
        files = [*manifest["inputs"].values(), manifest["labels"]]
        for name in files:
            write_head(DIGITS / name, folder / name, SAMPLES, change and name != files[-1])

    def pare(self, *arguments, code=0):
        """What `pare ARGUMENTS` writes."""
        environment = {**os.environ, "PARED_URL": self.daemon.url, "NO_COLOR": "1"}
        environment.pop("PARED_TOKEN", None)
        done = subprocess.run([PARE, *arguments], capture_output=True, text=True, env=environment,
                              timeout=120, cwd=self.folder)
        self.assertEqual(done.returncode, code, done.stdout + done.stderr)
        return done.stdout

    def submit(self):
        """Runs 2 (pruned and INT8) and 3 (FP16)."""
        return self.pare("submit", "-m", "mnist", "-d", "digits", "-c", "digits", "--runs", "0",
                         "--chain", "p50-int8: magnitude_prune sparsity=0.5 | quantize_int8",
                         "--pass", "cast_fp16", "-w")


class PareTest(PareBase):
    def test_from_submit_to_a_checked_file(self):
        text = self.submit()
        self.assertIn("job 1 succeeded", text)
        self.assertIn("p50-int8", text)
        self.pare("pull", "2", "-o", "int8.onnx")
        digest = hashlib.sha256((self.folder / "int8.onnx").read_bytes()).hexdigest()
        run = json.loads(self.pare("show", "2", "--json"))
        self.assertEqual(run["artifact"], digest)

    def test_lineage_names_every_byte_that_a_run_was_made_from(self):
        self.submit()
        run = json.loads(self.pare("show", "2", "--json"))
        lineage = run["lineage"]
        self.assertEqual(lineage["model"]["sha256"], hashlib.sha256(MODEL.read_bytes()).hexdigest())
        dataset = self.daemon.get("/v1/datasets/digits")["sha256"]
        self.assertEqual(lineage["calibration"]["sha256"], dataset)
        self.assertEqual(lineage["evaluation"]["sha256"], dataset)
        self.assertEqual(lineage["evaluation"]["samples"], SAMPLES)
        self.assertEqual([p["pass"] for p in lineage["passes"]], ["magnitude_prune", "quantize_int8"])
        self.assertEqual(lineage["passes"][0]["options"]["sparsity"], 0.5)
        versions = {p["name"]: p["version"] for p in self.daemon.get("/v1/passes")["passes"]}
        for step in lineage["passes"]:
            self.assertEqual(step["version"], versions[step["pass"]])
        text = self.pare("show", "2")
        for digest in (lineage["model"]["sha256"], dataset, run["artifact"]):
            self.assertIn(digest, text)

    def test_a_rerun_gives_the_same_bytes_from_the_bytes_it_was_made_from(self):
        self.submit()
        # Other bytes under the model's name: the rerun must not take them.
        other = self.folder / "other.onnx"
        self.pare("pull", "3", "-o", str(other))
        self.pare("push", str(other), "--as", "mnist")
        text = self.pare("rerun", "2")
        self.assertIn("the same bytes", text)
        runs = json.loads(self.pare("history", 'tags.rerun_of = "2"', "--json"))
        artifacts = {run["artifact"] for run in (runs, json.loads(self.pare("show", "2", "--json")))}
        self.assertEqual(len(artifacts), 1)
        answer = json.loads(self.pare("rerun", "3", "--json"))
        self.assertTrue(answer["same_bytes"])
        self.pare("rerun", "1", code=2)  # the baseline: no pass made it

    def test_a_rerun_on_other_data_says_what_differs(self):
        self.submit()
        self.write_digits(change=True)
        text = self.pare("rerun", "2", code=12)
        self.assertIn("other bytes", text)
        self.assertIn("/lineage/calibration", text)
        self.assertNotIn("/lineage/model", text)

    def test_a_search_is_watched_and_its_front_shown(self):
        spec = self.folder / "search.json"
        search = {"objectives": [{"metric": "size_compressed_bytes"}, {"metric": "top1_drop"}],
                  "bounds": [{"metric": "top1_drop", "max": 0.02}], "budget": {"candidates": 4},
                  "over": [{"pass": "magnitude_prune", "option": "sparsity", "values": [0.3, 0.5, 0.8, 0.95]}]}
        job = {"model": "mnist", "evaluate": {"dataset": "digits", "runs": 0}, "search": search,
               "chains": [{"name": "pruned", "passes": [{"pass": "magnitude_prune"}]}]}
        spec.write_text(json.dumps(job))
        text = self.pare("submit", str(spec), "-w")
        self.assertIn("4 of 4 candidates", text)
        self.assertIn("(best)", text)
        front = json.loads(self.pare("job", "1", "--json"))["search"]["front"]
        shown = self.pare("job", "1")
        for entry in front:
            self.assertIn(f"magnitude_prune.sparsity={entry['choice']['magnitude_prune.sparsity']}", shown)
        pareto = json.loads(self.pare("pareto", "--job", "1", "--json"))
        self.assertEqual([o["name"] for o in pareto["objectives"]], ["size_compressed_bytes", "top1_drop"])
        # What breaks the bound is no part of the search's front, but may be of the plain one.
        self.assertLessEqual({entry["run"] for entry in front}, {run["id"] for run in pareto["runs"]})
        search["bounds"] = [{"metric": "size_compressed_ratio", "max": 0.001}]
        spec.write_text(json.dumps(job))
        self.assertIn("not size_compressed_ratio at most 0.001", self.pare("submit", str(spec), "-w", code=14))

    def test_a_batch_reports_and_a_job_has_a_log(self):
        zoo = self.folder / "zoo"
        zoo.mkdir()
        (zoo / "digits.onnx").write_bytes(MODEL.read_bytes())
        self.daemon.end()
        self.start(f"--datasets_dir={self.folder / 'datasets'}", f"--model_roots={zoo}")
        spec = self.folder / "night.json"
        spec.write_text(json.dumps({"root": str(zoo), "calibration": {"dataset": "digits", "samples": 16},
                                    "evaluate": {"dataset": "digits", "runs": 0},
                                    "chains": [{"name": "fp16", "passes": [{"pass": "cast_fp16"}]}]}))
        self.assertIn("digits", self.pare("batch", str(spec), "--dry"))
        text = self.pare("batch", str(spec))
        self.assertIn("succeeded", text)
        again = json.loads(self.pare("batch", str(spec), "--json"))
        self.assertEqual([item["decision"] for item in again["batch"]["items"]], ["unchanged"])
        log = [json.loads(line) for line in self.pare("log", "1").splitlines()]
        self.assertTrue(any("cast_fp16" in json.dumps(line) for line in log), log)
        (zoo / "broken.onnx").write_bytes(b"no model")
        self.assertIn("broken", self.pare("batch", str(spec), code=13))
        self.pare("batch", "--id", "99", code=5)

    def test_a_failed_job_is_an_exit_code(self):
        text = self.pare("submit", "-m", "mnist", "-d", "digits", "-c", "digits", "--runs", "0", "-w",
                         "--min-sqnr-db", "150", "--pass", "quantize_int8", code=10)
        self.assertIn("job 1 failed", text)
        self.assertIn("below the floor", text)

    @unittest.skipUnless(shutil.which("bash"), "no bash")
    def test_bash_completes_names_that_the_daemon_has(self):
        script = ('source <("$0" completion bash); pare() { "$PARE" "$@"; }; '
                  'COMP_WORDS=(pare submit --model mn); COMP_CWORD=3; _pare; echo "${COMPREPLY[@]}"')
        environment = {**os.environ, "PARED_URL": self.daemon.url, "PARE": PARE}
        done = subprocess.run(["bash", "-c", script, PARE], capture_output=True, text=True,
                              env=environment, timeout=30)
        self.assertEqual(done.stdout, "mnist\n", done.stderr)


class TlsTest(unittest.TestCase):
    """`pare` and a server with a certificate of its own making."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            body = b'{"passes": [{"name": "seen", "summary": "over TLS"}]}'
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    @classmethod
    def setUpClass(cls):
        if not shutil.which("openssl"):
            raise unittest.SkipTest("no openssl")
        cls.folder = tempfile.TemporaryDirectory(prefix="pared-tls-")
        cls.certificate = f"{cls.folder.name}/cert.pem"
        key = f"{cls.folder.name}/key.pem"
        subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt",
                        "ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-subj", "/CN=localhost",
                        "-addext", "subjectAltName=DNS:localhost", "-keyout", key,
                        "-out", cls.certificate], check=True, capture_output=True)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(cls.certificate, key)
        cls.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), cls.Handler)
        cls.server.socket = context.wrap_socket(cls.server.socket, server_side=True)
        cls.thread = threading.Thread(target=cls.server.serve_forever)
        cls.thread.start()

    @classmethod
    def tearDownClass(cls):
        cls.server.shutdown()
        cls.thread.join()
        cls.server.server_close()
        cls.folder.cleanup()

    def passes(self, host, *arguments):
        url = f"https://{host}:{self.server.server_address[1]}"
        return subprocess.run([PARE, "--url", url, *arguments, "passes"], capture_output=True,
                              text=True, timeout=60)

    def test_a_trusted_certificate_is_taken(self):
        done = self.passes("localhost", "--ca", self.certificate)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("over TLS", done.stdout)

    def test_a_certificate_that_nobody_vouches_for_is_refused(self):
        done = self.passes("localhost")
        self.assertEqual(done.returncode, 3)
        self.assertIn("certificate verify failed", done.stderr)

    def test_a_certificate_of_another_host_is_refused(self):
        done = self.passes("127.0.0.1", "--ca", self.certificate)
        self.assertEqual(done.returncode, 3)
        self.assertIn("certificate verify failed", done.stderr)


if __name__ == "__main__":
    e2e_test.PARED = os.path.abspath(sys.argv.pop(1))
    PARE = os.path.abspath(sys.argv.pop(1))
    for needed in (MODEL, DIGITS / "dataset.json"):
        if not needed.exists():
            print(f"skipped: no {needed}")
            sys.exit(77)
    unittest.main(verbosity=2)
