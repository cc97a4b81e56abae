"""An S3 server for uploads that keeps nothing: `python -m benchmarks.forgetful_s3`.

It takes next to no CPU time, so that two clients can be compared on the machine that it runs on.
"""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@contextmanager
def forgetful_server() -> Iterator[str]:
    """Serve during the block, in a process of its own, and yield the endpoint."""
    command = [sys.executable, "-m", "benchmarks.forgetful_s3"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield f"http://127.0.0.1:{process.stdout.readline().strip()}"
    finally:
        process.kill()
        process.wait()


class Forgetful(BaseHTTPRequestHandler):
    """Answers what the uploads of boto3 and of the AWS command line ask."""

    protocol_version = "HTTP/1.1"

    def do_PUT(self) -> None:
        """Take an object, or a part of one."""
        left = int(self.headers["Content-Length"])
        while left:
            left -= len(self.rfile.read(min(left, 1 << 20)))
        self._answer("")

    def do_POST(self) -> None:
        """Begin an upload in parts, or end it."""
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        root = "Initiate" if self.path.endswith("uploads") else "Complete"
        self._answer(
            f"<{root}MultipartUploadResult><UploadId>1</UploadId><ETag>1</ETag>"
            f"</{root}MultipartUploadResult>"
        )

    def _answer(self, body: str) -> None:
        self.send_response(200)
        self.send_header("ETag", '"1"')
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *_: Any) -> None:
        """Log nothing."""


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", 0), Forgetful)
    print(server.server_port, flush=True)
    server.serve_forever()
