"""Claims about plans of evaluations and nights: each fails where the run would, as it would."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from job.config.commands import EvaluateConfig, SummarizeConfig
from job.config.sections import StorageSection
from job.errors import ConfigError, DataError, ExitCode
from job.model.champion import Promotion, now, switch
from job.model.quantization import METHODS, Method
from job.preflight.checks import Plan
from job.preflight.plan import plan
from job.preflight.serving import describe_engine
from job.summarization.champion import find_champion, pin_champion
from job.summarization.output import open_output
from job.summarization.summarize import summarize
from job.telemetry import LOGGER
from tests.adapters import publish_adapter
from tests.champions import promote, put_adapter
from tests.evaluation.conftest import make_conversations
from tests.rewards import publish_reward_model
from tests.summarization.conftest import files_below, write_lines

RECORDS = [
    {
        "id": c.id,
        "turns": [{"role": t.role, "text": t.text} for t in c.turns],
        "summaries": c.references,
    }
    for c in make_conversations(12)
]
SUMMARIES = [{"id": c.id, "summary": c.references[0]} for c in make_conversations(12)]


@pytest.fixture(autouse=True)
def files(tmp_path: Path, places: Path, one_thread: None) -> None:
    """Conversations, their summaries, and a cache of the test's own."""
    write_lines(tmp_path / "in.jsonl", RECORDS)
    write_lines(tmp_path / "given.jsonl", SUMMARIES)


@pytest.fixture
def evaluating(tmp_path: Path) -> Callable[..., Plan]:
    def make(**keys: Any) -> Plan:
        content = {"run": "r", "input": f"{tmp_path}/in.jsonl", "output": f"{tmp_path}/out"}
        return plan(
            EvaluateConfig.model_validate(content | {"summaries": f"{tmp_path}/given.jsonl"} | keys)
        )

    return make


@pytest.fixture
def summarizing(tmp_path: Path, base_folder: Path) -> Callable[..., SummarizeConfig]:
    def make(**keys: Any) -> SummarizeConfig:
        content = {"run": "r", "input": f"{tmp_path}/in.jsonl", "output": f"{tmp_path}/out.jsonl"}
        more = {"generation": {"max_new_tokens": 4}, "limits": {"max_reject_fraction": 1}}
        model = {} if "adapter" in keys else {"model": {"base": str(base_folder)}}
        return SummarizeConfig.model_validate(content | more | model | keys)

    return make


def shorter(base: Path, folder: Path, context: int) -> Path:
    """Return a copy of the base whose config.json has another context."""
    shutil.copytree(base, folder)
    content = json.loads((folder / "config.json").read_text()) | {
        "max_position_embeddings": context
    }
    (folder / "config.json").write_text(json.dumps(content))
    return folder


def ends(found: Plan, code: ExitCode, message: str) -> None:
    assert found.error is not None, found.text()
    assert found.error.exit_code == code
    assert message in found.text()


def test_a_plan_of_an_evaluation_that_would_go_well_says_so(evaluating, tmp_path):
    found = evaluating(train=f"{tmp_path}/in.jsonl")
    assert found.error is None
    for said in ("12 conversations, 12 to score", "24 references", "12 summaries", "out  writable"):
        assert said in found.text()
    assert files_below(tmp_path / "out") == []


def test_summaries_that_do_not_fit_are_found_by_the_plan(evaluating, tmp_path):
    ends(
        evaluating(summaries=f"{tmp_path}/gone.jsonl"),
        ExitCode.MISSING,
        "gone.jsonl: there is no such file",
    )
    write_lines(tmp_path / "given.jsonl", SUMMARIES[:3])
    ends(evaluating(), ExitCode.DATA, "9 conversations without a summary")


def test_another_systems_file_that_does_not_fit_is_found_by_the_plan(evaluating, tmp_path):
    others = {"others": {"hosted": f"{tmp_path}/hosted.jsonl"}}
    write_lines(tmp_path / "hosted.jsonl", SUMMARIES)
    assert "hosted: 12 summaries each" in evaluating(evaluation=others).text()
    write_lines(tmp_path / "hosted.jsonl", SUMMARIES[:3])
    ends(evaluating(evaluation=others), ExitCode.DATA, "9 conversations without a summary")


