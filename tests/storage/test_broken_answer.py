"""A listing that breaks off is an error to retry, and no bug."""

import pytest

from job.errors import RetryError
from job.storage.open import open_store
from tests.faults.s3_proxy import Fault, FaultyS3


def test_a_listing_that_breaks_off_is_a_retry_error(s3, monkeypatch):
    open_store(s3.uri).write("folder/a", b"1")
    with FaultyS3(s3.endpoint).running() as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        proxy.reset(lambda request: Fault("cut") if request.method == "GET" else None)
        with pytest.raises(RetryError, match=r"br(oke|eaks) off"):
            list(open_store(s3.uri).list("folder"))
