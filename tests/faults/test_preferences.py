"""Trainings on pairs or thumbs, stopped or killed, and by two processes: all end the same."""

import signal
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load as load_weights

from job.errors import ExitCode
from job.storage.store import Store
from tests.adapters import publish_adapter
from tests.faults.real import RealRun
from tests.faults.trials import (
    STEP,
    WEIGHTS,
    TrialRun,
    Trials,
    adapter_digest,
    journal_of,
    logged,
    on_tensorboard,
    store_of,
)
from tests.training.conftest import judged_records, write_jsonl

pytestmark = [pytest.mark.faults, pytest.mark.timeout(1800)]
REFERENCE = "log-probabilities under the model that the training starts from"  # in a log
CLASSES = {"dpo": "PairTrainer", "kto": "ThumbTrainer"}


@dataclass(frozen=True)
class Case:
    """A training, and how it is interrupted: SIGKILL hits one process, SIGTERM the command."""

    method: str
    number: signal.Signals
    starts: bool = False  # from an adapter
    processes: int = 1
    apart: bool = False  # each summary of a pair is a sequence

    @property
    def name(self) -> str:
        """The case in one word."""
        parts = [self.method, "starts"] if self.starts else [self.method]
        parts += ["apart"] * self.apart
        return "-".join([*parts, str(self.processes), self.number.name])


@pytest.fixture
def config_of(small: dict[str, Any], base_folder: Path, tmp_path: Path, trials: Trials) -> Any:
    """Return a function that makes the config of a run of six steps, from an adapter or none."""

    def make(method: str, starts: bool, processes: int) -> dict[str, Any]:
        data = {
            "train": str(write_jsonl(tmp_path / "judged.jsonl", judged_records(method, 12))),
            "validation": str(
                write_jsonl(tmp_path / "others.jsonl", judged_records(method, 3, 100))
            ),
            "test": small["data"]["validation"],
        }
        training = small["training"] | {
            "batch_size": 4 // processes, "log_every_steps": 1, "processes": processes
        }  # fmt: skip
        config = small | {"method": method, "data": data, "training": training}
        if method == "reward":
            del data["test"], config["generation"]
        config["lora"] = small["lora"] | {"dropout": 0}
        if starts and method == "reward":
            first = config | {"run": "first", "training": training | {"processes": 1}}
            TrialRun(first, trials).finish()
            training["start_from"] = f"{config['output']}/first/adapter"
        elif starts:
            work = tmp_path / "first"
            work.mkdir()
            publish_adapter(base_folder, work, str(tmp_path / "start"))
            training["start_from"] = str(tmp_path / "start")
        if starts:
            del config["lora"]
        return config

    return make


CASES = [
    *(
        case
        for method in ("dpo", "kto")
        for case in (
            Case(method, signal.SIGTERM),
            Case(method, signal.SIGKILL, starts=True),
            Case(method, signal.SIGTERM, processes=2),
            Case(method, signal.SIGTERM, starts=True, processes=2),
            Case(method, signal.SIGKILL, processes=2),
        )
    ),
    Case("dpo", signal.SIGTERM, apart=True),
    Case("reward", signal.SIGKILL),
    Case("reward", signal.SIGKILL, starts=True),
    Case("reward", signal.SIGTERM, processes=2),
]


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_it_resumes_to_the_same_bytes(
    trials: Trials, config_of: Any, tmp_path: Path, case: Case
) -> None:
    config = config_of(case.method, case.starts, case.processes)
    if case.apart:
        config["training"]["dpo"] = {"share_prompts": False}
    whole = config | {"run": "whole"}
    # Checkpoints are committed meanwhile: by then, that of step 2 is.
    at_step = 5 if case.number == signal.SIGKILL else 3
    if case.processes == 1:
        start = partial(TrialRun, trials=trials)
        start(whole).finish()
        run = start(config)
        code = run.interrupt(at_step, case.number)
    else:
        start = partial(RealRun, folder=tmp_path)
        start(whole).finish()
        run = start(config)
        # The second process: the command itself cannot clean up after SIGKILL.
        trainer = 1 if case.number == signal.SIGKILL else None
        code = run.interrupt(at_step, case.number, trainer)
    assert code in (ExitCode.RETRY, -case.number), run.log
    run.finish()
    _, second = journal_of(store_of(config))["attempts"]
    print(f"\n{case.name}: went on from step {second['first_step']}")
    saved = 2 if case.number == signal.SIGKILL else 3  # where it stopped, without a kill
    assert second["first_step"] >= saved
    check_same(config, whole)
    for each in (config, whole):
        is_shared = not case.apart if case.method == "dpo" else None
        assert shares_prompts(store_of(each)) is is_shared
    curve = on_tensorboard(store_of(whole), "train/reward_margin")
    assert len(curve) >= 4, "of six steps, of which one may have thumbs of one kind alone"
    assert on_tensorboard(store_of(config), "train/reward_margin") == curve


