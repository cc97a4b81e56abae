"""Claims about the whole path: nights, verdicts, the report, and the output that it leaves."""

import json
import os
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import pytest
import yaml

from job.errors import DataError, ExitCode, MissingError, OutputError
from job.feedback.output import find_finished, publish
from job.feedback.run import run_feedback
from job.feedback.screen import screen
from job.preflight.feedback import plan_feedback
from job.storage.folders import verify_folder
from job.storage.local import LocalStore
from tests.feedback.world import conversation, corrected, read_lines, verdict


@pytest.fixture
def world(world, three_nights):
    """A world of its own that reads three nights."""
    shared, _ = three_nights
    return replace(world, read_only=(str(shared.folder / "nights"),))


@pytest.fixture
def config_file(world, three_nights):
    """Two nights of 20 conversations, all judged; return the path of their config."""
    first = three_nights[1][:20]
    second = three_nights[1][20:40]
    rows = [verdict(line, edited=corrected(line), by="ann@shop.com") for line in first]
    rows += [verdict(line, verdict="up", by="bob") for line in second[:10]]
    rows += [verdict(line, verdict="down", by="bob") for line in second[10:]]
    world.verdicts(rows)
    path = world.folder / "feedback.yaml"
    path.write_text(yaml.safe_dump(world.content()))
    return str(path)


