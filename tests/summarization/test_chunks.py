"""Claims about chunks: committed once, never mixed, assembled in order, by many workers."""

import csv
import gzip
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from job.config.commands import SummarizeConfig
from job.errors import AlreadyExistsError, PreemptedError, RetryError
from job.storage.holder import this_process
from job.storage.lease import Lease
from job.storage.local import LocalStore
from job.storage.open import InputFile
from job.storage.store import Entry, Skip
from job.summarization.chunk_store import ChunkFacts, ChunkStore, Marker
from job.summarization.chunks import agree_on_chunks
from job.summarization.inputs import check_unchanged, find_night_inputs
from job.summarization.records import Counts
from job.summarization.shard import WHOLE, Claims, Shard
from job.summarization.summarize import summarize
from tests.summarization.conftest import (
    conversation,
    files_below,
    read_lines,
    results_below,
    write_lines,
)
from tests.summarization.nights import FOLDER, manifest_of, never, run

Make = Callable[..., SummarizeConfig]
SMALL = {"chunks": {"records": 4}}
FACTS = ChunkFacts(Counts(), 1.0, 0, "test 1")


def stopping_after(calls: int) -> Callable[[], None]:
    left = [calls]

    def stop() -> None:
        left[0] -= 1
        if left[0] < 0:
            raise PreemptedError("stopped")

    return stop


def records(count: int, first: int = 0) -> list[Any]:
    return [conversation(f"c{n}", f"late {n}", "sorry") for n in range(first, first + count)]


@pytest.fixture
def night(config: Make, tmp_path: Path) -> SummarizeConfig:
    """31 records of three files in chunks of four; ids and contents repeat over their borders."""
    same = {"turns": [{"role": "customer", "text": "the same words"}]}
    mixed = [
        *records(6),
        same,
        "{broken",
        conversation("c2", "again"),
        same,
        conversation("none", " "),
        *records(3, 6),
    ]
    folder = tmp_path / "in"
    write_lines(folder / "a.jsonl", mixed)
    with (folder / "b.csv").open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["id", "dialogue"])
        rows.writerows([[f"t{n}", f"Customer: late\nAgent: sorry {n}"] for n in range(7)])
    lines = [*records(8, 20), same, conversation("c1", "once more")]
    (folder / "c.jsonl.gz").write_bytes(
        gzip.compress("".join(json.dumps(line) + "\n" for line in lines).encode())
    )
    return config(input=f"{folder}/", **SMALL)


def outcomes_of(out: Path) -> tuple[list[Any], list[Any]]:
    return read_lines(*sorted(out.glob("parts/*"))), read_lines(*sorted(out.glob("rejects/*")))


def whole(night: SummarizeConfig, tmp_path: Path) -> tuple[list[Any], list[Any]]:
    """Return the summaries and rejects of the night by one worker, in one chunk."""
    run(
        night.model_copy(
            update={
                "output": str(tmp_path / "whole"),
                "chunks": SummarizeConfig.model_fields["chunks"].default,
            }
        )
    )
    return outcomes_of(tmp_path / "whole")


def test_chunks_make_no_difference(night, tmp_path):
    run(night)
    assert outcomes_of(tmp_path / "out") == whole(night, tmp_path)
    summaries, rejects = outcomes_of(tmp_path / "out")
    assert len(summaries) + len(rejects) == manifest_of(tmp_path / "out")["counts"]["records"] == 31
    said = {reject["id"]: reject["detail"] for reject in rejects}
    assert said["c2"] == f"id 'c2' is already used at {tmp_path}/in/a.jsonl line 3"
    assert said["c1"].endswith("a.jsonl line 2")
    derived = [summary["id"] for summary in summaries if len(summary["id"]) >= 16]
    assert derived == [derived[0], f"{derived[0]}-2", f"{derived[0]}-3"]
    assert len({summary["id"] for summary in summaries}) == len(summaries)
    counted = manifest_of(tmp_path / "out")["counts"]
    assert counted["summaries"] == len(summaries)
    assert sum(counted["rejects"].values()) == len(rejects)
    assert counted["input_tokens"] == sum(summary["input_tokens"] for summary in summaries)


