"""Claims about earlier data that is learned again: how much, which, and never what scores."""

from typing import Any

import pytest

from job.config.commands import TrainConfig
from job.errors import DataError, MissingError
from job.preflight.training import plan_training
from job.training import journal
from job.training.examples import Examples, read_examples
from job.training.stored_examples import read_examples_once
from tests.training.conftest import judged_records, records, write_jsonl


@pytest.fixture
def replayed(config, tmp_path) -> dict[str, Any]:
    """Forty earlier conversations: two of validation and one of train are among them."""
    config["data"]["replay"] = str(
        write_jsonl(tmp_path / "earlier.jsonl", [*records(37, first=200), *records(2, first=100)])
    )
    config["data"]["replay_share"] = 0.25
    return config


def read(config: dict[str, Any]) -> Examples:
    return read_examples(TrainConfig.model_validate(config))


def ids(examples: Examples) -> list[str]:
    return [each.id for each in examples.train]


@pytest.mark.parametrize("key", ["train", "validation", "replay", "test"])
def test_files_that_are_gone_are_named_with_their_key(replayed, key):
    gone = {"data": replayed["data"] | {key: "gone.jsonl"}}
    with pytest.raises(MissingError, match=rf"^data\.{key}: gone\.jsonl: there is no such file"):
        read(replayed | gone)


def test_the_share_is_of_the_rows_of_an_epoch(replayed):
    examples = read(replayed)
    assert examples.of_train.references == 48
    assert (examples.replay.rows, examples.replay.conversations) == (16, 8), "16 of 64 rows"
    assert ids(examples)[:24] == [f"c{number}" for number in range(24)]
    first = read(replayed | {"data": replayed["data"] | {"references": "first"}})
    assert (first.replay.rows, first.replay.wanted) == (8, 8)


def test_which_are_chosen_depends_on_content_and_seed_alone(replayed, tmp_path):
    chosen = set(ids(read(replayed))[24:])
    turned = [*records(2, first=100), *records(37, first=200)][::-1]
    replayed["data"]["replay"] = str(write_jsonl(tmp_path / "turned.jsonl", turned))
    assert set(ids(read(replayed))[24:]) == chosen
    replayed["training"]["seed"] = 7
    assert set(ids(read(replayed))[24:]) != chosen


def test_what_repeats_validation_or_train_is_not_replayed(replayed, tmp_path):
    earlier = [*records(3, first=200), near(101), *records(1, first=5)]
    replayed["data"]["replay"] = str(write_jsonl(tmp_path / "some.jsonl", earlier))
    examples = read(replayed)
    assert sorted(ids(examples)[24:]) == ["c200", "c201", "c202"]
    assert (examples.replay.in_held_out, examples.replay.in_train) == (1, 1)
    assert (examples.replay.rows, examples.replay.wanted) == (6, 16)


def near(number: int) -> dict[str, Any]:
    """Return a conversation that nearly repeats the one with this number."""
    found = records(1, first=number)[0]
    found["turns"][2]["text"] += " Thanks."
    return found | {"id": f"near {number}"}


@pytest.fixture
def judged(replayed, tmp_path) -> dict[str, Any]:
    """Six earlier conversations; an older set and pairs repeat one each, and one each nearly."""
    earlier = [*records(4, first=200), near(300), near(301)]
    replayed["data"]["replay"] = str(write_jsonl(tmp_path / "some.jsonl", earlier))
    older = write_jsonl(tmp_path / "older.jsonl", [*records(1, first=200), *records(1, first=300)])
    shown = [*records(1, first=201), *records(1, first=301)]
    pairs = [{"turns": each["turns"], "chosen": "Good.", "rejected": "Bad."} for each in shown]
    file = write_jsonl(tmp_path / "pairs.jsonl", pairs)
    replayed["publish"] = {
        "gate": {},
        "regressions": [{"name": "old", "input": str(older)}],
        "pairs": {"input": str(file)},
    }
    return replayed


def test_what_judges_the_adapter_is_not_replayed(judged):
    examples = read(judged)
    assert ids(examples)[24:] == ["c202", "c203"]
    assert examples.replay.in_held_out == 4
    del judged["publish"]
    assert len(ids(read(judged))) == 30


