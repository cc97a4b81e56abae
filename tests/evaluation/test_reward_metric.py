"""Claims about a reward model as a metric: its scores, what they are worth, and the plan of it."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from job.config.commands import EvaluateConfig
from job.config.scoring_sections import ScoringSection
from job.config.sections import AdapterModelSection, StorageSection
from job.conversations.record import Conversation, Source, Turn
from job.errors import ConfigError, DataError
from job.evaluation.evaluate import evaluate
from job.evaluation.metrics.reward import (
    fetch_reward_metric,
    preferred_shares,
    unscored_sentences,
    with_lowest_of_empty,
)
from job.evaluation.result import Evaluation, model_sentences
from job.evaluation.run import run_evaluation
from job.evaluation.systems import System
from job.evaluation.table import score_table
from job.inference.reward import load_reward_model
from job.model.reward import read_reward_model
from job.preflight.beside import alone_lines, bytes_of_reward_model
from job.preflight.devices import find_devices
from job.preflight.evaluating import plan_evaluation
from job.preflight.metric_models import metric_model_checks
from tests.evaluation.conftest import make_conversations
from tests.rewards import publish_both
from tests.tiny import make_base

TALKS = make_conversations(6)
TALK = Conversation("c-1", (Turn("customer", "Hello"),), Source("f", 1))


@pytest.fixture(scope="module")
def uris(base_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return publish_both(base_folder, tmp_path_factory.mktemp("made"))


@pytest.fixture
def pairs(tmp_path: Path) -> str:
    lines = [
        {
            "id": talk.id,
            "turns": [turn._asdict() for turn in talk.turns],
            "chosen": talk.references[0],
            "rejected": "Hello.",
        }
        for talk in TALKS
    ]
    file = tmp_path / "pairs.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return str(file)


@pytest.fixture
def config(tmp_path: Path, uris: dict[str, str], pairs: str, places: Path) -> EvaluateConfig:
    """Return the config of an evaluation of a file of summaries, with a reward model."""
    talks = [
        {
            "id": talk.id,
            "turns": [turn._asdict() for turn in talk.turns],
            "summaries": talk.references,
        }
        for talk in TALKS
    ]
    given = [{"id": talk.id, "summary": f"About number {talk.id}."} for talk in TALKS]
    for name, lines in (("talks", talks), ("given", given)):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return EvaluateConfig.model_validate(
        {
            "run": "rewards",
            "input": str(tmp_path / "talks.jsonl"),
            "summaries": str(tmp_path / "given.jsonl"),
            "output": str(tmp_path / "out"),
            "evaluation": {
                "bootstrap_samples": 100,
                "reward_model": {"adapter": uris["reward"], "pairs": pairs},
            },
        }
    )


@pytest.mark.usefixtures("one_thread")
def test_an_evaluation_has_rewards_with_what_they_are_worth(
    config: EvaluateConfig, uris: dict[str, str], tmp_path: Path
):
    scored = run_evaluation(config)
    evaluation = Evaluation.from_json(json.loads((tmp_path / "out/evaluation.json").read_text()))
    section = config.evaluation.reward_model
    assert section is not None
    adapter = read_reward_model(uris["reward"], config.storage, "key")
    model = load_reward_model(adapter, section, config.storage, tmp_path / "cache")
    wanted = model.score_texts(scored.conversations, scored.systems[0].summaries)
    found = scored.scores[evaluation.judged]["reward"]
    assert found.tolist() == pytest.approx(wanted, rel=1e-3)
    assert evaluation.systems[evaluation.judged].scores["reward"]["mean"].mean == pytest.approx(
        float(np.mean(found)), abs=1e-5
    )
    assert "reward" in evaluation.systems["human"].scores
    assert "reward" in evaluation.differences["constant sentence"]

    record = evaluation.models["reward"]
    assert record["digest"] == adapter.digest
    assert record["trust"]["pairs"]["pairs"] == len(TALKS)
    assert set(record["preferred"]) == set(evaluation.differences)
    sentences = " ".join(model_sentences(evaluation))
    assert "could not be compared with what it was trained on (no record of" in sentences
    assert "held-out" not in sentences
    assert "above constant sentence in" in sentences
    assert record["trust"]["sentence"].split(":")[0] in " ".join(score_table(evaluation).split())
    assert "Reward" in (tmp_path / "out" / "report.html").read_text()


def test_an_evaluation_refuses_pairs_of_what_it_names_as_trained_on(
    config: EvaluateConfig, tmp_path: Path
):
    leaking = config.model_copy(update={"train": str(tmp_path / "talks.jsonl")})
    with pytest.raises(DataError, match=r"reward_model\.pairs: 6 training") as caught:
        run_evaluation(leaking)
    assert not (tmp_path / "out").exists()
    plan = plan_evaluation(leaking)
    assert str(caught.value) in [str(each.error) for each in plan.checks]


def test_the_share_of_preferred_summaries_is_one_of_conversations():
    scores = {"a": np.array([1.0, 2.0, 3.0]), "b": np.array([0.0, 2.0, 4.0])}
    found = preferred_shares(scores, "a", samples=100, seed=0)
    assert list(found) == ["b"]
    assert found["b"].mean == pytest.approx(0.5)
    assert found["b"].conversations == 3


def test_a_judged_summary_without_a_score_is_not_preferred():
    scores = {"a": np.array([1.0, np.nan, 1.0, np.nan]), "b": np.array([0.0, -9.0, np.nan, np.nan])}
    found = preferred_shares(scores, "a", samples=100, seed=0)
    assert found["b"].mean == pytest.approx(0.5)
    assert found["b"].conversations == 2


def test_writing_nothing_is_the_lowest_score(uris: dict[str, str], pairs: str, tmp_path: Path):
    section = ScoringSection.model_validate(
        {"reward_model": {"adapter": uris["reward"], "pairs": pairs}, "bootstrap_samples": 100}
    )
    assert section.reward_model is not None
    model = fetch_reward_metric(section.reward_model, StorageSection(), tmp_path / "cache")
    texts = [f"Item {number} is late." for number in range(len(TALKS))]
    some = ["", " ", *texts[2:-1], "far too long " * 5000]
    systems = [System("tuned", "tuned", some), System("given", "given", texts)]
    scored = evaluate(systems, TALKS, section, None, {"reward": model})
    own, other = (scored.scores[name]["reward"] for name in ("tuned", "given"))
    lowest = np.nanmin([scores["reward"] for scores in scored.scores.values()])
    assert own[:2].tolist() == [lowest, lowest]
    assert own[2:-1] == pytest.approx(other[2:-1], rel=1e-4)
    assert np.isnan(own[-1])
    assert scored.evaluation.differences["given"]["reward"]["mean"].mean == pytest.approx(
        (own[:2] - other[:2]).sum() / (len(TALKS) - 1)
    )
    record = scored.evaluation.models["reward"]
    assert record["empty"]["tuned"] == 2
    sentences = " ".join(record["sentences"])
    assert "lowest score of this evaluation: 2 of tuned." in sentences
    assert "leave their conversations out: 1 of tuned." in sentences


def test_without_any_score_an_empty_summary_has_none():
    nothing = np.array([np.nan, np.nan])
    assert np.isnan(with_lowest_of_empty(nothing, ["", "a"])).all()
    assert not unscored_sentences({"a": nothing[:1]}, {"a": 1})[0].startswith("Empty")


def checks(**section: Any) -> dict[str, Any]:
    options = ScoringSection.model_validate({"reward_model": section})
    return {each.name: each for each in metric_model_checks(options, StorageSection(), [TALK])}


def test_a_plan_describes_the_reward_model_and_warns_of_few_pairs(uris: dict[str, str], pairs: str):
    found = checks(adapter=uris["reward"], pairs=pairs)
    assert found["reward"].error is None
    assert "of run tiny" in found["reward"].found
    of_pairs = found["reward pairs"].found
    assert "6 pairs of 6 conversations, perhaps trained on (no record of its training" in of_pairs
    assert "and fewer than 40 hardly show" in of_pairs


@pytest.mark.parametrize(
    ("name", "why"),
    [("adapter", "and no reward model"), ("nowhere", "nowhere"), ("c.json", "is a pointer")],
)
def test_a_plan_refuses_what_the_job_refuses(
    uris: dict[str, str], pairs: str, tmp_path: Path, name: str, why: str
):
    uri = uris.get(name, str(tmp_path / name))
    planned = checks(adapter=uri, pairs=pairs)["reward"].error
    assert why in str(planned)
    section = ScoringSection.model_validate({"reward_model": {"adapter": uri, "pairs": pairs}})
    assert section.reward_model is not None
    with pytest.raises(type(planned)) as caught:
        fetch_reward_metric(section.reward_model, StorageSection(), tmp_path / "cache")
    assert str(caught.value) == str(planned)
    assert isinstance(planned, ConfigError) or name == "nowhere"


@pytest.mark.parametrize("quantization", [None, "nf4", "nf4-double"])
def test_a_plan_counts_the_memory_that_the_reward_model_has(
    uris: dict[str, str], tmp_path: Path, quantization: Any
):
    section = AdapterModelSection(quantization=quantization, dtype="float32")
    adapter = read_reward_model(uris["reward"], StorageSection(), "key")
    planned = bytes_of_reward_model(section, adapter, StorageSection(), 2)  # dtype says 4
    model = load_reward_model(adapter, section, StorageSection(), tmp_path / "cache").model
    tensors = [*model.parameters(), *model.buffers()]
    states = [each.quant_state for each in tensors if hasattr(each, "quant_state")]
    assert bool(states) == (quantization is not None)
    constants = sum(state.absmax.nbytes for state in states)
    if quantization == "nf4-double":
        constants += sum(state.state2.absmax.nbytes for state in states)
    assert planned == pytest.approx(sum(each.nbytes for each in tensors) + constants, rel=0.02)


def test_a_plan_warns_of_a_gpu_that_the_reward_model_does_not_fit(
    uris: dict[str, str], pairs: str, monkeypatch: pytest.MonkeyPatch
):
    section = AdapterModelSection()
    adapter = read_reward_model(uris["reward"], StorageSection(), "key")
    devices = find_devices(["l4", "cpu"])
    on_l4, on_cpu = alone_lines(section, adapter, StorageSection(), devices)
    assert on_l4.startswith("on a GPU: ")
    assert on_cpu.startswith("on a CPU: 1.1 GiB of the host's memory, libraries included")
    assert (
        "once the summarizer has left"
        in checks(adapter=uris["reward"], pairs=pairs)["reward"].found
    )
    monkeypatch.setattr("job.preflight.beside.SCORING_BYTES", 100 << 30)
    lines = alone_lines(section, adapter, StorageSection(), devices)
    assert "warning: with 100.0 GiB to score, that is more than the 22.0 GiB of L4" in lines[1]


def test_a_plan_refuses_another_base(uris: dict[str, str], pairs: str, tmp_path: Path):
    other = tmp_path / "other"
    make_base(other, heads=2)
    found = checks(adapter=uris["reward"], pairs=pairs, base=str(other))["reward"]
    assert "evaluation.reward_model" in str(found.error)
