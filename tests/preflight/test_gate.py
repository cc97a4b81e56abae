"""Claims about plans of a gate: who is compared with whom, and what nobody could pass."""

import json

import pytest

from job.config.commands import EvaluateConfig, TrainConfig
from job.config.sections import StorageSection
from job.errors import ConfigError, DataError, MissingError
from job.model.champion import Promotion, now, switch
from job.model.fetch import BASE_KEY, read_adapter
from job.preflight.gate import gate_checks
from job.storage.folders import publish_folder
from job.storage.open import open_store
from job.training.validation import split_validation
from tests.evaluation.conftest import make_conversations

STORAGE = StorageSection()


@pytest.fixture
def pointer(tmp_path):
    return str(tmp_path / "champions" / "champion.json")


@pytest.fixture
def checks(tmp_path, pointer):
    """Return the checks of a gate by name, for a judged adapter and 40 conversations to score."""

    def find(
        publish, conversations=40, choosing=0, adapter=str(tmp_path / "run" / "adapter"), train=()
    ):
        content = {"run": "r", "input": "in.jsonl", "output": "out", "adapter": adapter}
        content["train"] = "train.jsonl"
        publish = {"gate": {}, "champion": pointer} | publish
        config = EvaluateConfig.model_validate(content | {"publish": publish})
        found = gate_checks(config, adapter, conversations, choosing, train)
        return {each.name: each for each in found}

    return find


def older_set(path, count):
    lines = [
        {
            "id": each.id,
            "turns": [{"role": turn.role, "text": turn.text} for turn in each.turns],
            "summaries": each.references,
        }
        for each in make_conversations(count)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return {"regressions": [{"name": "billing", "input": str(path)}]}


def test_a_plan_says_who_is_compared_and_that_the_first_becomes_champion(checks, pointer):
    found = checks({})
    assert found["gate"].found.splitlines() == [
        "by rougeL: better than floors, base",
        "no worse than champion by more than 0.01",
        "worse by at most: empty 0.01, cut 0.02, repeating 0.02, invented_numbers 0.05, "
        "copied 0.25",
    ]
    assert found["champion"].found.splitlines() == [
        f"{pointer}  there is none yet: the first that passes",
        "an adapter that passes becomes the champion",
    ]
    assert not any(each.error for each in found.values())


def test_a_plan_says_which_default_guards_a_gate_leaves_out(checks):
    found = checks({"gate": {"guards": {"repeating": 0.02, "invented_names": 0.1}}})["gate"]
    assert found.found.splitlines()[2:] == [
        "worse by at most: repeating 0.02, invented_names 0.1",
        "without a guard on: empty, cut, invented_numbers, copied",
    ]


def test_a_plan_names_the_champion_with_version_and_digest(checks, pointer, tmp_path):
    folder = tmp_path / "local"
    folder.mkdir()
    (folder / "weights").write_text("w")
    uri = str(tmp_path / "served")
    publish_folder(folder, open_store(uri), "", {BASE_KEY: {"uri": "base"}})
    digest = read_adapter(uri, STORAGE).digest
    switch(pointer, STORAGE, Promotion(uri, digest, now(), "a test"), None)
    said = checks({})["champion"].found
    assert f"version 1: {uri}, digest {digest[:12]}" in said


def test_a_champion_that_is_gone_is_found_by_the_plan(checks, pointer):
    switch(pointer, STORAGE, Promotion("/gone", "a" * 64, now(), "a test"), None)
    error = checks({})["champion"].error
    assert isinstance(error, MissingError)
    assert "its champion is gone" in str(error)


def test_a_pointer_that_could_not_name_the_adapter_is_found_by_the_plan(checks, tmp_path):
    found = checks({"champion": "s3://bucket/champion.json"})["champion"]
    assert isinstance(found.error, ConfigError)
    assert "a folder of one machine" in str(found.error)


def test_a_gate_that_names_only_a_champion_needs_one(checks):
    publish = {"gate": {"better_than": [], "no_worse_than": ["champion"]}}
    error = checks(publish)["champion"].error
    assert isinstance(error, ConfigError)
    assert "nobody could pass" in str(error)


def test_too_few_conversations_are_found_before_the_training(checks):
    error = checks({}, conversations=39)["gate"].error
    assert isinstance(error, DataError)
    assert "39 conversations would be scored, and fewer than 40 never pass" in str(error)


def test_conversations_that_choose_the_adapter_could_score_it():
    def gate_of_60(selection):
        content = {"run": "r", "model": {"base": "b"}, "data": {"train": "t"}, "output": "out"}
        training = {"adapter_from": "best_metric", "selection": selection}
        content |= {"training": training, "publish": {"gate": {}}}
        config = TrainConfig.model_validate(content)
        split = split_validation(config, make_conversations(60))
        (found,) = gate_checks(config, "a", len(split.scoring), len(split.choosing))
        return found

    assert str(gate_of_60({}).error).endswith(
        "30 conversations would be scored, and fewer than 40 never pass: give more with "
        "references, set training.selection.conversations to 20 or fewer, since 30 choose the "
        "adapter and do not score it, or remove the gate"
    )
    assert gate_of_60({"conversations": 20}).error is None


def test_too_few_for_both_have_no_such_remedy(checks):
    error = checks({}, conversations=20, choosing=20)["gate"].error
    assert "selection" not in str(error)


def test_older_sets_are_read_by_the_plan(checks, tmp_path):
    found = checks(older_set(tmp_path / "old.jsonl", 40))["older set"]
    assert found.found == "billing: 40 conversations to score"
    small = checks(older_set(tmp_path / "small.jsonl", 39))["older set"]
    assert isinstance(small.error, DataError)


def test_an_older_set_that_is_gone_is_found_by_the_plan(checks, tmp_path):
    publish = {"regressions": [{"name": "billing", "input": str(tmp_path / "gone.jsonl")}]}
    assert isinstance(checks(publish)["older set"].error, MissingError)


def pairs_in(path, count):
    lines = [
        {
            "id": each.id,
            "turns": [{"role": turn.role, "text": turn.text} for turn in each.turns],
            "chosen": each.references[0],
            "rejected": each.references[1],
        }
        for each in make_conversations(count)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return {"pairs": {"input": str(path)}}


def test_held_out_pairs_are_read_by_the_plan(checks, tmp_path):
    publish = pairs_in(tmp_path / "pairs.jsonl", 41)
    assert checks(publish)["pairs"].found == (
        "41 held-out pairs of 41 conversations, none of them trained on; the win rate over the "
        "champion must be above 0.5"
    )
    error = checks(publish, train=make_conversations(3))["pairs"].error
    assert isinstance(error, DataError)
    assert "3 training conversations repeat one of the held-out pairs" in str(error)


def test_pairs_that_let_nobody_pass_are_found_by_the_plan(checks, tmp_path):
    few = checks(pairs_in(tmp_path / "few.jsonl", 39))["pairs"]
    assert isinstance(few.error, DataError)
    gone = checks({"pairs": {"input": str(tmp_path / "gone.jsonl")}})["pairs"]
    assert isinstance(gone.error, MissingError)
    assert "publish.pairs.input" in str(gone.error)


def test_without_gate_and_champion_nothing_is_planned(tmp_path):
    content = {"run": "r", "input": "in.jsonl", "output": "out", "adapter": "a"}
    assert gate_checks(EvaluateConfig.model_validate(content), "a", 40) == []
