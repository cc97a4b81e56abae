"""Claims about `recap evaluate` as a whole: what it reads, what it refuses, and what it leaves."""

import gzip
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zstandard
from pydantic import ValidationError

from job.config.commands import EvaluateConfig
from job.config.scoring_sections import NAMES_OF_SYSTEMS
from job.errors import ConfigError, DataError, ExitCode, MissingError, OutputError
from job.evaluation.floors import CONSTANT, ENDS, HUMAN
from job.evaluation.result import LEAD
from job.evaluation.run import run_evaluation
from job.evaluation.systems import AS_TRAINED, BASE, CHAMPION, GIVEN, TUNED
from job.inference.transformers_engine import TransformersEngine
from job.model.champion import find_pointer
from job.model.fetch import read_adapter
from job.preflight.evaluating import plan_evaluation
from job.storage.folders import publish_folder, read_manifest, verify_folder
from job.storage.local import LocalStore
from tests.adapters import publish_adapter
from tests.champions import STORAGE, promote, put_adapter
from tests.evaluation.conftest import make_conversations
from tests.summarization.conftest import files_below

Config = Callable[..., EvaluateConfig]
LEFT = ["evaluation.json", "manifest.json", "report.html", "summaries.jsonl"]
MINE = "mine, and nobody else's\n"


def lines(records: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(record) + "\n" for record in records).encode()


def summaries(count: int = 12, **more: Any) -> list[dict[str, Any]]:
    return [{"id": c.id, "summary": c.references[0], **more} for c in make_conversations(count)]


@pytest.fixture(autouse=True)
def alone(places: Path, one_thread: None) -> None:
    """Every test here has a cache and a work folder of its own."""


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """A config that scores summaries of twelve conversations; its keys can be replaced."""
    turns = [
        [{"role": turn.role, "text": turn.text} for turn in c.turns] for c in make_conversations(12)
    ]
    records = [
        {"id": c.id, "turns": said, "summaries": c.references}
        for c, said in zip(make_conversations(12), turns, strict=True)
    ]
    (tmp_path / "in.jsonl").write_bytes(lines(records))
    (tmp_path / "given.jsonl").write_bytes(lines(summaries()))

    def make(**keys: Any) -> EvaluateConfig:
        content = {
            "run": "score",
            "input": str(tmp_path / "in.jsonl"),
            "output": str(tmp_path / "out"),
            "evaluation": {"bootstrap_samples": 100},
        }
        scored = {} if "adapter" in keys else {"summaries": str(tmp_path / "given.jsonl")}
        return EvaluateConfig.model_validate(content | scored | keys)

    return make


def test_an_evaluation_replaces_an_earlier_one_and_says_what_it_is(config, tmp_path):
    run_evaluation(config())
    first = run_evaluation(config())
    assert files_below(tmp_path / "out") == LEFT
    assert verify_folder(tmp_path / "out").extra["kind"] == "evaluation"
    assert len(first.conversations) == 12


def test_an_interrupted_evaluation_is_replaced(config, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "_PUBLISHING").write_text('{"recap is publishing": "evaluation"}\n')
    (tmp_path / "out" / "report.html").write_text("half a rep")
    run_evaluation(config())
    assert files_below(tmp_path / "out") == LEFT


@pytest.mark.parametrize(
    "extra", [{"base": {"uri": "org/base"}}, {"identity": {}, "counts": {}, "state": "finished"}]
)
def test_an_adapter_or_summaries_are_never_replaced_by_their_evaluation(config, tmp_path, extra):
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "weights.safetensors").write_text(MINE)
    published = publish_folder(tmp_path / "made", LocalStore(str(tmp_path / "out")), "", extra)
    with pytest.raises(
        OutputError, match=r"out holds something other than an evaluation.*weights\.safet"
    ) as caught:
        run_evaluation(config(input="nowhere.jsonl"))  # before anything is read
    assert caught.value.exit_code == ExitCode.OUTPUT
    assert read_manifest(LocalStore(str(tmp_path / "out")), "") == published
    assert files_below(tmp_path / "out") == ["manifest.json", "weights.safetensors"]


