#!/usr/bin/env python3
"""What a daemon promises to those on its sockets: tokens, limits, watchers, the drain.

usage: sockets_test.py PARED [unittest arguments]
"""

import hashlib
import json
import os
import socket
import sys
import threading
import time
import unittest

from service import ServiceTest, read_events

LONG = {"runs": 100_000}  # of an evaluation: minutes, for a model of this size
LARGE = {"size": 512, "layers": 6}


def token(name, scope, expires_ms=0):
    return {"name": name, "scope": scope, "expires_ms": expires_ms, "sha256": hashlib.sha256(name.encode()).hexdigest()}


class Tokens(ServiceTest):
    def setUp(self):
        super().setUp()
        now_ms = int(time.time() * 1000)
        self.service = self.start(tokens=[token("reader", "read"), token("writer", "write"),
                                          token("late", "write", now_ms - 1), token("early", "write", now_ms + 3_600_000)])

    def status(self, method, path, *, body=None, token=None, headers=None):
        status, self.headers, _ = self.service.ask(method, path, body, headers, token)
        return status

    def test_without_or_with_a_wrong_one_nobody_is_let_in(self):
        for path in ("/v1/jobs", "/v1/events", "/metrics", "/openapi.json", "/v1/models/x"):
            self.assertEqual(self.status("GET", path), 401, path)
            self.assertEqual(self.headers["WWW-Authenticate"], "Bearer")
        for wrong in ("nobody", "late", "readers", "Reader", hashlib.sha256(b"writer").hexdigest()):
            self.assertEqual(self.status("GET", "/v1/jobs", token=wrong), 401, wrong)
            self.assertIn("invalid_token", self.headers["WWW-Authenticate"])
        self.assertEqual(self.status("GET", "/v1/jobs", headers={"Authorization": "Basic d3JpdGVy"}), 401)
        self.assertEqual(self.status("GET", "/v1/jobs", headers={"Authorization": "Bearer"}), 401)
        self.assertEqual(self.status("GET", "/v1/nothing"), 401)  # nor told what there is

    def test_scopes(self):
        writes = (("POST", "/v1/jobs"), ("DELETE", "/v1/jobs/1"), ("PUT", "/v1/models/x"), ("POST", "/v1/gc"),
                  ("PUT", "/v1/uploads/" + "a" * 64), ("PATCH", "/v1/runs/1"), ("DELETE", "/v1/experiments/x"),
                  ("POST", "/v1/batches"))
        for method, path in writes:
            self.assertEqual(self.status(method, path, body=b"{}", token="reader"), 403, path)
            self.assertIn("insufficient_scope", self.headers["WWW-Authenticate"])
            self.assertIn(self.status(method, path, body=b"{}", token="writer"), (200, 400, 404, 422), path)
        self.assertEqual(self.status("GET", "/v1/jobs", token="reader"), 200)
        self.assertEqual(self.status("HEAD", "/v1/jobs", token="reader"), 200)
        self.assertEqual(self.status("GET", "/v1/jobs", token="early"), 200)
        self.assertEqual(self.status("GET", "/v1/jobs", headers={"Authorization": "bEARER writer"}), 200)

    def test_health_needs_none(self):
        self.assertEqual(self.status("GET", "/healthz"), 200)
        self.assertEqual(self.status("GET", "/readyz"), 200)

    def test_a_stranger_s_upload_is_refused_before_it_is_read(self):
        connection = socket.create_connection(("127.0.0.1", self.service.port), timeout=20)
        connection.sendall(b"PUT /v1/models/x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000000\r\n\r\n")
        self.assertTrue(connection.recv(100).startswith(b"HTTP/1.1 401 "))
        connection.close()

    def test_a_stranger_cannot_watch(self):
        connection = self.service.connect()
        connection.request("GET", "/v1/events")
        answer = connection.getresponse()
        self.assertEqual(answer.status, 401)
        self.assertNotIn(b"data:", answer.read())
        connection.close()


