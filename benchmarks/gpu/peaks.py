"""Measure the peak memory of one optimizer step, by tokens and activation checkpointing."""

from collections.abc import Mapping
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import torch

from benchmarks.gpu.trainers import memory, train_once
from benchmarks.gpu.turns import Turn
from job.errors import is_out_of_memory
from job.model.load import free_memory


def measure_peaks(specification: Mapping[str, Any], turn: Turn) -> None:
    """Report the peak in GB of each case, or that memory ran out."""
    turn.report({})  # others may compute until it is this one's turn
    found: dict[str, Any] = {}
    for name, case in specification["cases"].items():
        work = Path(mkdtemp(prefix="recap-bench-"))
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        try:
            train_once({"shape": specification["shape"], **case}, work)
            found[name] = memory()["peak_gb"]
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            found[name] = "out of memory"
        free_memory()
    turn.report(found)