@pytest.mark.parametrize("name", [*LEFT, "_PUBLISHING"])
def test_a_file_that_no_evaluation_wrote_is_never_replaced(config, tmp_path, name):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / name).write_text(MINE)
    with pytest.raises(OutputError, match="choose another output") as caught:
        run_evaluation(config())
    assert caught.value.exit_code == ExitCode.OUTPUT
    assert files_below(tmp_path / "out") == [name]
    assert (tmp_path / "out" / name).read_text() == MINE


@pytest.mark.parametrize("name", [*LEFT, "_PUBLISHING"])
def test_a_folder_in_the_way_is_found_before_anything_is_read(config, tmp_path, name):
    (tmp_path / "out" / name).mkdir(parents=True)
    with pytest.raises(OutputError, match=f"{name} is a folder, and recap would write a file"):
        run_evaluation(config(input="nowhere.jsonl"))


@pytest.mark.parametrize("name", ["x.jsonl", "X.JSONL", "s3://b/report.csv", "x.json.gz"])
def test_an_output_that_looks_like_a_file_is_a_mistake_in_the_config(config, name):
    with pytest.raises(ValidationError, match="an evaluation leaves several files; name a folder"):
        config(output=name)


def test_text_that_utf8_cannot_hold_is_replaced_and_scored(config, tmp_path):
    given = summaries()
    given[0]["summary"] = "a cut \ud83d emoji"
    (tmp_path / "given.jsonl").write_bytes(lines(given))
    run_evaluation(config())
    first = (tmp_path / "out" / "summaries.jsonl").read_text(encoding="utf-8").split("\n")[0]
    assert json.loads(first)["summary"] == "a cut \ufffd emoji"


RUSSIAN = "Клиент просит вернуть деньги за чайник, оператор обещает за {} дней."


@pytest.mark.parametrize(
    ("summary", "low", "high"),
    [
        ("Совсем другая тема: поезд опоздал, собака лаяла {} раз.", 0, 0.25),
        (RUSSIAN.replace("{}", "несколько"), 0.85, 0.99),
        (RUSSIAN, 1, 1),
    ],
    ids=["another subject with the number", "the subject without the number", "the same"],
)
def test_a_number_decides_no_score_of_a_russian_summary(config, tmp_path, summary, low, high):
    turns = [{"role": "customer", "text": "Чайник сломан"}]
    count = range(1, 13)
    records = [{"id": f"c{n}", "turns": turns, "summary": RUSSIAN.format(n)} for n in count]
    (tmp_path / "in.jsonl").write_bytes(lines(records))
    said = [{"id": f"c{n}", "summary": summary.format(n)} for n in count]
    (tmp_path / "given.jsonl").write_bytes(lines(said))
    found = run_evaluation(config()).evaluation
    written = json.loads((tmp_path / "out" / "evaluation.json").read_text(encoding="utf-8"))
    assert low <= found.systems["given file"].scores["rouge1"]["mean"].mean <= high
    assert written["tokenizer"] == "unicode-words-1"
    assert written["unreadable_references"] == 0


def test_another_systems_file_is_compared_with_and_may_have_more(config, tmp_path):
    more = [{"id": c.id, "summary": "Sorry to hear that!"} for c in make_conversations(20)]
    (tmp_path / "hosted.jsonl").write_bytes(lines(more))
    options = {"others": {"hosted model": f"{tmp_path}/hosted.jsonl"}, "bootstrap_samples": 100}
    scored = run_evaluation(config(evaluation=options))
    hosted = scored.evaluation.systems["hosted model"]
    assert (hosted.kind, hosted.conversations) == ("other", 12)
    assert scored.evaluation.differences["hosted model"]["rougeL"]["mean"].low > 0
    written = (tmp_path / "out" / "summaries.jsonl").read_text().splitlines()
    line = json.loads(written[0])
    assert line["others"]["hosted model"] == "Sorry to hear that!"
    assert line["scores"]["given file"]["rougeL"] > line["scores"]["hosted model"]["rougeL"]


def test_another_systems_file_must_have_each_scored_conversation(config, tmp_path):
    (tmp_path / "hosted.jsonl").write_bytes(lines(summaries(7)))
    with pytest.raises(DataError, match=r"5 conversations without a summary: 'c-007'"):
        run_evaluation(config(evaluation={"others": {"hosted": f"{tmp_path}/hosted.jsonl"}}))
    assert files_below(tmp_path / "out") == []


