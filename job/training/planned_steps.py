"""Count the optimizer steps of a training before it begins."""

import math
from dataclasses import dataclass
from typing import Any

from job.config.commands import TrainConfig
from job.training.intervals import steps_per_epoch

GPUS_OF_MACHINES = (2, 4, 8)


@dataclass(frozen=True)
class PlannedSteps:
    """The steps of a training, and the rows of each, of all its processes.

    `rows` are those of an epoch, after packing. `by_gpus` is the number of steps by the GPUs of a
    machine, if the config leaves the number of processes to the machine.
    """

    all: int
    per_epoch: int
    rows: int
    per_step: int
    processes: int
    by_gpus: dict[int, int]

    def facts(self) -> dict[str, Any]:
        """Return the numbers as JSON types."""
        facts: dict[str, Any] = {
            "steps": self.all,
            "steps_per_epoch": self.per_epoch,
            "rows": self.rows,
            "rows_per_step": self.per_step,
            "processes": self.processes,
        }
        if self.by_gpus:
            facts["steps_by_gpus"] = self.by_gpus
        return facts


def with_processes(config: TrainConfig, gpus: int) -> TrainConfig:
    """Return the config with the number of processes that a run starts on this many GPUs."""
    if config.training.processes or not gpus:
        return config
    section = config.training.model_copy(update={"processes": gpus})
    return config.model_copy(update={"training": section})


def planned_steps(config: TrainConfig, rows: int, nodes: int) -> PlannedSteps:
    """Return the steps for this number of rows. Without `processes`, there is one."""
    section = config.training
    processes = section.processes or 1
    per_step = section.rows_of_a_step * processes * nodes
    steps, per_epoch = _count(config, rows, per_step)
    by_gpus: dict[int, int] = {}
    if not section.processes:
        for gpus in GPUS_OF_MACHINES:
            by_gpus[gpus], _ = _count(config, rows, per_step * gpus)
    return PlannedSteps(steps, per_epoch, rows, per_step, processes * nodes, by_gpus)


def steps_lines(
    config: TrainConfig, steps: PlannedSteps, nodes: int, is_exact: bool = True
) -> list[str]:
    """Return the steps for people: those on several GPUs, too, if nobody knows how many there are.

    Without the base's tokenizer nobody knows how many rows fit: then they are the most that there
    can be, and not `is_exact`.
    """
    most = "" if is_exact else " at the most"
    packed = "packed " if config.training.packing and is_exact else ""
    lines = [
        f"{steps.all:,} of {steps.per_step} rows{_shares(config, nodes)}{most}; {steps.rows:,} "
        f"{packed}rows, {steps.per_epoch:,} steps an epoch"
    ]
    if steps.by_gpus:
        lines += _on_several(config, steps.by_gpus)
    return lines


def _count(config: TrainConfig, rows: int, per_step: int) -> tuple[int, int]:
    """Return the steps of a training, and those of an epoch."""
    section = config.training
    per_epoch = steps_per_epoch(rows, per_step)
    return section.max_steps or math.ceil(per_epoch * section.epochs), per_epoch


def _shares(config: TrainConfig, nodes: int) -> str:
    """Return how processes share the rows of a step; nothing for one that has them all."""
    processes = config.training.processes
    if processes is None:
        return f" with one GPU on each of {nodes} machines" if nodes > 1 else " on one GPU or a CPU"
    if processes * nodes == 1:
        return ""
    return f" ({config.training.rows_of_a_step} in each of {processes * nodes} processes)"


def _on_several(config: TrainConfig, by_gpus: dict[int, int]) -> list[str]:
    """Return what the number of GPUs changes if the config leaves the number of processes open."""
    section = config.training
    rows = section.rows_of_a_step
    each = f"training.processes is not set: each GPU of a machine adds {rows} rows to a step"
    if section.max_steps:
        return [f"{each}, and training.max_steps reads more of the data"]
    counts = ", ".join(f"{steps:,} on {gpus}" for gpus, steps in by_gpus.items())
    return [
        f"{each}; steps by GPUs: {counts}",
        f"to keep steps of {rows} rows, divide training.gradient_accumulation_steps by the GPUs",
    ]
