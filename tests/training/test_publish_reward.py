"""Claims about the end of a reward training: pairs scored from the disk, manifest, card, report."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from job.config.commands import TrainConfig
from job.errors import ConfigError
from job.evaluation.reload import Reload, ReloadError, judge_scores
from job.model.adapter_files import ADAPTER_WEIGHTS, HEAD_WEIGHT
from job.model.fetch import read_adapter
from job.model.reward import read_reward_model
from job.storage.local import LocalStore
from job.training import plain_load
from job.training.attempt import CurrentAttempt
from job.training.build import build_trainer
from job.training.gate import published_adapter
from job.training.plain_process import PlainProcess
from job.training.prepare import prepare
from job.training.publish import write_adapter
from job.training.publish_reward import _score, score_and_publish_reward
from job.training.stop import StopSignal
from job.training.verify import verify_reward_model
from tests.rewards import publish_reward_model
from tests.training.conftest import judged_records, write_jsonl

pytestmark = pytest.mark.usefixtures("one_thread")


def reward_config_of(config: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Return the config of a reward training on twelve pairs, with three and four held out."""
    counts = {"train": (12, 0), "validation": (3, 100), "test": (4, 200)}
    files = {name: judged_records("reward", *count) for name, count in counts.items()}
    data = {name: str(write_jsonl(folder / f"{name}-pairs.jsonl", files[name])) for name in files}
    found = {key: value for key, value in config.items() if key != "generation"}
    return found | {"method": "reward", "data": data}


class InThisProcess(PlainProcess):
    """Answers as the fresh process does, which would take seconds to import its libraries."""

    def _run(self, request: bytes) -> int:
        self.folder.mkdir(exist_ok=True)
        asked = json.loads(request)
        try:
            found = plain_load.answer(asked)
        except (KeyError, ValueError) as error:
            self._log.write_text(f"{type(error).__name__}: {error}")
            return 1
        Path(asked["answer"]).write_text(json.dumps(found))
        return 0


@pytest.fixture
def attempt(config: dict[str, Any], tmp_path: Path) -> CurrentAttempt:
    """Write a reward model with random weights, and return the attempt that is to publish it."""
    return write_random(config, tmp_path)


def write_random(config: dict[str, Any], tmp_path: Path) -> CurrentAttempt:
    (tmp_path / "work").mkdir()
    loaded = TrainConfig.model_validate(reward_config_of(config, tmp_path))
    run = prepare(loaded, tmp_path / "work", LocalStore(str(tmp_path / "runs" / "tiny")))
    trainer = build_trainer(run, wait_for_uploads=lambda: None)
    with torch.no_grad():
        generator = torch.Generator().manual_seed(2)
        for weight in trainer.model.parameters():
            if weight.requires_grad:
                weight += 0.2 * torch.randn(weight.shape, generator=generator)
    write_adapter(run, trainer)
    found = CurrentAttempt(run, step=0, committed=0)
    found.weights_in_memory = trainer.model.get_base_model().weights_in_memory
    return found


@pytest.fixture
def published(attempt: CurrentAttempt) -> Any:
    """Publish the reward model, and return its run."""
    score_and_publish_reward(attempt, [], StopSignal())
    assert not attempt.left_out
    return attempt.run


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
    assert "reload" not in manifest.extra  # with publish.verify: false


def other_head(weights: dict[str, torch.Tensor]) -> None:
    weights[HEAD_WEIGHT] *= 1.02


def no_head(weights: dict[str, torch.Tensor]) -> None:
    del weights[HEAD_WEIGHT]


def other_adapter(weights: dict[str, torch.Tensor]) -> None:
    (name, *_) = (name for name in weights if "lora_B" in name)
    weights[name] *= -1


def no_tensor(weights: dict[str, torch.Tensor]) -> None:
    (name, *_) = (name for name in weights if "lora_B" in name)
    del weights[name]


