"""Claims about the end of a reward training: pairs scored from the disk, manifest, card, report."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from job.config.commands import TrainConfig
from job.errors import ConfigError
from job.model.fetch import read_adapter
from job.model.reward import read_reward_model
from job.storage.local import LocalStore
from job.training.attempt import CurrentAttempt
from job.training.build import build_trainer
from job.training.gate import published_adapter
from job.training.prepare import prepare
from job.training.publish import write_adapter
from job.training.publish_reward import score_and_publish_reward
from job.training.stop import StopSignal
from tests.training.conftest import judged_records, write_jsonl

pytestmark = pytest.mark.usefixtures("one_thread")


def reward_config_of(config: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Return the config of a reward training on twelve pairs, with three and four held out."""
    counts = {"train": (12, 0), "validation": (3, 100), "test": (4, 200)}
    files = {name: judged_records("reward", *count) for name, count in counts.items()}
    data = {name: str(write_jsonl(folder / f"{name}-pairs.jsonl", files[name])) for name in files}
    found = {key: value for key, value in config.items() if key != "generation"}
    return found | {"method": "reward", "data": data}


@pytest.fixture
def published(config: dict[str, Any], tmp_path: Path) -> Any:
    """Publish a reward model whose head has a weight on one hidden value, and return its run."""
    (tmp_path / "work").mkdir()
    loaded = TrainConfig.model_validate(reward_config_of(config, tmp_path))
    run = prepare(loaded, tmp_path / "work", LocalStore(str(tmp_path / "runs" / "tiny")))
    trainer = build_trainer(run, wait_for_uploads=lambda: None)
    with torch.no_grad():
        trainer.model.get_base_model().score.modules_to_save["default"].weight[0, 3] = 1.0
    write_adapter(run, trainer)
    attempt = CurrentAttempt(run, step=0, committed=0)
    score_and_publish_reward(attempt, [], StopSignal())
    assert not attempt.left_out
    return run


def test_what_a_reward_training_publishes(published: Any):
    folder = Path(published.store.uri.removeprefix("file://"))
    adapter = folder / "adapter"
    config = json.loads((adapter / "adapter_config.json").read_text())
    assert (config["task_type"], config["modules_to_save"]) == ("SEQ_CLS", ["score"])
    uri = str(adapter)
    manifest = read_reward_model(uri, published.config.storage, "key").manifest
    assert manifest.extra["method"] == "reward"
    assert manifest.extra["max_tokens"] == 512
    assert published_adapter(published).digest

    found = json.loads((adapter / "reward.json").read_text())
    assert (found["pairs"], found["has_chosen"]) == (4, False)
    assert 0 <= found["accuracy"]["low"] <= found["accuracy"]["high"] <= 1
    assert found == json.loads((folder / "report" / "reward.json").read_text())
    card = (adapter / "README.md").read_text()
    assert "A reward model" in card
    assert "accuracy" in card
    assert "ROUGE" not in card
    report = (folder / "report" / "report.html").read_text()
    assert "It agrees with people" in report
    assert "ROUGE" not in report
    with pytest.raises(ConfigError, match="scores summaries and writes none"):
        read_adapter(uri, published.config.storage)
