"""Claims about the memory that a training step frees: on a CPU it serves the next step."""

import ctypes
import platform
import re
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from job.training.build import M_MMAP_THRESHOLD, M_TRIM_THRESHOLD, build_trainer
from tests.faults.trials import Trials


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another malloc")
@pytest.mark.usefixtures("places")
@pytest.mark.quality
def test_a_training_on_the_cpu_keeps_freed_memory(config: dict[str, Any], trials: Trials) -> None:
    config["training"] |= {"max_steps": 1, "sample_summaries": 0}
    config["evaluation"] = {"max_conversations": 1}
    code, log = trials.run(config, INSTRUMENTS="count_page_faults")
    assert code == 0, log
    faults = {name: int(count) for name, count in re.findall(r"page faults (\w+): (\d+)", log)}
    # Ten tensors of 12,288 pages: the kernel clears each page again, or none.
    assert faults["after"] < 1_000 < 10_000 < faults["before"]


class UnloadableRun:
    """A run whose base is never loaded: the attempt to do so raises InterruptedError."""

    config = SimpleNamespace(
        training=SimpleNamespace(distribution="ddp", deterministic=False),
        model=SimpleNamespace(quantization=None),
    )
    examined = SimpleNamespace(base=SimpleNamespace(four_bit_text=str))

    @property
    def base(self) -> None:
        raise InterruptedError


@pytest.mark.parametrize("has_gpu", [False, True])
def test_memory_is_kept_before_loading_and_only_without_a_gpu(
    has_gpu: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    options: list[int] = []

    def mallopt(option: int, value: int) -> int:
        options.append(option)
        return 1

    monkeypatch.setattr(torch.cuda, "is_available", lambda: has_gpu)
    run: Any = UnloadableRun()
    monkeypatch.setattr(ctypes, "CDLL", lambda name: SimpleNamespace(mallopt=mallopt))
    with pytest.raises(InterruptedError):
        build_trainer(run, lambda: None)
    wanted = [] if has_gpu else [M_MMAP_THRESHOLD, M_TRIM_THRESHOLD]
    assert options == wanted
