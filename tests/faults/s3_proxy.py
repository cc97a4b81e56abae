"""An S3 service with faults: a proxy on loopback before the embedded server.

A plan decides by the number of a request, from 1 on, and by the request itself what becomes of it. Everything else is
the real protocol between boto3 and the server behind.
"""

import http.client
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
    """What becomes of a request: an error answer, a closed connection, half a body, or a body that stops coming."""

    kind: Kind
    status: int = 503
    code: str = ""
    seconds: float = 0.0


Plan = Callable[[Request], Fault | None]


class FaultyS3:
    """The proxy; `plan` and `after` may be changed while it runs, `reset` starts counting anew."""

    def __init__(self, behind: str) -> None:
        self.plan: Plan = lambda _: None
        self.after: Callable[[Request], None] = lambda _: (
            None
        )  # the request is done, its answer not yet sent
        self.requests = 0
        self.faults: dict[str, int] = {}
        self._lock = threading.Lock()
        handler = type("Handler", (_Handler,), {"proxy": self, "behind": urlsplit(behind).netloc})
        self._server = _Server(("127.0.0.1", 0), handler)
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"

    def reset(
        self, plan: Plan = lambda _: None, after: Callable[[Request], None] = lambda _: None
    ) -> None:
        """Count from one again, with another plan."""
        with self._lock:
            self.requests, self.plan, self.after = 0, plan, after

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
        """Number a request."""
        with self._lock:
            self.requests += 1
            return Request(self.requests, method, path, guarded)

    def tell(self, fault: Fault) -> None:
        """Count a fault by its kind."""
        name = (
            f"{fault.status} {fault.code or CODES[fault.status]}"
            if fault.kind == "status"
            else fault.kind
        )
        with self._lock:
            self.faults[name] = self.faults.get(name, 0) + 1


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Whoever was killed does not close its connections."""


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
            self.proxy.tell(fault)
        if fault is not None and fault.kind == "status":
            self._refuse(fault)
            return
        if fault is not None and fault.kind == "reset":
            self._break()
            return
        status, headers, answer = self._ask(body)
        self.proxy.after(request)
        self._send(status, headers, answer, fault)

    do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = _serve

    def _ask(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        connection = http.client.HTTPConnection(self.behind)
        headers = {
            name: value for name, value in self.headers.items() if name.lower() not in HOP_BY_HOP
        }
        connection.request(
            self.command, self.path, body=body, headers=headers | {"Content-Length": str(len(body))}
        )
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
            self.close_connection = True  # whoever asked is gone

    def _refuse(self, fault: Fault) -> None:
        body = f"<Error><Code>{fault.code or CODES[fault.status]}</Code><Message>a test says so</Message></Error>".encode()
        self.send_response_only(fault.status)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _break(self) -> None:
        """Close the connection as a machine does that dies: without a word (RST)."""
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()

    def finish(self) -> None:
        with suppress(OSError, ValueError):  # closed already
            super().finish()

    def log_message(self, *_: Any) -> None:
        pass
