"""The memory that a training step frees serves the next: seen in the page faults of a process of its own."""

import platform
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from job.config.commands import TrainConfig
from job.training import trainer

LOGITS = "torch.ones(48 << 20, dtype=torch.uint8)"  # beyond the largest block that glibc would keep by itself
STEPS = f"""
import ctypes, resource, sys, torch
ctypes.CDLL(None).prctl(41, 1, 0, 0, 0)  # PR_SET_THP_DISABLE: with huge pages there is less to count
from job.training.memory import keep_freed_memory
if sys.argv[1] == "kept":
    keep_freed_memory()
for _ in range(50):  # the first ones lie where chance has it
    {LOGITS}
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    {LOGITS}
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another malloc")
def test_freed_memory_is_not_faulted_in_again() -> None:
    """Ten tensors of 12,288 pages each, one after the other."""

    def faults(way: str) -> int:
        done = subprocess.run(
            [sys.executable, "-c", STEPS, way], capture_output=True, text=True, check=True
        )
        return int(done.stdout)

    assert faults("kept") < 1_000 < 10_000 < faults("given back")


def test_a_training_on_the_cpu_keeps_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Before the base is loaded, which ends the test; with a GPU, tensors are not malloc's."""
    done: list[str] = []

    def end(*_: object) -> None:
        done.append("loaded")
        raise InterruptedError

    monkeypatch.setattr(trainer, "keep_freed_memory", lambda: done.append("kept"))
    monkeypatch.setattr(trainer, "load_base", end)
    config = TrainConfig.model_validate(
        {"run": "r", "model": {"base": "b"}, "data": {"train": "t"}, "output": "o"}
    )
    for has_gpu in (False, True):
        monkeypatch.setattr(torch.cuda, "is_available", lambda has_gpu=has_gpu: has_gpu)
        with pytest.raises(InterruptedError):
            trainer.build_trainer(config, None, None, (None, None), tmp_path)  # type: ignore[arg-type]
    assert done == ["kept", "loaded", "loaded"]
