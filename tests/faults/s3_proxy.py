"""An S3 service with faults: a proxy on loopback in front of the embedded server.

A plan looks at each request and its number, which counts from 1, and returns the fault to make of
it. All else is the real protocol between boto3 and the server behind.
"""

import http.client
import random
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal
from urllib.parse import urlsplit

Kind = Literal["status", "reset", "cut", "stall"]
HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "expect", "host"}
CODES = {
    403: "AccessDenied",
    409: "OperationAborted",
    412: "PreconditionFailed",
    500: "InternalError",
    503: "SlowDown",
}


@dataclass(frozen=True)
class Request:
    """One request as a plan sees it."""

    number: int
    method: str
    path: str
    guarded: bool  # a conditional write


@dataclass(frozen=True)
class Fault:
    """One answer that is not the server's.

    `status` is an error answer, `reset` closes the connection, `cut` sends half of the body, and
    `stall` waits for `seconds` after that half.
    """

    kind: Kind
    status: int = 503
    code: str = ""
    seconds: float = 0.0


Plan = Callable[[Request], Fault | None]

# A client that tries again gets past these.
TRANSIENT_ANSWERS = [Fault("status", 500), Fault("status", 503), Fault("reset"), Fault("cut")]
TRANSIENT_FAULTS = [*TRANSIENT_ANSWERS, Fault("stall", seconds=4)]

# A client takes these as the service's last word.
FINAL_FAULTS = [
    Fault("status", 403),
    Fault("status", 403, "RequestTimeTooSkewed"),
    Fault("status", 409),
    Fault("status", 412),
]


def no_faults(_: Request) -> None:
    """Let every request through."""


def random_faults(seed: int, share: float, faults: list[Fault]) -> Plan:
    """Return a plan that makes one of `faults` of this share of the requests."""
    draw = random.Random(seed)

    def plan(request: Request) -> Fault | None:
        fault = draw.choice(faults) if draw.random() < share else None
        # No service answers a request without a condition by 409 or 412.
        if fault is not None and fault.status in (409, 412) and not request.guarded:
            return Fault("status", 500)
        return fault

    return plan


class FaultyS3:
    """The proxy. `plan` and `after` may be replaced while it runs."""

    def __init__(self, behind: str) -> None:
        self.plan: Plan = no_faults
        # Called when the server has done the request, before its answer is sent.
        self.after: Callable[[Request], None] = no_faults
        self.requests = 0
        self.faults: dict[str, int] = {}
        self._lock = threading.Lock()
        handler = type("Handler", (_Handler,), {"proxy": self, "behind": urlsplit(behind).netloc})
        self._server = _Server(("127.0.0.1", 0), handler)
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"

    def reset(self, plan: Plan = no_faults, after: Callable[[Request], None] = no_faults) -> None:
        """Count requests from one again, under another plan."""
        with self._lock:
            self.requests = 0
            self.plan = plan
            self.after = after

    @contextmanager
    def running(self) -> Iterator["FaultyS3"]:
        """Serve within the block."""
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        try:
            yield self
        finally:
            self._server.shutdown()
            self._server.server_close()

    def next_request(self, method: str, path: str, guarded: bool) -> Request:
        """Return the request with its number."""
        with self._lock:
            self.requests += 1
            return Request(self.requests, method, path, guarded)

    def count(self, fault: Fault) -> None:
        """Count a fault by its kind, or by its status and code."""
        name: str = fault.kind
        if fault.kind == "status":
            name = f"{fault.status} {fault.code or CODES[fault.status]}"
        with self._lock:
            self.faults[name] = self.faults.get(name, 0) + 1


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore clients that were killed, which leave their connections open."""


class _Handler(BaseHTTPRequestHandler):
    proxy: FaultyS3
    behind: str
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # or each body waits 40 ms for the acknowledgment of its headers

    def _serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        request = self.proxy.next_request(self.command, self.path, "If-None-Match" in self.headers)
        fault = self.proxy.plan(request)
        if fault is not None:
            self.proxy.count(fault)
            if fault.kind == "status":
                self._refuse(fault)
                return
            if fault.kind == "reset":
                self._break()
                return
        status, headers, answer = self._ask_server(body)
        self.proxy.after(request)
        self._send(status, headers, answer, fault)

    do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = _serve

    def _ask_server(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        connection = http.client.HTTPConnection(self.behind)
        headers = {
            name: value for name, value in self.headers.items() if name.lower() not in HOP_BY_HOP
        }
        headers["Content-Length"] = str(len(body))
        connection.request(self.command, self.path, body=body, headers=headers)
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        return answer.status, answer.getheaders(), content

    def _send(
        self, status: int, headers: list[tuple[str, str]], answer: bytes, fault: Fault | None
    ) -> None:
        self.send_response_only(status)
        length = str(len(answer))
        for name, value in headers:
            if name.lower() == "content-length":
                # The answer to HEAD has the length of a body that it lacks.
                length = value if self.command == "HEAD" else length
            elif name.lower() not in HOP_BY_HOP:
                self.send_header(name, value)
        self.send_header("Content-Length", length)
        self.end_headers()
        try:
            if fault is None:
                self.wfile.write(answer)
                return
            self.wfile.write(answer[: len(answer) // 2])
            self.wfile.flush()
            time.sleep(fault.seconds)
            self._break()
        except OSError:
            self.close_connection = True  # the client is gone

    def _refuse(self, fault: Fault) -> None:
        code = fault.code or CODES[fault.status]
        body = f"<Error><Code>{code}</Code><Message>a test says so</Message></Error>".encode()
        self.send_response_only(fault.status)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _break(self) -> None:
        """Close the connection with a reset (RST), as a machine does that dies."""
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()

    def finish(self) -> None:
        with suppress(OSError, ValueError):  # the connection may be closed already
            super().finish()

    def log_message(self, *_: Any) -> None:
        pass
