"""Services that misbehave, for a server on loopback."""

import hashlib
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any, Literal


def answering(
    status: int, code: str, asked: list[str] | None = None, message: str = "", **headers: str
) -> Callable[[BaseHTTPRequestHandler], None]:
    """Return a function that answers every request with the same status and code.

    Some services leave out the message. `asked` gets a line for each request. `headers` have an
    underscore for each hyphen; a Date takes the place of that of this machine's clock.
    """

    def answer(request: BaseHTTPRequestHandler) -> None:
        if asked is not None:
            asked.append(f"{request.command} {request.path}")
        body = b""
        if request.command != "HEAD":
            text = f"<Code>{code}</Code><Message>{message}</Message>"
            body = f"<?xml version='1.0'?><Error>{text}</Error>".encode()
        request.send_response_only(status)
        usual = {"Date": request.date_time_string(), "Connection": "close"}
        for name, value in (usual | headers).items():
            request.send_header(name.replace("_", "-"), value)
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        request.wfile.write(body)

    return answer


@dataclass
class EmptyBucket:
    """An empty bucket of S3 that refuses to be written: each write gets a status and a code."""

    status: int
    code: str
    message: str = ""

    def answer(self, request: Any) -> None:
        """Answer one request."""
        if request.command in ("PUT", "POST"):
            answering(self.status, self.code, message=self.message)(request)
        elif "list-type" in request.path:
            body = b"<ListBucketResult><Name>b</Name><KeyCount>0</KeyCount></ListBucketResult>"
            request.send_response(200)
            request.send_header("Content-Length", str(len(body)))
            request.end_headers()
            request.wfile.write(body)
        else:
            answering(404, "NoSuchKey")(request)


@dataclass
class ConditionalS3:
    """As much of S3 as small objects need, with its own idea of conditional writes.

    It honours conditions as AWS does (`all`), those without quotes (`bare`), those on new objects
    alone (`new`), ignores them (`none`), or does not have them (`501`). `lose` is the number of
    writes to come whose answer is lost after they were done.
    """

    honours: Literal["all", "bare", "new", "none", "501"] = "all"
    objects: dict[str, bytes] = field(default_factory=dict)
    lose: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def answer(self, request: Any) -> None:
        """Answer one request."""
        with self.lock:
            status, body, etag = self._act(request)
        if status == 0:
            return  # without an answer: the connection is closed
        request.send_response(status)
        request.send_header("Content-Length", str(len(body)))
        request.send_header("ETag", etag)
        request.send_header("Last-Modified", "Tue, 24 Nov 2026 00:00:00 GMT")
        request.end_headers()
        if request.command != "HEAD":
            request.wfile.write(body)

    def _act(self, request: Any) -> tuple[int, bytes, str]:
        key = request.path.partition("?")[0]
        there = self.objects.get(key)
        match request.command:
            case "DELETE":
                self.objects.pop(key, None)
                return 204, b"", ""
            case "PUT":
                refusal = self._refusal(request.headers, there)
                if refusal:
                    return refusal, b"<Error><Code>Refused</Code></Error>", ""
                self.objects[key] = request.body
                if self.lose and "recap-probe" not in key:
                    self.lose -= 1
                    return 0, b"", ""
                return 200, b"", _etag(request.body)
        if there is None:
            return 404, b"<Error><Code>NoSuchKey</Code></Error>", ""
        return 200, there, _etag(there)

    def _refusal(self, headers: Any, there: bytes | None) -> int | None:
        wanted = headers.get("If-Match")
        is_new = headers.get("If-None-Match") == "*"
        if self.honours == "none" or not (wanted or is_new):
            return None
        if self.honours == "501":
            return 501
        if is_new:
            return 412 if there is not None else None
        if self.honours == "new":
            return None
        if there is None:
            return 404
        etag = _etag(there)
        return None if wanted == (etag.strip('"') if self.honours == "bare" else etag) else 412


def _etag(content: bytes) -> str:
    return f'"{hashlib.md5(content).hexdigest()}"'
