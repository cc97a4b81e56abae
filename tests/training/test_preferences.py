"""Claims about preference training: TRL's loss, whatever the micro-batches, and one reference."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from peft import get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import DPOConfig, DPOTrainer, KTOConfig, KTOTrainer

from job.config.commands import TrainConfig
from job.model.adapter import lora_config
from job.training.batches import Ranks, StepBatch
from job.training.needs import Needs
from job.training.preferences import PairTrainer, ThumbTrainer, with_mismatched
from job.training.trainer import RecapTrainer
from tests.training.pairs import PAIRS

pytestmark = pytest.mark.usefixtures("one_thread")

THUMBS = [
    {"prompt_ids": [5, 6, 7, 8], "completion_ids": [9, 10, 1], "label": True},
    {"prompt_ids": [12, 13], "completion_ids": [14, 1], "label": False},
    {"prompt_ids": [20] * 9, "completion_ids": [21, 22, 23, 1], "label": True},
    {"prompt_ids": [30, 31, 32], "completion_ids": [33, 1], "label": True},
    {"prompt_ids": [40] * 6, "completion_ids": [41] * 7 + [1], "label": False},
]
DPO = {"loss_type": ["sigmoid", "sft"], "loss_weights": [1.0, 0.7]}
KTO = {
    "desirable_weight": 1.4, "undesirable_weight": 0.8, "train_sampling_strategy": "sequential"
}  # fmt: skip
BOTH = pytest.mark.parametrize("kind", [PairTrainer, ThumbTrainer])


def changed(model: Any, seed: int) -> Any:
    """Return the model after a change of its adapter."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if ".default." in name:
                weight += 0.1 * torch.randn(weight.shape, generator=generator)
    return model


@pytest.fixture
def made(base_folder: Path, tmp_path: Path, config: dict[str, Any]) -> Any:
    """Return a function that makes a trainer of pairs whose adapter has been trained before."""
    loaded = TrainConfig.model_validate(config)

    def make(kind: type) -> Any:
        torch.manual_seed(0)
        base = AutoModelForCausalLM.from_pretrained(base_folder, dtype=torch.float32)
        model = changed(get_peft_model(base, lora_config(loaded.lora, base)), seed=1)
        is_of_pairs = issubclass(kind, DPOTrainer)
        rows = PAIRS if is_of_pairs else THUMBS
        config_of = partial(DPOConfig, **DPO) if is_of_pairs else partial(KTOConfig, **KTO)
        args = config_of(
            output_dir=str(tmp_path / "trained"), per_device_train_batch_size=len(rows),
            max_steps=3, beta=0.3, bf16=False, use_cpu=True, gradient_checkpointing=False,
            save_strategy="no", report_to="none", disable_tqdm=True, learning_rate=0.01,
            lr_scheduler_type="constant", logging_steps=1, data_seed=1,
        )  # fmt: skip
        named: dict[str, Any] = {
            "model": model,
            "args": args,
            "train_dataset": Dataset.from_list(rows),
            "eval_dataset": Dataset.from_list(rows[:3]),
            "processing_class": AutoTokenizer.from_pretrained(base_folder),
        }
        if issubclass(kind, RecapTrainer):
            return kind(Needs(loaded.limits, True, lambda: None, 4, False, False), **named)
        return kind(**named)

    return make


class PlainPairs(DPOTrainer):
    """TRL's trainer with rows that have token ids already."""

    def _prepare_dataset(self, dataset: Any, *_: Any) -> Any:
        return dataset


class PlainThumbs(KTOTrainer):
    """TRL's trainer with rows that have token ids already, of which one batch has all."""

    def _prepare_dataset(self, dataset: Any, *_: Any) -> Any:
        completions = list(dataset["completion_ids"])
        return dataset.add_column("KL_completion_ids", [completions[-1], *completions[:-1]])


def gradients(model: Any) -> dict[str, torch.Tensor]:
    return {
        name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None
    }


def step_of(trainer: Any, rows: Any) -> tuple[float, dict[str, torch.Tensor]]:
    """Return the loss of a step on these rows, and its gradients."""
    trainer.model.zero_grad()
    [step], shares = trainer.get_batch_samples(iter([list(rows)]), 1, torch.device("cpu"))
    loss = trainer.training_step(trainer.model, step, shares)
    return loss.item(), gradients(trainer.model)


def begun(trainer: Any) -> Any:
    """Return the trainer as after some steps: another adapter than that of the reference."""
    trainer.current_gradient_accumulation_steps = 1  # as transformers sets it
    trainer.prepare_rows(trainer.model)
    changed(trainer.model, seed=2)
    return trainer


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    assert one.keys() == other.keys()
    assert one
    return all(torch.allclose(one[name], other[name], rtol=1e-4, atol=1e-6) for name in one)