class Limits(ServiceTest):
    def raw(self, service, *pieces):
        """All that is answered to these bytes."""
        with socket.create_connection(("127.0.0.1", service.port), timeout=20) as connection:
            answer = b""
            try:
                for piece in pieces:
                    connection.sendall(piece)
                while data := connection.recv(65536):
                    answer += data
            except ConnectionError:
                pass  # refused while it was still sending
            return answer

    def head(self, line, *fields):
        return "\r\n".join([f"{line} HTTP/1.1", "Host: localhost", "Connection: close", *fields, "", ""]).encode()

    def test_bodies(self):
        service = self.start(body_bytes_max=1024, model_bytes_max=4096)
        chunked = "Transfer-Encoding: chunked"
        chunk = b"400\r\n" + b" " * 1024 + b"\r\n"
        for line, fits in (("POST /v1/jobs", 1), ("PUT /v1/models/x", 4), ("PUT /v1/uploads/" + "a" * 64, 4)):
            size = 1024 * fits
            for length, expected in ((size, {400, 409, 422}), (size + 1, {413}), (10 ** 15, {413})):
                body = b" " * min(length, size + 1)
                answer = self.raw(service, self.head(line, f"Content-Length: {length}"), body)
                self.assertIn(int(answer[9:12]), expected, (line, length, answer[:200]))
            answer = self.raw(service, self.head(line, chunked), chunk * (fits + 1), b"0\r\n\r\n")
            self.assertEqual(answer[9:12], b"413", (line, answer))
        self.assertEqual(list((self.folder / "data/incoming").iterdir()), [])

    def test_headers_and_nonsense(self):
        service = self.start()
        for request, status in ((self.head("GET /healthz", "X: " + "x" * 17_000), b"431"),
                                (self.head("GET /healthz", *[f"X-{i}: y" for i in range(4000)]), b"431"),
                                (b"hello\r\n\r\n", b"400"),
                                (self.head("GET healthz"), b"501"),
                                (self.head("POST /v1/jobs", "Content-Length: -1"), b"400"),
                                (self.head("POST /v1/jobs", "Content-Length: 1", "Content-Length: 2"), b"400"),
                                (self.head("GET /" + "a" * 10_000), b"404")):
            self.assertEqual(self.raw(service, request)[9:12], status, request[:60])

    def test_slow_senders_are_closed(self):
        service = self.start(idle_s=1)
        begin = time.monotonic()
        self.assertEqual(self.raw(service, b"GET /healthz HTT"), b"")
        answer = self.raw(service, self.head("POST /v1/jobs", "Content-Length: 100"), b"{")
        self.assertEqual(answer, b"")
        self.assertLess(time.monotonic() - begin, 15)

    def test_connections(self):
        service = self.start(connections_max=8)
        kept = [socket.create_connection(("127.0.0.1", service.port), timeout=20) for _ in range(8)]
        for connection in kept:
            connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
            self.assertTrue(connection.recv(100).startswith(b"HTTP/1.1 200 "))
        self.assertEqual(self.raw(service, self.head("GET /healthz")), b"")
        kept.pop().close()
        deadline = time.monotonic() + 10
        while not self.raw(service, self.head("GET /healthz")) and time.monotonic() < deadline:
            pass
        self.assertTrue(self.raw(service, self.head("GET /healthz")).startswith(b"HTTP/1.1 200 "))
        for connection in kept:
            connection.close()


