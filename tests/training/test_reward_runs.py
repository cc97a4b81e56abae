"""Claims about whole runs with a reward model: each setting, the reload, and the metric."""

import json
from pathlib import Path
from typing import Any

import pytest

from job.config.commands import TrainConfig
from job.errors import ConfigError, ExitCode
from job.preflight.training import plan_training
from job.storage.folders import verify_folder
from job.storage.local import LocalStore
from job.training.prepare import prepare
from tests.bases.base import make_base
from tests.bases.families import family
from tests.faults.trials import journal_of, store_of
from tests.rewards import publish_reward_model
from tests.training.conftest import judged_records, write_jsonl

pytestmark = [pytest.mark.quality, pytest.mark.usefixtures("places")]

SETTINGS: dict[str, dict[str, Any]] = {
    "patience, and the checkpoint of the lowest loss": {
        "training": {"patience": 1, "adapter_from": "best_evaluation"}
    },
    "rows by free memory": {"training": {"batch_size": "auto"}},
    "DoRA on a base in 4 bits": {
        "lora": {"variant": "dora"},
        "model": {"quantization": "nf4-double"},
    },
}


@pytest.fixture
def short(config: dict[str, Any]) -> dict[str, Any]:
    """A run of four steps."""
    config["training"] |= {"max_steps": 4, "save_every_steps": 1, "evaluate_every_steps": 1}
    config["training"] |= {"sample_summaries": 0, "learning_rate": 0.01, "warmup_ratio": 0.0}
    return config


@pytest.mark.parametrize("setting", SETTINGS)
def test_a_reward_model_is_trained_and_reloaded(setting, short, trials, tmp_path):
    counts = {"train": (12, 0), "validation": (4, 100)}
    short |= {"method": "reward", "publish": {"verify": True}}
    del short["generation"]
    short["data"] = {
        name: str(write_jsonl(tmp_path / f"{name}-pairs.jsonl", judged_records("reward", *count)))
        for name, count in counts.items()
    }
    for section, values in SETTINGS[setting].items():
        short[section] |= values
    code, log = trials.run(short)
    assert code == ExitCode.DONE, log
    adapter = Path(short["output"]) / "tiny" / "adapter"
    facts = journal_of(store_of(short))["facts"]
    assert facts["reload"]["compared"] == 8
    assert facts["reload"]["state"] in ("same", "close"), facts["reload"]
    assert verify_folder(adapter).extra["reload"] == facts["reload"]
    card = (adapter / "README.md").read_text(encoding="utf-8")
    assert "in a fresh process: 8 scores, " in card
    assert not facts["left_out"]


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("Falcon-H1", "no model with a head for scores .* such as a Llama, Qwen, Mistral or Gemma"),
        ("Qwen 3.5", "has of it lacks model.layers.* such as one for text alone"),
    ],
)
def test_plan_and_training_refuse_a_base_that_nothing_scores_with(name, why, short, tmp_path):
    entry = family(name)
    make_base(entry, tmp_path / "other")
    short |= {"method": "reward", "model": {"base": str(tmp_path / "other")}}
    del short["generation"]
    pairs = str(write_jsonl(tmp_path / "pairs.jsonl", judged_records("reward", 12)))
    short |= {"data": {"train": pairs}, "prompt": {"style": entry.style}}
    config = TrainConfig.model_validate(short)
    (planned,) = [check for check in plan_training(config).checks if check.name == "model"]
    with pytest.raises(ConfigError, match=why) as caught:
        prepare(config, tmp_path, LocalStore(str(tmp_path / "runs")))
    assert str(planned.error) == str(caught.value)


def test_what_is_not_what_was_scored_is_not_published(short, trials, tmp_path):
    short |= {"method": "reward", "publish": {"verify": True}}
    del short["generation"]
    short["data"] = {
        "train": str(write_jsonl(tmp_path / "pairs.jsonl", judged_records("reward", 12))),
        "validation": str(write_jsonl(tmp_path / "others.jsonl", judged_records("reward", 4, 100))),
    }
    code, log = trials.run(short, INSTRUMENTS="load_adapters_otherwise")
    assert code == ExitCode.BUG, log
    assert "What was written is not what was scored" in log
    run = Path(short["output"]) / "tiny"
    assert not (run / "adapter").exists()
    assert json.loads((run / "refused" / "reload.json").read_text())["state"] == "different"


def test_a_training_has_the_rewards_of_its_summaries(short, trials, base_folder, tmp_path):
    judge = str(tmp_path / "judge")
    publish_reward_model(base_folder, tmp_path / "work", judge)
    pairs = write_jsonl(tmp_path / "judged.jsonl", judged_records("reward", 6, 300))
    short["evaluation"]["reward_model"] = {"adapter": judge, "pairs": str(pairs)}
    code, log = trials.run(short)
    assert code == ExitCode.DONE, log
    report = Path(short["output"]) / "tiny" / "report"
    evaluation = json.loads((report / "evaluation.json").read_text(encoding="utf-8"))
    record = evaluation["models"]["reward"]
    assert record["trust"]["pairs"]["pairs"] == 6
    assert "reward" in evaluation["systems"]["tuned"]["scores"]
    assert all("reward" in found for found in evaluation["differences"].values())
    card = (report.parent / "adapter" / "README.md").read_text(encoding="utf-8")
    assert "could not be compared with what it was trained on" in card, "no run.json is beside it"
    assert "held-out pairs" not in card