def test_another_older_set_is_no_data_of_the_cache(judged, tmp_path):
    config = TrainConfig.model_validate(judged)
    assert read_examples_once(config).replay.in_held_out == 4
    write_jsonl(tmp_path / "older.jsonl", records(2, first=202))
    again = read_examples_once(config)
    assert (again.replay.in_held_out, list(again.train)[24].id) == (4, "c200")


def test_plan_and_training_miss_the_same_older_set(judged, places):
    judged["publish"]["regressions"][0]["input"] = "nowhere.jsonl"
    with pytest.raises(MissingError, match="nowhere"):
        read(judged)
    assert isinstance(plan_training(TrainConfig.model_validate(judged)).error, MissingError)


def test_nothing_left_to_replay_ends_plan_and_training_alike(replayed, places):
    replayed["data"]["replay"] = replayed["data"]["train"]
    with pytest.raises(DataError, match=r"none of its 24 conversations is left: 0 .*24 repeat"):
        read(replayed)
    assert isinstance(plan_training(TrainConfig.model_validate(replayed)).error, DataError)
    replayed["data"]["replay"] = "nowhere.jsonl"
    with pytest.raises(MissingError, match="nowhere"):
        read(replayed)


def test_replay_is_part_of_a_runs_identity_by_its_content(replayed, tmp_path):
    def identity(config: dict[str, Any]) -> dict[str, Any]:
        loaded = TrainConfig.model_validate(config)
        return journal.fingerprint(loaded, read(config).digests())

    first = identity(replayed)
    copy = write_jsonl(tmp_path / "copy.jsonl", records(37, first=200))
    assert identity(replayed | {"data": replayed["data"] | {"replay": str(copy)}}) == first
    assert identity(replayed | {"data": replayed["data"] | {"replay_share": 0.5}}) != first
    without = dict(replayed["data"])
    del without["replay"], without["replay_share"]
    plain = identity(replayed | {"data": without})
    assert "replay" not in str(plain), "as before there was the key"


def test_a_plan_reports_what_is_replayed_and_counts_its_rows(replayed, places):
    loaded = TrainConfig.model_validate(replayed)
    checks = {check.name: check for check in plan_training(loaded).checks}
    text = "8 conversations, 16 rows of 16 by data.replay_share; left out: 2 of what is held out, 0"
    assert text in checks["data"].found
    assert checks["rows"].facts["train"]["rows"] == 64
    again = read_examples_once(loaded)
    assert again.stored_as is not None
    assert (again.replay, len(list(again.train))) == (read(replayed).replay, 32)


@pytest.mark.parametrize("method", ["dpo", "kto"])
def test_judged_answers_are_replayed_beside_new_ones(config, tmp_path, method):
    files = {"train": (24, 0), "validation": (6, 100), "replay": (40, 200)}
    lines = {name: judged_records(method, *numbers) for name, numbers in files.items()}
    again = [record | {"id": record["id"] + "-again"} for record in lines["replay"][:20]]
    for record in again:  # the same conversation with another answer
        record["chosen" if method == "dpo" else "completion"] += " Solved."
    lines["replay"] += again
    data = {
        name: str(write_jsonl(tmp_path / f"{name}.jsonl", some)) for name, some in lines.items()
    }
    examples = read(config | {"method": method, "data": data | {"replay_share": 0.4}})
    assert (examples.replay.rows, examples.replay.conversations) == (16, 16), "16 of 40 rows"
    assert all(each.answers for each in examples.train)
    everything = read(config | {"method": method, "data": data | {"replay_share": 0.9}})
    assert everything.replay.rows == 60


@pytest.mark.parametrize(("method", "judged"), [("dpo", "pairs"), ("kto", "thumbs")])
def test_references_are_no_replay_of_judged_answers(config, tmp_path, method, judged):
    made = {
        "train": judged_records(method, 24, 0),
        "validation": judged_records(method, 6, 100),
        "replay": records(10, first=200),
    }
    data = {name: str(write_jsonl(tmp_path / f"{name}.jsonl", some)) for name, some in made.items()}
    wanted = rf"^data\.replay, which has {judged} with method: {method}: 10 of 10 records are no"
    with pytest.raises(DataError, match=wanted):
        read(config | {"method": method, "data": data})
