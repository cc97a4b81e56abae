"""Claims about a training that runs away: what is judged, and a training process that goes back."""

import json
import os
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest

from job.errors import DivergedError, ExitCode
from job.launch.outcome import read_outcomes
from job.training.divergence import Divergence
from job.training.state import Attempt
from tests.faults.trials import on_tensorboard, store_of

NAN, INFINITE = float("nan"), float("inf")


@pytest.mark.parametrize("norm", [NAN, INFINITE])
def test_what_is_no_number_ends_at_once_and_with_a_gradient_scaler_when_it_goes_on(norm):
    with pytest.raises(DivergedError, match="step 7"):
        Divergence(None, 3, scaled=False).judge(norm, 7)
    scaled = Divergence(None, 3, scaled=True)
    for value in (norm, norm, 1.0, norm, norm):
        scaled.judge(value, 1)
    with pytest.raises(DivergedError):
        scaled.judge(norm, 2)


def test_large_norms_count_only_in_a_row():
    judge = Divergence(10.0, 3, scaled=False).judge
    for step, norm in enumerate([11, 12, 9, 11, 12]):
        judge(norm, step)
    with pytest.raises(
        DivergedError, match=r"limits\.max_gradient_norm 10\) for 3 steps, the last 13"
    ):
        judge(13, 5)


def train_with(patch: str, folder: Path) -> "subprocess.CompletedProcess[str]":
    """A training process of its own on the folder's config, after some code has changed what it calls."""
    run = "import pathlib, sys; from job.training import worker; sys.exit(worker.main(pathlib.Path(sys.argv[1])))"
    return subprocess.run(
        [sys.executable, "-c", patch + run, str(folder)],
        capture_output=True, text=True, env=os.environ | {"HF_HUB_OFFLINE": "1"}, check=False,
    )  # fmt: skip


COUNTING = """
import weakref
import job.training.fit as fit
seen, build = [], fit.build_trainer
def build_and_count(*arguments):
    print("models before:", sum(each() is not None for each in seen), flush=True)
    trainer = build(*arguments)
    seen.append(weakref.ref(trainer.model))
    return trainer
fit.build_trainer = build_and_count
"""


@pytest.mark.usefixtures("places")
def test_a_run_that_diverges_goes_back_twice_holds_one_model_and_keeps_its_last_good_checkpoint(
    config, write_config, tmp_path
):
    # With such a learning rate the norms leave their place within a few steps, with a quarter of it too.
    config["training"] |= {
        "save_every_steps": 1,
        "learning_rate": 1.0,
        "optimizer": "adamw_torch",
        "evaluate_every_steps": 99,
    }
    config["limits"] = {"max_gradient_norm": 4, "divergence_steps": 2, "on_divergence": "roll_back"}
    write_config(config, "config.yaml")
    done = train_with(COUNTING, tmp_path)
    assert done.returncode == ExitCode.BUG, done.stderr
    assert done.stdout.split("models before: ")[1:] == ["0\n", "0\n", "0\n"], done.stderr
    assert done.stderr.count("going back to the last checkpoint") == 2
    assert "gradient norms beyond the limit" in done.stderr
    assert "this is a bug" not in read_outcomes(tmp_path)[0].message
    folder = Path(config["output"]) / "tiny"
    assert not (folder / "adapter").exists()
    journal = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    assert journal["state"] == "failed"
    assert "DivergedError" in journal["attempts"][-1]["reason"]
    newest = max((folder / "checkpoints").iterdir())
    norms = [
        e["grad_norm"]
        for e in json.loads((newest / "trainer_state.json").read_text())["log_history"]
        if "loss" in e
    ]
    assert norms[-1] <= 4, "what was kept is from before"
    steps = [step for step, _ in on_tensorboard(store_of(config), "train/loss")]
    assert steps == list(range(1, len(steps) + 1)), "a step that was made three times is told once"


POISON = """
from job.training.trainer import RecapTrainer
poisoned, step = [], RecapTrainer.training_step
def training_step(self, model, *arguments, **named):
    loss = step(self, model, *arguments, **named)
    if self.state.global_step == 4 and not poisoned:
        poisoned.append(True)
        next(each for each in model.parameters() if each.requires_grad).grad.fill_(float("nan"))
    return loss
RecapTrainer.training_step = training_step
"""


@pytest.mark.usefixtures("places")
def test_gradients_that_are_no_numbers_once_are_gone_back_from_and_the_run_ends_well(
    config, write_config, tmp_path
):
    config["training"] |= {
        "max_steps": 8, "save_every_steps": 2, "log_every_steps": 1, "learning_rate": 1e-3, "warmup_ratio": 0,
        "scheduler": "constant",
    }  # fmt: skip
    config["limits"] = {"on_divergence": "roll_back"}
    write_config(config, "config.yaml")
    done = train_with(POISON, tmp_path)
    assert done.returncode == ExitCode.DONE, done.stderr
    assert done.stderr.count("going back to the last checkpoint") == 1
    assert "step 5: loss or gradients are no numbers" in done.stderr
    folder = Path(config["output"]) / "tiny"
    assert (folder / "adapter" / "adapter_model.safetensors").exists()
    state = json.loads(
        (folder / "checkpoints" / "step-00000008" / "trainer_state.json").read_text(
            encoding="utf-8"
        )
    )
    rates = {
        entry["step"]: entry["learning_rate"] for entry in state["log_history"] if "loss" in entry
    }
    assert rates == dict.fromkeys(range(1, 5), 1e-3) | dict.fromkeys(range(5, 9), 5e-4), (
        "half of it from there on"
    )


@pytest.mark.usefixtures("places")
def test_without_a_checkpoint_there_is_nothing_to_go_back_to(config, trials):
    config["limits"] = {
        "max_gradient_norm": 1e-9,
        "divergence_steps": 2,
        "on_divergence": "roll_back",
    }
    code, said = trials.run(config)
    assert code == ExitCode.BUG, said
    assert "there is no checkpoint to go back to" in said


def test_a_base_that_computes_no_numbers_is_named_at_step_1():
    with pytest.raises(DivergedError, match=r"step 1: .*the base computes them: copy") as first:
        Divergence(None, 3, scaled=False).judge(NAN, 1)
    with pytest.raises(DivergedError, match=r"lower training\.learning_rate") as later:
        Divergence(None, 3, scaled=False).judge(NAN, 2)
    assert "checkpoint" not in str(first.value) + str(later.value)


@pytest.mark.parametrize(
    ("committed", "wanted"),
    [(0, "there is no checkpoint yet"), (4, "the newest checkpoint, of step 4, is good")],
)
def test_a_divergence_names_the_checkpoint_that_is_left(monkeypatch, committed, wanted):
    from job.training import fit

    def diverge(*_):
        raise DivergedError("step 5: no numbers")

    monkeypatch.setattr(fit, "_fit_once", diverge)
    monkeypatch.setattr(fit, "_event_writer", lambda *_: nullcontext())
    monkeypatch.setattr(fit, "is_first", lambda: True)
    run = SimpleNamespace(config=SimpleNamespace(limits=SimpleNamespace(on_divergence="stop")))
    session = fit.Session(None, None, Attempt(step=5, committed=committed))
    with pytest.raises(DivergedError, match=f"^step 5: no numbers; {wanted}$"):
        fit.fit(run, None, session)