def test_training_conversations_that_cannot_be_read_are_found_by_the_plan(evaluating, tmp_path):
    ends(
        evaluating(train=f"{tmp_path}/gone.jsonl"),
        ExitCode.MISSING,
        "gone.jsonl: there is no such file",
    )
    write_lines(tmp_path / "train.jsonl", [*RECORDS, "{broken"])
    ends(evaluating(train=f"{tmp_path}/train.jsonl"), ExitCode.DATA, "train.jsonl line 13")


def test_an_input_without_references_is_found_by_the_plan(evaluating, tmp_path):
    write_lines(
        tmp_path / "in.jsonl",
        [{"id": record["id"], "turns": record["turns"]} for record in RECORDS],
    )
    ends(evaluating(), ExitCode.DATA, "nothing to score against: 0 of 12")


def test_conversations_that_are_not_scored_are_warned_of(evaluating, tmp_path, caplog):
    bare = {"id": RECORDS[0]["id"], "turns": RECORDS[0]["turns"], "gist": "S."}
    write_lines(tmp_path / "in.jsonl", [bare, *RECORDS[1:]])
    LOGGER.propagate = True
    evaluating()
    (warning,) = [one for one in caplog.records if "are not scored" in one.message]
    assert (warning.fields["conversations"], warning.fields["of"]) == (1, 12)
    assert "found gist" in warning.fields["why"]


def test_an_evaluation_into_an_adapter_is_found_by_the_plan(evaluating, base_folder, tmp_path):
    publish_adapter(base_folder, tmp_path / "made", f"{tmp_path}/adapter")
    ends(
        evaluating(output=f"{tmp_path}/adapter"),
        ExitCode.OUTPUT,
        "holds something other than an evaluation",
    )


def test_an_output_that_is_taken_is_found_by_the_plan(summarizing, tmp_path, s3):
    assert plan(summarizing()).error is None
    (tmp_path / "out.jsonl").write_text("mine\n")
    ends(plan(summarizing()), ExitCode.OUTPUT, "out.jsonl is there and no manifest names it")

    # The digest of this base is not known. The file is there all the same.
    elsewhere = {"base": f"{s3.uri}/base"}
    found = plan(summarizing(model=elsewhere))
    assert "out.jsonl is there and no manifest names it" in found.text()


def test_an_output_in_the_input_is_found_by_the_plan(summarizing, tmp_path):
    (tmp_path / "in.jsonl").rename(tmp_path / "out.rejects.jsonl")
    ends(plan(summarizing(input=f"{tmp_path}/out.rejects.jsonl")), ExitCode.CONFIG, "would replace")
    ends(plan(summarizing(input=f"{tmp_path}/")), ExitCode.CONFIG, "lies in the input")


def test_more_rejects_than_the_night_may_have_are_found_by_the_plan(summarizing, tmp_path):
    with (tmp_path / "in.jsonl").open("a") as file:
        file.write("{}\n")  # one of 13
    assert plan(summarizing(limits={"max_reject_fraction": 0.08})).error is None
    said = "1 reject"
    found = plan(summarizing(limits={"max_reject_fraction": 0.07}))
    ends(found, ExitCode.DATA, said)
    assert "max_reject_fraction allows (7.00%)" in found.text()


def test_what_fits_into_no_prompt_ends_a_plan_as_it_ends_the_night(
    summarizing, base_folder, tmp_path
):
    base = str(shorter(base_folder, tmp_path / "short", 16))
    config = summarizing(model={"base": base}, limits={"max_reject_fraction": 0.9})
    found = plan(config)
    ends(found, ExitCode.DATA, "12 of 12 conversations have no prompt of at most 12 tokens")
    with pytest.raises(DataError, match="12 of 12 records"):
        summarize(config)

    # One that does not fit is a warning below the limit, and the night has as many rejects.
    turn = {"role": "customer", "text": "very long " * 4000}
    long = RECORDS[0] | {"id": "long", "turns": [turn]}
    write_lines(tmp_path / "in.jsonl", [*RECORDS, long])
    config = summarizing(limits={"max_reject_fraction": 0.1})
    found = plan(config)
    assert found.error is None
    assert "warning: 1 of 13 conversations have no prompt" in found.text()
    summarize(config)
    rejects = (tmp_path / "out.rejects.jsonl").read_text().splitlines()
    assert [json.loads(line)["reason"] for line in rejects] == ["too_long"]


