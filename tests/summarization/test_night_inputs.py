"""No file of a night is passed over in silence, and a night of nothing is meant to be one."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from job.config.commands import SummarizeConfig
from job.config.load import load_config
from job.errors import DataError, ExitCode, MissingError, OutputError
from job.preflight.plan import plan
from job.storage.config_file import read_config
from job.storage.open import open_store
from job.summarization.inputs import ASKED_FOR, find_night_inputs
from job.summarization.summarize import summarize
from tests.summarization.conftest import conversation, files_below, write_lines
from tests.summarization.nights import manifest_of, never

NO_LIMIT = {"max_reject_fraction": 1}


@pytest.fixture
def load(config: Any, tmp_path: Path) -> Any:
    """Load the night from a file, as the command does."""

    def make(variables: dict[str, str] | None = None, **keys: Any) -> SummarizeConfig:
        content = config().model_dump(mode="json") | {"limits": NO_LIMIT} | keys
        path = tmp_path / "night.yaml"
        path.write_text(
            yaml.safe_dump({key: value for key, value in content.items() if value is not None})
        )
        return load_config("summarize", read_config(str(path)), (), variables or {})

    return make


def warnings(log: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    return [record.fields for record in log.records if "names no file" in record.getMessage()]


@pytest.mark.parametrize(
    ("uri", "limits", "wanted"),
    [
        ("in/", {}, 1),
        ("in/dt={date}/", {}, 0),
        (["in/", "more/{region}/"], {}, 0),
        ("in/{{date}}/", {}, 1),
        ("in/dt={date}/", {"min_records": 5}, 5),
        ("in/", {"min_records": 0}, 0),
    ],
)
def test_only_an_input_that_changes_each_night_may_be_empty_by_default(load, uri, limits, wanted):
    night = load({"date": "2026-01-31", "region": "eu"}, input=uri, limits=limits)
    assert night.limits.min_records == wanted


def test_a_variable_given_by_set_counts_too(load, tmp_path):
    load()
    night = load_config(
        "summarize", read_config(str(tmp_path / "night.yaml")), ["input=in/{day}/"], {"day": "1"}
    )
    assert night.limits.min_records == 0


@pytest.mark.parametrize("name", ["mistyped/", "mistyped", "empty", "empty.jsonl", "markers/"])
def test_an_input_of_nothing_ends_the_night_and_its_plan(config, tmp_path, name):
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty.jsonl").touch()
    (tmp_path / "markers").mkdir()
    (tmp_path / "markers" / "_SUCCESS").touch()
    night = config(input=f"{tmp_path}/{name}")
    with pytest.raises(MissingError, match=name) as caught:
        summarize(night, never)
    assert caught.value.exit_code == ExitCode.MISSING
    assert files_below(tmp_path / "out") == []
    assert not (tmp_path / "out" / "_chunks").exists()
    found = plan(night)
    assert found.error is not None
    assert found.error.exit_code == ExitCode.MISSING
    assert name in found.text()


@pytest.mark.parametrize("name", ["dt=2026-01-31/", "empty/"])
def test_a_night_that_may_be_empty_warns_of_the_path(config, tmp_path, log, name):
    (tmp_path / "empty").mkdir()
    night = config(input=f"{tmp_path}/{name}", limits={"min_records": 0})
    assert summarize(night, never).records == 0
    assert [each["input"] for each in warnings(log)] == [f"{tmp_path}/{name}"]
    (line,) = [
        record for record in log.records if record.getMessage() == "nothing to summarize: 0 records"
    ]
    assert line.levelname == "WARNING"
    assert plan(night).error is None


def test_of_several_inputs_the_missing_one_is_named(config, tmp_path, log):
    write_lines(tmp_path / "calls" / "a.jsonl", [conversation("a")])
    both = [f"{tmp_path}/calls/", f"{tmp_path}/chats/"]
    with pytest.raises(MissingError, match=r"chats/: .*limits\.min_records: 0"):
        summarize(config(input=both), never)
    assert summarize(config(input=both, limits=NO_LIMIT | {"min_records": 0})).records == 1
    assert [each["input"] for each in warnings(log)] == [f"{tmp_path}/chats/"]


def test_too_few_records_leave_nothing_behind_for_the_next_try(config, tmp_path):
    write_lines(tmp_path / "in" / "a.jsonl", [conversation("a"), "{broken"])
    night = config(input=f"{tmp_path}/in/", limits=NO_LIMIT | {"min_records": 4})
    with pytest.raises(
        MissingError, match=r"in/: 2 records, wanted at least 4 \(limits\.min_records\)"
    ):
        summarize(night, never)
    assert files_below(tmp_path / "out") == []
    write_lines(tmp_path / "in" / "b.jsonl", [conversation("b"), conversation("c")])
    assert summarize(night).records == 4


def test_a_finished_night_is_held_to_the_minimum_too(config, tmp_path):
    write_lines(tmp_path / "in.jsonl", [conversation("a")])
    summarize(config())
    with pytest.raises(MissingError, match="1 records, wanted at least 2"):
        summarize(config(limits=NO_LIMIT | {"min_records": 2}), never)


def test_what_is_left_out_is_in_the_log_and_in_the_manifest(config, tmp_path, log):
    write_lines(tmp_path / "in" / "a.jsonl", [conversation("a")])
    for name in ("day.csv.metadata", "_SUCCESS", "scan.pdf"):
        (tmp_path / "in" / name).write_bytes(b"%PDF-1.4\x00")
    night = config(input=f"{tmp_path}/in/", data={"exclude": "*.pdf"})
    assert summarize(night).records == 1
    left_out = manifest_of(tmp_path / "out")["left_out"]
    assert left_out["count"] == 3
    assert f"{tmp_path}/in/scan.pdf (data.exclude)" in left_out["first"]
    (line,) = [record for record in log.records if "left out" in record.getMessage()]
    assert line.fields["count"] == 3
    with pytest.raises(DataError, match=r"scan\.pdf: is no text file.*data\.exclude"):
        summarize(config(input=f"{tmp_path}/in/", output=f"{tmp_path}/more"), never)


def test_a_night_of_many_files_beside_a_key_that_is_no_path_is_summarized(config, s3, tmp_path):
    store = open_store(f"{s3.uri}/in")
    line = json.dumps(conversation("a")).encode()
    for number in range(ASKED_FOR + 1):
        store.write(f"{number:03}.jsonl", line.replace(b'"a"', b'"%d"' % number))
    s3.client().put_object(Bucket=s3.bucket, Key="in//odd.jsonl", Body=line)
    assert summarize(config(input=f"{s3.uri}/in/")).records == ASKED_FOR + 1
    assert manifest_of(tmp_path / "out")["left_out"]["count"] == 1


def test_patterns_make_another_night_only_by_the_files_that_they_choose(config, tmp_path):
    write_lines(tmp_path / "in" / "a.jsonl", [conversation("a")])
    write_lines(tmp_path / "in" / "b.csv.bak", ["id,dialogue", "b,customer: hi"])
    chosen = config(input=f"{tmp_path}/in/", data={"exclude": ["*.bak"]})
    counts = summarize(chosen)
    same = config(input=f"{tmp_path}/in/", data={"include": ["*.jsonl"]})
    assert summarize(same, never) == counts
    assert "include" not in json.dumps(manifest_of(tmp_path / "out")["identity"])
    other = config(input=f"{tmp_path}/in/", data={"include": ["*.bak"]})
    with pytest.raises(OutputError, match=r"a\.jsonl: .* there, none here"):
        summarize(other, never)


def test_a_night_of_transcripts_leaves_summaries_beside_them_out(load, tmp_path):
    calls = tmp_path / "calls"
    calls.mkdir()
    for name in ("a.vtt", "b.txt", "a.summary.txt"):
        (calls / name).write_text("Agent: Hello\nCustomer: My kettle leaks.")
    inputs = find_night_inputs(load(input=f"{calls}/"))
    assert [file.key for file in inputs.files] == ["a.vtt", "b.txt"]
    assert inputs.left_out.first[0].endswith(
        "a.summary.txt (the summary of a transcript beside it)"
    )


def test_a_night_counts_conversations_with_unclear_speakers(load, tmp_path, caplog):
    transcript = "Agent: Hello\nCustomer: My kettle leaks.\nNote: it is new.\nAgent: Ok"
    write_lines(tmp_path / "in.jsonl", [conversation(n) for n in range(3)])
    with (tmp_path / "in.jsonl").open("a") as file:
        file.write(json.dumps({"id": "t", "transcript": transcript}) + "\n")
    summarize(load())
    assert manifest_of(tmp_path / "out")["counts"]["unclear_speakers"] == 1
    warned = [record.fields for record in caplog.records if "may be another" in record.getMessage()]
    assert [(one["conversations"], one["lines"]) for one in warned] == [(1, 1)]
