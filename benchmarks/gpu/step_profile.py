"""Profile one optimizer step: launches, the GPU's busy share, and time by class of kernel."""

import time
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile
from transformers import TrainerCallback

from benchmarks.gpu.trainers import RECIPES, synchronize
from benchmarks.gpu.turns import Turn

WARM_UP_STEPS = 2

# The first class of which a kernel's name has a word.
CLASSES = {
    "dequantization": ("dequant",),
    "attention": ("flash", "fmha", "sdpa", "attention", "softmax"),
    "matrix": ("gemm", "cutlass", "xmma", "nvjet", "cublas", "addmm", "::mm", "::bmm"),
    "copies": ("memcpy", "memset", "copy", "cat"),
    "reductions": ("reduce", "norm", "sum", "mean"),
    "elementwise": ("elementwise", "vectorized", "mul", "add", "silu", "cast", "dropout"),
}


def profile_step(specification: Mapping[str, Any], turn: Turn) -> None:
    """Train some steps, and report a profile of the last."""
    trainer = RECIPES[specification["recipe"]](specification, Path(mkdtemp(prefix="recap-bench-")))
    trainer.add_callback(ProfileStep(turn))
    trainer.train()


class ProfileStep(TrainerCallback):
    """Profile the first step after the warm-up, from the fetching of its rows on."""

    def __init__(self, turn: Turn) -> None:
        self._turn = turn
        self._profile: Any = None
        self._started = 0.0

    def on_step_end(self, args: Any, state: Any, control: Any, **named: Any) -> None:
        if state.global_step == WARM_UP_STEPS:
            self._turn.report({})  # others may compute until it is this one's turn
            activities = [ProfilerActivity.CPU]
            if torch.cuda.is_available():
                activities.append(ProfilerActivity.CUDA)
            self._profile = profile(activities=activities)
            synchronize()
            self._profile.start()
            self._started = time.perf_counter()
        elif state.global_step == WARM_UP_STEPS + 1:
            synchronize()
            seconds = time.perf_counter() - self._started
            self._profile.stop()
            self._turn.report(summary_of(self._profile.events(), seconds))


def summary_of(events: Iterable[Any], seconds: float) -> dict[str, float]:
    """Return launches, busy share and shares by class of one profiled stretch of `seconds`.

    Without a GPU, operations of the CPU are counted as if they were kernels.
    """
    events = list(events)
    kernels = [event for event in events if event.device_type == DeviceType.CUDA]
    if not kernels:
        kernels = [event for event in events if event.name.startswith("aten::")]
    by_class: dict[str, float] = defaultdict(float)
    for kernel in kernels:
        by_class[class_of(kernel.name)] += kernel.time_range.elapsed_us() / 1e6
    waiting = [event for event in events if "Synchronize" in event.name]
    total = sum(by_class.values())
    shares = {f"{name}_share": part / total for name, part in sorted(by_class.items())}
    return {
        "seconds": seconds,
        "launches": len(kernels),
        "busy_share": busy_seconds(kernels) / seconds,
        "waiting_share": sum(event.time_range.elapsed_us() for event in waiting) / 1e6 / seconds,
        **shares,
    }


def class_of(name: str) -> str:
    """Return the class of a kernel."""
    lower = name.lower()
    for kind, words in CLASSES.items():
        if any(word in lower for word in words):
            return kind
    return "other"


def busy_seconds(kernels: Iterable[Any]) -> float:
    """Return the seconds in which at least one kernel ran."""
    ranges = sorted((each.time_range.start, each.time_range.end) for each in kernels)
    total = 0.0
    covered = float("-inf")
    for start, end in ranges:
        total += max(0.0, end - max(start, covered))
        covered = max(covered, end)
    return total / 1e6
