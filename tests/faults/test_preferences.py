"""A training on pairs or thumbs that is stopped or killed ends as one that never was."""

import signal
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from job.errors import ExitCode
from tests.adapters import publish_adapter
from tests.faults.real import RealRun
from tests.faults.trials import (
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
        config["lora"] = small["lora"] | {"dropout": 0}
        if starts:
            work = tmp_path / "first"
            work.mkdir()
            publish_adapter(base_folder, work, str(tmp_path / "start"))
            training["start_from"] = str(tmp_path / "start")
            del config["lora"]
        return config

    return make


@pytest.mark.parametrize("method", ["dpo", "kto"])
@pytest.mark.parametrize(
    "case",
    [
        (False, 1, signal.SIGTERM),
        (True, 1, signal.SIGKILL),
        (False, 2, signal.SIGTERM),
        (True, 2, signal.SIGTERM),
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
