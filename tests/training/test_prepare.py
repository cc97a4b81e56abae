"""Claims about what is found before training begins."""

import json
import os
import shutil
from pathlib import Path

import pytest

from job.config.commands import TrainConfig
from job.errors import ConfigError, DataError, ExitCode, MissingError
from job.storage.local import LocalStore
from job.telemetry import LOGGER
from job.training.examples import read_examples


def test_an_answer_as_long_as_the_context_is_refused(config, tmp_path, places):
    from job.training.prepare import prepare

    too_long = TrainConfig.model_validate(config | {"generation": {"max_new_tokens": 512}})
    wanted = r"max_new_tokens: 512 of the model's 512 tokens leave no room"
    with pytest.raises(ConfigError, match=wanted) as caught:
        prepare(too_long, tmp_path, LocalStore(str(tmp_path)))
    assert caught.value.exit_code == ExitCode.CONFIG


def test_a_missing_model_of_a_metric_ends_a_training_before_its_first_step(
    config, tmp_path, places
):
    from job.training.prepare import prepare

    judge = {"faithfulness_model": {"model": str(tmp_path / "nowhere")}}
    named = TrainConfig.model_validate(config | {"evaluation": judge})
    with pytest.raises(MissingError, match=r"^evaluation\.faithfulness_model: '.*nowhere'"):
        prepare(named, tmp_path, LocalStore(str(tmp_path)))


def test_a_training_prepares_nothing_that_was_prepared_before(
    config, tmp_path, places, monkeypatch
):
    from job.preflight.training import plan_training
    from job.training import stored_examples, stored_rows
    from job.training.prepare import prepare

    loaded = TrainConfig.model_validate(config)
    store = LocalStore(str(tmp_path / "runs"))
    plan_training(loaded, brief=True)
    places.mkdir(exist_ok=True)
    monkeypatch.setattr(stored_examples, "read_examples", None)  # the plan has read them
    first = prepare(loaded, places, store)
    monkeypatch.setattr(stored_rows, "write_rows", None)  # the first start has encoded them
    second = prepare(loaded, places, store)
    for name in ("train", "validation"):
        rows = [getattr(run.data.rows, name) for run in (first, second)]
        assert rows[0].dataset[:] == rows[1].dataset[:]
        assert rows[0].counts() == rows[1].counts()
    assert first.identity() == second.identity()
    assert first.counts()["train"]["rows"] == 48


def change(what, config):
    """Change what the rows depend on, in the config or on the disk."""
    match what:
        case "data":
            path = Path(config["data"]["train"])
            before = path.stat()
            content = path.read_text()
            path.write_text(content.replace("hello", "HELLO").replace("the", "THE"))
            os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
            assert path.stat().st_mtime_ns == before.st_mtime_ns
            assert len(content) == path.stat().st_size
            assert path.read_text() != content
        case "tokenizer":
            path = Path(config["model"]["base"]) / "tokenizer.json"
            content = json.loads(path.read_text())
            path.write_text(json.dumps(content | {"normalizer": {"type": "Lowercase"}}))
        case "prompt":
            config["prompt"] = {"system": "Sum it up."}
        case "references":
            config["data"]["references"] = "first"
        case "max_tokens":
            config["training"]["max_tokens"] = 200
            config["limits"] = {"max_excluded_fraction": 0.5}


@pytest.mark.parametrize("what", ["data", "tokenizer", "prompt", "references", "max_tokens"])
def test_no_rows_are_found_that_are_not_those_of_now(config, tmp_path, places, monkeypatch, what):
    from job.training.prepare import prepare

    def rows():
        store = LocalStore(str(tmp_path / "runs"))
        train = prepare(TrainConfig.model_validate(config), places, store).data.rows.train
        return train.dataset[:]

    places.mkdir()
    base = shutil.copytree(config["model"]["base"], tmp_path / "base")
    config["model"] = {"base": str(base)}
    before = rows()
    assert rows() == before
    change(what, config)
    found = rows()
    monkeypatch.setenv("RECAP_CACHE", str(tmp_path / "empty"))
    assert found == rows() != before


def write(path, *records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return str(path)


def training_data(tmp_path, with_reference, without, **more):
    """Write train and validation files, and return the config's `data` for them.

    `with_reference` and `without` are numbers of training conversations.
    """

    def record(number, **others):
        turns = [
            {"role": "customer", "text": f"My kettle {number} leaks, order {number * 7919}."},
            {"role": "agent", "text": "I send a new one."},
        ]
        return {"id": str(number), "turns": turns, **others}

    good = [record(number, summary="S.") for number in range(with_reference)]
    bare = [record(number, **more) for number in range(100, 100 + without)]
    train = write(tmp_path / "train.jsonl", *bare, *good)
    validation = write(tmp_path / "validation.jsonl", record(500, summary="S."))
    return {"data": {"train": train, "validation": validation}}


def test_missing_references_are_warned_of_with_the_keys_found(config, tmp_path, caplog):
    data = training_data(tmp_path, with_reference=3, without=2, Summary="S.", gist="S.")
    LOGGER.propagate = True
    examples = read_examples(TrainConfig.model_validate(config | data))
    (warning,) = [one for one in caplog.records if "without a reference" in one.message]
    assert warning.fields["conversations"] == 2
    assert warning.fields["first"].endswith("train.jsonl line 1")
    assert "found Summary, gist: if one of them is the summary" in warning.fields["why"]
    assert "data.reference: last_assistant" in warning.fields["why"]
    assert examples.without_reference == 2
    assert examples.why_without == warning.fields["why"]


@pytest.mark.parametrize("is_held_out", [True, False])
def test_a_champion_can_read_validation_before_its_cleaning(config, tmp_path, is_held_out):
    data = training_data(tmp_path, with_reference=9, without=0)["data"]
    more = {"cleaning": ["mentions", "whitespace"], "overlap": "allow"}
    if is_held_out:
        more |= {"validation": None, "validation_fraction": 0.3}
    for path in tmp_path.glob("*.jsonl"):
        path.write_text(path.read_text().replace('"text": "', '"text": "@acme  '))
    examples = read_examples(TrainConfig.model_validate(config | {"data": data | more}))
    sources = {conversation.source for conversation in examples.validation}
    assert {conversation.source for conversation in examples.uncleaned} == sources
    assert all(each.turns[0].text.startswith("@acme  ") for each in examples.uncleaned)
    assert not any("@" in each.turns[0].text for each in examples.validation)


def test_more_missing_references_than_allowed_end_the_run(config, tmp_path):
    data = training_data(tmp_path, with_reference=2, without=3, Summary="S.")
    with pytest.raises(DataError, match=r"data\.train: 3 of 5 conversations .* found Summary"):
        read_examples(TrainConfig.model_validate(config | data))
    allowed = {"limits": {"max_unreferenced_fraction": 0.6}}
    assert len(read_examples(TrainConfig.model_validate(config | data | allowed)).train) == 2


def test_without_any_reference_the_error_names_what_was_found(config, tmp_path):
    data = training_data(tmp_path, with_reference=0, without=3, Summary="S.")
    with pytest.raises(DataError, match=r"0 training and 1 validation .* found Summary"):
        read_examples(TrainConfig.model_validate(config | data))