@pytest.mark.parametrize("shards", [2, 3, 40])
def test_the_last_of_several_workers_puts_the_output_together(night, tmp_path, shards):
    prompts = 0
    for index in reversed(range(shards)):
        assert results_below(tmp_path / "out") == []
        prompts += run(night, Shard(index, shards))
    assert files_below(tmp_path / "out") == FOLDER
    assert outcomes_of(tmp_path / "out") == whole(night, tmp_path)
    assert prompts == 29


@pytest.mark.parametrize("after", range(6))
def test_a_stopped_night_goes_on_with_any_other_number_of_workers(night, tmp_path, after):
    with pytest.raises(PreemptedError):
        run(night, Shard(0, 1), stopping_after(after))
    prompts = [run(night, Shard(index, 3)) for index in range(3)]
    assert sum(prompts) <= 29 - 3 * after, "what is committed is not generated again"
    assert outcomes_of(tmp_path / "out") == whole(night, tmp_path)
    assert run(night) == 0


def test_what_an_empty_night_leaves_for_each_of_several_workers(config, tmp_path):
    write_lines(tmp_path / "in.jsonl", [])
    for index in range(3):
        summarize(config(limits={"min_records": 0}), never, Shard(index, 3))
    assert files_below(tmp_path / "out") == FOLDER


def test_a_file_that_came_between_two_tries_is_left_for_the_next_night(night, tmp_path):
    with pytest.raises(PreemptedError):
        run(night, WHOLE, stopping_after(3))
    write_lines(tmp_path / "in" / "late.jsonl", records(5, 90))
    run(night)
    assert manifest_of(tmp_path / "out")["counts"]["records"] == 31


def test_a_file_that_changed_between_two_tries_is_summarized_anew(night, tmp_path):
    with pytest.raises(PreemptedError):
        run(night, WHOLE, stopping_after(3))
    write_lines(tmp_path / "in" / "a.jsonl", records(9, 50))
    run(night)
    summaries, rejects = outcomes_of(tmp_path / "out")
    ids = [summary["id"] for summary in summaries]
    assert ids[:9] == [f"c{n}" for n in range(50, 59)]
    assert len(summaries) + len(rejects) == 9 + 7 + 10
    assert files_below(tmp_path / "out") == FOLDER


def test_a_file_that_changes_while_it_is_read_commits_no_chunk(night, tmp_path):
    path = tmp_path / "in" / "a.jsonl"
    with pytest.raises(RetryError, match=r"a\.jsonl changed while it was summarized"):
        run(night, before=lambda: path.write_bytes(path.read_bytes() + b"\n"))
    assert not list((tmp_path / "out").rglob("*.done.json"))


FORMATS = ["csv", "parquet", "json", "jsonl.gz", "jsonl"]


def write_four(path: Path, words: str) -> None:
    """Four conversations in the format that the name says."""
    rows = [
        {"id": f"{path.stem} {n}", "dialogue": f"Customer: {words} {n}\nAgent: sorry"}
        for n in range(4)
    ]
    turns = [conversation(row["id"], words) for row in rows]
    if path.suffix == ".csv":
        path.write_text(
            "".join(
                f"{line}\n"
                for line in ["id,dialogue", *(f"c{n},Customer: {words}" for n in range(4))]
            )
        )
    elif path.suffix == ".parquet":
        import pyarrow
        from pyarrow import parquet

        parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    elif path.suffix == ".gz":
        path.write_bytes(gzip.compress("".join(json.dumps(turn) + "\n" for turn in turns).encode()))
    else:
        path.write_text(
            json.dumps(turns)
            if path.suffix == ".json"
            else "".join(json.dumps(t) + "\n" for t in turns)
        )


def replaced(path: Path) -> None:
    """Something else in the place of the file, as of an export that is still being written."""
    path.with_name(".new").write_bytes(
        path.read_bytes()[:20] if path.suffix != ".csv" else b"other,columns\n1,2\n"
    )
    path.with_name(".new").rename(path)


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_file_replaced_before_it_is_read_asks_for_another_try(config, tmp_path, suffix):
    for name in "ab":
        (tmp_path / "in").mkdir(exist_ok=True)
        write_four(tmp_path / "in" / f"{name}.{suffix}", name)
    late = tmp_path / "in" / f"b.{suffix}"
    with pytest.raises(RetryError, match=r"b\..* changed while it was summarized: run again"):
        run(config(input=f"{tmp_path}/in/", **SMALL), before=lambda: replaced(late))


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_file_replaced_before_it_is_cut_asks_for_another_try(config, tmp_path, suffix):
    night, store = config(input=f"{tmp_path}/in/", **SMALL), LocalStore(str(tmp_path / "out"))
    (tmp_path / "in").mkdir()
    write_four(tmp_path / "in" / f"b.{suffix}", "late")
    files = find_night_inputs(night).files
    replaced(tmp_path / "in" / f"b.{suffix}")
    with pytest.raises(RetryError, match=r"b\..* changed while it was summarized: run again"):
        agree_on_chunks(store, "c", files, night)


