"""Claims about pointers: how they are switched, and what may stand in them."""

import json
from pathlib import Path

import pytest

from job.config.sections import StorageSection
from job.errors import ChangedError, ConfigError, DataError, ExitCode, MissingError, OutputError
from job.model.champion import (
    MAX_HISTORY,
    MAX_POINTER_BYTES,
    Promotion,
    find_pointer,
    read_pointer,
    roll_back,
    switch,
)
from job.storage.local import LocalStore

STORAGE = StorageSection()
AT = "2026-03-01T02:00:00Z"


def promotion(name, **about):
    return Promotion(f"/runs/{name}/adapter", f"{ord(name[0]):064x}", AT, "a person", **about)


@pytest.fixture
def pointer(tmp_path):
    return str(tmp_path / "champions" / "support.json")


def promote(pointer, *names):
    for name in names:
        made = switch(pointer, STORAGE, promotion(name), find_pointer(pointer, STORAGE))
    return made


def test_a_pointer_has_its_champion_and_those_before(pointer):
    evaluation = {"rougeL": 0.31, "base": {"difference": [0.08, 0.05, 0.11]}}
    switch(pointer, STORAGE, promotion("a", evaluation=evaluation, reason="the first"), None)
    made = promote(pointer, "b")
    found = read_pointer(pointer, STORAGE)
    assert found == made
    assert (found.champion.adapter, found.champion.version) == ("/runs/b/adapter", 2)
    assert found.history[0].evaluation == evaluation
    assert found.history[0].reason == "the first"


def test_who_judged_against_another_champion_is_told(pointer):
    judged_against = promote(pointer, "a")
    promote(pointer, "b")
    with pytest.raises(OutputError, match=r"somebody else switched it.*/runs/b/adapter") as caught:
        switch(pointer, STORAGE, promotion("c"), judged_against)
    assert caught.value.exit_code == ExitCode.OUTPUT
    assert read_pointer(pointer, STORAGE).champion.adapter == "/runs/b/adapter"


def test_who_saw_no_champion_does_not_replace_one(pointer):
    promote(pointer, "a")
    with pytest.raises(OutputError, match="somebody else"):
        switch(pointer, STORAGE, promotion("b"), None)


def test_who_judged_against_a_champion_that_was_removed_is_told(pointer):
    judged_against = promote(pointer, "a")
    Path(pointer).unlink()
    with pytest.raises(OutputError, match="somebody removed the champion"):
        switch(pointer, STORAGE, promotion("b"), judged_against)
    assert find_pointer(pointer, STORAGE) is None


def test_a_switch_counts_though_its_answer_is_lost_and_another_follows(pointer, monkeypatch):
    replace = LocalStore.replace

    def lose(*arguments):
        monkeypatch.undo()
        replace(*arguments)
        promote(pointer, "b")
        raise ChangedError("the content is not what was written")

    monkeypatch.setattr(LocalStore, "replace", lose)
    made = switch(pointer, STORAGE, promotion("a"), None)
    assert made.champion.adapter == "/runs/a/adapter"
    found = read_pointer(pointer, STORAGE)
    assert [each.adapter for each in found.lineage()] == ["/runs/b/adapter", "/runs/a/adapter"]


def test_a_pointer_forgets_the_oldest_champion(pointer):
    promote(pointer, "a")
    champion = json.loads(Path(pointer).read_text())
    earlier = [champion | {"version": version} for version in range(MAX_HISTORY, 0, -1)]
    full = champion | {"version": MAX_HISTORY + 1, "history": earlier}
    Path(pointer).write_text(json.dumps(full))
    made = promote(pointer, "b")
    assert read_pointer(pointer, STORAGE) == made
    assert [made.history[0].version, made.history[-1].version] == [MAX_HISTORY + 1, 2]


def test_rollbacks_go_back_step_by_step(pointer):
    promote(pointer, "a", "b", "c")
    second = roll_back(read_pointer(pointer, STORAGE), STORAGE, "a person", "c invents numbers")
    first = roll_back(second, STORAGE, "a person")
    assert [made.champion.adapter[6] for made in (second, first)] == ["b", "a"]
    assert (second.champion.reason, second.champion.restores) == ("c invents numbers", 2)
    fourth = promote(pointer, "d")
    assert fourth.champion.version == 6
    assert roll_back(fourth, STORAGE, "a person").champion.adapter[6] == "a"


def test_the_first_champion_has_none_before(pointer):
    first = promote(pointer, "a")
    with pytest.raises(ConfigError, match=r"no champion before.*recap champion set"):
        roll_back(first, STORAGE, "a person")


def test_without_a_champion_the_error_has_the_remedy(pointer):
    with pytest.raises(MissingError, match="no champion yet: `recap champion set"):
        read_pointer(pointer, STORAGE)


EARLIER = {
    "adapter": "/runs/z/adapter",
    "digest": "f" * 64,
    "version": 1,
    "at": AT,
    "by": "a person",
    "reason": "",
    "evaluation": {},
}
HOSTILE = [
    ({"adapter": "/runs/\x1b[2Jx"}, "control characters"),
    ({"adapter": "runs/x"}, "relative"),
    ({"adapter": "s3://bucket/other.json"}, "no other pointer"),
    ({"adapter": "ftp://host/x"}, "unknown kind of location"),
    ({"adapter": 7}, "adapter is no short text"),
    ({"by": "x" * 3000}, "by is no short text"),
    ({"reason": "two\nlines"}, "reason is no short text"),
    ({"digest": "abc"}, "64 hexadecimal digits"),
    ({"at": "yesterday"}, "at is no time"),
    ({"version": True}, "no whole number"),
    ({"restores": 0}, "no whole number"),
    ({"evaluation": []}, "evaluation is no JSON object"),
    ({"evaluation": {"x": "\u202e"}}, "evaluation is no JSON object"),
    ({"evaluation": {str(key): 0.5 for key in range(2000)}}, "more than 16,384 bytes"),
    ({"history": "none"}, "history is no list"),
    ({"history": [1]}, "no JSON object"),
    ({"history": [EARLIER]}, "the versions in its history do not descend"),
    ({"history": [EARLIER] * (MAX_HISTORY + 1)}, "no list of at most 100"),
]


@pytest.mark.parametrize(("change", "why"), HOSTILE, ids=[why for _, why in HOSTILE])
def test_a_pointer_is_checked(pointer, tmp_path, change, why):
    promote(pointer, "a")
    path = tmp_path / "champions" / "support.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(DataError, match=why):
        read_pointer(pointer, STORAGE)


@pytest.mark.parametrize("content", [b"", b"\xff", b"[]", b"[" * 100_000, b'{"x": NaN}'])
def test_what_is_no_pointer_is_an_error(pointer, tmp_path, content):
    (tmp_path / "champions").mkdir()
    (tmp_path / "champions" / "support.json").write_bytes(content)
    with pytest.raises(DataError, match="is no pointer to a champion"):
        read_pointer(pointer, STORAGE)


def test_a_file_of_megabytes_is_not_read_as_a_pointer(pointer):
    promote(pointer, "a")
    with open(pointer, "ab") as file:
        file.write(b" " * MAX_POINTER_BYTES)
    with pytest.raises(DataError, match=r"is no pointer.* a pointer at most 4,194,304"):
        read_pointer(pointer, STORAGE)
