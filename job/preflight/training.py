"""Plan a training: data by split, optimizer steps, rows, base, output, Hub, and where it stands."""

import math
import os

from job.config.commands import TrainConfig
from job.config.load import resolved_yaml
from job.errors import ConfigError, DataError
from job.evaluation.evaluate import why_unscorable
from job.launch.cluster import ALONE, Cluster, find_cluster
from job.preflight.access import base_is_there, hub_accepts, is_writable
from job.preflight.checks import Check, Found, Plan, check, check_value
from job.preflight.rows import rows_that_fit
from job.preflight.standing import (
    Standing,
    find_finished_standing,
    find_standing,
    find_standing_without_data,
)
from job.training.examples import Examples, read_examples


def plan_training(config: TrainConfig, fresh: bool = False, brief: bool = False) -> Plan:
    """Plan a training: read its data whole, and count its steps and, if that is quick, its rows.

    Checks the base, that output and Hub can be written, and the nodes if there are several. A run
    that is done needs none of these checks.

    If `fresh`, and the run's folder belongs to another config, data or versions, plan a new run
    beside it. If `brief`, read no data of a finished run, and encode no rows.
    """
    if brief:
        finished = find_finished_standing(config)
        if finished:
            return _plan(config, [Check("run", finished.state)], finished)

    nodes, cluster = check_value("nodes", _find_nodes)
    data, examples = check_value("data", lambda: _read_data(config), "data")
    if examples:
        run, standing = check_value("run", lambda: _stand(config, examples, fresh), "output")
        steps = Check("steps", _count_steps(config, examples, cluster.nodes if cluster else 1))
        checks = [data, *_scores(config, examples), steps, run]
    elif isinstance(data.error, DataError | ConfigError):
        # The data is wrong, so the run cannot have finished with it.
        checks, standing = [data], None
    else:
        run, standing = check_value("run", lambda: _recall(config), "output")
        checks = [data, run]

    standing = standing or Standing(config.run, "")
    if not standing.done:
        # A training that starts right after its plan logs the rows itself.
        if examples and not brief:
            checks += rows_that_fit(config, examples)
        checks += _access(config)
        if cluster != ALONE:
            checks.append(nodes)
        if config.publish.hub:
            repository = config.publish.hub
            checks.append(check("hub", lambda: hub_accepts(repository)))
    return _plan(config, checks, standing)


def _plan(config: TrainConfig, checks: list[Check], standing: Standing) -> Plan:
    title = f"plan of training run {standing.run}"
    return Plan(title, checks, resolved_yaml(config), standing.run, standing.done, standing.story)


def _find_nodes() -> Found[Cluster]:
    cluster = find_cluster(os.environ)
    return Found(str(cluster), cluster)


def _stand(config: TrainConfig, examples: Examples, fresh: bool) -> Found[Standing]:
    standing = find_standing(config, examples, fresh)
    return Found(standing.state, standing)


def _recall(config: TrainConfig) -> Found[Standing]:
    standing = find_standing_without_data(config)
    return Found(standing.state, standing)


def _access(config: TrainConfig) -> list[Check]:
    """Return the checks of the base and of the output."""
    model = config.model
    return [
        check(
            "base",
            lambda: base_is_there(model.base, model.revision, config.storage, config.prompt),
            "model.base",
        ),
        check("output", lambda: is_writable(config.output, config.storage), "output"),
    ]


def _read_data(config: TrainConfig) -> Found[Examples]:
    """Read the data whole and count it by split."""
    examples = read_examples(config)
    counts = examples.counts()
    lines = []
    for split in ("train", "validation"):
        conversations = counts[split]["conversations"]
        references = counts[split]["references"]
        turns = counts[split]["turns"]
        lines.append(
            f"{split:11}{conversations:>7,} conversations  {references:>7,} references  "
            f"{turns:>8,} turns"
        )
    lines.append(
        f"{counts['without_reference']:,} without reference left out, "
        f"{counts['overlapping']:,} of train also in validation, "
        f"{counts['dropped_overlap']:,} dropped from train"
    )
    if examples.why_without:
        lines.append(f"without reference: {examples.why_without}")
    return Found("\n".join(lines), examples)


def _count_steps(config: TrainConfig, examples: Examples, nodes: int) -> str:
    """Return the number of optimizer steps and of rows in each."""
    section = config.training
    if config.data.references == "first":
        rows = len(examples.train)
    else:
        rows = examples.counts()["train"]["references"]
    per_process = section.batch_size * section.gradient_accumulation_steps
    per_step = per_process * (section.processes or 1) * nodes
    per_epoch = math.ceil(rows / per_step)
    steps = section.max_steps or math.ceil(per_epoch * section.epochs)
    # Without `processes`, there will be one for each GPU of a machine that is not known here.
    each = "" if section.processes else " and process"
    packed = " at the most (packing joins rows)" if section.packing else ""
    return (
        f"{steps:,} of {per_step} rows{each}{packed}; {rows:,} rows, {per_epoch:,} steps an epoch"
    )


def _scores(config: TrainConfig, examples: Examples) -> list[Check]:
    """Return a check that warns if the adapter cannot be scored, or none if it can."""
    why = why_unscorable(examples.validation, config.evaluation.max_conversations)
    if why is None:
        return []
    return [Check("scores", f"warning: the adapter will be published without scores: {why}")]
