#!/usr/bin/env python3
"""TLS and the reload of settings, over real sockets, with certificates that the openssl tool makes.

usage: tls_test.py PARED PARE [unittest arguments]
"""

import hashlib
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
import unittest
import warnings

from service import ServiceTest, make_certificate, read_events

PARE = "build/dev/pare"


class Tls(ServiceTest):
    def start_tls(self, **settings):
        self.certificate, self.key = make_certificate(self.folder, "first")
        service = self.start(tls_certificate=str(self.certificate), tls_key=str(self.key), **settings)
        service.trust(self.certificate)
        return service

    def refused(self, **settings):
        """What `pared serve` and --check-config say of settings that cannot be served."""
        path = self.folder / "wrong.json"
        path.write_text(json.dumps({"port": 0, "data_dir": str(self.folder / "data"), **settings}))
        said = []
        for more in ([], ["--check-config"]):
            done = subprocess.run([self.PARED, "serve", f"--config={path}", *more], capture_output=True, text=True,
                                  timeout=20)
            self.assertEqual(done.returncode, 1, done)
            said.append(done.stderr.splitlines()[-1])
        self.assertEqual(said[0], said[1])
        return said[0]

    def test_requests_a_job_and_its_events(self):
        service = self.start_tls()
        self.assertEqual(service.get("/healthz")["status"], "ok")
        service.put_model()
        job = service.submit()
        connection = service.connect()
        connection.request("GET", f"/v1/jobs/{job}/events")
        events = list(read_events(connection.getresponse()))  # to its end, which TLS says
        self.assertEqual(events[-1]["state"], "succeeded", events[-1])
        connection.close()
        run = service.get(f"/v1/runs?job={job}&chain=c")["runs"][0]
        status, _, model = service.ask("GET", f"/v1/runs/{run['id']}/model")
        self.assertEqual(status, 200)
        self.assertEqual(hashlib.sha256(model).hexdigest(), run["artifact"])

    def test_keeps_a_connection_and_takes_a_large_upload(self):
        service = self.start_tls()
        data = os.urandom(1 << 20) * 6
        sha256 = hashlib.sha256(data).hexdigest()
        connection = service.connect()
        for body, part in ((data[:1_000_003], "0-1000002"), (data[1_000_003:], f"1000003-{len(data) - 1}")):
            connection.request("PUT", f"/v1/uploads/{sha256}", body,
                               {"Content-Range": f"bytes {part}/{len(data)}"})
            answer = connection.getresponse()
            said = answer.read()
            self.assertIn(answer.status, (200, 201), said)
        connection.request("GET", f"/v1/uploads/{sha256}")
        self.assertEqual(int(connection.getresponse().headers["Upload-Offset"]), len(data))
        connection.close()

    def test_speaks_no_old_version(self):
        service = self.start_tls()
        for version, works in ((ssl.TLSVersion.TLSv1_1, False), (ssl.TLSVersion.TLSv1_2, True),
                               (ssl.TLSVersion.TLSv1_3, True)):
            context = ssl.create_default_context(cafile=self.certificate)
            context.set_ciphers("ALL:@SECLEVEL=0")
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # of the old one
                context.minimum_version = context.maximum_version = version
            with socket.create_connection(("127.0.0.1", service.port), timeout=10) as plain:
                try:
                    with context.wrap_socket(plain, server_hostname="localhost") as secured:
                        self.assertTrue(works, secured.version())
                except (ssl.SSLError, ConnectionError):
                    self.assertFalse(works, version)

    def test_tells_plain_http_what_to_do(self):
        service = self.start_tls()
        service.context = None
        status, _, body = service.ask("GET", "/healthz")
        self.assertEqual(status, 400)
        self.assertIn("https://", json.loads(body)["detail"])

    def test_silent_and_broken_peers_hold_nothing_up(self):
        service = self.start_tls(idle_s=1)
        silent = socket.create_connection(("127.0.0.1", service.port), timeout=20)
        broken = socket.create_connection(("127.0.0.1", service.port), timeout=20)
        broken.sendall(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 5)
        self.assertEqual(service.get("/healthz")["status"], "ok")
        begin = time.monotonic()
        self.assertEqual(silent.recv(1), b"")  # closed after idle_s
        self.assertLess(time.monotonic() - begin, 10)
        silent.close()
        broken.close()

    def test_a_watcher_that_has_gone_gives_its_place_back(self):
        service = self.start_tls(connections_max=2)
        connection = service.connect()
        connection.request("GET", "/v1/events")
        connection.getresponse()
        connection.close()
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:  # two more fit as soon as its place is free
            try:
                kept = service.connect(timeout=2)
                kept.request("GET", "/healthz")
                kept.getresponse().read()
                self.assertEqual(service.get("/healthz")["status"], "ok")
                kept.close()
                return
            except (OSError, ssl.SSLError):
                kept.close()
        self.fail("the watcher's place stays taken")

    def test_pare_speaks_with_it(self):
        service = self.start_tls()
        service.put_model()
        arguments = [PARE, "--url", f"https://localhost:{service.port}", "ls", "models"]
        trusting = subprocess.run([*arguments, "--ca", self.certificate], capture_output=True, text=True)
        self.assertEqual(trusting.returncode, 0, trusting.stderr)
        self.assertIn("tiny", trusting.stdout)
        other, _ = make_certificate(self.folder, "other")
        doubting = subprocess.run([*arguments, "--ca", other], capture_output=True, text=True)
        self.assertEqual(doubting.returncode, 3, doubting.stdout)

    def test_start_up_says_what_is_wrong(self):
        certificate, key = map(str, make_certificate(self.folder, "first"))
        _, other_key = map(str, make_certificate(self.folder, "other"))
        locked = str(self.folder / "locked.key")
        subprocess.run(["openssl", "ec", "-in", key, "-aes128", "-passout", "pass:secret", "-out", locked],
                       check=True, capture_output=True)
        junk = str(self.folder / "wrong.json")
        gone = str(self.folder / "gone.pem")
        for pointer, words, settings in (
                ("/tls_key", "must be given too", {"tls_certificate": certificate}),
                ("/tls_certificate", "must be given too", {"tls_key": key}),
                ("/tls_certificate", f"cannot read the file {gone}", {"tls_certificate": gone, "tls_key": key}),
                ("/tls_key", f"cannot read the file {gone}", {"tls_certificate": certificate, "tls_key": gone}),
                ("/tls_certificate", "no certificate in PEM form", {"tls_certificate": junk, "tls_key": key}),
                ("/tls_key", "the certificate's private key", {"tls_certificate": certificate, "tls_key": other_key}),
                ("/tls_key", "without a passphrase", {"tls_certificate": certificate, "tls_key": locked})):
            said = self.refused(**settings)
            self.assertIn(pointer, said)
            self.assertIn(words, said)


