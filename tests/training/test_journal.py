"""Claims about run.json: a run's attempts, when it is done, and the name of one beside it."""

import json
import os
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

import job
from job import environment
from job.config.commands import TrainConfig
from job.config.training_sections import PublishSection
from job.errors import DataError, ForbiddenError, MissingError, OutputError
from job.identity import json_digest
from job.preflight.training import plan_training
from job.storage.folders import publish_folder
from job.storage.local import LocalStore
from job.training import journal
from job.training.examples import files_now, read_examples


@pytest.fixture
def loaded(config) -> TrainConfig:
    return TrainConfig.model_validate(config)


def store_of(config: TrainConfig, name: str = "tiny") -> LocalStore:
    return LocalStore(f"{config.output}/{name}")


def wanted(config: TrainConfig):
    return journal.fingerprint(config, read_examples(config).digests())


def begun(config: TrainConfig, name: str = "tiny") -> journal.Journal:
    return journal.begin(store_of(config, name), config, wanted(config), 0, {"published": {}})


def test_an_attempt_without_an_end_gets_one_from_the_next(loaded):
    begun(loaded)
    second = journal.begin(store_of(loaded), loaded, wanted(loaded), 4, {})
    journal.end(store_of(loaded), second, "preempted", 9, "stopped")
    found = journal.read_journal(store_of(loaded))
    one, two = journal.story(found)
    assert "from step 0: ended without a word" in one
    assert "from step 4 to 9: stopped" in two
    planned = plan_training(loaded)
    assert not planned.done
    assert list(planned.story) == [one, two]


def test_a_run_begun_with_the_default_attention_of_before_goes_on(loaded, config):
    def with_attention(name: str) -> TrainConfig:
        model = config["model"] | {"attention": name}
        return TrainConfig.model_validate(config | {"model": model})

    assert loaded.model.attention == "auto"
    assert wanted(loaded) == wanted(with_attention("sdpa"))
    assert wanted(loaded) != wanted(with_attention("eager"))


def test_a_run_is_done_once_its_adapter_is_in_storage_and_on_the_hub(loaded, tmp_path):
    ended = journal.end(store_of(loaded), begun(loaded), "finished", 9, "finished")

    def is_done(facts: dict[str, Any] | None = None, **publish: Any) -> bool:
        config = loaded.model_copy(update={"publish": PublishSection(**publish)})
        return journal.is_done(replace(ended, facts=facts or {}), store_of(loaded), config)

    assert not is_done(), "there is no adapter"
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "weights").write_bytes(b"1")
    publish_folder(
        tmp_path / "adapter", store_of(loaded), "adapter", {"fingerprint": "of another run"}
    )
    assert not is_done()
    fingerprint = json_digest(ended.fingerprint)
    publish_folder(tmp_path / "adapter", store_of(loaded), "adapter", {"fingerprint": fingerprint})
    assert is_done()
    assert plan_training(loaded).done
    assert not is_done(hub="org/name"), "it was not pushed"
    pushed = {"published": {"hub": "org/name"}}
    assert is_done(pushed, hub="org/name")
    assert not is_done(pushed, merged=True)
    assert is_done({"published": {"merged": "there"}}, merged=True)
    assert is_done({"left_out": {"merged weights": "no memory"}}, merged=True)


def test_the_adapter_of_another_run_is_never_replaced(loaded, tmp_path):
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "weights").write_bytes(b"1")
    other = {"fingerprint": json_digest({"of": "a run whose run.json was removed"})}
    publish_folder(tmp_path / "adapter", store_of(loaded), "adapter", other)
    assert "may be some champion" in str(plan_training(loaded).error)
    with pytest.raises(OutputError, match="--fresh"):
        journal.check_same_adapter(store_of(loaded), wanted(loaded))
    fresh = plan_training(loaded, fresh=True)
    assert fresh.error is None
    assert fresh.run == journal.fresh_name("tiny", wanted(loaded))


def finished(config: TrainConfig, folder: Path, hub: str | None = None) -> None:
    """A run that ended, as its folder has it."""
    ended = journal.end(store_of(config), begun(config), "finished", 9, "finished")
    published = replace(ended, facts={"published": {"hub": hub}, "files": files_now(config)})
    store_of(config).write(journal.FILE, json.dumps(asdict(published)).encode())
    (folder / "adapter").mkdir()
    (folder / "adapter" / "weights").write_bytes(b"1")
    publish_folder(
        folder / "adapter",
        store_of(config),
        "adapter",
        {"fingerprint": json_digest(ended.fingerprint)},
    )


