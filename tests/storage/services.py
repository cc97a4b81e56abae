"""Services that misbehave, for a server on loopback."""

from collections.abc import Callable
from http.server import BaseHTTPRequestHandler


def answering(
    status: int, code: str, asked: list[str] | None = None
) -> Callable[[BaseHTTPRequestHandler], None]:
    """Return a function that answers every request with the same status and code.

    There is no message, which some services leave out. `asked` gets a line for each request.
    """

    def answer(request: BaseHTTPRequestHandler) -> None:
        if asked is not None:
            asked.append(f"{request.command} {request.path}")
        body = b""
        if request.command != "HEAD":
            body = f"<?xml version='1.0'?><Error><Code>{code}</Code></Error>".encode()
        request.send_response(status)
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        request.wfile.write(body)

    return answer