@pytest.mark.parametrize(
    ("named", "key"),
    [
        ({"input": "none"}, "input"),
        ({"train": "none"}, "train"),
        ({"summaries": "none"}, "summaries"),
        ({"evaluation": {"others": {"hosted": "none"}}}, "evaluation.others"),
    ],
)
def test_an_evaluation_and_its_plan_name_the_same_key(config, named, key):
    planned = plan_evaluation(config(**named)).error
    with pytest.raises(MissingError) as ended:
        run_evaluation(config(**named))
    assert str(planned) == str(ended.value)
    assert str(ended.value).startswith(f"{key}: none: there is no such file")


def test_a_conversation_that_cleaning_empties_is_scored_for_nobody(config, tmp_path) -> None:
    bare = {"id": "bare", "turns": [{"role": "customer", "text": "@shop"}], "summaries": ["Hi."]}
    with (tmp_path / "in.jsonl").open("ab") as file:
        file.write(lines([bare]))
    more = [{"id": "bare", "summary": "Hi."}, *summaries()]
    for name in ("given.jsonl", "hosted.jsonl"):
        (tmp_path / name).write_bytes(lines(more))
    evaluation = {"others": {"hosted": f"{tmp_path}/hosted.jsonl"}, "bootstrap_samples": 100}
    scored = run_evaluation(config(evaluation=evaluation, data={"cleaning": "tweets"}))
    assert scored.evaluation.conversations == 12
    hosted = next(system for system in scored.systems if system.name == "hosted")
    assert hosted.summaries == [each["summary"] for each in summaries()]


@pytest.mark.parametrize("name", ["tuned", "human", "lead-2", "champion", "others", " ", "a\tb"])
def test_another_system_needs_a_name_of_its_own(config, name):
    with pytest.raises(ValidationError, match="cannot be the name of another system"):
        config(evaluation={"others": {name: "hosted.jsonl"}})


def test_no_other_system_takes_a_name_that_an_evaluation_gives():
    own = {TUNED, BASE, CHAMPION, GIVEN, AS_TRAINED, CONSTANT, LEAD, ENDS, HUMAN}
    assert own <= set(NAMES_OF_SYSTEMS)


def test_cut_summaries_are_counted_where_the_file_says_how_they_ended(config, tmp_path):
    given = summaries(finish_reason="stop")
    given[0]["finish_reason"] = "length"
    (tmp_path / "given.jsonl").write_bytes(lines(given))
    found = run_evaluation(config()).evaluation.systems
    assert found["given file"].scores["cut"]["mean"].mean == pytest.approx(1 / 12)
    assert "cut" not in found["lead-2"].scores


@pytest.mark.parametrize("pack", [gzip.compress, zstandard.compress], ids=["gz", "zst"])
def test_compressed_summaries_are_read(config, tmp_path, pack):
    (tmp_path / "given.jsonl.packed").write_bytes(pack(lines(summaries())))
    assert (
        len(run_evaluation(config(summaries=f"{tmp_path}/given.jsonl.packed")).conversations) == 12
    )


@pytest.mark.parametrize("name", ["day", "day/", "day/parts/"])
def test_the_output_of_summarize_is_given_whole_or_as_its_parts(config, tmp_path, name):
    parts = tmp_path / "day" / "parts"
    parts.mkdir(parents=True)
    (tmp_path / "day" / "rejects").mkdir()
    (tmp_path / "day" / "manifest.json").write_text("{}")
    (tmp_path / "day" / "rejects" / "part-00000.jsonl").write_text(
        '{"id": null, "reason": "invalid_record"}\n'
    )
    (parts / "part-00000.jsonl").write_bytes(lines(summaries()[:7]))
    (parts / "part-00001.jsonl").write_bytes(lines(summaries()[7:]))
    assert len(run_evaluation(config(summaries=f"{tmp_path}/{name}")).conversations) == 12


