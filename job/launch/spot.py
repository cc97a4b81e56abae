"""The notice that this machine will be reclaimed, as EC2's instance metadata gives it two minutes ahead.

A URL → one call when it answers with a notice. Knows nothing of what is stopped.
"""

import threading
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.client import HTTPException
from typing import Any
from urllib.parse import urljoin

from job.errors import ConfigError

URL = "RECAP_SPOT_NOTICE"
NOTICE_SECONDS = 110.0  # the notice comes two minutes ahead
SECONDS_BETWEEN_ASKING = 5.0
ANSWER_SECONDS = 2.0
MAX_TOKEN_BYTES = 4096  # EC2's have 56
# ValueError: what is no ASCII, or no URL.
UNANSWERED = (OSError, HTTPException, ValueError)


def notice_url(configured: str | None, environment: Mapping[str, str]) -> str | None:
    """The URL of the config, else that of RECAP_SPOT_NOTICE; ConfigError where that is none."""
    url = configured or environment.get(URL) or None
    if url and not url.startswith(("http://", "https://")):
        raise ConfigError(
            f"{URL} is '{url}' in the environment, wanted a URL that begins with http:// or https://"
        )
    return url


@contextmanager
def spot_watch(
    url: str | None, stop: Callable[[], None], every: float = SECONDS_BETWEEN_ASKING
) -> Iterator[None]:
    """Within the block, ask `url` now and then, and call `stop` once when there is a notice; None asks nobody."""
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(every):
            if url and has_notice(url):
                stop()
                return

    if url:
        threading.Thread(target=watch, name="spot notice", daemon=True).start()
    try:
        yield
    finally:
        ended.set()


def has_notice(url: str) -> bool:
    """Return True if the metadata service answers that the machine goes; errors and silence mean no."""
    try:
        asked = urllib.request.Request(url, headers=_token(url))
        with _opener().open(asked, timeout=ANSWER_SECONDS) as answer:
            return bool(answer.status == 200)
    except UNANSWERED:
        return False


def _token(url: str) -> dict[str, str]:
    """Return the session token that IMDSv2 wants, as a header; none of a service that has none."""
    wanted = {"X-aws-ec2-metadata-token-ttl-seconds": "60"}
    try:
        endpoint = urljoin(url, "/latest/api/token")
        asked = urllib.request.Request(endpoint, method="PUT", headers=wanted)
        with _opener().open(asked, timeout=ANSWER_SECONDS) as answer:
            token = answer.read(MAX_TOKEN_BYTES).decode("ascii").strip()
    except UNANSWERED:
        return {}
    return {"X-aws-ec2-metadata-token": token} if token and token.isprintable() else {}


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A redirect is an error: it would carry the token to wherever the answer says."""

    def redirect_request(self, *_: Any) -> None:
        """Follow none."""


def _opener() -> urllib.request.OpenerDirector:
    direct = urllib.request.ProxyHandler({})  # metadata is never behind a proxy
    return urllib.request.build_opener(direct, _NoRedirects)
