"""The notice that this machine will be reclaimed, as EC2's instance metadata gives it.

A thread polls a URL, and calls a function once when there is a notice.
"""

import threading
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPException
from typing import Any
from urllib.parse import urljoin

from job.errors import ConfigError

URL = "RECAP_SPOT_NOTICE"
NOTICE_SECONDS = 110.0  # EC2 reclaims the machine two minutes after the notice
TIMEOUT_SECONDS = 2.0
MAX_TOKEN_BYTES = 4096  # EC2's tokens have 56

# ValueError is raised for a token that is not ASCII, and for what is no URL.
REQUEST_ERRORS = (OSError, HTTPException, ValueError)


@dataclass(frozen=True)
class SpotNotice:
    """The URL of a notice, and the seconds between two requests for it."""

    url: str
    every: float = 5.0


def notice_url(configured: str | None, environment: Mapping[str, str]) -> str | None:
    """Return the URL of the config, else that of RECAP_SPOT_NOTICE, else None.

    Raise ConfigError if it is no URL.
    """
    url = configured or environment.get(URL) or None
    if url and not url.startswith(("http://", "https://")):
        raise ConfigError(
            f"{URL} is '{url}' in the environment, wanted a URL that begins with http:// or "
            "https://"
        )
    return url


@contextmanager
def spot_watch(notice: SpotNotice | None, stop: Callable[[], None]) -> Iterator[None]:
    """Poll for the notice during the block, and call `stop` once if it is there.

    `stop` is called on another thread. Without a notice to poll for, this is a no-op.
    """
    ended = threading.Event()

    def watch(notice: SpotNotice) -> None:
        while not ended.wait(notice.every):
            if has_notice(notice.url):
                stop()
                return

    if notice:
        threading.Thread(target=watch, args=(notice,), name="spot notice", daemon=True).start()
    try:
        yield
    finally:
        ended.set()


def has_notice(url: str) -> bool:
    """Return True if the metadata service has a notice at `url`.

    Errors and timeouts count as none: a service that is busy must not end a training.
    """
    try:
        request = urllib.request.Request(url, headers=_token_header(url))
        with _opener().open(request, timeout=TIMEOUT_SECONDS) as answer:
            return bool(answer.status == 200)
    except REQUEST_ERRORS:
        return False


def _token_header(url: str) -> dict[str, str]:
    """Request a session token, which IMDSv2 wants; return it as a header, or no header."""
    lifetime = {"X-aws-ec2-metadata-token-ttl-seconds": "60"}
    try:
        endpoint = urljoin(url, "/latest/api/token")
        request = urllib.request.Request(endpoint, method="PUT", headers=lifetime)
        with _opener().open(request, timeout=TIMEOUT_SECONDS) as answer:
            token = answer.read(MAX_TOKEN_BYTES).decode("ascii").strip()
    except REQUEST_ERRORS:
        return {}

    # A line break in a token would forge a header of the next request.
    if not token or not token.isprintable():
        return {}
    return {"X-aws-ec2-metadata-token": token}


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Treats a redirect as an error: following it would send the token to any address."""

    def redirect_request(self, *_: Any) -> None:
        """Follow none."""


def _opener() -> urllib.request.OpenerDirector:
    direct = urllib.request.ProxyHandler({})  # instance metadata is never behind a proxy
    return urllib.request.build_opener(direct, _NoRedirects)