def test_a_plan_finds_a_run_that_is_done_and_what_another_differs_in(
    summarizing, base_folder, tmp_path
):
    publish_adapter(base_folder, tmp_path / "made", f"{tmp_path}/adapter")
    adapter = {"adapter": f"{tmp_path}/adapter"}
    assert not plan(summarizing(**adapter)).done
    cache = files_below(tmp_path / "cache")
    assert not [name for name in cache if name.endswith(".safetensors")], (
        "a plan fetches no weights"
    )
    summarize(summarizing(**adapter))
    found = plan(summarizing(**adapter))
    assert found.done
    assert "holds this run's summaries already" in found.text()
    other = plan(summarizing(**adapter, generation={"max_new_tokens": 5}))
    ends(other, ExitCode.OUTPUT, "generation max_new_tokens: 4 there, 5 here")


def test_a_night_without_its_success_marker_is_not_done(summarizing, base_folder, tmp_path):
    publish_adapter(base_folder, tmp_path / "made", f"{tmp_path}/adapter")
    config = summarizing(adapter=f"{tmp_path}/adapter", output=f"{tmp_path}/out")
    summarize(config)
    assert plan(config).done
    # As if the process had been killed after the manifest: the next job must complete it.
    (Path(config.output) / "_SUCCESS").unlink()
    assert not plan(config).done


def test_a_plan_writes_nothing_where_it_looks(summarizing, tmp_path):
    before = files_below(tmp_path)
    plan(summarizing())
    assert files_below(tmp_path) == before


def test_a_plan_shows_what_a_pointer_means_and_what_a_night_follows(summarizing, tmp_path):
    pointer = f"{tmp_path}/champion.json"
    for name in ("a", "b"):
        put_adapter(f"{tmp_path}/runs/{name}", tmp_path / "made")
    promote(pointer, f"{tmp_path}/runs/a")
    night = summarizing(adapter=pointer)
    assert f"{pointer}, version 1: {tmp_path}/runs/a, since 20" in plan(night).findings()

    output = open_output(night.output, night.storage)
    pin_champion(night, output, find_champion(night, output))
    promote(pointer, f"{tmp_path}/runs/b")
    text = plan(night).findings()
    assert f"{pointer}, version 2: {tmp_path}/runs/b" in text
    assert "this night began with version 1 at 20" in text
    assert f"and follows that: {tmp_path}/runs/a" in text


def test_a_plan_says_of_a_champion_that_it_did_not_pass_its_gate(summarizing, tmp_path):
    pointer, adapter = f"{tmp_path}/champion.json", f"{tmp_path}/runs/a"
    digest = put_adapter(adapter, tmp_path / "made")
    by_hand = Promotion(adapter, digest, now(), "Ada", evaluation={"gate": {"passed": False}})
    switch(pointer, StorageSection(), by_hand, None)
    assert (
        "by Ada, although it did not pass its gate, and was set by hand"
        in plan(summarizing(adapter=pointer)).findings()
    )


def test_a_plan_without_a_champion_says_how_to_make_one(summarizing, tmp_path):
    found = plan(summarizing(adapter=f"{tmp_path}/champion.json"))
    ends(found, ExitCode.MISSING, "there is no champion yet: `recap champion set")


