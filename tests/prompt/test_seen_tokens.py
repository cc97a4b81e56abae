"""Claims about the record of a training's tokens: exact, the same bytes, and never half read."""

import json

import numpy as np
import pytest

from job.errors import DamagedError
from job.prompt.seen_tokens import FILE, SeenTokens, read_seen_tokens, write_seen_tokens


def seen(*ids):
    return SeenTokens.of([np.array([id], dtype=np.int32) for id in ids])


def ids_of(tokens):
    return np.flatnonzero(tokens.flags).tolist()


def test_the_record_holds_each_id_once(tmp_path):
    tokens = SeenTokens.of([np.array([3, 3, 49151]), np.array([], dtype=np.int32), np.array([0])])
    write_seen_tokens(tmp_path, tokens)
    assert ids_of(read_seen_tokens(tmp_path)) == [0, 3, 49151]
    assert json.loads((tmp_path / FILE).read_text())["tokens"] == 3


def test_the_order_of_rows_does_not_change_the_bytes(tmp_path):
    contents = []
    for ids in ([5, 200, 7], [7, 5, 200, 5]):
        write_seen_tokens(tmp_path, seen(*ids))
        contents.append((tmp_path / FILE).read_bytes())
    assert contents[0] == contents[1]


def test_a_folder_without_a_record_has_none(tmp_path):
    assert read_seen_tokens(tmp_path) is None


def test_the_share_counts_conversations_alone():
    # Two prompts with two tokens around each: 1 and 2 are known, 9 is not, 500 is beyond all.
    tokens = seen(1, 2)
    assert tokens.unseen_share([[1, 2, 9, 500], [1, 2, 2]], around=2) == pytest.approx(2 / 3)
    assert tokens.unseen_share([[1, 2]], around=2) is None


def test_an_adapter_that_goes_on_has_the_tokens_of_both():
    assert ids_of(seen(1, 300).with_those_of(seen(2))) == [1, 2, 300]
    assert ids_of(seen(1).with_those_of(seen(300))) == [1, 300]
    assert ids_of(seen(1).with_those_of(None)) == [1]


@pytest.mark.parametrize(
    "content", ["{", "[]", "{}", '{"tokens": 1, "ids": "!"}', '{"tokens": 2, "ids": "AQ=="}']
)
def test_a_damaged_record_is_named(tmp_path, content):
    (tmp_path / FILE).write_text(content)
    with pytest.raises(DamagedError, match=FILE):
        read_seen_tokens(tmp_path)