def test_an_answer_as_long_as_the_context_is_refused_first(config, tmp_path, base_folder):
    publish_adapter(base_folder, tmp_path / "made", f"{tmp_path}/adapter")
    with pytest.raises(
        ConfigError, match=r"max_new_tokens: 512 of the model's 512 tokens leave no room"
    ) as caught:
        run_evaluation(config(adapter=f"{tmp_path}/adapter", generation={"max_new_tokens": 512}))
    assert caught.value.exit_code == ExitCode.CONFIG
    assert files_below(tmp_path / "out") == []


def test_a_conversation_that_breaks_the_engine_costs_its_own_score_alone(
    config, tmp_path, base_folder, monkeypatch
):
    publish_adapter(base_folder, tmp_path / "made", f"{tmp_path}/adapter")
    generate, unlucky = TransformersEngine.generate, []

    def fragile(engine, prompts, *rest):
        unlucky.extend(prompts[:1] if not unlucky else [])
        if unlucky[0] in prompts:
            raise IndexError("unlucky")
        return generate(engine, prompts, *rest)

    monkeypatch.setattr(TransformersEngine, "generate", fragile)
    scored = run_evaluation(config(adapter=f"{tmp_path}/adapter", generation={"max_new_tokens": 2}))
    assert len(scored.conversations) == 12
    given = (tmp_path / "out" / "summaries.jsonl").read_text().splitlines()
    assert [not json.loads(line)["summary"] for line in given] == [True] + [False] * 11


def test_a_base_that_answers_with_nan_is_no_bug_and_is_not_scored(config, tmp_path, base_folder):
    from safetensors.torch import load_file, save_file

    shutil.copytree(base_folder, tmp_path / "base")
    path = tmp_path / "base" / "model.safetensors"
    save_file(
        {name: value * float("nan") for name, value in load_file(path).items()},
        path,
        {"format": "pt"},
    )
    publish_adapter(tmp_path / "base", tmp_path / "made", f"{tmp_path}/adapter")
    with pytest.raises(
        ConfigError, match=r"model\.dtype: the model answers with NaN in torch\.float32"
    ) as caught:
        run_evaluation(config(adapter=f"{tmp_path}/adapter", generation={"max_new_tokens": 8}))
    assert caught.value.exit_code == ExitCode.CONFIG
    assert files_below(tmp_path / "out") == []


def test_a_pointer_is_resolved_once(config, tmp_path, base_folder, monkeypatch):
    adapter, pointer = f"{tmp_path}/runs/a", f"{tmp_path}/champion.json"
    publish_adapter(base_folder, tmp_path / "made", adapter)
    put_adapter(f"{tmp_path}/runs/b", tmp_path / "other")
    promote(pointer, adapter)
    generate = TransformersEngine.generate

    def late(engine, *rest):
        if find_pointer(pointer, STORAGE).champion.version == 1:
            promote(pointer, f"{tmp_path}/runs/b")
        return generate(engine, *rest)

    monkeypatch.setattr(TransformersEngine, "generate", late)
    run_evaluation(config(adapter=pointer, generation={"max_new_tokens": 2}))
    facts = verify_folder(tmp_path / "out").extra
    assert facts["adapter"] == adapter
    assert facts["adapter_digest"] == read_adapter(adapter, STORAGE).digest
    assert facts["champion"] == {"pointer": pointer, "version": 1}


def test_an_evaluation_that_cleans_otherwise_says_so(config, tmp_path, base_folder):
    adapter, pointer = f"{tmp_path}/runs/a", f"{tmp_path}/champion.json"
    publish_adapter(base_folder, tmp_path / "made", adapter)

    def evaluation(**keys: Any) -> dict[str, Any]:
        options = {"bootstrap_samples": 100, "base_without_adapter": False}
        run_evaluation(config(generation={"max_new_tokens": 2}, evaluation=options, **keys))
        found: dict[str, Any] = json.loads((tmp_path / "out" / "evaluation.json").read_text())
        return found

    usual = evaluation(adapter=adapter)["systems"][TUNED]["serving"]
    promote(pointer, adapter, serving=usual)
    other = evaluation(adapter=pointer, data={"cleaning": ["mentions"]})
    assert other["departures"] == ["cleaning mentions here, as in training when it was judged"]
    serving = other["systems"][TUNED]["serving"]
    assert serving["reading"]["cleaning"] == ["mentions"]
    assert "reading" not in usual
