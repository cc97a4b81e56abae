"""Claims about run.json: the story of a run, when it is done, and what starts beside it."""

from dataclasses import replace

import pytest

from job.config.commands import TrainConfig
from job.errors import OutputError
from job.preflight.plan import plan_training
from job.storage.folders import publish_folder
from job.storage.local import LocalStore
from job.training import journal
from job.training.examples import read_examples


@pytest.fixture
def loaded(config) -> TrainConfig:
    return TrainConfig.model_validate(config)


def store_of(config: TrainConfig, name: str = "tiny") -> LocalStore:
    return LocalStore(f"{config.output}/{name}")


def wanted(config: TrainConfig):
    return journal.fingerprint(config, read_examples(config).digests())


def begun(config: TrainConfig, name: str = "tiny") -> journal.Journal:
    return journal.begin(store_of(config, name), config, wanted(config), 0, {"published": {}})


def test_an_attempt_that_could_not_say_how_it_ended_is_told_of_by_the_next(loaded):
    begun(loaded)
    second = journal.begin(store_of(loaded), loaded, wanted(loaded), 4, {})
    journal.end(store_of(loaded), second, "preempted", 9, "stopped")
    found = journal.read_journal(store_of(loaded))
    one, two = journal.story(found)
    assert "from step 0: ended without a word" in one
    assert "from step 4 to 9: stopped" in two
    told = plan_training(loaded)
    assert not told.done
    assert list(told.story) == [one, two]


def test_a_run_is_done_only_with_its_adapter_and_what_is_wanted_on_the_hub(loaded, tmp_path):
    ended = journal.end(store_of(loaded), begun(loaded), "finished", 9, "finished")
    assert not journal.is_done(ended, store_of(loaded), None), "there is no adapter"
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "weights").write_bytes(b"1")
    publish_folder(tmp_path / "adapter", store_of(loaded), "adapter", {"fingerprint": "of another run"})
    assert not journal.is_done(ended, store_of(loaded), None)
    fingerprint = journal.digest(ended.fingerprint)
    publish_folder(tmp_path / "adapter", store_of(loaded), "adapter", {"fingerprint": fingerprint})
    assert journal.is_done(ended, store_of(loaded), None)
    assert plan_training(loaded).done
    assert not journal.is_done(ended, store_of(loaded), "org/name"), "it was not pushed"
    pushed = replace(ended, facts={"published": {"hub": "org/name"}})
    assert journal.is_done(pushed, store_of(loaded), "org/name")


def test_other_libraries_are_another_run_and_say_so(loaded):
    store = store_of(loaded)
    before = begun(loaded)
    versions = before.fingerprint["versions"] | {"peft": "0.1"}
    old = replace(before, fingerprint=before.fingerprint | {"versions": versions})
    with pytest.raises(OutputError, match=r"versions\.peft: 0\.1 there, .* here.*--fresh"):
        journal.check_same_run(old, store, wanted(loaded))


def test_a_fresh_run_starts_beside_and_resumes_there(loaded, config):
    begun(loaded)
    config["lora"]["r"] = 8
    other = TrainConfig.model_validate(config)
    refused = plan_training(other)
    assert "lora.r: 4 there, 8 here" in str(refused.error)
    fresh = plan_training(other, fresh=True)
    assert fresh.error is None
    assert fresh.run == journal.fresh_name("tiny", wanted(other)) != "tiny"
    begun(other, fresh.run)
    again = plan_training(other, fresh=True)
    assert (again.run, len(again.story)) == (fresh.run, 1)
    assert plan_training(loaded, fresh=True).run == "tiny", "the same run needs no other place"
