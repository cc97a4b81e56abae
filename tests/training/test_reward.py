"""Claims about reward training: the loss of Bradley and Terry, whatever the micro-batches."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from peft import get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import RewardConfig, RewardTrainer

from job.config.commands import TrainConfig
from job.model.reward import reward_config, score_in_forward
from job.training.batches import Ranks, StepBatch
from job.training.needs import Needs
from job.training.reward import RewardModelTrainer, prepare_to_score
from tests.training.pairs import PAIRS

pytestmark = pytest.mark.usefixtures("one_thread")


class PlainReward(RewardTrainer):  # type: ignore[misc]
    """TRL's trainer, which would end rows with another end token."""

    def _prepare_dataset(self, dataset: Any, *_: Any) -> Any:
        return dataset


@pytest.fixture
def made(base_folder: Path, tmp_path: Path, config: dict[str, Any]) -> Any:
    """Return a function that makes a trainer of a reward model that has learned something."""
    loaded = TrainConfig.model_validate(config)

    def make(kind: type = RewardModelTrainer, rows_at_once: int = 4) -> Any:
        base = AutoModelForCausalLM.from_pretrained(base_folder, dtype=torch.float32)
        prepare_to_score(base)
        score_in_forward(base)
        model = get_peft_model(base, reward_config(loaded.lora, base))
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for weight in model.parameters():
                if weight.requires_grad:
                    weight += 0.1 * torch.randn(weight.shape, generator=generator)
        args = RewardConfig(
            output_dir=str(tmp_path / "trained"), per_device_train_batch_size=len(PAIRS),
            max_steps=3, bf16=False, use_cpu=True, gradient_checkpointing=False,
            save_strategy="no", report_to="none", disable_tqdm=True, learning_rate=0.01,
            lr_scheduler_type="constant", logging_steps=1, data_seed=1,
        )  # fmt: skip
        rows = PAIRS
        if kind is PlainReward:
            names = ("chosen_ids", "rejected_ids")
            rows = [{name: row["prompt_ids"] + row[name] for name in names} for row in PAIRS]
        named: dict[str, Any] = {
            "model": model,
            "args": args,
            "train_dataset": Dataset.from_list(rows),
            "eval_dataset": Dataset.from_list(rows[:3]),
            "processing_class": AutoTokenizer.from_pretrained(base_folder),
        }
        if kind is RewardModelTrainer:
            needs = Needs(loaded.limits, True, lambda: None, rows_at_once, False, False)
            return kind(needs, **named)
        return kind(**named)

    return make


def step_of(trainer: Any) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Return loss and gradients of one step over all pairs."""
    trainer.current_gradient_accumulation_steps = 1  # as transformers sets it
    samples, count = trainer.get_batch_samples(iter([PAIRS]), 1, torch.device("cpu"))
    trainer.model.zero_grad()
    loss = trainer.training_step(trainer.model, samples[0], count)
    return loss, gradients(trainer)


def gradients(trainer: Any) -> dict[str, torch.Tensor]:
    return {
        name: weight.grad.clone()
        for name, weight in trainer.model.named_parameters()
        if weight.grad is not None
    }


def scores(trainer: Any) -> list[tuple[float, float]]:
    """Return both scores of each pair, each computed alone, by the body and the head."""
    base = trainer.model.get_base_model()
    head = base.score.modules_to_save["default"].weight[0]
    found = []
    for row in PAIRS:
        own = []
        for name in ("chosen_ids", "rejected_ids"):
            ids = torch.tensor([row["prompt_ids"] + row[name]])
            with torch.no_grad():
                own.append(float(base.model(ids).last_hidden_state[0, -1] @ head))
        found.append((own[0], own[1]))
    return found


def test_the_loss_is_that_of_a_hand_computation(made: Any):
    trainer = made()
    wanted = sum(math.log1p(math.exp(bad - good)) for good, bad in scores(trainer)) / len(PAIRS)
    loss, _ = step_of(trainer)
    assert float(loss) == pytest.approx(wanted, rel=1e-5)
    assert wanted != pytest.approx(math.log(2), rel=1e-3)


def test_loss_and_gradients_are_those_of_trl(made: Any):
    ours, plain = made(), made(PlainReward)
    loss, found = step_of(ours)
    names = ("chosen_ids", "rejected_ids")
    whole = [{name: row["prompt_ids"] + row[name] for name in names} for row in PAIRS]
    expected = plain.compute_loss(plain.model, plain.data_collator(whole))
    expected.backward()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    assert set(found) == set(gradients(plain))
    assert any("score" in name for name in found)
    for name, gradient in gradients(plain).items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-4, atol=1e-7)


def test_micro_batches_change_nothing(made: Any):
    whole, divided = made(rows_at_once=20), made(rows_at_once=2)
    loss, found = step_of(whole)
    other_loss, others = step_of(divided)
    samples, _ = divided.get_batch_samples(iter([PAIRS]), 1, torch.device("cpu"))
    assert len(samples[0].micro_batches) > 1
    assert float(loss) == pytest.approx(float(other_loss), rel=1e-6)
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, others[name], rtol=1e-4, atol=1e-7)


def test_the_end_token_counts_where_it_is_the_pad_token(made: Any):
    trainer = made()
    trainer.data_collator.pad_token_id = 1  # the last of each answer
    wanted = sum(math.log1p(math.exp(bad - good)) for good, bad in scores(trainer)) / len(PAIRS)
    loss, _ = step_of(trainer)
    assert float(loss) == pytest.approx(wanted, rel=1e-5)


def test_an_evaluation_is_of_all_pairs(made: Any):
    trainer = made()
    found = trainer.evaluate()
    pairs = scores(trainer)[:3]
    margins = [good - bad for good, bad in pairs]
    assert found["eval_rewards/margins"] == pytest.approx(sum(margins) / 3, rel=1e-4)
    assert found["eval_rewards/accuracies"] == sum(margin > 0 for margin in margins) / 3
    wanted = sum(math.log1p(math.exp(-margin)) for margin in margins) / 3
    assert found["eval_loss"] == pytest.approx(wanted, rel=1e-4)


def test_the_head_learns(made: Any):
    trainer = made()
    head = trainer.model.get_base_model().score.modules_to_save["default"].weight
    before = head.detach().clone()
    trainer.train()
    assert not torch.equal(head, before)
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert losses[-1] < losses[0]


def test_an_idle_rank_adds_nothing(made: Any):
    trainer = made()
    trainer.ranks = Ranks(1, 0)
    idle = trainer.collator.idle()
    assert int(trainer.shares_of(idle)) == 0
    assert trainer.sums_of(trainer.model, idle).tolist() == [0.0] * 5
    assert isinstance(StepBatch(PAIRS, [idle], 0), StepBatch)