class Reload(ServiceTest):
    def test_changes_what_it_can_and_names_what_it_cannot(self):
        service = self.start(tokens=[])
        token = lambda text, scope: {"name": text, "scope": scope, "sha256": hashlib.sha256(text.encode()).hexdigest()}
        self.assertEqual(service.get("/v1/jobs")["jobs"], [])
        service.write_settings(tokens=[token("new", "write")], body_bytes_max=1024, log_level="warning", run_days=7,
                               jobs_max=3, port=1)
        service.process.send_signal(signal.SIGHUP)
        warned = service.wait_for_event("reload_incomplete")
        self.assertEqual(warned["need_a_restart"], "jobs_max, port")
        self.assertEqual(service.ask("GET", "/v1/jobs")[0], 401)
        self.assertEqual(service.ask("GET", "/v1/jobs", token="new")[0], 200)
        self.assertEqual(service.ask("POST", "/v1/jobs", b" " * 2000, token="new")[0], 413)
        self.assertEqual(service.stop(), 0)
        self.assertEqual(service.events("stopping"), [])  # which is of level info

    def test_a_wrong_file_leaves_the_old_settings(self):
        service = self.start(queued_max=1)
        service.write_settings(queued_max=0)
        said = service.reload()
        self.assertEqual(said["event"], "reload_failed")
        self.assertIn("/queued_max", said["error"])
        (self.folder / "pared.json").write_text("{")
        self.assertEqual(service.reload()["event"], "reload_failed")
        service.put_model()
        service.submit()
        service.write_settings(queued_max=5)
        self.assertEqual(service.reload()["changed"], "queued_max")

    def test_job_limits_hold_for_the_next_job(self):
        service = self.start()
        service.put_model()
        service.write_settings(memory_mb=1024, memory_total_mb=1024, time_s_max=5, time_s=4)
        service.reload()
        status, _, body = service.ask("POST", "/v1/jobs", json.dumps(
            {"model": "tiny", "chains": [{"name": "c", "passes": [{"pass": "cast_fp16"}]}], "limits": {"time_s": 6}}))
        self.assertEqual(status, 400, body)
        self.assertIn("5", json.loads(body)["detail"])
        self.assertEqual(service.wait_for_end(service.submit())["state"], "succeeded")

    def test_requests_go_on_meanwhile(self):
        service = self.start()
        faults = []

        def ask():
            connection = service.connect()
            for _ in range(200):
                connection.request("GET", "/v1/jobs")
                answer = connection.getresponse()
                answer.read()
                if answer.status != 200:
                    faults.append(answer.status)
            connection.close()

        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        for number in range(20):
            service.write_settings(queued_max=100 + number)
            self.assertEqual(service.reload()["event"], "reloaded")
        for thread in threads:
            thread.join()
        self.assertEqual(faults, [])

    def test_rotates_the_certificate(self):
        certificate, key = make_certificate(self.folder, "first")
        service = self.start(tls_certificate=str(certificate), tls_key=str(key))
        first = certificate.read_text()
        service.trust(certificate)
        kept = service.connect()
        kept.request("GET", "/healthz")
        kept.getresponse().read()

        new_certificate, new_key = make_certificate(self.folder, "second")
        shutil.copy(new_certificate, certificate)
        said = service.reload()  # the new certificate with the old key: half of it has arrived
        self.assertEqual(said["event"], "reload_failed")
        self.assertIn("/tls_key", said["error"])
        self.assertEqual(service.ask("GET", "/healthz")[0], 200)
        shutil.copy(new_key, key)
        self.assertEqual(service.reload()["event"], "reloaded")
        with self.assertRaises(ssl.SSLCertVerificationError):
            service.ask("GET", "/healthz")  # trusts the first alone
        service.trust(new_certificate)
        self.assertEqual(service.ask("GET", "/healthz")[0], 200)
        kept.request("GET", "/healthz")  # what is open stays open
        self.assertEqual(kept.getresponse().status, 200)
        self.assertNotEqual(first, ssl.get_server_certificate(("127.0.0.1", service.port)))
        kept.close()

    def test_without_a_file_it_ends(self):
        log = self.folder / "bare.log"
        with open(log, "wb") as out:
            process = subprocess.Popen([self.PARED, "serve", "--port=0", f"--data_dir={self.folder / 'bare'}"], stderr=out)
        deadline = time.monotonic() + 20
        while b"listening" not in log.read_bytes() and time.monotonic() < deadline:
            time.sleep(0.01)
        process.send_signal(signal.SIGHUP)
        self.assertEqual(process.wait(timeout=20), 0)


if __name__ == "__main__":
    ServiceTest.PARED, PARE = sys.argv[1:3]
    unittest.main(argv=[sys.argv[0], *sys.argv[3:]])
