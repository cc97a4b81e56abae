"""Claims about scores after a training: of the adapter on disk, as it is going to serve."""

import json
from pathlib import Path
from typing import Any

import pytest

from job.config.commands import TrainConfig
from job.config.redaction import RedactionSection
from job.config.sections import StorageSection
from job.errors import ExitCode
from job.inference.serving import AdapterServing, Reading, Serving, read_serving
from job.model.fetch import read_adapter
from job.training.scoring import serving_wish
from tests.faults.trials import journal_of, store_of

pytestmark = pytest.mark.usefixtures("places")
AS_TRAINED = "tuned, as trained (nf4-double, transformers)"


@pytest.fixture
def short(config: dict[str, Any]) -> dict[str, Any]:
    """A run of two steps."""
    config["training"] |= {"max_steps": 2, "sample_summaries": 0, "save_every_steps": 2}
    return config


def serving_of(config: dict[str, Any]) -> AdapterServing:
    """Return the settings that the published adapter carries."""
    adapter = read_adapter(f"{config['output']}/{config['run']}/adapter", StorageSection())
    found = read_serving(adapter)
    assert found is not None
    return found


def test_both_scores_are_named_as_what_they_are(short, trials):
    short["evaluation"] |= {"as_trained": True, "base_without_adapter": True}
    reading = Reading(None, "hierarchical", RedactionSection(kinds=["email"]))
    short["serve"] = {"long_conversations": "hierarchical", "redaction": {"kinds": ["email"]}}
    code, log = trials.run(short, INSTRUMENTS="count_models_beside_a_base")
    assert code == ExitCode.DONE, log

    report = Path(short["output"]) / short["run"] / "report"
    systems = json.loads((report / "evaluation.json").read_text(encoding="utf-8"))["systems"]
    tuned, as_trained = systems["tuned"], systems[AS_TRAINED]
    assert (tuned["kind"], as_trained["kind"]) == ("judged", "as_trained")
    assert tuned["serving"]["quantization"] == "none"
    assert as_trained["serving"]["quantization"] == "nf4-double"
    assert tuned["scores"] != as_trained["scores"], "4-bit weights answer otherwise"
    assert systems["base without adapter"]["serving"] == tuned["serving"]

    judged = serving_of(short)
    assert judged.is_judged
    assert judged.serving == Serving.from_json(tuned["serving"])
    assert judged.serving.generation["max_new_tokens"] == 8
    assert judged.serving.reading == reading
    assert Serving.from_json(as_trained["serving"]).reading == reading
    page = (report / "report.html").read_text(encoding="utf-8")
    for text in (AS_TRAINED, "quantization nf4-double", "quantization none"):
        assert text in page
        assert text in log, "the table of the terminal"
    assert "of 4 parts of a training, 0 are alive" in log


def test_what_cannot_serve_here_is_published_without_scores(short, trials):
    short["serve"] = {"engine": "vllm", "dtype": "bfloat16"}
    code, log = trials.run(short)
    assert code == ExitCode.DONE, log
    judged = serving_of(short)
    assert not judged.is_judged
    assert (judged.serving.engine, judged.serving.dtype) == ("vllm", "bfloat16")
    left_out = journal_of(store_of(short))["facts"]["left_out"]
    assert "vLLM is not installed" in left_out["scores"]
    card = Path(short["output"]) / short["run"] / "adapter" / "README.md"
    text = " ".join(card.read_text("utf-8").split())
    assert "vLLM is to serve it, and is not installed where it was trained" in text
    assert "scores it on a machine that serves it" in text
    assert "Traceback" not in log, "the plan has warned of it"


def test_an_adapter_serves_by_default_as_a_night_would_choose(short):
    wish = serving_wish(TrainConfig.model_validate(short))
    assert wish.section.quantization is None, "although it is trained on 4-bit weights"
    assert (wish.engine, wish.adapter_weights, wish.tensor_parallel) == ("auto", "separate", 1)
    assert wish.section.dtype == "auto"


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"serve": {"adapter_weights": "merged", "quantization": "nf4"}}, "merging into 4-bit"),
        ({"serve": {"engine": "transformers", "tensor_parallel": 2}}, "is for vLLM"),
        (
            {"evaluation": {"as_trained": True}, "training": {"distribution": "fsdp"}},
            "shares it between several",
        ),
    ],
)
def test_settings_that_exclude_each_other_are_mistakes(short, keys, message):
    with pytest.raises(ValueError, match=message):
        TrainConfig.model_validate(short | keys)
