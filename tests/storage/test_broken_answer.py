"""Claims about answers of S3 that break off: asked for again, or an error to retry, and no bug."""

import pytest

from job.errors import MissingError, RetryError
from job.storage.open import open_store
from tests.faults.s3_proxy import Fault, FaultyS3


def test_a_listing_that_breaks_off_is_a_retry_error(s3, monkeypatch):
    open_store(s3.uri).write("folder/a", b"1")
    with FaultyS3(s3.endpoint).running() as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        proxy.reset(lambda request: Fault("cut") if request.method == "GET" else None)
        with pytest.raises(RetryError, match=r"br(oke|eaks) off"):
            list(open_store(s3.uri).list("folder"))


def test_the_answer_that_there_is_no_object_is_asked_for_again(s3, monkeypatch):
    faults = [Fault("cut"), Fault("cut")]
    with FaultyS3(s3.endpoint).running() as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        proxy.reset(lambda request: faults.pop() if faults else None)
        with pytest.raises(MissingError):
            open_store(s3.uri).read("nothing")
    assert not faults
