"""What a machine prepares once is found again as it was, or prepared anew, whatever happened."""

import json
import os
import pickle
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from dataclasses import replace

import pytest

from job.config.commands import TrainConfig
from job.conversations.record import Turn
from job.errors import DataError
from job.storage.local import LocalStore
from job.storage.scratch import UNUSED_SECONDS, cache_folder, work_folder
from job.telemetry import LOGGER
from job.training import stored_examples, stored_rows
from job.training.examples import read_examples
from job.training.prepare import prepare
from job.training.prepared import prepared_data
from job.training.stored_examples import StoredConversations, read_examples_once

ONE = {"of": "one"}

KILLED_WHILE_FILLING = """
import os, signal
from job.training.prepared import prepared_data
def fill(folder):
    (folder / "a").write_text("the con")
    os.kill(os.getpid(), signal.SIGKILL)
with prepared_data() as prepared:
    prepared.store("rows", {"of": "one"}, fill)
"""

FIND_OR_FILL_SLOWLY = """
import time
from job.training.prepared import prepared_data
def fill(folder):
    print("filled", flush=True)
    time.sleep(0.5)
    (folder / "a").write_text("the content")
with prepared_data() as prepared:
    folder = prepared.find("rows", {"of": "one"}) or prepared.store("rows", {"of": "one"}, fill)
    print((folder / "a").read_text())
"""


def fill(folder):
    (folder / "a").write_text("the content")
    (folder / "b").write_text("more")


def find(kind, identity):
    with prepared_data() as prepared:
        return prepared.find(kind, identity)


def store(kind, identity, fill=fill):
    with prepared_data() as prepared:
        return prepared.store(kind, identity, fill)


def stored():
    """Return the names of everything in the folder of prepared data, but of its lock."""
    names = os.listdir(cache_folder() / "prepared")
    return sorted(name for name in names if name != ".lock")


def test_a_folder_is_found_by_its_identity(places):
    assert find("rows", ONE) is None
    folder = store("rows", ONE)
    assert find("rows", ONE) == folder
    assert (folder / "a").read_text() == "the content"
    assert folder.stat().st_mode & 0o777 == 0o700
    assert find("data", ONE) is None
    assert find("rows", {"of": "another"}) is None


