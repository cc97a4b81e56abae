"""Claims about divergence: which gradient norms end a training, and how it rolls back."""

import json
import re
from pathlib import Path
from types import SimpleNamespace

import pytest

from job.errors import DivergedError, ExitCode
from job.training.attempt import CurrentAttempt
from job.training.divergence import Divergence
from job.training.fit import Session, fit
from tests.faults.trials import on_tensorboard, store_of

NAN = float("nan")
INFINITE = float("inf")


@pytest.mark.parametrize("norm", [NAN, INFINITE])
def test_a_norm_that_is_no_number_ends_the_training_at_once(norm):
    with pytest.raises(DivergedError, match="step 7"):
        Divergence(None, 3, has_scaler=False).check(norm, 7)


@pytest.mark.parametrize("norm", [NAN, INFINITE])
def test_with_a_gradient_scaler_it_ends_only_if_it_goes_on(norm):
    scaled = Divergence(None, 3, has_scaler=True)
    for value in (norm, norm, 1.0, norm, norm):
        scaled.check(value, 1)
    with pytest.raises(DivergedError):
        scaled.check(norm, 2)


def test_large_norms_count_only_in_a_row():
    check = Divergence(10.0, 3, has_scaler=False).check
    for step, norm in enumerate([11, 12, 9, 11, 12]):
        check(norm, step)
    wanted = r"limits\.max_gradient_norm 10\) for 3 steps, the last 13"
    with pytest.raises(DivergedError, match=wanted):
        check(13, 5)


def losses_in(checkpoint: Path) -> list[dict[str, float]]:
    """Return what the trainer logged of its steps up to a checkpoint."""
    state = json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))
    return [entry for entry in state["log_history"] if "loss" in entry]


@pytest.mark.usefixtures("places")
def test_a_run_that_keeps_diverging_rolls_back_twice_in_one_models_memory(config, trials):
    # Such a learning rate makes the norms leave their range in a few steps, and so does a quarter.
    config["training"] |= {
        "save_every_steps": 1,
        "learning_rate": 1.0,
        "optimizer": "adamw_torch",
        "evaluate_every_steps": 99,
    }
    config["limits"] = {"max_gradient_norm": 4, "divergence_steps": 2, "on_divergence": "roll_back"}
    code, log = trials.run(config, INSTRUMENTS="count_earlier_models")
    assert code == ExitCode.BUG, log
    assert re.findall(r"earlier models: (\d+)", log) == ["0", "0", "0"], log
    assert log.count("going back to the last checkpoint") == 2
    assert "this is a bug" not in log

    folder = Path(config["output"]) / "tiny"
    assert not (folder / "adapter").exists()
    newest = max((folder / "checkpoints").iterdir())
    assert losses_in(newest)[-1]["grad_norm"] <= 4, "the checkpoint that is left is from before"
    journal = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    assert journal["state"] == "failed"
    reason = journal["attempts"][-1]["reason"]
    assert reason.startswith("DivergedError: ")
    assert "gradient norms beyond the limit" in reason
    step = int(newest.name.removeprefix("step-"))
    assert reason.endswith(f"the newest checkpoint, of step {step}, is good")

    steps = [step for step, _ in on_tensorboard(store_of(config), "train/loss")]
    assert steps == list(range(1, len(steps) + 1)), "a step made three times has one point"


@pytest.mark.usefixtures("places")
def test_a_run_rolls_back_from_one_bad_gradient_and_ends_well(config, trials):
    config["training"] |= {
        "max_steps": 8,
        "save_every_steps": 2,
        "log_every_steps": 1,
        "learning_rate": 1e-3,
        "warmup_ratio": 0,
        "scheduler": "constant",
    }
    config["limits"] = {"on_divergence": "roll_back"}
    code, log = trials.run(config, INSTRUMENTS="poison_one_gradient")
    assert code == ExitCode.DONE, log
    assert log.count("going back to the last checkpoint") == 1
    assert "step 5: loss or gradients are no numbers" in log

    folder = Path(config["output"]) / "tiny"
    assert (folder / "adapter" / "adapter_model.safetensors").exists()
    rates = {}
    for entry in losses_in(folder / "checkpoints" / "step-00000008"):
        rates[entry["step"]] = entry["learning_rate"]
    before = dict.fromkeys(range(1, 5), 1e-3)
    assert rates == before | dict.fromkeys(range(5, 9), 5e-4), "half of it from there on"


@pytest.mark.usefixtures("places")
def test_without_a_checkpoint_there_is_nothing_to_go_back_to(config, trials):
    config["limits"] = {
        "max_gradient_norm": 1e-9,
        "divergence_steps": 2,
        "on_divergence": "roll_back",
    }
    code, log = trials.run(config)
    assert code == ExitCode.BUG, log
    assert "there is no checkpoint to go back to" in log


def test_a_base_that_computes_no_numbers_is_named_at_step_1():
    with pytest.raises(DivergedError, match=r"step 1: .*the base computes them: copy") as first:
        Divergence(None, 3, has_scaler=False).check(NAN, 1)
    with pytest.raises(DivergedError, match=r"lower training\.learning_rate") as later:
        Divergence(None, 3, has_scaler=False).check(NAN, 2)
    assert "checkpoint" not in str(first.value) + str(later.value)


class DivergingConfig:
    """A run's config of which no trainer can be built: the attempt to do so diverges."""

    limits = SimpleNamespace(on_divergence="stop", upload_minutes=1)

    @property
    def training(self):
        raise DivergedError("step 5: no numbers")


@pytest.mark.parametrize(
    ("committed", "clause"),
    [(0, "there is no checkpoint yet"), (4, "the newest checkpoint, of step 4, is good")],
)
def test_a_divergence_that_stops_names_the_checkpoint_left(committed, clause, tmp_path):
    run = SimpleNamespace(config=DivergingConfig(), work=tmp_path)
    attempt = CurrentAttempt(run, step=5, committed=committed)
    with pytest.raises(DivergedError, match=f"^step 5: no numbers; {clause}$"):
        fit(run, None, Session(None, None, attempt, None))
