"""Claims about guarded replacement, for every kind of store that can do it."""

import pytest

from job.errors import ChangedError
from job.storage.store import read_or_none

KEY = "champions/support.json"


def test_a_file_is_made_and_replaced(guarded):
    guarded.replace(KEY, b"first", None)
    assert guarded.read(KEY) == b"first"
    guarded.replace(KEY, b"second", b"first")
    assert guarded.read(KEY) == b"second"
    assert [entry.key for entry in guarded.list("champions") if ".lock" not in entry.key] == [KEY]


@pytest.mark.parametrize("expected", [None, b"another"])
def test_what_changed_meanwhile_is_not_replaced(guarded, expected):
    guarded.replace(KEY, b"first", None)
    with pytest.raises(ChangedError, match="changed meanwhile"):
        guarded.replace(KEY, b"second", expected)
    assert guarded.read(KEY) == b"first"


def test_what_is_gone_is_not_replaced(guarded):
    with pytest.raises(ChangedError):
        guarded.replace(KEY, b"second", b"first")
    assert read_or_none(guarded, KEY) is None