@pytest.mark.parametrize(
    ("plain", "kind", "rows"),
    [(PlainPairs, PairTrainer, PAIRS), (PlainThumbs, ThumbTrainer, THUMBS)],
)
def test_loss_rewards_and_gradients_are_those_of_trl(
    made: Any, plain: type, kind: type, rows: Any
) -> None:
    theirs = made(plain)
    changed(theirs.model, seed=2)
    theirs.model.train()
    wanted = theirs.compute_loss(theirs.model, theirs.data_collator(list(theirs.train_dataset)))
    wanted.backward()

    ours = begun(made(kind))
    loss, found = step_of(ours, ours.train_dataset)
    assert loss == pytest.approx(wanted.item(), rel=1e-5)
    assert equal(found, gradients(theirs.model))
    for name, value in ours.rewards_of(ours.sums.tolist()).items():
        assert value == pytest.approx(theirs._metrics["train"][name][0], rel=1e-4), name


@BOTH
def test_a_step_has_one_loss_in_any_micro_batches(made: Any, kind: type) -> None:
    trainer = begun(made(kind))
    wanted, gradient = step_of(trainer, trainer.train_dataset)
    rewards = trainer.sums.tolist()
    for tokens in (1, 30, 60, 90):
        trainer.budget = replace(trainer.budget, tokens=tokens)
        trainer.sums.zero_()
        loss, found = step_of(trainer, trainer.train_dataset)
        assert loss == pytest.approx(wanted, rel=1e-5)
        assert equal(found, gradient)
        assert trainer.sums.tolist() == pytest.approx(rewards, rel=1e-5)
        trainer.evaluation_budget = trainer.budget
        metrics = trainer.evaluate()
        loss_of_step = step_of(trainer, trainer.eval_dataset)[0]
        assert metrics["eval_loss"] == pytest.approx(loss_of_step, rel=1e-5)


@BOTH
def test_the_mean_of_two_ranks_is_the_step_of_one(made: Any, kind: type) -> None:
    trainer = begun(made(kind))
    wanted, gradient = step_of(trainer, trainer.train_dataset)
    rows = list(trainer.train_dataset)
    _, shares = trainer.get_batch_samples(iter([rows]), 1, torch.device("cpu"))
    trainer.begin_step = lambda *_: None  # all ranks have the divergence of all rows by now
    trainer.ranks = Ranks(2, 0)
    trainer.model.zero_grad()
    loss = 0.0
    for own in (rows[:2], rows[2:]):
        step = StepBatch(own, trainer.collator.micro_batches(own, trainer.budget), 0)
        loss += trainer.training_step(trainer.model, step, shares).item()
    assert loss / 2 == pytest.approx(wanted, rel=1e-5)
    halved = {name: grad / 2 for name, grad in gradients(trainer.model).items()}
    assert equal(halved, gradient)


@BOTH
def test_an_idle_rank_adds_nothing(made: Any, kind: type) -> None:
    trainer = begun(made(kind))
    loss, found = step_of(trainer, [])
    assert loss == 0
    assert not any(weight.any() for weight in found.values())
    assert not trainer.sums.any()


def test_a_mismatched_completion_is_that_of_another_prompt() -> None:
    rows = [
        {"prompt_ids": [prompt], "completion_ids": [number]}
        for number, prompt in enumerate([7, 7, 8, 7])
    ]
    found = with_mismatched(Dataset.from_list(rows))
    assert found["KL_completion_ids"] == [[2], [2], [1], [2]]
    alone = with_mismatched(Dataset.from_list(rows[:1]))
    assert alone["KL_completion_ids"] == [[0]]


def test_no_mismatched_sequence_is_longer_than_the_longest_row() -> None:
    rows = [
        {"prompt_ids": [1, 1], "completion_ids": [10, 11, 12, 13]},
        {"prompt_ids": [2, 2, 2, 2, 2], "completion_ids": [20]},
    ]
    found = with_mismatched(Dataset.from_list(rows))
    assert found["KL_completion_ids"] == [[20], [10]]


def hand_computed(model: Any, prompt: list[int], completion: list[int]) -> float:
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([prompt + completion])).logits[0].double()
    chances = logits.log_softmax(dim=-1)
    places = range(len(prompt) - 1, len(prompt) + len(completion) - 1)
    return sum(chances[list(places), completion].tolist())


def test_the_reference_is_the_adapter_that_the_training_starts_from(made: Any) -> None:
    trainer = made(PairTrainer)
    assert list(trainer.model.peft_config) == ["default"]
    trainer.model.eval()
    wanted = []
    for pair in [*PAIRS, *PAIRS[:3]]:
        answers = [pair["chosen_ids"], pair["rejected_ids"]]
        wanted.append([hand_computed(trainer.model, pair["prompt_ids"], ids) for ids in answers])
    trainer.train()
    assert trainer.state.global_step == 3
    assert trainer.reference.tolist() == [pytest.approx(row, rel=1e-5) for row in wanted]
    first, *_, last = [entry for entry in trainer.state.log_history if "loss" in entry]
    assert first["rewards/margins"] == pytest.approx(0, abs=1e-5)
    assert last["rewards/margins"] > 0.05
    assert last["rewards/accuracies"] > 0.5
