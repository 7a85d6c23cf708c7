"""`pared serve` on a free port with a settings file of its own, asked over sockets; a model without files from elsewhere."""

import http.client
import json
import os
import pathlib
import random
import shutil
import signal
import ssl
import subprocess
import tempfile
import time
import unittest

# How many times as long as usual is waited for the program: sanitizers make it slow.
PATIENCE = int(os.environ.get("PARED_TEST_PATIENCE", "1"))


def varint(value):
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes(out + bytes([value]))


def field(number, value):
    """A field of a protobuf message: an integer, or bytes, text, a message."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    data = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(data)) + data


def random_floats(count, seed):
    """Little-endian floats of both signs, of a magnitude between 2^-7 and 2^-5."""
    generator = random.Random(seed)
    data = bytearray(generator.randbytes(4 * count))
    data[3::4] = generator.randbytes(count).translate(bytes([0x3C, 0xBC] * 128))
    return bytes(data)


def tiny_onnx(size=8, layers=1):
    """x[N, size] through so many MatMuls with constant weights, by the numbers of onnx.proto."""

    def value_info(name):
        dims = field(1, field(2, "N")) + field(1, field(1, size))
        return field(1, name) + field(2, field(1, field(1, 1) + field(2, dims)))

    graph = b""
    for layer in range(layers):
        begin = "x" if layer == 0 else f"h{layer}"
        end = "y" if layer == layers - 1 else f"h{layer + 1}"
        graph += field(1, field(1, begin) + field(1, f"w{layer}") + field(2, end) + field(3, f"layer{layer}")
                       + field(4, "MatMul"))
    graph += field(2, "tiny")
    for layer in range(layers):
        raw = random_floats(size * size, seed=layer)
        graph += field(5, field(1, size) + field(1, size) + field(2, 1) + field(8, f"w{layer}") + field(9, raw))
    graph += field(11, value_info("x")) + field(12, value_info("y"))
    return field(1, 8) + field(7, graph) + field(8, field(1, "") + field(2, 17))


def write_dataset(folder, samples, size):
    """A dataset of random inputs for tiny_onnx."""
    folder.mkdir(parents=True)
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({samples}, {size}), }}"
    header += " " * (63 - (10 + len(header)) % 64) + "\n"
    (folder / "x.npy").write_bytes(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode()
                                   + random_floats(samples * size, seed=99))
    (folder / "dataset.json").write_text(json.dumps({"inputs": {"x": "x.npy"}}))


def make_certificate(folder, name, days=2):
    """Paths of a certificate for localhost, signed by itself, and of its key."""
    if not shutil.which("openssl"):
        raise unittest.SkipTest("no openssl")
    certificate, key = folder / f"{name}.pem", folder / f"{name}.key"
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
                    "-keyout", key, "-out", certificate, "-days", str(days), "-subj", f"/CN={name}",
                    "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"], check=True, capture_output=True)
    return certificate, key


class Service:
    """A daemon over a folder; `settings` go into its settings file."""

    def __init__(self, pared, folder, **settings):
        self.pared, self.folder, self.settings = pared, folder, {"port": 0, "data_dir": str(folder / "data"), **settings}
        self.log_path = folder / "pared.log"
        self.context = None
        self.token = None
        self.write_settings()
        self.begin = self.log_path.stat().st_size if self.log_path.exists() else 0
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen([pared, "serve", f"--config={folder / 'pared.json'}"], stderr=log,
                                            stdout=subprocess.DEVNULL)
        self.port = self.wait_for_event("listening")["port"]

    def write_settings(self, **changes):
        self.settings.update(changes)
        (self.folder / "pared.json").write_text(json.dumps(self.settings))

    def log_lines(self):
        with open(self.log_path, "rb") as log:
            log.seek(self.begin)
            return log.read().decode().splitlines()

    def events(self, name):
        return [event for event in map(json.loads, self.log_lines()) if event["event"] == name]

    def wait_for_event(self, name, count=1, seconds=20):
        deadline = time.monotonic() + seconds * PATIENCE
        while time.monotonic() < deadline:
            lines = [line for line in self.log_lines() if f'"event":"{name}"' in line]
            if len(lines) >= count:
                return json.loads(lines[count - 1])
            if self.process.poll() is not None:
                break
            time.sleep(0.01)
        raise AssertionError(f"no {name} in the log: {self.log_lines()[-5:]}")

    def reload(self):
        """Sends SIGHUP and waits until the daemon has dealt with it. Its event."""
        done = lambda: [e for e in map(json.loads, self.log_lines()) if e["event"] in ("reloaded", "reload_failed")]
        count = len(done())
        self.process.send_signal(signal.SIGHUP)
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            events = done()
            if len(events) > count:
                return events[-1]
            time.sleep(0.01)
        raise AssertionError(f"no reload: {self.log_lines()[-5:]}")

    def connect(self, timeout=30):
        if self.context is None:
            return http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        return http.client.HTTPSConnection("localhost", self.port, timeout=timeout, context=self.context)

    def trust(self, certificate):
        self.context = ssl.create_default_context(cafile=certificate)

    def ask(self, method, path, body=None, headers=None, token=None):
        """Status, headers, body."""
        headers = dict(headers or {})
        token = token or self.token
        if token:
            headers["Authorization"] = f"Bearer {token}"
        connection = self.connect()
        try:
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            return answer.status, answer.headers, answer.read()
        finally:
            connection.close()

    def get(self, path):
        status, _, body = self.ask("GET", path)
        assert status == 200, (path, status, body)
        return json.loads(body)

    def put_model(self, name="tiny", **shape):
        status, _, body = self.ask("PUT", f"/v1/models/{name}", tiny_onnx(**shape))
        assert status in (200, 201), (status, body)

    def submit(self, model="tiny", passes=("cast_fp16",), **spec):
        chain = {"name": "c", "passes": [{"pass": each} if isinstance(each, str) else each for each in passes]}
        status, _, body = self.ask("POST", "/v1/jobs", json.dumps({"model": model, "chains": [chain], **spec}))
        assert status == 201, (status, body)
        return json.loads(body)["id"]

    def wait_for_end(self, job, seconds=60):
        deadline = time.monotonic() + seconds * PATIENCE
        while time.monotonic() < deadline:
            job_now = self.get(f"/v1/jobs/{job}?wait=1")
            if job_now["state"] not in ("queued", "running"):
                return job_now
        raise AssertionError(f"job {job} does not end: {job_now['progress']}")

    def stop(self, number=signal.SIGTERM):
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(timeout=30)


class ServiceTest(unittest.TestCase):
    PARED = os.environ.get("PARED", "build/dev/pared")

    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="pared-service-")
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)

    def start(self, **settings):
        service = Service(self.PARED, self.folder, **settings)
        self.addCleanup(service.stop, signal.SIGKILL)
        return service


def read_events(stream):
    """The data of each server-sent event until the stream ends."""
    for line in stream:
        if line.startswith(b"data: "):
            yield json.loads(line[6:])