class Watchers(ServiceTest):
    def watch(self, service, path, seen):
        connection = service.connect(timeout=60)
        try:
            connection.request("GET", path)
            for event in read_events(connection.getresponse()):
                seen.append(event)
        except OSError as error:
            seen.append(error)
        finally:
            connection.close()

    def test_64_see_everything_beside_one_that_does_not_read(self):
        """Half of them watch one job to its end, half all jobs."""
        service = self.start(idle_s=2, jobs_max=1, confine_workers=True)
        service.put_model(**LARGE)
        job = service.submit(evaluate={"runs": 1000})
        deaf = socket.socket()
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        deaf.settimeout(30)
        deaf.connect(("127.0.0.1", service.port))
        deaf.sendall(b"GET /v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
        seen = [[] for _ in range(64)]
        threads = [threading.Thread(target=self.watch, args=(service, "/v1/events" if i % 2 else f"/v1/jobs/{job}/events",
                                                             seen[i])) for i in range(64)]
        for thread in threads:
            thread.start()
        time.sleep(0.5)
        jobs = [service.submit() for _ in range(600)]  # far more to tell than a socket holds
        for number in jobs[20:]:
            self.assertEqual(service.ask("DELETE", f"/v1/jobs/{number}")[0], 202)
        self.assertEqual(service.wait_for_end(job)["state"], "succeeded")
        for number in jobs[:20]:
            service.wait_for_end(number)
        time.sleep(4)  # more than idle_s
        last = service.submit()
        service.wait_for_end(last)
        time.sleep(1)

        count = 0
        deadline = time.monotonic() + 20
        try:
            while time.monotonic() < deadline and (data := deaf.recv(65536)):
                count += data.count(b"data: ")
        except ConnectionError:
            pass  # it has been dropped, with or without a word
        self.assertLess(count, 600)
        deaf.close()
        self.assertEqual(service.stop(), 0)  # which ends the streams of all jobs
        for thread in threads:
            thread.join(timeout=20)
            self.assertFalse(thread.is_alive())
        for i, events in enumerate(seen):
            self.assertEqual([event for event in events if not isinstance(event, dict)], [], i)
            if i % 2 == 0:
                states = [event["state"] for event in events]
                self.assertEqual(states[-1], "succeeded")
                self.assertEqual({event["id"] for event in events}, {job})
                continue
            ends = {event["id"]: event["state"] for event in events}
            self.assertEqual(ends, {job: "succeeded", last: "succeeded", **dict.fromkeys(jobs[:20], "succeeded"),
                                    **dict.fromkeys(jobs[20:], "cancelled")})


class Drain(ServiceTest):
    def test_sigterm_ends_all_in_order_and_loses_nothing(self):
        service = self.start()
        service.put_model(**LARGE)
        job = service.submit(evaluate=LONG)
        waiting = service.submit()
        deadline = time.monotonic() + 20
        while not service.get(f"/v1/jobs/{job}")["progress"] and time.monotonic() < deadline:
            time.sleep(0.02)

        watcher = service.connect()
        watcher.request("GET", f"/v1/jobs/{job}/events")
        stream = watcher.getresponse()
        asker = service.connect()
        asker.request("GET", f"/v1/jobs/{waiting}?wait=60")
        idle = service.connect()
        idle.request("GET", "/healthz")
        idle.getresponse().read()
        data = os.urandom(100_000)
        sender = socket.create_connection(("127.0.0.1", service.port), timeout=20)
        sha256 = hashlib.sha256(data).hexdigest()
        sender.sendall(f"PUT /v1/uploads/{sha256} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(data)}\r\n\r\n".encode()
                       + data[:50_000])
        time.sleep(0.5)
        begin = time.monotonic()
        service.process.terminate()
        service.wait_for_event("stopping")
        time.sleep(0.3)
        sender.sendall(data[50_000:])  # what has begun may end
        self.assertTrue(sender.recv(100).startswith(b"HTTP/1.1 20"))
        self.assertEqual(json.loads(asker.getresponse().read())["state"], "queued")
        states = [event["state"] for event in read_events(stream)]
        self.assertEqual(states[0], "running")
        self.assertNotIn("failed", states)
        self.assertEqual(service.process.wait(timeout=20), 0)
        self.assertLess(time.monotonic() - begin, 10)
        with self.assertRaises(ConnectionError):
            socket.create_connection(("127.0.0.1", service.port), timeout=5)
        for connection in (watcher, asker, idle, sender):
            connection.close()

        again = self.start()
        self.assertEqual(again.ask("GET", f"/v1/uploads/{sha256}")[1]["Upload-Offset"], str(len(data)))
        self.assertEqual(again.ask("DELETE", f"/v1/jobs/{job}")[0], 202)
        ended = again.wait_for_end(job)
        self.assertEqual((ended["state"], ended["tries"]), ("cancelled", 1))  # the try that was cut short does not count
        self.assertEqual(again.wait_for_end(waiting)["state"], "succeeded")


if __name__ == "__main__":
    ServiceTest.PARED = sys.argv[1]
    unittest.main(argv=[sys.argv[0], *sys.argv[2:]])