class Asked(LocalStore):
    """Counts what it is asked."""

    def __init__(self, folder: Path) -> None:
        super().__init__(str(folder))
        self.stats = self.lists = 0

    def stat(self, key: str) -> Entry:
        self.stats += 1
        return super().stat(key)

    def list(self, prefix: str = "", skip: Skip | None = None) -> Iterator[Entry]:
        self.lists += 1
        return super().list(prefix, skip)


@pytest.mark.parametrize(
    ("files", "listed", "wanted"),
    [(50, 50, (50, 0)), (120, 0, (0, 1)), (120, 120, (0, 1)), (120, 50_000, (120, 0))],
)
def test_versions_of_many_files_come_from_one_listing(tmp_path, files, listed, wanted):
    store = Asked(tmp_path)
    for n in range(files):
        (tmp_path / f"{n:03d}.jsonl").write_text("{}")
    mine = [
        InputFile(f"f/{e.key}", store, e.key, e.size, e.version)
        for e in LocalStore(str(tmp_path)).list()
    ]
    check_unchanged(mine, listed)
    assert (store.stats, store.lists) == wanted
    (tmp_path / "007.jsonl").write_text("{ }")
    with pytest.raises(RetryError, match=r"f/007\.jsonl changed while it was summarized"):
        check_unchanged(mine, listed)
    (tmp_path / "007.jsonl").unlink()
    with pytest.raises(RetryError, match=r"f/007\.jsonl was removed while it was summarized"):
        check_unchanged(mine, listed)


def test_an_object_that_ends_before_a_piece_of_it_asks_for_another_try(config, s3, tmp_path):
    for name, count in (("a", 4), ("b", 8)):
        write_lines(tmp_path / f"{name}.jsonl", records(count))
        s3.client().upload_file(str(tmp_path / f"{name}.jsonl"), s3.bucket, f"in/{name}.jsonl")
    night = config(input=f"{s3.uri}/in/", **SMALL)
    with pytest.raises(RetryError, match=r"b\.jsonl changed while it was summarized: run again"):
        run(
            night,
            Shard(0, 2),
            lambda: s3.client().put_object(Bucket=s3.bucket, Key="in/b.jsonl", Body=b"{}") and None,
        )


def test_other_settings_never_take_up_what_was_committed_with_these(night, config, tmp_path):
    with pytest.raises(PreemptedError):
        run(night, WHOLE, stopping_after(3))
    other = night.model_copy(
        update={"generation": night.generation.model_copy(update={"max_new_tokens": 13})}
    )
    assert run(other) == 29
    assert files_below(tmp_path / "out") == FOLDER


def test_other_chunk_sizes_go_on_with_the_chunks_that_there_are(night, tmp_path):
    with pytest.raises(PreemptedError):
        run(night, WHOLE, stopping_after(3))
    larger = night.model_copy(update={"chunks": night.chunks.model_copy(update={"records": 1000})})
    assert run(larger) < 29


def test_of_two_workers_on_one_chunk_one_commits_it(tmp_path):
    store = ChunkStore(LocalStore(str(tmp_path / "out")), "c")
    for number, wins in ((1, True), (2, False)):
        path = tmp_path / f"{number}.outcomes"
        path.write_text(f"worker {number}\n")
        assert store.commit(7, path, FACTS) is wins
    assert len(files_below(tmp_path / "out")) == 2, "the loser takes its outcomes away"
    marker = store.read_marker(7)
    assert marker is not None
    assert (tmp_path / "out" / "c" / marker.outcomes).read_bytes() == b"worker 1\n"