def bytes_below(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_a_command_goes_from_verdicts_to_data_and_says_so(world, recap, config_file):
    ended = recap("feedback", config_file)
    assert ended.code == ExitCode.DONE, ended.err
    assert "40 rows of verdicts, 40 joined: 40 summaries were judged" in ended.out
    assert "numbers added" in ended.out
    assert "Test: the verdicts of 2026-W03." in ended.out
    manifest = verify_folder(world.folder / "out")
    assert manifest.extra["kind"] == "feedback"
    assert len(world.rows("sft", "train")) + len(world.rows("sft", "validation")) == 20
    assert [row["label"] for row in world.rows("thumbs", "test")] == [True] * 10 + [False] * 10


def test_running_again_changes_nothing_and_prints_the_same(world, recap, config_file):
    first = recap("feedback", config_file)
    before = bytes_below(world.folder / "out")
    again = recap("feedback", config_file)
    assert again.code == ExitCode.DONE
    assert "already done" in again.err
    assert again.out == first.out
    assert bytes_below(world.folder / "out") == before


def test_json_is_what_the_output_has(world, recap, config_file):
    printed = json.loads(recap("feedback", config_file, "--json").out)
    assert printed == json.loads((world.folder / "out" / "feedback.json").read_text())
    assert printed["all"]["edited"] == 20


@pytest.mark.parametrize("arguments", [["feedback", "--dry-run"], ["plan"]])
def test_a_plan_joins_and_writes_nothing(world, recap, config_file, arguments):
    command, *options = arguments
    ended = recap(command, config_file, *options)
    assert ended.code == ExitCode.DONE, ended.err
    assert "40 of 40 rows join a summary" in ended.out
    assert not (world.folder / "out").exists()


def test_other_verdicts_never_replace_a_finished_output(world, config_file):
    run_feedback(world.config())
    before = bytes_below(world.folder / "out")
    verdicts = world.folder / "verdicts" / "verdicts.jsonl"
    verdicts.rename(verdicts.with_name("others.jsonl"))
    with pytest.raises(OutputError, match=r"feedback of something else .*verdicts.jsonl"):
        run_feedback(world.config())
    verdicts.with_name("others.jsonl").rename(verdicts)
    with pytest.raises(OutputError, match="split test_weeks: 1 there, 2 here"):
        run_feedback(world.config(split={"test_weeks": 2}))
    assert bytes_below(world.folder / "out") == before


def test_what_comes_later_leaves_a_finished_output_done(world, config_file):
    numbers = run_feedback(world.config())
    before = bytes_below(world.folder / "out")
    world.verdicts([{"id": "c1", "digest": "0" * 32, "verdict": "up"}], "later.jsonl")
    world.night("2026-01-26", [conversation(70)])
    assert run_feedback(world.config()) == numbers
    assert bytes_below(world.folder / "out") == before


def test_verdicts_that_grow_leave_a_finished_output_done(world, recap, config_file):
    recap("feedback", config_file)
    before = bytes_below(world.folder / "out")
    with (world.folder / "verdicts" / "verdicts.jsonl").open("a") as file:
        file.write(json.dumps({"id": "c1", "digest": "0" * 32, "verdict": "up"}) + "\n")
    again = recap("feedback", config_file)
    assert again.code == ExitCode.DONE
    assert "added or changed after this output was finished" in again.err
    assert bytes_below(world.folder / "out") == before
    (world.folder / "out" / "thumbs" / "test.jsonl").unlink()
    with pytest.raises(OutputError, match=r"something else .*verdicts.jsonl changed since"):
        run_feedback(world.config())


def test_a_night_that_was_done_again_leaves_a_finished_output_done(world, config_file):
    world.night("2026-01-26", [conversation(70)])
    numbers = run_feedback(world.config())
    shutil.rmtree(world.folder / "nights")
    world.night("2026-01-26", [conversation(71)])
    assert run_feedback(world.config()) == numbers


def test_files_of_others_are_not_replaced(world, config_file):
    (world.folder / "out" / "sft").mkdir(parents=True)
    (world.folder / "out" / "sft" / "train.jsonl").write_text("mine")
    with pytest.raises(OutputError, match="recap replaces only what it wrote itself"):
        run_feedback(world.config())
    assert (world.folder / "out" / "sft" / "train.jsonl").read_text() == "mine"


class Failing(LocalStore):
    """A store that fails in its own way before the write of this number, counted from 0."""

    def __init__(self, uri: str, fail: Callable[[], None], writes: int) -> None:
        super().__init__(uri)
        self.fail = fail
        self.left = writes

    def _count(self) -> None:
        if not self.left:
            self.fail()
        self.left -= 1

    def write(self, key, data, *, if_absent=False):
        self._count()
        super().write(key, data, if_absent=if_absent)

    def upload(self, source, key, progress=None):
        self._count()
        super().upload(source, key, progress)


def fill_the_disk() -> None:
    raise OutputError("the disk is full")


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("fail", [fill_the_disk, kill])
def test_a_publication_that_ends_anywhere_is_not_there_and_is_completed(world, config_file, fail):
    run_feedback(world.config(output=str(world.folder / "whole")))
    whole = bytes_below(world.folder / "whole")
    facts = dict(json.loads(whole["manifest.json"])["extra"])
    for name in whole.keys() - {"manifest.json"}:
        made = world.folder / "made" / name
        made.parent.mkdir(parents=True, exist_ok=True)
        made.write_bytes(whole[name])

    for writes in range(len(whole) + 1):  # a marker, every file, and the manifest
        out = world.folder / f"out-{writes}"
        store = Failing(str(out), fail, writes)
        arguments = (world.folder / "made", store, facts)
        process = get_context("fork").Process(target=publish, args=arguments)
        process.start()
        process.join()
        assert process.exitcode == (-signal.SIGKILL if fail is kill else 1)
        with pytest.raises(MissingError):
            verify_folder(out)

        # Running again does not refuse what is there, and writes all of it.
        assert find_finished(LocalStore(str(out)), facts["identity"]) is None
        publish(world.folder / "made", LocalStore(str(out)), facts)
        found = bytes_below(out)
        assert {name: found[name] for name in whole} == whole


def test_verdicts_that_join_nothing_end_with_65_and_write_nothing(world, recap, config_file):
    rows = read_lines(world.folder / "verdicts" / "verdicts.jsonl")
    world.verdicts([row | {"digest": "f" * 32} for row in rows])
    ended = recap("feedback", config_file)
    assert ended.code == ExitCode.DATA
    assert "40 of 40 rows of verdicts join no summary" in ended.err
    assert "other_digest: 40, such as" in ended.err
    assert not (world.folder / "out").exists()


def test_a_missing_night_ends_with_66(world, recap, config_file):
    ended = recap("feedback", config_file, "--set", f"nights={world.folder / 'elsewhere'}")
    assert ended.code == ExitCode.MISSING
    assert "no finished output of recap summarize is there or below" in ended.err


def test_too_few_verdicts_end_with_66(world, recap, config_file):
    ended = recap("feedback", config_file, "--set", "limits.min_verdicts=41")
    assert ended.code == ExitCode.MISSING
    assert "40 rows; wanted at least 41 (limits.min_verdicts)" in ended.err


def test_no_file_and_no_line_of_the_report_names_an_agent(world, config_file):
    text = screen(run_feedback(world.config()))
    everything = b"".join(bytes_below(world.folder / "out").values())
    assert "ann@shop.com" not in text
    assert b"ann@shop.com" not in everything


def test_nights_on_s3_give_the_same_data(world, three_nights, s3, config_file):
    client = s3.client()
    for name, content in bytes_below(three_nights[0].folder / "nights").items():
        client.put_object(Bucket=s3.bucket, Key=f"nights/{name}", Body=content)
    here = run_feedback(world.config())
    there = run_feedback(world.config(nights=f"{s3.uri}/nights", output=f"{s3.uri}/out"))
    assert there["data"] == here["data"]
    assert there["joined_rows"] == 40


def test_a_damaged_night_is_an_error(world, config_file):
    world.night("2026-01-26", [conversation(70)])
    part = world.folder / "nights" / "dt=2026-01-26" / "parts" / "part-00000.jsonl"
    part.write_text('{"id": "c1"}\n')
    with pytest.raises(DataError, match="which recap did not write"):
        run_feedback(world.config())


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("verdicts", "there is no such file"),
        ("nights", "no finished output"),
        ("evaluation_sets", "there is no such file"),
        ("champion", "leave the key champion out"),
        ("conversations_at", "there is no such file"),
    ],
)
def test_feedback_and_its_plan_name_the_key_of_what_is_gone(world, key, words):
    lines = world.night("2026-01-05", [conversation(number) for number in range(3)])
    world.verdicts([verdict(line, verdict="up") for line in lines])
    config = world.config(**{key: str(world.folder / "gone.json")})
    with pytest.raises(MissingError) as ended:
        run_feedback(config)
    assert str(ended.value).startswith(f"{key}: ")
    assert words in str(ended.value)
    assert str(plan_feedback(config).error) == str(ended.value)
