"""Claims about Python's garbage collector during a night."""

import gc
import weakref
from collections.abc import Iterator

import pytest

from job.summarization.worker import COLLECTOR_THRESHOLDS, rare_collections


@pytest.fixture
def instant_freeze_count() -> None:
    """Count frozen objects: these tests are about them."""


@pytest.fixture(autouse=True)
def nothing_frozen() -> Iterator[None]:
    gc.unfreeze()
    yield
    gc.unfreeze()


class Knot:
    """An object that holds itself."""

    def __init__(self) -> None:
        self.itself = self


def test_the_collector_is_as_it_was_after_a_night_however_it_ends():
    before = gc.get_threshold()
    found = []

    def night() -> None:
        with rare_collections():
            found.append((gc.get_threshold(), gc.get_freeze_count() > 0))
            raise KeyError

    with pytest.raises(KeyError):
        night()
    assert found == [(COLLECTOR_THRESHOLDS, True)]
    assert gc.get_threshold() == before
    assert gc.get_freeze_count() == 0


def test_what_was_frozen_before_a_night_stays_frozen():
    gc.freeze()
    with rare_collections():
        pass
    assert gc.get_freeze_count() > 0


def test_garbage_made_meanwhile_is_collected_all_the_same():
    with rare_collections():
        knot = weakref.ref(Knot())
        held = [[] for _ in range(2 * COLLECTOR_THRESHOLDS[0])]
        assert knot() is None, len(held)
