"""Claims about the validation loss: one number for one model and one set of rows."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from trl.trainer.utils import _ChunkedLogProbFunction

from job.errors import ConfigError
from tests.training.conftest import records, write_jsonl

pytestmark = pytest.mark.usefixtures("places", "one_thread")


@pytest.fixture
def uneven(config: dict[str, Any], tmp_path: Path) -> dict[str, Any]:
    """Ten validation rows whose references differ in length, and a model that stays as it is."""
    lines = records(5, first=100)
    for number, record in enumerate(lines):
        record["summaries"] = [f"It works again {'and again ' * 6 * number}.", f"Fixed {number}."]
    config["data"]["validation"] = str(write_jsonl(tmp_path / "uneven.jsonl", lines))
    config["training"] |= {"max_steps": 1, "sample_summaries": 0, "warmup_ratio": 0.5}
    return config


def loss_by_hand(trainer: Any) -> float:
    """Return the mean loss by token, computed row by row."""
    loss = 0.0
    tokens = 0
    trainer.model.eval()
    for row in trainer.eval_dataset:
        ids = torch.tensor([row["input_ids"]])
        labels = torch.tensor(row["labels"][1:])
        with torch.no_grad():
            logits = trainer.model(input_ids=ids).logits[0, :-1].double()
        counted = labels != -100
        chances = logits.log_softmax(-1)[counted, labels[counted]]
        loss -= chances.sum().item()
        tokens += int(counted.sum())
    return loss / tokens


@pytest.mark.parametrize("packing", [False, True])
def test_the_loss_is_by_tokens_in_batches_of_any_size(uneven, trainer_of, packing):
    trainer = trainer_of(uneven, packing=packing)
    wanted = loss_by_hand(trainer)
    for tokens in (1, 200, 400, 9999):
        trainer.evaluation_budget = replace(trainer.evaluation_budget, tokens=tokens)
        assert trainer.evaluate()["eval_loss"] == pytest.approx(wanted, rel=1e-5), tokens
    assert trainer.state.log_history[-1]["eval_loss"] == pytest.approx(wanted, rel=1e-5)


@pytest.fixture
def crowded(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that sets how many rows fit into memory."""
    from job.training.trainer import RecapTrainer

    step = RecapTrainer.prediction_step

    def limit(rows: int) -> None:
        def in_little_memory(self: Any, model: Any, inputs: Any, *more: Any, **named: Any) -> Any:
            if len(inputs["input_ids"]) > rows:
                raise torch.OutOfMemoryError("on purpose")
            return step(self, model, inputs, *more, **named)

        monkeypatch.setattr(RecapTrainer, "prediction_step", in_little_memory)

    return limit


def test_smaller_batches_for_want_of_memory_keep_the_loss(uneven, trainer_of, crowded):
    trainer = trainer_of(uneven, batch_size=8)
    wanted = trainer.evaluate()["eval_loss"]
    crowded(2)
    trainer.evaluation_budget = replace(trainer.evaluation_budget, tokens_of_a_pass=9999)
    assert trainer.evaluate()["eval_loss"] == pytest.approx(wanted, rel=1e-5)
    smaller = trainer.evaluation_budget.tokens
    assert trainer.evaluate()["eval_loss"] == pytest.approx(wanted, rel=1e-5)
    assert trainer.evaluation_budget.tokens == smaller < trainer.budget.tokens


@pytest.mark.parametrize("patience", [None, 1])
def test_no_memory_for_a_row_ends_a_run_if_the_loss_decides(uneven, trainer_of, crowded, patience):
    trainer = trainer_of(uneven, patience=patience)
    crowded(0)
    if patience:
        with pytest.raises(ConfigError, match="while computing the validation loss"):
            trainer.evaluate()
    else:
        assert trainer.evaluate() == {}


@pytest.mark.faults  # a quarter of a minute: `make test-faults` runs it
def test_two_processes_get_the_loss_of_one(uneven, trainer_of, write_config, tmp_path):
    alone = trainer_of(uneven).evaluate()["eval_loss"]
    uneven["training"]["processes"] = 2  # with batches of 4, two of the last round's 8 rows are new
    done = subprocess.run(
        [sys.executable, "-m", "job", "train", str(write_config(uneven))],
        capture_output=True, text=True, env=os.environ | {"HF_HUB_OFFLINE": "1"}, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    journal = json.loads((tmp_path / "runs" / "tiny" / "run.json").read_text(encoding="utf-8"))
    assert journal["facts"]["processes"] == 2
    assert journal["facts"]["best"]["validation_loss"] == pytest.approx(alone, rel=1e-4)


def test_a_step_projects_learned_tokens_alone_and_attends_without_a_mask(
    uneven, trainer_of, monkeypatch
):
    trainer = trainer_of(uneven, packing=False)
    batch = next(iter(trainer.get_eval_dataloader()))
    assert (batch["attention_mask"] == 0).any()
    projected, masks = [], []
    real = _ChunkedLogProbFunction.forward

    def project(context: Any, hidden: torch.Tensor, *others: Any) -> Any:
        projected.append(len(hidden))
        return real(context, hidden, *others)

    monkeypatch.setattr(_ChunkedLogProbFunction, "forward", staticmethod(project))
    trainer.compute_loss(trainer.model, batch)
    body = trainer.model.get_base_model().model
    body.register_forward_pre_hook(
        lambda module, args, named: masks.append(named.get("attention_mask")), with_kwargs=True
    )
    trainer.compute_loss(trainer.model, batch)
    learned = int((batch["labels"][:, 1:] != -100).sum())
    assert projected[-2:] == [learned, learned]
    assert masks == [None]
