"""Claims about what a plan says of the models of metrics and of people's labels."""

import json
from pathlib import Path

import pytest

from job.config.scoring_sections import ScoringSection
from job.config.sections import StorageSection
from job.conversations.record import Conversation, Source, Turn
from job.preflight.checks import Check
from job.preflight.metric_models import metric_model_checks

TALK = Conversation("c-1", (Turn("customer", "Hello"),), Source("f", 1))


@pytest.fixture(scope="module")
def judge(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights and config of a classifier whose classes have no names."""
    import torch
    from safetensors.torch import save_file

    folder = tmp_path_factory.mktemp("judge")
    save_file({"classifier.weight": torch.zeros(2, 64)}, folder / "model.safetensors")
    config = {"model_type": "bert", "hidden_size": 8, "vocab_size": 8, "intermediate_size": 8}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


def checks(**options: object) -> dict[str, Check]:
    section = ScoringSection.model_validate(options)
    found = metric_model_checks(section, StorageSection(), [TALK])
    return {each.name: each for each in found}


def test_a_plan_without_models_says_nothing_of_them():
    assert checks() == {}


def test_a_plan_describes_the_model_of_a_metric(judge):
    found = checks(bertscore_model={"model": str(judge)})["bertscore"]
    assert found.error is None
    assert "1 weight file, 0.0 MiB" in found.found


def test_a_plan_finds_that_a_model_has_fewer_layers(judge):
    wanted = {"model": str(judge), "layer": 13}
    found = checks(bertscore_model=wanted)["bertscore"]
    assert f"evaluation.bertscore_model.layer: {judge} has 12 layers, got 13" in str(found.error)


def test_a_plan_finds_that_no_class_can_be_told(judge):
    found = checks(faithfulness_model={"model": str(judge)})["faithfulness"]
    assert "its id2label has LABEL_0, LABEL_1" in str(found.error)
    named = checks(faithfulness_model={"model": str(judge), "label": "LABEL_1"})
    assert named["faithfulness"].error is None


def test_a_plan_finds_that_a_model_is_missing(tmp_path):
    found = checks(bertscore_model={"model": str(tmp_path / "nowhere")})["bertscore"]
    assert str(found.error).startswith("evaluation.bertscore_model: ")


def test_a_plan_counts_the_labels(judge, tmp_path):
    line = {"id": "c-1", "summary": "S.", "label": True}
    (tmp_path / "labels.jsonl").write_text(json.dumps(line) + "\n", encoding="utf-8")
    options = {
        "faithfulness_model": {"model": str(judge), "label": "LABEL_1"},
        "faithfulness_labels": str(tmp_path / "labels.jsonl"),
    }
    assert checks(**options)["labels"].found == "1 labels, 1 faithful"
