"""Claims about what is found before training begins."""

import json

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
