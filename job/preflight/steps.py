"""Count the optimizer steps of a training."""

import math
from typing import Any

from job.config.commands import TrainConfig
from job.preflight.checks import Found
from job.training.examples import Examples
from job.training.intervals import steps_per_epoch

GPUS_OF_MACHINES = (2, 4, 8)


def with_processes(config: TrainConfig, gpus: int) -> TrainConfig:
    """Return the config with the number of processes that a run starts on this many GPUs."""
    if config.training.processes or not gpus:
        return config
    section = config.training.model_copy(update={"processes": gpus})
    return config.model_copy(update={"training": section})


def describe_steps(
    config: TrainConfig, rows: int, nodes: int, is_exact: bool = True
) -> Found[None]:
    """Return the number of optimizer steps for this number of rows, and of rows in each.

    Rows are those after packing. Without the base's tokenizer nobody knows how many fit: then they
    are the most that there can be, and not `is_exact`. Where the number of processes depends on a
    machine that is not known here, it is one, and the steps on several GPUs are named, too. Neither
    are exact in the facts.
    """
    section = config.training
    processes = section.processes or 1
    of_a_process = section.rows_of_a_step
    per_step = of_a_process * processes * nodes
    steps, per_epoch = _count(config, rows, per_step)
    most = "" if is_exact else " at the most"
    packed = "packed " if section.packing and is_exact else ""
    lines = [
        f"{steps:,} of {per_step} rows{_shares(config, nodes)}{most}; {rows:,} {packed}rows, "
        f"{per_epoch:,} steps an epoch"
    ]
    facts: dict[str, Any] = {
        "steps": steps,
        "steps_per_epoch": per_epoch,
        "rows": rows,
        "rows_per_step": per_step,
        "processes": processes * nodes,
        "is_exact": is_exact and section.processes is not None,
    }
    if not section.processes:
        by_gpus = {
            gpus: _count(config, rows, of_a_process * gpus * nodes)[0] for gpus in GPUS_OF_MACHINES
        }
        facts["steps_by_gpus"] = by_gpus
        lines += _on_several(config, by_gpus)
    return Found("\n".join(lines), None, facts=facts)


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


def rows_at_most(config: TrainConfig, examples: Examples) -> int:
    """Return how many rows there would be if each fitted, and none were packed with another."""
    if config.data.references == "first":
        return examples.of_train.conversations
    return examples.of_train.references