@pytest.mark.parametrize(
    ("keys", "fix"),
    [
        ({"generation": {"max_new_tokens": 4096}}, "leave no room for a conversation; lower it"),
        (
            {"engine": "vllm", "tensor_parallel": 3},
            "the 4 attention heads of this base cannot be shared among 3 GPUs: set tensor_parallel "
            "to one of 1, 2, 4",
        ),
        (
            {"engine": "vllm", "model": {"quantization": "nf4"}},
            "vLLM's 4-bit weights are nf4-double, not nf4: set model.quantization: null",
        ),
        (
            {"engine": "vllm", "model": {"attention": "eager"}},
            "model.attention: eager is transformers': leave it out, or set engine: transformers",
        ),
        (
            {"engine": "vllm", "model": {"quantization": "nf4-double", "dtype": "float16"}},
            "set model.dtype: bfloat16, or engine: transformers",
        ),
    ],
)
def test_an_engine_that_cannot_serve_a_base_is_found_by_the_plan(
    summarizing, base_folder, keys, fix
):
    """By the base's config alone: neither vLLM nor a GPU is here."""
    model = {"base": str(base_folder)} | keys.get("model", {})
    ends(plan(summarizing(**keys | {"model": model})), ExitCode.CONFIG, fix)


def test_an_adapter_that_cannot_be_merged_is_found_by_its_bases_config(
    summarizing, tmp_path, monkeypatch
):
    quantized = {"quantization_config": {"quant_method": "awq"}, "max_position_embeddings": 512}
    (tmp_path / "config.json").write_text(json.dumps(quantized))
    monkeypatch.setitem(METHODS, "awq", Method(is_mergeable=False))  # as if its package was here
    config = summarizing(adapter="a", adapter_weights="merged")
    with pytest.raises(ConfigError, match="set adapter_weights: separate"):
        describe_engine(tmp_path, config, insists_on_vllm=False)
    config = summarizing(adapter="a", adapter_weights="separate")
    assert describe_engine(tmp_path, config, insists_on_vllm=False).is_known


def test_a_plan_says_that_the_engine_is_not_here(summarizing, monkeypatch):
    monkeypatch.setattr("job.preflight.serving.is_installed", lambda: False)
    found = plan(summarizing(engine="vllm"))
    assert found.error is None
    assert "– engine" in found.findings()
    assert "where the job runs: vLLM is not installed" in found.findings()


def test_a_plan_says_of_a_challenger_what_its_night_will(summarizing, tmp_path, base_folder):
    for name, seed in (("a", 5), ("b", 9)):
        publish_adapter(base_folder, tmp_path / f"{name}-work", f"{tmp_path}/runs/{name}", seed)
    adapter = f"{tmp_path}/runs/a"
    how = {"adapter": f"{tmp_path}/runs/b", "shadow": 0.5}
    text = plan(summarizing(adapter=adapter, challenger=how)).findings()
    assert "50.00% of the conversations, about 6 records (seed 0)" in text
    assert "MB more of memory in each worker" in text
    gone = plan(summarizing(adapter=adapter, challenger={**how, "adapter": f"{tmp_path}/nowhere"}))
    ends(gone, ExitCode.MISSING, "nowhere")
    other = f"{tmp_path}/runs/other"
    put_adapter(other, tmp_path / "made")
    refused = plan(summarizing(adapter=adapter, challenger={**how, "adapter": other}))
    ends(refused, ExitCode.CONFIG, "name a challenger for the same base")


def test_a_plan_says_of_a_reward_model_what_its_night_will(summarizing, tmp_path, base_folder):
    judge = f"{tmp_path}/runs/judge"
    publish_reward_model(base_folder, tmp_path / "judge-work", judge)

    def planned(**reward: Any) -> Plan:
        candidates = {
            "temperature": 0.7,
            "candidates": 3,
            "reward_model": {"adapter": judge, **reward},
        }
        return plan(summarizing(generation=candidates))

    text = planned().findings()
    assert "it chooses one of 3 candidates of each summary" in text
    assert "of weights in each worker, beside the summarizer's" in text
    ends(
        planned(adapter=f"{tmp_path}/nowhere"),
        ExitCode.MISSING,
        "generation.reward_model.adapter: ",
    )
    ends(planned(adapter_digest="0" * 12), ExitCode.DATA, "generation.reward_model.adapter_digest")
    writer = f"{tmp_path}/runs/a"
    publish_adapter(base_folder, tmp_path / "a-work", writer)
    ends(planned(adapter=writer), ExitCode.CONFIG, "and no reward model")