def test_a_finished_run_is_done_though_data_and_token_are_gone(config, tmp_path, monkeypatch):
    monkeypatch.delenv("HF_TOKEN", raising=False)
    config["publish"] = {"hub": "org/name"}
    loaded = TrainConfig.model_validate(config)
    assert isinstance(plan_training(loaded).error, ForbiddenError)
    finished(loaded, tmp_path, "org/name")
    assert plan_training(loaded).done
    assert plan_training(loaded).error is None
    Path(config["data"]["train"]).unlink()
    gone = plan_training(loaded)
    assert gone.done
    assert gone.error is None
    assert "✗ data" in gone.text()


def test_a_finished_run_reads_no_data_that_has_not_changed(config, loaded, tmp_path):
    train = Path(config["data"]["train"])
    finished(loaded, tmp_path)
    kept, times = train.read_bytes(), train.stat()
    with train.open("r+b") as file:  # as if nothing had been: whoever read it would fail
        file.write(b"\0" * len(kept))
    os.utime(train, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert plan_training(loaded, brief=True).done
    assert plan_training(loaded).error is not None, "a plan counts the data"
    os.utime(train, ns=(times.st_atime_ns, times.st_mtime_ns + 1))
    assert not plan_training(loaded, brief=True).done, "now it was replaced"


@pytest.mark.parametrize("change", ["config", "place", "data", "adapter"])
def test_without_its_data_only_the_very_same_run_is_done(config, loaded, tmp_path, change):
    finished(loaded, tmp_path)
    train = Path(config["data"]["train"])
    if change == "config":
        config["lora"]["r"] = 8
    elif change == "place":
        config["data"]["train"] = str(tmp_path / "elsewhere.jsonl")
    elif change == "adapter":
        (Path(config["output"]) / "tiny" / "adapter" / "manifest.json").unlink()
    if change == "data":
        train.write_text("{broken\n")  # it can be seen, and is not what it was
    else:
        train.unlink()
    found = plan_training(TrainConfig.model_validate(config))
    assert not found.done
    assert isinstance(found.error, DataError if change == "data" else MissingError)


def test_other_libraries_are_another_run_and_say_so(loaded):
    store = store_of(loaded)
    before = begun(loaded)
    versions = before.fingerprint["versions"] | {"peft": "0.1"}
    old = replace(before, fingerprint=before.fingerprint | {"versions": versions})
    with pytest.raises(
        OutputError, match=r"versions\.peft: 0\.1 there, .* here.*`recap train … --fresh`"
    ):
        journal.check_same_run(old, store, wanted(loaded))


def test_other_code_is_another_run_where_an_adapter_depends_on_it(tmp_path):
    package = Path(job.__file__).parent
    assert environment.versions()["recap"].endswith(f"+{environment.code_digest(package)}")
    for name in environment.CODE:
        assert (package / name).exists(), name

    def copied(*changes: str) -> str:
        copy = tmp_path / f"copy {changes}" / "job"  # as another build of the image has it
        shutil.copytree(package, copy, ignore=shutil.ignore_patterns("__pycache__"))
        for name in changes:
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            with (copy / name).open("a") as file:
                file.write("# changed\n")
        return environment.code_digest(copy)

    same = environment.code_digest(package)
    assert (
        copied()
        == copied("cli.py", "storage/s3.py", "../tests/test.py", "../docs/page.md", "demo/story.py")
        == same
    )
    parts = ("conversations/read.py", "model/load.py", "prompt/encode.py", "training/trainer.py")
    changed = [copied(name) for name in (*parts, "training/new.py")]
    assert len({same, *changed}) == 6


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


def test_attempts_that_did_not_survive_scoring_are_counted(loaded):
    store = store_of(loaded)
    for state in (None, "failed", "preempted"):  # None: killed
        entry = journal.note_danger(store, begun(loaded), "scoring", True)
        if state:
            journal.end(store, entry, state, 3, "why")
    last = begun(loaded)
    assert [attempt.scoring for attempt in last.attempts] == [True, True, False, False]
    assert journal.crashes(last, "scoring") == 2
    assert journal.crashes(last, "reloading") == 0
    done = journal.note_danger(
        store, journal.note_danger(store, last, "scoring", True), "scoring", False
    )
    assert not journal.end(store, done, "finished", 3, "finished").attempts[-1].scoring
