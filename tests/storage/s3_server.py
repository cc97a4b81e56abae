"""S3 on loopback: a server of the real protocol that makes one write at a time, as S3 does.

moto compares a write's condition and writes in two steps. Of writers at once, several could win
there, which S3 promises never happens.
"""

import functools
import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

# The operations of moto that look at a condition and then write. The last completes an upload in
# parts. The body of the request was read before, so that none waits for a slow client.
GUARDED_WRITES = ("put_object", "delete_object", "_key_response_post")


@contextmanager
def running_s3(address: str = "127.0.0.1") -> Iterator[str]:
    """Serve S3 at an address of this machine within the block, and yield the endpoint."""
    from moto.s3.responses import S3Response
    from moto.server import ThreadedMotoServer

    # Its line for each request would be kept for a failing test's report.
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(address, 0, verbose=False)
    lock = threading.Lock()
    with pytest.MonkeyPatch.context() as patch:
        for name in GUARDED_WRITES:
            patch.setattr(S3Response, name, _one_at_a_time(getattr(S3Response, name), lock))
        server.start()
        host, port = server.get_host_and_port()
        yield f"http://{host}:{port}"
        server.stop()


def _one_at_a_time(operation: Callable[..., Any], lock: threading.Lock) -> Callable[..., Any]:
    @functools.wraps(operation)
    def locked(*arguments: Any, **named: Any) -> Any:
        with lock:
            return operation(*arguments, **named)

    return locked
