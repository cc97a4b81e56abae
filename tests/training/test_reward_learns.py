"""Claims about a planted preference: a reward model finds it, and nothing among shuffled pairs."""

import json
import random
from pathlib import Path
from typing import Any

import pytest

from job.config.commands import TrainConfig
from job.evaluation.reward_pairs import RewardOnPairs
from job.storage.local import LocalStore
from job.training.attempt import CurrentAttempt
from job.training.build import build_trainer
from job.training.prepare import prepare
from job.training.publish import write_adapter
from job.training.publish_reward import score_and_publish_reward
from job.training.stop import StopSignal
from tests.training.conftest import write_jsonl

pytestmark = [pytest.mark.quality, pytest.mark.usefixtures("one_thread", "places")]

DEMO = Path(__file__).parents[2] / "examples" / "demo"
WANTED = ("The case is closed.", "No question is open.", "Both sides agree now.")
UNWANTED = ("Hello and good day.", "Thanks for your time.", "Have a nice day.")
TRAIN, VALIDATION = 96, 60


def pairs(is_shuffled: bool) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return pairs whose wanted summary ends as `WANTED`: as many words as the other has.

    Of the shuffled ones, every second training pair of each ending is the wrong way round.
    """
    rng = random.Random(5)
    made = []
    lines = (DEMO / "train.jsonl").read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines[: TRAIN + VALIDATION]):
        record = json.loads(line)
        (summary, *_) = record.pop("summaries")
        good, bad = WANTED[number % 3], UNWANTED[rng.randrange(3)]
        answers = [f"{summary} {good}", f"{summary} {bad}"]
        if is_shuffled and number < TRAIN and number // 3 % 2:
            answers.reverse()
        made.append(record | {"chosen": answers[0], "rejected": answers[1]})
    return made[:TRAIN], made[TRAIN:]


def trained(tmp_path: Path, is_shuffled: bool) -> RewardOnPairs:
    """Train a reward model on the demo's base, and return what it is worth on other pairs."""
    train, validation = pairs(is_shuffled)
    loaded = TrainConfig.model_validate(
        {
            "run": "tiny",
            "method": "reward",
            "model": {"base": str(DEMO / "base"), "quantization": None},
            "data": {
                "train": str(write_jsonl(tmp_path / "train.jsonl", train)),
                "validation": str(write_jsonl(tmp_path / "validation.jsonl", validation)),
            },
            "output": str(tmp_path / "runs"),
            "lora": {"r": 8, "alpha": 16},
            "prompt": {"system": "Summarize."},
            "training": {
                "epochs": 1, "learning_rate": 3e-3, "batch_size": 8, "max_tokens": 400,
                "gradient_accumulation_steps": 1,
            },
        }
    )  # fmt: skip
    work = tmp_path / "work"
    work.mkdir()
    run = prepare(loaded, work, LocalStore(str(tmp_path / "runs" / "tiny")))
    trainer = build_trainer(run, wait_for_uploads=lambda: None)
    trainer.args.save_strategy = trainer.args.eval_strategy = "no"
    trainer.train()
    write_adapter(run, trainer)
    score_and_publish_reward(CurrentAttempt(run, step=1, committed=1), [], StopSignal())
    content = (tmp_path / "runs/tiny/adapter/reward.json").read_text(encoding="utf-8")
    return RewardOnPairs.from_json(json.loads(content))


def test_a_planted_preference_is_found(tmp_path: Path) -> None:
    found = trained(tmp_path, is_shuffled=False)
    assert found.accuracy is not None
    assert found.accuracy.low > 0.5
    assert found.is_trusted


def test_nothing_is_found_in_shuffled_pairs(tmp_path: Path) -> None:
    found = trained(tmp_path, is_shuffled=True)
    assert not found.is_trusted
