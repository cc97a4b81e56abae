"""Claims about what a training is built of: its optimizer, and its algorithms."""

import os
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from job.training import build, fit, forward
from job.training.build import add_in_one_order, is_anything_paged
from job.training.evaluations import BoundTime, EvaluateLastStep
from job.training.packed_attention import NAME
from tests.training.row_kernel import rows_by_sdpa


@pytest.mark.parametrize(
    ("numbers", "has_gpu", "wanted"),
    [(99_999, True, False), (100_000, True, True), (100_000, False, False)],
)
def test_large_trained_weights_alone_are_paged(numbers, has_gpu, wanted, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: has_gpu)
    model = torch.nn.Module()
    model.trained = torch.nn.Parameter(torch.zeros(numbers))
    model.frozen = torch.nn.Parameter(torch.zeros(200_000), requires_grad=False)
    assert is_anything_paged(model) == wanted


@pytest.mark.usefixtures("places", "one_thread")
def test_nothing_to_page_makes_the_optimizer_a_fused_one(config, trainer_of):
    assert config["training"]["optimizer"] == "paged_adamw_32bit"
    trainer = trainer_of(config)
    assert trainer.args.optim == "adamw_torch_fused"
    trainer.create_optimizer()
    assert trainer.optimizer.param_groups[0]["fused"]


@pytest.mark.usefixtures("places", "one_thread")
def test_float32_is_not_rounded_to_tf32(config, trainer_of):
    trainer_of(config)
    assert torch.get_float32_matmul_precision() == "highest"
    assert not torch.backends.cuda.matmul.allow_tf32


@pytest.fixture
def as_before() -> Any:
    """Restore torch's settings after a test."""
    variables = dict(os.environ)
    yield
    torch.use_deterministic_algorithms(False)
    torch.utils.deterministic.fill_uninitialized_memory = True
    os.environ.clear()
    os.environ.update(variables)


@pytest.mark.usefixtures("places", "one_thread", "as_before")
def test_a_deterministic_training_computes_the_same_step(config, trainer_of):
    losses = []
    for is_deterministic in (False, True):
        trainer = trainer_of(config, deterministic=is_deterministic)
        assert torch.are_deterministic_algorithms_enabled() == is_deterministic
        torch.manual_seed(1)
        batches = iter(trainer.get_train_dataloader())
        (step,), learned = trainer.get_batch_samples(batches, 1, torch.device("cpu"))
        losses.append(trainer.training_step(trainer.model, step, learned).item())
    assert losses[0] == losses[1]
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"


@pytest.mark.usefixtures("places", "one_thread", "as_before")
def test_a_trained_model_generates_by_usual_algorithms(config, trainer_of, monkeypatch):
    monkeypatch.setattr(forward, "torch_kernel", lambda: rows_by_sdpa)
    trainer = trainer_of(config, deterministic=True, packing=True)
    batches = iter(trainer.get_train_dataloader())
    (step,), learned = trainer.get_batch_samples(batches, 1, torch.device("cpu"))
    trainer.training_step(trainer.model, step, learned)
    assert trainer.model.config._attn_implementation == NAME

    monkeypatch.setattr(fit, "_fit_once", lambda *_: trainer)
    assert fit.fit(None, None, None) is trainer
    assert trainer.model.config._attn_implementation == "sdpa"
    assert not torch.are_deterministic_algorithms_enabled()


@pytest.mark.usefixtures("as_before")
def test_a_users_own_workspace_for_cublas_stays(monkeypatch):
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":16:8")
    add_in_one_order()
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":16:8"
    assert build.FUSED == "adamw_torch_fused"


class Clocked:
    """Evaluations of a minute each that are due at each step, of another minute each."""

    def __init__(self, share: float, may_skip: bool = True, seconds: float = 60.0) -> None:
        self.now = 0.0
        self.seconds = seconds
        self.evaluation_seconds: list[float] = []
        self.history: list[dict[str, float]] = []
        self.bound = BoundTime(self, share, may_skip, lambda flag: flag, lambda: self.now)

    def evaluated(self, steps: int) -> list[int]:
        done = []
        for step in range(1, steps + 1):
            self.now += 60.0
            control = SimpleNamespace(should_evaluate=True)
            state = SimpleNamespace(
                global_step=step, max_steps=steps, eval_steps=1, log_history=self.history
            )
            self.bound.on_step_end(None, state, control)
            if control.should_evaluate:
                done.append(step)
                self.now += self.seconds
                self.evaluation_seconds.append(self.seconds)
                self.history.append({"eval_loss": 1.0, "step": step})
        return done

    def evaluate(self) -> None:
        self.evaluation_seconds.append(self.seconds)


def test_evaluations_have_their_share_of_the_time_and_the_last_is_made():
    # After the first minute, which is free, they have a quarter of the time.
    assert Clocked(0.25).evaluated(20) == [1, 7, 10, 13, 16, 19, 20]


@pytest.mark.parametrize("rules", [{"share": 1.0}, {"share": 0.1, "may_skip": False}])
def test_no_evaluation_is_skipped_without_a_limit_or_if_it_decides(rules):
    assert Clocked(**rules).evaluated(9) == list(range(1, 10))


def test_a_minute_of_evaluations_is_free():
    assert Clocked(0.01, seconds=6.0).evaluated(12) == [*range(1, 11), 12]


@pytest.mark.parametrize(("step", "is_evaluated"), [(7, False), (8, False), (9, True)])
def test_a_run_that_resumes_skips_what_the_one_before_it_skipped(step, is_evaluated):
    before = Clocked(0.25)
    assert before.evaluated(20)[:2] == [1, 7]  # 8 was skipped
    history = [entry for entry in before.history if entry["step"] <= 8]
    resumed = Clocked(0.25)
    state = SimpleNamespace(global_step=step, max_steps=20, eval_steps=1, log_history=history)
    EvaluateLastStep(resumed).on_train_begin(None, state, None)
    assert bool(resumed.evaluation_seconds) == is_evaluated
