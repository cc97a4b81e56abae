"""Claims about micro-batches: they change how a step is computed, and never what it computes."""

import random
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from job.prompt.encode import IGNORED
from job.training.batches import (
    Budget,
    EpochSampler,
    EvaluationSampler,
    Ranks,
    StepSampler,
)
from job.training.interruptions import LossWindow

LENGTHS = [random.Random(5).randrange(3, 400) for _ in range(70)]


def padded(lengths: list[int], batches: list[list[int]]) -> list[int]:
    return [max(lengths[row] for row in batch) * len(batch) for batch in batches]


@pytest.mark.parametrize("tokens", [1, 400, 1000, 99_999])
@pytest.mark.parametrize("tokens_of_a_pass", [0, 64, 512])
def test_each_row_is_in_one_micro_batch_within_the_budget(tokens, tokens_of_a_pass):
    batches = Budget(tokens, tokens_of_a_pass).divide(LENGTHS)
    assert sorted(row for batch in batches for row in batch) == list(range(len(LENGTHS)))
    for batch, size in zip(batches, padded(LENGTHS, batches), strict=True):
        assert size <= tokens or len(batch) == 1
    longest = [LENGTHS[batch[0]] for batch in batches]
    assert longest == sorted(longest, reverse=True)


def test_short_rows_share_a_pass_and_long_ones_do_not_pad_them():
    budget = Budget(tokens=1000, tokens_of_a_pass=64)
    assert budget.divide([20, 900, 22, 18, 450, 440]) == [[1], [4, 5], [2, 0, 3]]


def test_no_division_into_batches_of_one_size_costs_less():
    budget = Budget(tokens=1600, tokens_of_a_pass=64)
    own = padded(LENGTHS, budget.divide(LENGTHS))
    by_length = sorted(range(len(LENGTHS)), key=lambda row: -LENGTHS[row])
    for size in (1, 2, 4):
        others = [by_length[start : start + size] for start in range(0, len(LENGTHS), size)]
        cost = sum(padded(LENGTHS, others)) + 64 * len(others)
        assert sum(own) + 64 * len(own) <= cost


def test_joined_rows_have_no_padding_to_save():
    budget = Budget(tokens=100, tokens_of_a_pass=10, joins_rows=True)
    assert budget.divide([60, 40, 39, 1, 60]) == [[0], [4], [1, 2, 3]]


def test_a_smaller_budget_makes_more_micro_batches_until_each_row_is_alone():
    budget: Budget | None = Budget(tokens=9_999, tokens_of_a_pass=512)
    counts = []
    while budget is not None:
        counts.append(len(budget.divide([100, 90, 80, 70, 9])))
        budget = budget.smaller([100, 90, 80, 70, 9])
    assert counts == sorted(set(counts))
    assert counts[0] == 1
    assert counts[-1] == 5


@pytest.mark.parametrize("count", [1, 2, 3, 8])
def test_the_ranks_have_each_row_of_a_step_once_and_like_tokens(count):
    order = EpochSampler([1] * len(LENGTHS), 8, 42, lambda: 1)
    shares = []
    for index in range(count):
        shares.append(list(StepSampler(order, LENGTHS, 33, Ranks(count, index))))
    rows = list(order)
    steps = [rows[:33], rows[33:66], rows[66:]]
    for step, of_ranks in zip(steps, zip(*shares, strict=True), strict=True):
        assert sorted(row for share in of_ranks for row in share) == sorted(step)
    tokens = [sum(LENGTHS[row] for row in share[0]) for share in shares]
    assert max(tokens) - min(tokens) <= max(LENGTHS)


@pytest.mark.parametrize("count", [1, 3])
def test_the_ranks_evaluate_each_row_once_in_as_many_batches(count):
    samplers = [
        EvaluationSampler(LENGTHS, Budget(1000, 64), Ranks(count, rank)) for rank in range(count)
    ]
    rows = [row for sampler in samplers for batch in sampler for row in batch]
    assert sorted(rows) == list(range(len(LENGTHS)))
    assert len({len(sampler) for sampler in samplers}) == 1


@pytest.mark.usefixtures("places", "one_thread")
def test_the_rows_of_a_step_depend_on_their_number_alone(config, trainer_of):
    """As with transformers, rows are grouped by length over a number of steps, not of passes."""
    orders = []
    for batch_size, count in ((8, 1), (4, 2)):
        trainer = trainer_of(config, batch_size=batch_size, gradient_accumulation_steps=count)
        assert trainer.args.train_sampling_strategy == "group_by_length"
        orders.append(list(trainer.get_train_dataloader().batch_sampler))
    assert orders[0] == orders[1]


def gradients(trainer: Any) -> dict[str, torch.Tensor]:
    found = {}
    for name, weight in trainer.model.named_parameters():
        if weight.requires_grad:
            found[name] = weight.grad.clone()
    trainer.model.zero_grad()
    return found