def test_a_killed_process_leaves_nothing_that_is_found(places):
    killed = subprocess.run([sys.executable, "-c", KILLED_WHILE_FILLING], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert len(stored()) == 1, "an unfinished folder"
    assert find("rows", ONE) is None
    folder = store("rows", ONE)
    assert stored() == [folder.name], "what the killed process left is deleted"
    assert find("rows", ONE) == folder


@pytest.mark.parametrize("damage", ["changed", "shorter", "missing", "more", "no manifest"])
def test_a_damaged_folder_is_prepared_anew(places, damage):
    folder = store("rows", ONE)
    match damage:
        case "changed":
            (folder / "a").write_text("the Content")
        case "shorter":
            (folder / "a").write_text("the")
        case "missing":
            (folder / "a").unlink()
        case "more":
            (folder / "c").write_text("")
        case _:
            (folder / "manifest.json").unlink()
    assert find("rows", ONE) is None
    assert store("rows", ONE) == folder == find("rows", ONE)
    assert (folder / "a").read_text() == "the content"


def test_a_folder_that_others_may_write_to_is_not_read(places):
    folder = store("rows", ONE)
    folder.chmod(0o770)
    assert find("rows", ONE) is None


def test_what_was_not_used_for_two_days_is_deleted(places):
    old = store("data", ONE)
    used = store("rows", ONE)
    long_ago = time.time() - UNUSED_SECONDS - 60
    for folder in (old, used):
        os.utime(folder, (long_ago, long_ago))
    assert find("rows", ONE) == used
    new = store("rows", {"of": "another"})
    assert stored() == sorted([used.name, new.name])


def test_any_command_deletes_data_that_was_not_used_for_two_days(places):
    old = store("data", ONE)
    new = store("rows", ONE)
    long_ago = time.time() - UNUSED_SECONDS - 60
    os.utime(old, (long_ago, long_ago))
    with prepared_data(), work_folder("night"):
        assert len(stored()) == 2, "another process has the lock"
    with work_folder("night"):
        assert stored() == [new.name]


def test_a_file_in_place_of_the_folder_lets_nothing_stay(config, tmp_path, places):
    (cache_folder() / "prepared").touch()
    examples = read_examples_once(TrainConfig.model_validate(config))
    assert examples.stored_as is None
    assert examples.train
    with work_folder("night"):
        assert os.listdir(cache_folder()) == ["prepared"]


def test_of_two_processes_one_fills_and_the_other_waits(places):
    command = [sys.executable, "-c", FIND_OR_FILL_SLOWLY]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    printed = sorted(process.communicate()[0].splitlines() for process in both)
    assert printed == [["filled", "the content"], ["the content"]]


@pytest.fixture
def disk(tmp_path):
    """Return a function that mounts a small file system as the cache, with options."""
    with ExitStack() as stack:

        def mount(options):
            folder = cache_folder()
            command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
            mounted = subprocess.run(command, capture_output=True, check=False)
            if mounted.returncode:
                pytest.skip(f"no file system can be mounted: {mounted.stderr.decode().strip()}")
            stack.callback(subprocess.run, ["umount", "-l", str(folder)], check=True)

        yield mount


@pytest.mark.parametrize("options", ["size=64k", "size=4k", "ro"])
def test_a_training_needs_no_room_in_its_cache(config, tmp_path, places, disk, options, caplog):
    """64 KiB hold the conversations, but not their rows."""
    LOGGER.propagate = True
    loaded = TrainConfig.model_validate(config)
    runs = LocalStore(str(tmp_path / "runs"))
    kept = prepare(loaded, work_in(tmp_path, "1"), runs)
    disk(options)
    run = prepare(loaded, work_in(tmp_path, "2"), runs)
    assert run.data.rows.train.dataset[:] == kept.data.rows.train.dataset[:]
    assert run.identity() == kept.identity()
    whys = [record.fields["why"] for record in caplog.records if "not kept" in record.message]
    if options == "ro":
        assert os.listdir(cache_folder()) == whys == []
    else:
        assert all("the disk is full" in why for why in whys)
        assert len(whys) == 1
        assert [name[:5] for name in stored()] == (["data-"] if options == "size=64k" else [])


def work_in(folder, name):
    (folder / name).mkdir()
    return folder / name


def without_references(path):
    """Remove the summaries of a conversation, of which reading warns."""
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    del lines[3]["summaries"]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_examples_read_once_are_those_read_each_time(config, tmp_path, places, monkeypatch, caplog):
    LOGGER.propagate = True
    without_references(tmp_path / "train.jsonl")
    loaded = TrainConfig.model_validate(config)
    plain = read_examples(loaded)
    first = read_examples_once(loaded)
    monkeypatch.setattr(stored_examples, "read_examples", None)  # nobody may call it again
    second = read_examples_once(loaded)
    sent = pickle.loads(pickle.dumps(second))
    for once in (first, second, sent):
        assert list(once.train) == plain.train == list(once.train)
        assert replace(once, train=[], stored_as=None) == replace(plain, train=[])
        assert {type(part) for each in once.train for part in each.turns} == {Turn}
    warnings = [(record.message, record.fields) for record in caplog.records]
    assert warnings == [warnings[0]] * 3, "each time"
    assert "without a reference" in warnings[0][0]


def test_changed_data_or_settings_are_read_anew(config, tmp_path, places):
    before = read_examples_once(TrainConfig.model_validate(config))
    without_references(tmp_path / "train.jsonl")
    after = read_examples_once(TrainConfig.model_validate(config))
    assert len(list(before.train)) == len(list(after.train)) + 1
    cleaned = config["data"] | {"cleaning": ["links"]}
    assert read_examples_once(TrainConfig.model_validate(config | {"data": cleaned})).cleaning == (
        "links",
    )
    assert len(stored()) == 3


def test_data_that_changes_while_it_is_read_is_not_stored(config, tmp_path, places, monkeypatch):
    def read_and_change(loaded):
        found = read_examples(loaded)
        without_references(tmp_path / "train.jsonl")
        return found

    monkeypatch.setattr(stored_examples, "read_examples", read_and_change)
    examples = read_examples_once(TrainConfig.model_validate(config))
    assert examples.stored_as is None
    assert len(list(examples.train)) == 24
    assert stored() == []


@pytest.mark.usefixtures("places", "one_thread")
def test_packing_leaves_the_cached_rows_as_they_were(config, trainer_of, monkeypatch):
    first = trainer_of(config, packing=True)
    assert len(first.train_dataset) < 48, "packed"
    monkeypatch.setattr(stored_rows, "write_rows", None)  # nobody may call it again
    again = trainer_of(config, packing=True)
    assert again.train_dataset[:] == first.train_dataset[:]


def test_refused_data_is_refused_each_time(config, tmp_path, places):
    (tmp_path / "train.jsonl").write_text('{"turns": 1}\n')
    loaded = TrainConfig.model_validate(config)
    messages = []
    for _ in range(2):
        with pytest.raises(DataError) as caught:
            read_examples_once(loaded)
        messages.append(str(caught.value))
    assert messages[0] == messages[1]
    assert stored() == []


def test_conversations_stay_readable_after_their_file_is_deleted(config, places):
    examples = read_examples_once(TrainConfig.model_validate(config))
    before = list(examples.train)
    assert isinstance(examples.train, StoredConversations)
    for file in (cache_folder() / "prepared").glob("*/*.jsonl"):
        file.unlink()
    both = zip(examples.train, examples.train, strict=True)
    assert [first for first, second in both if first == second] == before, "two loops at once"
