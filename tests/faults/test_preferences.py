"""Trainings on pairs or thumbs, stopped or killed, and by two processes: all end the same."""

import signal
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load as load_weights

from job.config.sections import AdapterModelSection, GenerationSection, StorageSection
from job.errors import ExitCode
from job.inference.open import fetch_with_adapter, load
from job.inference.transformers_engine import TransformersEngine
from job.storage.store import Store
from tests.adapters import publish_adapter
from tests.faults.real import RealRun
from tests.faults.trials import (
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

pytestmark = pytest.mark.faults
Case = tuple[bool, int, signal.Signals]  # starts from an adapter, processes, how it is stopped


@pytest.fixture
def config_of(small: dict[str, Any], base_folder: Path, tmp_path: Path) -> Any:
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
        if starts:
            work = tmp_path / "first"
            work.mkdir()
            publish_adapter(base_folder, work, str(tmp_path / "start"))
            training["start_from"] = str(tmp_path / "start")
            del config["lora"]
        return config

    return make


CASES = [
    (False, 1, signal.SIGTERM),
    (True, 1, signal.SIGKILL),
    (False, 2, signal.SIGTERM),
    (True, 2, signal.SIGTERM),
]
OF_REWARD = [(False, 1, signal.SIGKILL), (False, 2, signal.SIGTERM)]


@pytest.mark.parametrize(
    ("method", "case"),
    [
        *((method, case) for method in ("dpo", "kto") for case in CASES),
        *(("reward", case) for case in OF_REWARD),
    ],
)
def test_it_resumes_to_the_same_bytes(
    trials: Trials, config_of: Any, tmp_path: Path, method: str, case: Case
) -> None:
    starts, processes, number = case
    config = config_of(method, starts, processes)
    start = partial(TrialRun, trials=trials)
    if processes > 1:
        start = partial(RealRun, folder=tmp_path)
    whole = config | {"run": "whole"}
    start(whole).finish()

    run = start(config)
    assert run.interrupt(3, number) in (ExitCode.RETRY, -number), run.log
    run.finish()
    assert len(journal_of(store_of(config))["attempts"]) == 2
    assert adapter_digest(store_of(config)) == adapter_digest(store_of(whole))
    assert logged(store_of(config)) == logged(store_of(whole))
    curve = on_tensorboard(store_of(whole), "train/reward_margin")
    assert len(curve) >= 4, "of six steps, of which one may have thumbs of one kind alone"
    assert on_tensorboard(store_of(config), "train/reward_margin") == curve


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
def test_with_other_options_it_ends_with_an_adapter_that_serves(
    trials: Trials, config_of: Any, tmp_path: Path, method: str, options: dict[str, Any]
) -> None:
    config = config_of(method, False, 1)
    for name, section in options.items():
        config[name] = config.get(name, {}) | section
    code, log = trials.run(config)
    assert code == ExitCode.DONE, log
    section = AdapterModelSection()
    adapter = f"{config['output']}/{config['run']}/adapter"
    fetched = fetch_with_adapter(adapter, section, StorageSection(), tmp_path / "cache")
    engine = TransformersEngine(load(fetched, section), fetched.tokenizer)
    [answer] = engine.generate([[5, 6, 7]], GenerationSection(max_new_tokens=4))
    assert answer.output_tokens <= 4


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
