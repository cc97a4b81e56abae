"""Count the optimizer steps of a training."""

import math

from job.config.commands import TrainConfig
from job.preflight.checks import Found
from job.training.examples import Examples


def describe_steps(
    config: TrainConfig, rows: int, nodes: int, is_exact: bool = True
) -> Found[None]:
    """Return the number of optimizer steps for this number of rows, and of rows in each.

    Rows are those after packing. Without the base's tokenizer nobody knows how many fit: then they
    are the most that there can be, and not `is_exact`.
    """
    section = config.training
    per_process = section.rows_of_a_step
    per_step = per_process * (section.processes or 1) * nodes
    per_epoch = math.ceil(rows / per_step)
    steps = section.max_steps or math.ceil(per_epoch * section.epochs)
    # Without `processes`, there will be one for each GPU of a machine that is not known here.
    each = "" if section.processes else " and process"
    most = "" if is_exact else " at the most"
    packed = "packed " if section.packing and is_exact else ""
    text = (
        f"{steps:,} of {per_step} rows{each}{most}; {rows:,} {packed}rows, {per_epoch:,} steps "
        "an epoch"
    )
    facts = {
        "steps": steps,
        "steps_per_epoch": per_epoch,
        "rows": rows,
        "rows_per_step": per_step,
        "is_exact": is_exact,
    }
    return Found(text, None, facts=facts)


def rows_at_most(config: TrainConfig, examples: Examples) -> int:
    """Return how many rows there would be if each fitted, and none were packed with another."""
    if config.data.references == "first":
        return examples.of_train.conversations
    return examples.of_train.references
