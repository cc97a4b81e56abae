"""Claims about what is at the output already: recap replaces only what it wrote."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from job.config.commands import TrainConfig
from job.config.sections import StorageSection
from job.errors import ConfigError, ExitCode, OutputError
from job.preflight.plan import plan
from job.storage.local import LocalStore
from job.summarization.existing import find_finished
from job.summarization.output import check_writable, open_output, publish
from job.summarization.summarize import summarize
from tests.summarization.conftest import conversation, files_below, write_lines
from tests.summarization.nights import FOLDER, never

MINE = "mine, and nobody else's\n"
BROKEN = "the connection broke"


@pytest.fixture(autouse=True)
def few_records(tmp_path: Path) -> Path:
    return write_lines(
        tmp_path / "in.jsonl", [conversation(f"c{n}", "late " * n) for n in range(1, 4)]
    )


class Unconditional(LocalStore):
    """A store that accepts conditions and ignores them, as some services do."""

    def write(self, key: str, data: bytes, *, if_absent: bool = False) -> None:
        super().write(key, data)


@pytest.mark.parametrize(("store", "warnings"), [(LocalStore, 0), (Unconditional, 1)])
def test_a_store_that_ignores_conditional_writes_is_warned_of(tmp_path, log, store, warnings):
    output = open_output(str(tmp_path / "out"), StorageSection())
    check_writable(replace(output, store=store(output.uri)))
    warned = [
        record for record in log.records if "ignores conditional writes" in record.getMessage()
    ]
    assert len(warned) == warnings
    assert files_below(tmp_path / "out") == []


@pytest.mark.parametrize(
    "taken",
    [
        "keep{}",
        "keep.rejects.jsonl",
        "keep.report.html",
        "keep.manifest.json",
        ".keep.publishing.json",
    ],
)
@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])
def test_a_file_that_recap_did_not_write_is_never_replaced(config, tmp_path, suffix, taken):
    path = tmp_path / "out" / taken.format(suffix)
    path.parent.mkdir()
    path.write_text(MINE)
    with pytest.raises(OutputError, match=r"keep.* is there and .*choose another output") as caught:
        summarize(config(output=str(tmp_path / "out" / f"keep{suffix}")), never)
    assert caught.value.exit_code == ExitCode.OUTPUT
    assert files_below(tmp_path / "out") == [path.name]
    assert path.read_text() == MINE


@pytest.mark.parametrize(
    "taken",
    [
        "parts/part-00000.jsonl",
        "rejects/part-00003.jsonl",
        "report.html",
        "_SUCCESS",
        "_PUBLISHING",
    ],
)
def test_a_part_that_recap_did_not_write_is_never_removed(config, tmp_path, taken):
    path = tmp_path / "out" / taken
    path.parent.mkdir(parents=True)
    path.write_text(MINE)
    with pytest.raises(
        OutputError, match=f"{taken} is there and .*choose another output"
    ) as caught:
        summarize(config(), never)
    assert caught.value.exit_code == ExitCode.OUTPUT
    assert files_below(tmp_path / "out") == [taken]
    assert path.read_text() == MINE


def test_summaries_that_somebody_changed_are_not_replaced(config, tmp_path):
    path = tmp_path / "keep.jsonl"
    summarize(config(output=str(path)))
    path.write_text(MINE)
    with pytest.raises(
        OutputError, match=r"keep\.jsonl is there and its manifest says \d+ bytes, not 24"
    ):
        summarize(config(output=str(path)), never)
    assert path.read_text() == MINE


def test_two_outputs_of_one_stem_do_not_replace_each_other(config, tmp_path):
    summarize(config(output=str(tmp_path / "out" / "day.jsonl")))
    before = files_below(tmp_path / "out")
    with pytest.raises(
        OutputError,
        match=r"day\.manifest\.json is there and belongs to day\.jsonl, .* not to day\.csv",
    ):
        summarize(config(output=str(tmp_path / "out" / "day.csv")), never)
    assert files_below(tmp_path / "out") == before


class Breaking(LocalStore):
    """A store whose connection breaks after so many changes."""

    changes = 0

    def _change(self) -> None:
        if self.changes == 0:
            raise ConnectionError(BROKEN)
        self.changes -= 1

    def write(self, key: str, data: bytes, *, if_absent: bool = False) -> None:
        self._change()
        super().write(key, data, if_absent=if_absent)

    def upload(self, source: Path, key: str, progress: Any = None) -> None:
        self._change()
        super().upload(source, key, progress)

    def delete(self, key: str) -> None:
        self._change()
        super().delete(key)


@pytest.mark.parametrize("earlier", [False, True], ids=["into nothing", "over an earlier run"])
@pytest.mark.parametrize("name", ["out", "out/day.jsonl"])
def test_a_publication_that_breaks_anywhere_is_repaired_by_the_next_run(
    config, tmp_path, name, earlier
):
    place = tmp_path / name
    wanted = config(output=str(place))
    summarize(wanted)
    whole = files_below(tmp_path / "out")
    shutil.move(tmp_path / "out", tmp_path / "good")
    work = tmp_path / "made"
    output = open_output(str(place), StorageSection())
    for after in range(20):
        shutil.rmtree(tmp_path / "out", ignore_errors=True)
        if earlier:
            shutil.copytree(tmp_path / "good", tmp_path / "out")
        shutil.rmtree(work, ignore_errors=True)
        shutil.copytree(tmp_path / "good", work)
        facts = json.loads((work / output.manifest).read_text())["extra"]
        for left in (output.manifest, output.success or output.manifest):
            (work / left).unlink(missing_ok=True)
        store = Breaking(output.store.uri)
        store.changes = after
        shaped = replace(output, store=store)
        try:
            publish(shaped, work, facts)
        except ConnectionError:
            pass
        else:
            break
        summarize(wanted)
        assert files_below(tmp_path / "out") == whole, f"after {after} changes"
    else:
        raise AssertionError("the publication never came to its end")
    assert after > 4


def test_the_same_run_that_ends_meanwhile_is_not_taken_for_a_foreign_one(config, tmp_path):
    wanted = config()
    summarize(wanted)
    out = tmp_path / "out"
    manifest = (out / "manifest.json").read_bytes()
    (out / "manifest.json").unlink()
    (out / "_SUCCESS").unlink()
    (out / "_PUBLISHING").write_text('{"recap is publishing": "summaries"}\n')

    class EndsMeanwhile(LocalStore):
        def read(self, key: str) -> bytes:
            if key == "_PUBLISHING" and (out / key).exists():
                (out / "manifest.json").write_bytes(manifest)
                (out / "_SUCCESS").touch()
                (out / key).unlink()
            return super().read(key)

    output = open_output(str(out), StorageSection())
    found = find_finished(
        replace(output, store=EndsMeanwhile(output.store.uri)),
        json.loads(manifest)["extra"]["identity"],
    )
    assert found is not None


@pytest.mark.parametrize(
    "name", ["day.rejects.jsonl", "day.manifest.json", ".day.publishing.json", "day.jsonl"]
)
def test_a_run_never_replaces_its_own_input(config, tmp_path, few_records, name):
    taken = few_records.rename(tmp_path / name)
    before = taken.read_bytes()
    with pytest.raises(ConfigError, match=f"{name}") as caught:
        summarize(config(input=str(taken), output=f"{tmp_path}/day.jsonl"), never)
    assert caught.value.exit_code == ExitCode.CONFIG
    assert "would replace" in str(caught.value) or "lies in the input" in str(caught.value)
    assert taken.read_bytes() == before


def test_a_run_never_replaces_its_own_input_by_another_name_of_it(config, tmp_path, few_records):
    few_records.rename(tmp_path / "day.rejects.jsonl")
    (tmp_path / "link.jsonl").symlink_to(tmp_path / "day.rejects.jsonl")
    with pytest.raises(
        ConfigError, match=r"would replace .*link.jsonl, which is a file of the input"
    ):
        summarize(
            config(input=str(tmp_path / "link.jsonl"), output=f"{tmp_path}/x/../day.jsonl"), never
        )


def test_parts_of_a_folder_are_no_input_of_a_run_into_that_folder(config, tmp_path, few_records):
    (tmp_path / "out" / "parts").mkdir(parents=True)
    few_records.rename(tmp_path / "out" / "parts" / "part-00000.jsonl")
    with pytest.raises(ConfigError, match=r"would replace .*part-00000\.jsonl"):
        summarize(config(input=f"{tmp_path}/out/parts/"), never)


def test_an_ending_in_upper_case_is_one_file(config, tmp_path):
    counts = summarize(config(output=str(tmp_path / "out" / "Mine.JSONL")))
    assert files_below(tmp_path / "out") == [
        "Mine.JSONL",
        "Mine.manifest.json",
        "Mine.rejects.jsonl",
        "Mine.report.html",
    ]
    assert summarize(config(output=str(tmp_path / "out" / "Mine.JSONL")), never) == counts


@pytest.mark.parametrize(
    "name", ["xx.parquet.gz", "day.jsonl.zst", "day.JSONL.GZ", "s3://b/day.csv.gz", "day.json"]
)
def test_a_name_of_a_file_that_recap_does_not_write_is_no_folder(config, name):
    with pytest.raises(
        ValidationError,
        match=r"one file of summaries ends in \.jsonl, \.csv or \.parquet and is not",
    ):
        config(output=name)


OTHER_FILES = [
    "day.ndjson",
    "day.orc",
    "day.xlsx",
    "day.TSV",
    "day.txt",
    "day.avro",
    "day.jsonl.bz2",
    "s3://b/d.zip",
]


@pytest.mark.parametrize("name", OTHER_FILES)
def test_a_name_of_another_kind_of_file_is_never_silently_a_folder(config, name):
    with pytest.raises(ValidationError, match="would be a folder of that name"):
        config(output=name)
    training = {"run": "r", "model": {"base": "a/b"}, "data": {"train": "t.jsonl"}}
    with pytest.raises(ValidationError, match="would be a folder of that name"):
        TrainConfig.model_validate(training | {"output": name})
    assert TrainConfig.model_validate(training | {"output": f"{name}/"}).output == f"{name}/"


@pytest.mark.parametrize(
    "name", ["dt=2026-01-31", "nights.v2", "s3://b/app.example.com", "run.2026", ".hidden"]
)
def test_a_name_with_a_dot_may_be_a_folder(config, name):
    assert config(output=name).output == name


@pytest.mark.parametrize(
    ("output", "folder"),
    [
        ("day.jsonl", "day.jsonl"),
        ("day.csv", "day.rejects.jsonl"),
        ("day.csv", "day.manifest.json"),
        ("day.csv", ".day.publishing.json"),
        ("out", "out/manifest.json"),
        ("out", "out/_SUCCESS"),
        ("out", "out/_PUBLISHING"),
    ],
)
def test_a_folder_with_the_name_of_a_file_is_found_before_loading(config, tmp_path, output, folder):
    (tmp_path / folder).mkdir(parents=True)
    night = config(output=f"{tmp_path}/{output}")
    with pytest.raises(
        OutputError, match=f"{folder} is a folder, and recap would write a file"
    ) as caught:
        summarize(night, never)
    assert caught.value.exit_code == ExitCode.OUTPUT
    found = plan(night)
    assert found.error is not None
    assert found.error.exit_code == ExitCode.OUTPUT


@pytest.mark.parametrize("file", ["parts", "rejects", "_chunks"])
def test_a_file_with_the_name_of_a_folder_is_found_before_loading(config, tmp_path, file):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / file).touch()
    with pytest.raises(OutputError, match=f"{file} is a file, and recap would write a folder"):
        summarize(config(), never)


@pytest.mark.parametrize("name", ["out", "out/day.jsonl"])
def test_no_empty_folder_of_chunks_is_left(config, tmp_path, name):
    summarize(config(output=str(tmp_path / name)))
    left = {path.name for path in (tmp_path / "out").iterdir() if path.is_dir()}
    assert left == ({"parts", "rejects"} if name == "out" else set())


def test_how_a_csv_is_written_is_part_of_what_it_is(config, tmp_path):
    path = str(tmp_path / "day.csv")
    counts = summarize(config(output=path))
    with pytest.raises(OutputError, match="csv_output"):
        summarize(config(output=path, csv_output={"byte_order_mark": True}), never)
    again = config(
        output=str(tmp_path / "new.csv"),
        skip_done=path,
        csv_output={"byte_order_mark": True, "formulas": "keep"},
    )
    assert summarize(again, never).skipped == counts.summaries, (
        "the way of writing changes no summary"
    )
    third = config(
        output=str(tmp_path / "third"),
        skip_done=str(tmp_path / "new.csv"),
        csv_output={"formulas": "keep"},
    )
    assert summarize(third, never).skipped == counts.summaries


def test_a_slash_says_that_a_name_is_a_folder(config, tmp_path):
    summarize(config(output=f"{tmp_path}/day.jsonl/"))
    assert files_below(tmp_path / "day.jsonl") == FOLDER
