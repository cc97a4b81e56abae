"""Report the optimizer steps of a training."""

from job.config.commands import TrainConfig
from job.preflight.checks import Found
from job.training.examples import Examples
from job.training.planned_steps import planned_steps, steps_lines


def describe_steps(
    config: TrainConfig, rows: int, nodes: int, is_exact: bool = True
) -> Found[None]:
    """Return the number of optimizer steps for this number of rows, and of rows in each.

    Rows are those after packing, or the most that there can be if they are not `is_exact`. Steps of
    an unknown number of processes are not exact either, in the facts.
    """
    steps = planned_steps(config, rows, nodes)
    lines = steps_lines(config, steps, nodes, is_exact)
    is_known = is_exact and config.training.processes is not None
    return Found("\n".join(lines), None, facts=steps.facts() | {"is_exact": is_known})


def rows_at_most(config: TrainConfig, examples: Examples) -> int:
    """Return how many rows there would be if each fitted, and none were packed with another."""
    replayed = examples.replay.rows if examples.replay else 0
    if config.judged is not None or config.data.references == "first":
        return examples.of_train.conversations + replayed
    return examples.of_train.references + replayed
