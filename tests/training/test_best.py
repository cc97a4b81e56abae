"""Claims about adapter_from and patience: which evaluation's adapter comes out, and when."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from job.config.load import load_config
from job.errors import ExitCode
from job.identity import differences
from job.storage.config_file import read_config
from job.training.evaluations import Choice, KeepBest, choose_best
from job.training.journal import fingerprint

NAN = float("nan")


@pytest.mark.parametrize(
    ("losses", "patience", "wanted"),
    [
        ([], 1, (None, False)),
        ([3, 2, 1], 1, (2, False)),
        ([2, 2], 1, (0, True)),
        ([3, 2, 4, 5], 2, (1, True)),
        ([3, 2, 4, 1, 5], 2, (3, False)),
        ([3, 2, 4, 5, 1], 2, (1, True)),  # what comes after the end does not count
        ([3, 2, 4, 5, 1], None, (4, False)),
        ([NAN, 2, NAN], None, (1, False)),
        ([NAN, NAN], 2, (None, True)),
    ],
)
def test_patience_ends_after_so_many_losses_in_a_row_above_the_best(losses, patience, wanted):
    assert choose_best(losses, patience) == Choice(*wanted)


def test_the_best_adapter_survives_in_a_checkpoint_and_comes_out(tmp_path):
    model = torch.nn.Linear(2, 1, bias=False)
    state = SimpleNamespace(log_history=[], global_step=0, is_world_process_zero=True)
    control = SimpleNamespace(should_training_stop=False)
    arguments = SimpleNamespace(output_dir=str(tmp_path))

    def evaluate(keep: KeepBest, weight: float, loss: float) -> None:
        with torch.no_grad():
            model.weight.fill_(weight)
        state.global_step += 1
        state.log_history.append({"eval_loss": loss, "step": state.global_step})
        keep.on_evaluate(arguments, state, control)

    before = KeepBest(model, True, 2, None)
    before.on_train_begin(arguments, state, control)
    evaluate(before, 1.0, 0.5)
    evaluate(before, 2.0, 0.6)
    folder = tmp_path / "checkpoint-2"
    folder.mkdir()
    before.on_save(arguments, state, control)
    assert not control.should_training_stop

    resumed = KeepBest(model, True, 2, folder)
    resumed.on_train_begin(arguments, state, control)
    evaluate(resumed, 3.0, 0.7)
    assert control.should_training_stop, "two in a row: one before the interruption, one after"
    resumed.on_train_end(arguments, state, control)
    assert model.weight.tolist() == [[1.0, 1.0]]


@pytest.mark.parametrize(
    ("override", "wanted"),
    [
        ([], []),
        (["training.adapter_from=best_evaluation"], ["5 there, 6 here"]),
        (["training.patience=3"], ["5 there, 6 here"]),
    ],
)
def test_intervals_identify_a_run_only_if_evaluations_decide(
    config, write_config, override, wanted
):
    text = read_config(str(write_config(config)))

    def identity(steps: int) -> dict[str, Any]:
        settings = [*override, f"training.evaluate_every_steps={steps}"]
        return fingerprint(load_config("train", text, settings), {})

    found = differences(identity(5), identity(6))
    assert found == [f"training.evaluate_every_steps: {each}" for each in wanted]


@pytest.mark.usefixtures("places")
def test_a_run_without_patience_left_ends_early_with_its_best_adapter(config, trials):
    # Far too large a learning rate: what follows the first evaluations is worse.
    config["training"] |= {
        "max_steps": 20,
        "learning_rate": 0.5,
        "warmup_ratio": 0.9,
        "save_every_steps": 1,
        "evaluate_every_steps": 1,
        "keep_last": 99,
        "adapter_from": "best_evaluation",
        "patience": 3,
        "sample_summaries": 0,
    }
    config["evaluation"]["max_conversations"] = 1
    code, log = trials.run(config)
    assert code == ExitCode.DONE, log
    assert "no smaller validation loss: the training ends" in log
    run = Path(config["output"]) / "tiny"
    journal = json.loads((run / "run.json").read_text(encoding="utf-8"))
    best = int(journal["facts"]["best"]["step"])
    last = journal["attempts"][-1]["last_step"]
    assert last == best + 3 < 20
    assert f'"the best evaluation\'s adapter is taken", "step": {best},' in log
    weights = load_file(str(run / "adapter" / "adapter_model.safetensors"))
    there = load_file(str(run / "checkpoints" / f"step-{best:08d}" / "adapter_model.safetensors"))
    assert all(torch.equal(weights[name], there[name]) for name in there)
    after = load_file(str(run / "checkpoints" / f"step-{last:08d}" / "adapter_model.safetensors"))
    assert not all(torch.equal(weights[name], after[name]) for name in after), (
        "the last one is another"
    )

    # Killed before its adapter was there, it goes on from where it had ended: no step more.
    shutil.rmtree(run / "adapter")
    trials.finish(config)
    attempt = json.loads((run / "run.json").read_text(encoding="utf-8"))["attempts"][-1]
    assert (attempt["first_step"], attempt["last_step"]) == (last, last)
    again = load_file(str(run / "adapter" / "adapter_model.safetensors"))
    assert all(torch.equal(weights[name], again[name]) for name in weights)
