"""Claims about Python's garbage collector while a night goes on."""

import gc
import weakref

import pytest

from job.summarization.collector import THRESHOLDS, seldom_collected


@pytest.fixture(autouse=True)
def nothing_frozen() -> None:
    gc.unfreeze()


class Knot:
    """An object that holds itself."""

    def __init__(self) -> None:
        self.itself = self


def test_the_collector_is_as_it_was_after_a_night_however_it_ends():
    before = gc.get_threshold()
    found = []

    def night() -> None:
        with seldom_collected():
            found.append((gc.get_threshold(), gc.get_freeze_count() > 0))
            raise KeyError

    with pytest.raises(KeyError):
        night()
    assert found == [(THRESHOLDS, True)]
    assert (gc.get_threshold(), gc.get_freeze_count()) == (before, 0)


def test_what_was_frozen_before_a_night_stays_frozen():
    gc.freeze()
    with seldom_collected():
        pass
    assert gc.get_freeze_count() > 0


def test_garbage_made_meanwhile_is_collected_all_the_same():
    with seldom_collected():
        knot = weakref.ref(Knot())
        held = [[] for _ in range(2 * THRESHOLDS[0])]
        assert knot() is None, len(held)