def step_of(trainer: Any, budget: Budget) -> tuple[int, float, dict[str, torch.Tensor]]:
    """Return the micro-batches, the loss and the gradients of the first step by a budget."""
    trainer.budget = budget
    torch.manual_seed(9)
    batches = iter(trainer.get_train_dataloader())
    (step,), learned = trainer.get_batch_samples(batches, 1, torch.device("cpu"))
    loss = trainer.training_step(trainer.model, step, learned)
    return len(step.micro_batches), float(loss), gradients(trainer)


def plain_step(trainer: Any) -> tuple[float, dict[str, torch.Tensor]]:
    """Return loss and gradients of the first step, of all logits of one row after the other."""
    rows = next(iter(trainer.get_train_dataloader()))
    learned = sum(label != IGNORED for row in rows for label in row["labels"][1:])
    total = 0.0
    for row in rows:
        logits = trainer.model(input_ids=torch.tensor([row["input_ids"]])).logits[0, :-1]
        labels = torch.tensor(row["labels"][1:])
        loss = torch.nn.functional.cross_entropy(logits, labels, reduction="sum") / learned
        loss.backward()
        total += loss.item()
    return total, gradients(trainer)


@pytest.fixture
def trainer(config: dict[str, Any], trainer_of: Any, places: None, one_thread: None) -> Any:
    """Return the trainer of one step of twelve rows of different lengths, with dropout."""
    config["model"]["quantization"] = None
    config["lora"]["dropout"] = 0.05
    trainer = trainer_of(config, batch_size=4, gradient_accumulation_steps=3)
    for name, weight in trainer.model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.1)  # zeros would leave lora_A without gradients
    return trainer


def set_dropout(trainer: Any, share: float) -> None:
    for module in trainer.model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = share


def test_loss_and_gradients_of_a_step_are_those_of_its_rows_alone(trainer):
    set_dropout(trainer, 0.0)
    wanted, others = plain_step(trainer)
    counts = []
    for tokens in (1, 500, 99_999):
        count, loss, found = step_of(trainer, Budget(tokens, tokens_of_a_pass=999))
        counts.append(count)
        assert loss == pytest.approx(wanted, rel=1e-5)
        for name, gradient in found.items():
            torch.testing.assert_close(gradient, others[name], rtol=1e-3, atol=1e-6, msg=name)
    assert counts[0] == 12 > counts[1] > counts[2] == 1


def in_little_memory(trainer: Any, monkeypatch: pytest.MonkeyPatch, rows: int) -> None:
    """Let the backward pass of more rows than that run out of memory, gradients half added."""
    backward = trainer.accelerator.backward
    forward = trainer.compute_loss
    seen = []

    def note(model: Any, inputs: Any, **named: Any) -> Any:
        seen.append(len(inputs["input_ids"]))
        return forward(model, inputs, **named)

    def run_out(loss: Any) -> None:
        backward(loss)
        if seen[-1] > rows:
            raise RuntimeError("CUDA error: out of memory")

    monkeypatch.setattr(trainer, "compute_loss", note)
    monkeypatch.setattr(trainer.accelerator, "backward", run_out)


def test_a_step_without_memory_begins_again_as_if_it_had_been_smaller(trainer, monkeypatch):
    large = Budget(99_999, tokens_of_a_pass=999)
    assert step_of(trainer, large)[0] == 1
    in_little_memory(trainer, monkeypatch, rows=3)
    again = step_of(trainer, large)
    smaller = trainer.budget
    assert smaller.tokens < 99_999
    count, loss, found = step_of(trainer, smaller)
    assert (again[0], again[1]) == (count, loss), "dropout drew the same numbers"
    assert count >= 4
    for name, gradient in found.items():
        assert torch.equal(again[2][name], gradient), name


def test_a_row_that_does_not_fit_alone_ends_the_step(trainer, monkeypatch):
    in_little_memory(trainer, monkeypatch, rows=0)
    with pytest.raises(RuntimeError, match="out of memory"):
        step_of(trainer, Budget(1, tokens_of_a_pass=0))


def test_a_rank_without_rows_adds_nothing_to_the_gradients(trainer):
    (step,), learned = trainer.get_batch_samples(iter([[]]), 1, torch.device("cpu"))
    loss = trainer.training_step(trainer.model, step, learned)
    assert loss == 0
    assert step.tokens_of_all_ranks == 0
    assert not any(gradient.any() for gradient in gradients(trainer).values())


def test_a_checkpoint_keeps_the_size_of_micro_batches(tmp_path):
    args = SimpleNamespace(output_dir=str(tmp_path), process_index=0)
    (tmp_path / "checkpoint-7").mkdir()
    before = SimpleNamespace(
        budget=Budget(500, 64),
        sums=torch.tensor([0.5, 2.0]),
        _tr_loss=torch.tensor(1.5),
        _globalstep_last_logged=6,
    )
    LossWindow(before, None).on_save(args, SimpleNamespace(global_step=7), None)
    after = SimpleNamespace(
        budget=replace(before.budget, tokens=4000), sums=torch.zeros(2), _tr_loss=torch.tensor(0.0)
    )
    LossWindow(after, tmp_path / "checkpoint-7").on_train_begin(args, None, None)
    assert after.budget == before.budget
    assert after._tr_loss == 1.5
    assert after.sums.tolist() == [0.5, 2.0]