def test_a_commit_whose_answer_is_lost_is_still_this_workers(tmp_path):
    class Forgetful(LocalStore):
        def write(self, key: str, data: bytes, *, if_absent: bool = False) -> None:
            super().write(key, data, if_absent=if_absent)
            raise AlreadyExistsError(key)

    store = ChunkStore(Forgetful(str(tmp_path / "out")), "c")
    (tmp_path / "x").write_text("x\n")
    assert store.commit(0, tmp_path / "x", FACTS)
    assert store.committed_numbers() == {0}


def test_while_another_worker_puts_the_output_together_this_one_is_done(night, tmp_path):
    first = [run(night, Shard(0, 2))]
    (folder,) = (tmp_path / "out" / "_chunks").iterdir()
    other = Lease(
        LocalStore(str(tmp_path / "out" / "_chunks")), replace(this_process(), id="another")
    )
    other.acquire()
    assert folder.is_dir()
    first.append(run(night, Shard(1, 2)))
    assert results_below(tmp_path / "out") == []
    other.release()
    assert run(night) == 0
    assert sum(first) == 29
    assert files_below(tmp_path / "out") == FOLDER


def test_the_same_night_started_twice_ends_once(night, tmp_path):
    twin = [0]

    def meanwhile() -> None:
        if not twin[0]:
            twin[0] = 1
            run(night)

    run(night, before=meanwhile)
    assert outcomes_of(tmp_path / "out") == whole(night, tmp_path)
    assert run(night) == 0
    assert files_below(tmp_path / "out") == FOLDER


def test_what_somebody_keeps_beside_the_chunks_stays(night, tmp_path):
    write_lines(tmp_path / "out" / "_chunks" / "notes.txt", ["mine"])
    run(night)
    assert files_below(tmp_path / "out") == ["_SUCCESS", "_chunks/notes.txt", *FOLDER[1:]]


@pytest.mark.parametrize(("visible", "tensor_parallel", "used"), [(0, 1, 0), (2, 1, 1), (4, 2, 2)])
def test_the_manifest_has_speed_and_cost(
    night, tmp_path, monkeypatch, visible, tensor_parallel, used
):
    monkeypatch.setattr("job.summarization.worker.count_gpus", lambda: visible)
    monkeypatch.setattr("job.inference.choose.is_installed", lambda: True)  # vLLM
    run(night.model_copy(update={"cost_per_hour": 3.6, "tensor_parallel": tensor_parallel}))
    facts = manifest_of(tmp_path / "out")
    assert facts["seconds"] > 0
    assert facts["gpu_seconds"] == pytest.approx(facts["seconds"] * used, rel=0.01)
    assert facts["output_tokens_per_second"] > 0
    assert facts["cost_per_1000_records"] == pytest.approx(
        1000 * facts["seconds"] * 0.001 / 31, rel=0.01
    )


def test_the_workers_of_a_machine_share_its_cost(night, tmp_path):
    shard = Shard(claims=Claims(tmp_path))
    run(night.model_copy(update={"cost_per_hour": 3600, "workers": 4}), shard)
    facts = manifest_of(tmp_path / "out")
    assert facts["cost"] == pytest.approx(facts["seconds"] / 4, rel=0.01)


def test_a_marker_of_an_earlier_version_is_of_a_machine_with_one_worker():
    marker = Marker("name", 1, "0" * 64, ChunkFacts(Counts(), 8.0, 1, "engine", workers=4))
    earlier = json.loads(marker.to_json())
    assert earlier.pop("workers") == 4
    assert Marker.from_json(json.dumps(earlier).encode()).facts.workers == 1


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])
def test_one_file_is_put_together_in_the_order_of_the_input(night, tmp_path, suffix):
    path = tmp_path / "one" / f"day{suffix}"
    single = night.model_copy(update={"output": str(path)})
    for index in range(2):
        run(single, Shard(index, 2))
    assert files_below(path.parent) == sorted(
        [path.name, "day.manifest.json", "day.rejects.jsonl", "day.report.html"]
    )
    ids = [summary["id"] for summary in whole(night, tmp_path)[0]]
    if suffix == ".jsonl":
        assert [row["id"] for row in read_lines(path)] == ids
    elif suffix == ".csv":
        with path.open(encoding="utf-8", newline="") as file:
            assert [row["id"] for row in csv.DictReader(file)] == ids
    else:
        from pyarrow import parquet

        assert parquet.read_table(path).column("id").to_pylist() == ids
