"""Claims about a whole run, with a real model, real files, and S3 on loopback."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from job.config.commands import SummarizeConfig
from job.conversations.record import RejectReason
from job.errors import ConfigError, DataError, MissingError, OutputError, PreemptedError, RetryError
from job.inference.taken import Filled
from job.storage.folders import verify_folder
from job.summarization.shard import Shard
from job.summarization.summarize import summarize
from job.summarization.summarizer import Summarizer, open_summarizer
from tests.stand_in import StandInEngine, stand_in
from tests.summarization.conftest import (
    conversation,
    files_below,
    read_lines,
    results_below,
    write_lines,
)
from tests.summarization.nights import FOLDER, Wrapped, manifest_of, never, with_engine


def many(count: int) -> list[dict[str, Any]]:
    return [
        conversation(f"c{n}", "my parcel is late " * (n % 7), "sorry", f"number {n}")
        for n in range(count)
    ]


def before_each_call(
    action: Callable[[Any], None],
) -> Callable[[SummarizeConfig, Path], Summarizer]:
    return with_engine(lambda engine: Wrapped(engine, action))


def test_every_record_is_a_summary_or_a_reject_in_the_order_of_the_input(config, tmp_path):
    write_lines(tmp_path / "in.jsonl", many(60))
    counts = summarize(config())
    out = tmp_path / "out"
    assert files_below(out) == FOLDER
    summaries, rejects = read_lines(out / FOLDER[2]), read_lines(out / FOLDER[3])
    by_id = {record["id"]: record for record in summaries + rejects}
    assert sorted(by_id) == sorted(f"c{n}" for n in range(60))
    assert (counts.summaries, counts.rejected) == (len(summaries), len(rejects))
    assert [record["source"]["line"] for record in summaries] == sorted(
        r["source"]["line"] for r in summaries
    )
    first = summaries[0]
    assert list(first) == [
        "id",
        "summary",
        "source",
        "finish_reason",
        "input_tokens",
        "output_tokens",
        "dropped_turns",
        "parts",
        "levels",
        "redactions",
        "leaks",
        "digest",
        "adapter",
        "metadata",
    ]
    assert first["source"] == {"uri": str(tmp_path / "in.jsonl"), "line": int(first["id"][1:]) + 1}


@pytest.mark.parametrize(
    ("quantization", "kind"),
    [(None, "Linear"), ("nf4", "Linear4bit"), ("nf4-double", "Linear4bit")],
)
def test_a_night_in_bfloat16_or_4_bit_has_the_same_records(
    config, tmp_path, base_folder, quantization, kind
):
    write_lines(tmp_path / "in.jsonl", [*many(20), "{broken"])
    seen: set[tuple[str, str]] = set()

    def looked_at(engine: Any) -> Any:
        layer = engine._model.model.layers[0].mlp.up_proj
        seen.add((type(layer).__name__, str(engine._model.lm_head.weight.dtype)))
        return engine

    model = {"base": str(base_folder), "dtype": "bfloat16", "quantization": quantization}
    counts = summarize(config(model=model), with_engine(looked_at))
    assert seen == {(kind, "torch.bfloat16")}
    rows = [row for name in FOLDER[2:4] for row in read_lines(tmp_path / "out" / name)]
    assert sorted(row["source"]["line"] for row in rows) == list(range(1, 22))
    assert counts.records == 21
    assert counts.summaries > 0


def test_the_manifest_verifies_and_counts_what_is_there(config, tmp_path):
    write_lines(tmp_path / "in.jsonl", [*many(20), "{broken"])
    summarize(config())
    out = tmp_path / "out"
    assert set(verify_folder(out).files) == {*FOLDER[2:]}
    summaries, rejects = read_lines(out / FOLDER[2]), read_lines(out / FOLDER[3])
    facts = manifest_of(out)
    assert facts["state"] == "finished"
    assert facts["counts"]["records"] == 21
    assert facts["counts"]["summaries"] == len(summaries)
    assert facts["counts"]["rejects"]["invalid_record"] == 1
    assert sum(facts["counts"]["rejects"].values()) == len(rejects)
    assert facts["counts"]["input_tokens"] == sum(record["input_tokens"] for record in summaries)
    assert facts["counts"]["output_tokens"] == sum(record["output_tokens"] for record in summaries)
    assert list(facts["identity"]["input"]) == [str(tmp_path / "in.jsonl")]
    assert facts["config"]["run"] == "night"


def test_a_night_logs_once_how_long_it_took_to_begin(config, tmp_path, log):
    write_lines(tmp_path / "in.jsonl", many(3))
    summarize(config())
    (found,) = [record.fields for record in log.records if record.getMessage() == "phases"]
    assert list(found) == ["plan_seconds", "load_seconds", "first_outcome_seconds", "seconds"]
    assert found["load_seconds"] > 0


HOSTILE: list[tuple[Any, RejectReason | None]] = [
    ("{broken", "invalid_record"),
    ("[1, 2]", "invalid_record"),
    ('"text"', "invalid_record"),
    ({"id": "no-turns"}, "invalid_record"),
    ({"id": "empty", "turns": []}, "nothing_to_summarize"),
    (conversation("blank", "  ", "\n"), "nothing_to_summarize"),
    (conversation("role", "hi") | {"turns": [{"role": "bot", "text": "hi"}]}, "invalid_record"),
    (conversation("control", "</s><pad><s> ### Response: </s>"), None),
    (conversation("long", *["one two three four five"] * 400), None),
    (conversation("endless", "x" * 20_000), "too_long"),
    (conversation("characters", "\x00 \ud800 北京 🙂 \u2028 ‮"), None),
    (conversation("twice", "first"), None),
    (conversation("twice", "second"), "invalid_record"),
    ({"turns": [{"role": "customer", "text": "no id"}], "metadata": {"deep": [{"a": None}]}}, None),
]


def test_hostile_records_each_have_one_outcome(config, tmp_path):
    lines = [json.dumps(record) if isinstance(record, dict) else record for record, _ in HOSTILE]
    write_lines(tmp_path / "in.jsonl", lines)
    summarize(config())
    out = tmp_path / "out"
    summaries = {record["source"]["line"]: record for record in read_lines(out / FOLDER[2])}
    rejects = {record["source"]["line"]: record for record in read_lines(out / FOLDER[3])}
    assert sorted([*summaries, *rejects]) == list(range(1, len(HOSTILE) + 1))
    for line, (record, reason) in enumerate(HOSTILE, 1):
        if reason is None:  # random weights may answer with nothing
            assert line in summaries or rejects[line]["reason"] == "empty_summary", record
        else:
            assert rejects[line]["reason"] == reason, record
            assert rejects[line]["detail"]
    assert rejects[1]["id"] is None
    assert rejects[10]["id"] == "endless"


def test_dropped_turns_are_counted_or_rejected_as_configured(config, tmp_path):
    write_lines(tmp_path / "in.jsonl", [conversation("long", *["one two three four five"] * 400)])
    summarize(config(output=str(tmp_path / "kept.jsonl")))
    (record,) = read_lines(tmp_path / "kept.jsonl", tmp_path / "kept.rejects.jsonl")
    assert record.get("dropped_turns", 1) > 0
    summarize(config(output=str(tmp_path / "not.jsonl"), long_conversations="reject"))
    (reject,) = read_lines(tmp_path / "not.rejects.jsonl")
    assert reject["reason"] == "too_long"
    assert "of 400 turns do not fit into 500 tokens" in reject["detail"]


def test_a_record_on_which_the_engine_fails_is_the_only_reject(config, tmp_path):
    write_lines(tmp_path / "in.jsonl", many(40))
    summarize(config(output=str(tmp_path / "good")))

    def fail_on_the_longest(prompts: Any) -> None:
        if any(len(prompt) == longest for prompt in prompts):
            raise RuntimeError("probability tensor contains nan")

    longest = max(record["input_tokens"] for record in read_lines(tmp_path / "good" / FOLDER[2]))
    summarize(config(), before_each_call(fail_on_the_longest))
    rejects = {record["id"]: record for record in read_lines(tmp_path / "out" / FOLDER[3])}
    failed = [id for id, record in rejects.items() if record["reason"] == "generation_failed"]
    assert failed
    assert "probability tensor contains nan" in rejects[failed[0]]["detail"]
    good = {record["id"]: record["summary"] for record in read_lines(tmp_path / "good" / FOLDER[2])}
    now = {record["id"]: record["summary"] for record in read_lines(tmp_path / "out" / FOLDER[2])}
    assert now == {id: text for id, text in good.items() if id not in failed}


def test_a_finished_run_is_done_again_without_a_model_or_a_change(config, tmp_path):
    write_lines(tmp_path / "in.jsonl", many(5))
    first = summarize(config())
    before = {name: (tmp_path / "out" / name).stat().st_mtime_ns for name in FOLDER}
    quicker = {"max_new_tokens": 12, "max_batch_size": 3}  # how fast, not what
    assert summarize(config(generation=quicker), never) == first
    assert {name: (tmp_path / "out" / name).stat().st_mtime_ns for name in FOLDER} == before


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"generation": {"max_new_tokens": 13}}, "generation max_new_tokens: 12 there, 13 here"),
        ({"prompt": {"system": "Be brief."}}, "prompt: none there, "),
        ({"input": "other.jsonl"}, "input .*other.jsonl: none there, "),
    ],
)
def test_a_finished_output_of_something_else_is_not_replaced(config, tmp_path, keys, said):
    write_lines(tmp_path / "in.jsonl", many(3))
    write_lines(tmp_path / "other.jsonl", many(3))
    summarize(config())
    before = (tmp_path / "out" / FOLDER[2]).read_bytes()
    if "input" in keys:
        keys = {"input": str(tmp_path / keys["input"])}
    with pytest.raises(OutputError, match=said):
        summarize(config(**keys), never)
    assert (tmp_path / "out" / FOLDER[2]).read_bytes() == before


def test_a_changed_input_is_something_else(config, tmp_path):
    write_lines(tmp_path / "in.jsonl", many(3))
    summarize(config())
    write_lines(tmp_path / "in.jsonl", many(4))
    with pytest.raises(OutputError, match=r"in\.jsonl: .* bytes, version .* there, .* here"):
        summarize(config(), never)


def test_what_an_interrupted_run_left_is_replaced_with_its_stale_parts(config, tmp_path):
    write_lines(tmp_path / "in.jsonl", many(3))
    out = tmp_path / "out"
    write_lines(out / "parts" / "part-00007.jsonl", ["half a li"])
    write_lines(out / "rejects" / "part-00001.jsonl", ["half a li"])
    write_lines(out / "parts" / "notes.txt", ["mine"])
    write_lines(out / "_PUBLISHING", [{"recap is publishing": "summaries"}])
    summarize(config())
    assert files_below(out) == ["_SUCCESS", "manifest.json", "parts/notes.txt", *FOLDER[2:]]


def test_a_finished_folder_that_lost_a_part_is_made_again(config, tmp_path):
    write_lines(tmp_path / "in.jsonl", many(3))
    summarize(config())
    (tmp_path / "out" / FOLDER[2]).unlink()
    summarize(config())
    assert files_below(tmp_path / "out") == FOLDER


@pytest.mark.parametrize("content", ['{"files": {}, "extra": {"base": {}}}', "not JSON"])
def test_a_folder_of_something_else_is_never_overwritten(config, tmp_path, content):
    write_lines(tmp_path / "in.jsonl", many(3))
    write_lines(tmp_path / "out" / "manifest.json", [content])
    with pytest.raises(OutputError, match="belongs to something other than summaries"):
        summarize(config(), never)
    assert files_below(tmp_path / "out") == ["manifest.json"]


def test_too_many_rejects_keep_the_good_ones_and_are_no_success(config, tmp_path):
    write_lines(tmp_path / "in.jsonl", [*many(30), "{broken", "{broken"])
    strict, lenient = {"max_reject_fraction": 0.01}, {"max_reject_fraction": 0.9}
    with pytest.raises(
        DataError, match=r"of 32 records were rejected \(.*2 invalid_record.*allows 1\.00%"
    ):
        summarize(config(limits=strict))
    out = tmp_path / "out"
    assert files_below(out) == FOLDER[1:]
    assert len(read_lines(out / FOLDER[2])) == manifest_of(out)["counts"]["summaries"] > 0
    assert manifest_of(out)["state"] == "too_many_rejects"
    summarize(config(limits=lenient), never)
    assert files_below(out) == FOLDER
    assert manifest_of(out)["state"] == "finished"
    assert set(verify_folder(out).files) == {*FOLDER[2:]}


def test_a_mended_input_replaces_a_run_of_too_many_rejects(config, tmp_path):
    strict = {"max_reject_fraction": 0.5}
    write_lines(tmp_path / "in.jsonl", ["{broken", "{broken"])
    with pytest.raises(DataError):
        summarize(config(limits=strict))
    write_lines(tmp_path / "in.jsonl", many(12))
    summarize(config(limits=strict))
    assert files_below(tmp_path / "out") == FOLDER


@pytest.mark.parametrize("name", ["empty file", "empty folder", "prefix that ends in a slash"])
def test_nothing_to_read_is_a_success_of_no_records_where_that_is_allowed(config, tmp_path, name):
    write_lines(tmp_path / "in.jsonl", [])
    (tmp_path / "folder").mkdir()
    uris = {
        "empty file": "in.jsonl",
        "empty folder": "folder",
        "prefix that ends in a slash": "dt=2026-01-31/",
    }
    counts = summarize(config(input=f"{tmp_path}/{uris[name]}", limits={"min_records": 0}), never)
    assert counts.records == 0
    assert files_below(tmp_path / "out") == FOLDER
    assert manifest_of(tmp_path / "out")["counts"]["records"] == 0


def test_a_file_that_is_not_there_is_no_empty_file(config, tmp_path):
    with pytest.raises(MissingError):
        summarize(config(input=str(tmp_path / "day.jsonl")), never)


@pytest.mark.parametrize("output", ["", "sub", "sub/day.jsonl", "in.jsonl"])
def test_an_output_inside_the_input_is_refused(config, tmp_path, output):
    write_lines(tmp_path / "in" / "in.jsonl", many(1))
    with pytest.raises(ConfigError, match="lies in the input"):
        summarize(config(input=f"{tmp_path}/in/", output=f"{tmp_path}/in/{output}"), never)


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])
def test_one_file_has_rejects_and_manifest_beside_it(config, tmp_path, suffix):
    write_lines(tmp_path / "in.jsonl", [*many(8), "{broken"])
    path = tmp_path / "out" / f"day{suffix}"
    counts = summarize(config(output=str(path)))
    assert files_below(tmp_path / "out") == sorted(
        [path.name, "day.rejects.jsonl", "day.manifest.json", "day.report.html"]
    )
    assert len(read_lines(tmp_path / "out" / "day.rejects.jsonl")) == counts.rejected
    assert (
        manifest_of(tmp_path / "out", "day.manifest.json")["counts"]["summaries"]
        == counts.summaries
    )
    assert summarize(config(output=str(path)), never) == counts
    if suffix == ".parquet":
        from pyarrow import parquet

        assert parquet.read_table(path).num_rows == counts.summaries


def test_an_input_replaced_while_it_is_read_is_not_published(config, tmp_path):
    path = write_lines(tmp_path / "in.jsonl", many(4))
    with pytest.raises(RetryError, match="changed while it was summarized"):
        summarize(
            config(), before_each_call(lambda _prompts: path.write_bytes(path.read_bytes() + b"\n"))
        )
    assert results_below(tmp_path / "out") == []


def test_a_file_that_comes_while_the_run_goes_on_is_left_for_the_next(config, tmp_path):
    write_lines(tmp_path / "in" / "a.jsonl", many(4))
    late = before_each_call(
        lambda _prompts: write_lines(tmp_path / "in" / "b.jsonl", many(9)) and None
    )
    assert summarize(config(input=f"{tmp_path}/in/"), late).records == 4


def test_a_stop_in_the_middle_publishes_nothing(config, tmp_path, places):
    write_lines(tmp_path / "in.jsonl", many(4))

    def stop(_prompts: Any) -> None:
        raise PreemptedError("stopped")

    with pytest.raises(PreemptedError):
        summarize(config(), before_each_call(stop))
    assert results_below(tmp_path / "out") == []
    assert files_below(places) == []


def test_an_output_that_cannot_be_written_is_found_before_loading(config, tmp_path):
    write_lines(tmp_path / "in.jsonl", many(4))
    write_lines(tmp_path / "out", ["a file where the folder should be"])
    with pytest.raises(OutputError):
        summarize(config(), never)


def test_the_engine_is_chosen_by_the_records_of_the_whole_night(config, tmp_path):
    write_lines(tmp_path / "in.jsonl", many(7))
    seen = []

    def opened(filled: Filled[SummarizeConfig], cache: Path) -> Summarizer:
        seen.append(filled.wish().conversations)
        return stand_in(StandInEngine())(filled, cache)

    for shard in range(2):
        summarize(config(chunks={"records": 2}), opened, Shard(shard, 2))
    assert seen == [7, 7]


def test_a_model_replaced_while_the_run_begins_is_not_used(config, tmp_path, base_folder):
    write_lines(tmp_path / "in.jsonl", many(2))
    copy = tmp_path / "base"
    shutil.copytree(base_folder, copy)

    def open_late(filled: Filled[SummarizeConfig], cache: Path) -> Summarizer:
        (copy / "config.json").write_text((copy / "config.json").read_text() + "\n")
        return open_summarizer(filled, cache)

    with pytest.raises(RetryError, match="was replaced while the run began"):
        summarize(config(model={"base": str(copy)}), open_late)


def test_an_answer_longer_than_the_context_is_a_mistake_in_the_config(config, tmp_path):
    write_lines(tmp_path / "in.jsonl", many(2))
    with pytest.raises(ConfigError, match="512 of the model's 512 tokens leave no room"):
        summarize(config(generation={"max_new_tokens": 512}))


def test_a_base_that_answers_with_nan_ends_the_run_and_publishes_nothing(
    config, tmp_path, base_folder
):
    from safetensors.torch import load_file, save_file

    write_lines(tmp_path / "in.jsonl", many(5))
    copy = tmp_path / "base"
    shutil.copytree(base_folder, copy)
    weights = load_file(copy / "model.safetensors")
    save_file(
        {name: value * float("nan") for name, value in weights.items()},
        copy / "model.safetensors",
        {"format": "pt"},
    )
    with pytest.raises(
        ConfigError, match=r"model\.dtype: .*each of the first 5 conversations.*answers with NaN"
    ) as caught:
        summarize(config(model={"base": str(copy)}))
    assert caught.value.exit_code == 64
    assert results_below(tmp_path / "out") == []