@pytest.mark.parametrize(("method", "starts"), [("dpo", False), ("dpo", True), ("kto", True)])
def test_killed_between_the_reference_and_the_first_step_it_ends_the_same(
    trials: Trials, config_of: Any, method: str, starts: bool
) -> None:
    config = config_of(method, starts, 1)
    whole = config | {"run": "whole"}
    TrialRun(whole, trials).finish()

    killed = f"job.training.preferences:{CLASSES[method]}.sums_of:kill"
    code, log = trials.run(config, BROKEN=killed)
    assert code == -signal.SIGKILL, log
    assert REFERENCE in log
    assert not STEP.search(log)
    TrialRun(config, trials).finish()
    check_same(config, whole)


@pytest.mark.parametrize("method", ["dpo", "kto"])
def test_two_processes_stopped_at_the_reference_end_the_same(
    config_of: Any, tmp_path: Path, method: str
) -> None:
    config = config_of(method, True, 2)
    whole = config | {"run": "whole"}
    RealRun(whole, tmp_path).finish()

    run = RealRun(config, tmp_path)
    assert run.interrupt_at(REFERENCE, signal.SIGTERM) == ExitCode.RETRY, run.log
    run.finish()
    check_same(config, whole)


def check_same(config: dict[str, Any], whole: dict[str, Any]) -> None:
    """Assert that both runs have the same adapter, in all bytes, and logged the same numbers."""
    assert adapter_digest(store_of(config)) == adapter_digest(store_of(whole))
    assert logged(store_of(config)) == logged(store_of(whole))


def shares_prompts(store: Store) -> bool | None:
    """Return what a run reports of its pairs; None if it has none."""
    found: bool | None = journal_of(store)["facts"]["rows"].get("pairs_share_prompts")
    return found


# Each option is there with one method at least.
OPTIONS: list[tuple[str, dict[str, Any]]] = [
    ("dpo", {"training": {"compile": True, "batch_size": "auto"}, "lora": {"variant": "dora"}}),
    (
        "dpo",
        {
            "model": {"dtype": "bfloat16"},
            "training": {"adapter_from": "best_metric", "deterministic": True},
            "publish": {"merged": True},
        },
    ),
    (
        "kto",
        {
            "training": {"adapter_from": "best_evaluation", "patience": 1, "batch_size": "auto"},
            "lora": {"variant": "rslora"},
            "evaluation": {"as_trained": True},
        },
    ),
]


@pytest.mark.parametrize(("method", "options"), OPTIONS)
def test_with_other_options_others_load_the_adapter_and_answer_as_it_did(
    trials: Trials, config_of: Any, method: str, options: dict[str, Any]
) -> None:
    config = config_of(method, False, 1)
    config["evaluation"]["max_conversations"] = 2
    for name, section in options.items():
        config[name] = config.get(name, {}) | section
    config["publish"] = config["publish"] | {"verify": True}
    code, log = trials.run(config)
    assert code == ExitCode.DONE, log
    reload = journal_of(store_of(config))["facts"]["reload"]
    assert reload["state"] in ("same", "close"), reload
    assert reload["compared"] == 2, reload
    assert shares_prompts(store_of(config)) is (True if method == "dpo" else None)


@pytest.mark.parametrize("method", ["dpo", "kto"])
def test_two_processes_learn_what_one_learns(
    trials: Trials, config_of: Any, tmp_path: Path, method: str
) -> None:
    numbers, adapters = [], []
    for processes in (1, 2):
        config = config_of(method, False, processes) | {"run": f"of-{processes}"}
        # The last step of an epoch has three rows: one process has two of them.
        write_jsonl(tmp_path / "judged.jsonl", judged_records(method, 11))
        config["training"]["group_by_length"] = False  # groups are those of a process
        if processes == 1:
            TrialRun(config, trials).finish()
        else:
            RealRun(config, tmp_path).finish()
        assert shares_prompts(store_of(config)) is (True if method == "dpo" else None)
        numbers.append(logged(store_of(config)))
        adapters.append(weights_of(store_of(config)))
    alone, shared = numbers
    assert {name for _, name in alone} >= {"loss", "eval_loss", "rewards/chosen", "grad_norm"}
    assert shared == pytest.approx(alone, rel=1e-3, abs=1e-5)
    learned = {name: weight for name, weight in adapters[0].items() if "lora_B" in name}
    moved = norm_of(learned.values())
    apart = norm_of(adapters[1][name] - weight for name, weight in learned.items())
    print(f"\n{method}: the adapters differ by {apart / moved:.1e} of what they learned")
    assert apart < 1e-3 * moved


def weights_of(store: Store) -> dict[str, torch.Tensor]:
    return load_weights(store.read(f"adapter/{WEIGHTS}"))


def norm_of(weights: Iterable[torch.Tensor]) -> float:
    return float(torch.stack([weight.norm() for weight in weights]).norm())