def test_a_reward_model_is_reloaded_before_it_is_published(attempt: CurrentAttempt, tmp_path: Path):
    published = attempt.run.config.publish.model_copy(update={"verify": True})
    config = attempt.run.config.model_copy(update={"publish": published})
    run = replace(attempt.run, config=config)
    attempt.run = run
    folder = run.work / "adapter"
    scored = _score(run, folder)
    rows = scored.rows
    assert len(rows.scores) == 8  # of four pairs
    margins = [rows.scores[row] - rows.scores[row + 1] for row in range(0, 8, 2)]
    assert scored.found.margin is not None
    assert scored.found.accuracy is not None
    assert scored.found.margin.mean == pytest.approx(sum(margins) / 4, rel=1e-4)
    assert scored.found.accuracy.mean == sum(margin > 0 for margin in margins) / 4
    process = InThisProcess(tmp_path / "plain", 60)
    found = verify_reward_model(attempt, folder, rows, process)
    assert found is not None
    assert (found.state, found.compared, found.same) == ("same", 8, 8)
    assert Reload.from_facts(json.loads(json.dumps(found.facts()))) == found
    assert "8 scores, 0.00% apart at most" in found.sentence()

    damages: dict[Callable[[dict[str, torch.Tensor]], None], str] = {
        other_head: "different",
        no_head: "not loaded",
        other_adapter: "different",
        no_tensor: "not loaded",
    }
    for damage, state in damages.items():
        damaged = tmp_path / damage.__name__
        shutil.copytree(folder, damaged)
        weights = load_file(damaged / ADAPTER_WEIGHTS)
        damage(weights)
        save_file(weights, damaged / ADAPTER_WEIGHTS, {"format": "pt"})
        with pytest.raises(ReloadError, match="the adapter is not published"):
            verify_reward_model(attempt, damaged, rows, process)
        assert attempt.reload["state"] == state, damage.__name__

    # Nothing was scored: it is loaded all the same.
    found = verify_reward_model(attempt, folder, None, process)
    assert found is not None
    assert found.state == "not compared"


def lost(folder: Path) -> None:
    weights = load_file(folder / ADAPTER_WEIGHTS)
    weights = {name: weights[name] * (0 if "lora_B" in name else 1) for name in weights}
    save_file(weights, folder / ADAPTER_WEIGHTS, {"format": "pt"})


def hardly_other(folder: Path) -> None:
    """Change one tensor by less than rounding changes the scores."""
    weights = load_file(folder / ADAPTER_WEIGHTS)
    (name, *_) = (name for name in weights if "lora_B" in name)
    weights[name] *= 1.01
    save_file(weights, folder / ADAPTER_WEIGHTS, {"format": "pt"})


def other_scale(folder: Path) -> None:
    config = json.loads((folder / "adapter_config.json").read_text())
    config["lora_alpha"] *= 1.01
    (folder / "adapter_config.json").write_text(json.dumps(config))


def test_another_adapter_is_found_in_16_bits(config: dict[str, Any], tmp_path: Path):
    config["model"] |= {"dtype": "bfloat16"}
    attempt = write_random(config | {"publish": {"verify": True}}, tmp_path)
    run = attempt.run
    folder = run.work / "adapter"
    rows = _score(run, folder).rows
    process = InThisProcess(tmp_path / "plain", 60)
    found = verify_reward_model(attempt, folder, rows, process)
    assert found is not None
    assert found.state in ("same", "close")

    for damage in (lost, hardly_other, other_scale):
        damaged = tmp_path / damage.__name__
        shutil.copytree(folder, damaged)
        damage(damaged)
        with pytest.raises(ReloadError, match="the weights of its adapter are not those"):
            verify_reward_model(attempt, damaged, rows, process)


@pytest.mark.parametrize(
    ("found", "base", "state"),
    [
        ([10.02, 10.39], [9.7, 10.6], "close"),
        ([9.7, 10.6], [9.7, 10.6], "different"),  # the adapter does nothing
        ([10.03, 10.37], [10.03, 10.37], "close"),  # nor in recap, but for rounding
    ],
)
def test_what_an_adapter_does_counts_beside_a_large_offset(found, base, state):
    assert judge_scores([10.0, 10.4], found, base, "bfloat16", {}).state == state


def test_a_reward_model_goes_on_from_another(
    config: dict[str, Any], base_folder: Path, tmp_path: Path
):
    publish_reward_model(base_folder, tmp_path / "first", str(tmp_path / "last-week"))
    wanted = reward_config_of(config, tmp_path)
    del wanted["lora"]
    wanted["training"] |= {"max_steps": 2, "warmup_ratio": 0.0}
    wanted["training"]["start_from"] = str(tmp_path / "last-week")
    loaded = TrainConfig.model_validate(wanted)
    (tmp_path / "work").mkdir()
    run = prepare(loaded, tmp_path / "work", LocalStore(str(tmp_path / "runs" / "tiny")))
    assert run.config.lora.r == 2
    trainer = build_trainer(run, wait_for_uploads=lambda: None)
    trainer.args.save_strategy = trainer.args.eval_strategy = "no"
    before = load_file(tmp_path / "last-week" / ADAPTER_WEIGHTS)
    write_adapter(run, trainer)
    found = load_file(run.work / "adapter" / ADAPTER_WEIGHTS)
    assert set(found) == set(before)
    assert all(torch.equal(found[name], before[name]) for name in before)
    trainer.train()
    write_adapter(run, trainer)
    after = load_file(run.work / "adapter" / ADAPTER_WEIGHTS)
    assert not torch.equal(after[HEAD_WEIGHT], before[HEAD_WEIGHT])
    assert sum(not torch.equal(after[name], before[name]) for name in before) > 2
