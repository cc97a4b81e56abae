"""A store that does only what a role allows, and a docker that records its calls."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.faults.s3_proxy import FaultyS3
from tests.submit.conftest import StandIn


@pytest.fixture
def guarded(s3: Any, s3_endpoint: str, aws_environment: Any, places: Any) -> Iterator[FaultyS3]:
    """Return S3 behind a proxy, which does what the test sets by `reset`: a role's `plan`."""
    with FaultyS3(s3_endpoint).running() as proxy:
        aws_environment.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        yield proxy


@pytest.fixture
def docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StandIn:
    """Return a docker that records its calls."""
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=":")
    tool = StandIn(tmp_path / "bin" / "docker")
    for command in ("login", "build", "push"):
        tool.answers(command)
    return tool
