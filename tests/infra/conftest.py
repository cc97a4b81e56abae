"""A store that does only what a role allows."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.faults.s3_proxy import FaultyS3


@pytest.fixture
def guarded(s3: Any, s3_endpoint: str, aws_environment: Any, places: Any) -> Iterator[FaultyS3]:
    """Return S3 behind a proxy, which does what the test sets by `reset`: a role's `plan`."""
    with FaultyS3(s3_endpoint).running() as proxy:
        aws_environment.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        yield proxy
