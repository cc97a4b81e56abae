"""Claims about functions that run what a stranger wrote: they end, and cost the job nothing."""

import itertools
import time

import pytest

from job.model import bounded
from job.model.bounded import BoundedError, call_bounded


def test_the_result_comes_back():
    assert call_bounded(lambda: {"text": "é" * 100_000}) == {"text": "é" * 100_000}


def test_an_error_comes_back_as_text():
    with pytest.raises(BoundedError, match="KeyError: 'user'"):
        call_bounded(lambda: {}["user"])


def test_a_loop_without_end_is_ended(monkeypatch):
    monkeypatch.setattr(bounded, "MAX_CPU_SECONDS", 1)
    with pytest.raises(BoundedError, match="did not end within 1 seconds"):
        call_bounded(lambda: sum(itertools.count()))


def test_a_wait_without_end_is_ended(monkeypatch):
    monkeypatch.setattr(bounded, "MAX_WAIT_SECONDS", 0.1)
    with pytest.raises(BoundedError, match="did not end"):
        call_bounded(lambda: time.sleep(60))


@pytest.mark.parametrize("work", [lambda: "x" * 10**11, lambda: "x" * (bounded.MAX_ANSWER + 1)])
def test_a_text_of_gigabytes_is_not_made(work):
    with pytest.raises(BoundedError, match=r"it (took|made a text of) more than"):
        call_bounded(work)
