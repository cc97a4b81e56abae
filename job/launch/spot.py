"""The notice that this machine will be reclaimed, as EC2's instance metadata gives it two minutes ahead.

A URL → one call when it answers with a notice. Knows nothing of what is stopped.
"""

import threading
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.client import HTTPException
from urllib.parse import urljoin

from job.errors import ConfigError

URL = "RECAP_SPOT_NOTICE"
NOTICE_SECONDS = 110.0  # the notice comes two minutes ahead
SECONDS_BETWEEN_ASKING = 5.0
ANSWER_SECONDS = 2.0


def notice_url(configured: str | None, environment: Mapping[str, str]) -> str | None:
    """The URL of the config, else that of RECAP_SPOT_NOTICE; ConfigError where that is none."""
    url = configured or environment.get(URL) or None
    if url and not url.startswith(("http://", "https://")):
        raise ConfigError(f"{URL} is '{url}' in the environment, wanted a URL that begins with http:// or https://")
    return url


@contextmanager
def spot_watch(url: str | None, stop: Callable[[], None], every: float = SECONDS_BETWEEN_ASKING) -> Iterator[None]:
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
    """Whether the metadata service says that the machine goes; 404, silence and errors mean no."""
    asked = urllib.request.Request(url, headers=_token(url))
    try:
        with _opener().open(asked, timeout=ANSWER_SECONDS) as answer:
            return bool(answer.status == 200)
    except (OSError, HTTPException):
        return False


def _token(url: str) -> dict[str, str]:
    """The session token that IMDSv2 wants; a service without it is asked without."""
    wanted = {"X-aws-ec2-metadata-token-ttl-seconds": "60"}
    asked = urllib.request.Request(urljoin(url, "/latest/api/token"), method="PUT", headers=wanted)
    try:
        with _opener().open(asked, timeout=ANSWER_SECONDS) as answer:
            return {"X-aws-ec2-metadata-token": answer.read().decode()}
    except (OSError, HTTPException):
        return {}


def _opener() -> urllib.request.OpenerDirector:
    return urllib.request.build_opener(urllib.request.ProxyHandler({}))  # metadata is never behind a proxy
