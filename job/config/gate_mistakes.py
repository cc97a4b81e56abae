"""Mistakes of a gate that show before a run: opponents that will not be there, unknown metrics.

The metric of a selection is checked here, too.
"""

import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, get_args

from job.config.commands import EvaluateConfig, TrainConfig
from job.config.gate_sections import (
    DEFAULT_GUARDS,
    MIN_CONVERSATIONS,
    GateSection,
    Opponent,
    PromotionSection,
)

GATE = ("publish", "gate")
SELECTION = ("training", "selection")


class KnownMetric(Protocol):
    """The facts of a metric that decide if a gate can use it."""

    @property
    def name(self) -> str:
        """The key of the metric."""

    @property
    def direction(self) -> str:
        """Which values are better: `higher`, `lower` or `neither`."""

    @property
    def needs(self) -> Sequence[str]:
        """The inputs of the metric; `finish_reason` and `model` are not always there."""


@dataclass(frozen=True)
class GateMistake:
    """A key of the config, and what is wrong with it."""

    path: tuple[str | int, ...]
    message: str


def resolved_gate(config: TrainConfig | EvaluateConfig) -> GateSection | None:
    """Return the gate with its defaults filled in as this config allows them.

    The champion of the config is always among the opponents, also where a gate names others: no
    adapter replaces one that it was not compared with.
    """
    publish = config.publish
    gate = publish.gate
    if gate is None:
        return None
    is_file = _is_file_of_summaries(config)
    better_than = gate.better_than
    if better_than is None:
        better_than = ["floors"] if is_file else ["floors", "base"]
    no_worse_than = list(gate.no_worse_than or [])
    if champion_of(config) and "champion" not in [*better_than, *no_worse_than]:
        no_worse_than.append("champion")
    guards = dict(DEFAULT_GUARDS)
    if is_file:
        del guards["cut"]  # a file does not say which of its summaries were cut
    return gate.model_copy(
        update={
            "better_than": better_than,
            "no_worse_than": no_worse_than,
            "guards": guards if gate.guards is None else gate.guards,
        }
    )


def champion_of(config: TrainConfig | EvaluateConfig) -> str | None:
    """Return the pointer, or in an evaluation the adapter, that is compared as the champion."""
    if config.publish.champion is None and isinstance(config, EvaluateConfig):
        return config.champion
    return config.publish.champion


def needs_base(config: TrainConfig | EvaluateConfig) -> bool:
    """Return True if the base is to be scored without the adapter."""
    gate = resolved_gate(config)
    if config.evaluation.base_without_adapter or gate is None:
        return config.evaluation.base_without_adapter
    return "base" in [*(gate.better_than or []), *(gate.no_worse_than or [])]


def gate_mistakes(
    config: TrainConfig | EvaluateConfig, metrics: Sequence[KnownMetric]
) -> Iterator[GateMistake]:
    """Yield what is wrong with gate and selection of a config whose keys are right by themselves.

    `metrics` are all there are. Without any, names of metrics are not checked.
    """
    if metrics and isinstance(config, TrainConfig):
        selection = config.training.selection
        yield from _metric_mistakes(config, {(*SELECTION, "metric"): selection.metric}, metrics)
    publish = config.publish
    yield from _champion_mistakes(config)
    if publish.gate is None:
        yield from _without_gate(publish)
        return
    yield from _opponent_mistakes(config, publish.gate)
    if metrics:
        yield from _metric_mistakes(config, _metrics_of(publish.gate), metrics)
    yield from _regression_mistakes(config)
    yield from _pair_mistakes(config)
    yield from _reload_mistakes(config)
    most = config.evaluation.max_conversations
    if most is not None and most < MIN_CONVERSATIONS:
        message = f"got {most}; wanted at least {MIN_CONVERSATIONS}: fewer never pass a gate"
        yield GateMistake(("evaluation", "max_conversations"), message)


def _champion_mistakes(config: TrainConfig | EvaluateConfig) -> Iterator[GateMistake]:
    if not isinstance(config, EvaluateConfig) or config.publish.champion is None:
        return
    where = ("publish", "champion")
    if config.summaries is not None:
        message = (
            "a file of summaries cannot become the champion, which is an adapter; to compare with "
            "the champion, name it under the key champion at the top"
        )
        yield GateMistake(where, message)
    elif config.champion not in (None, config.publish.champion):
        yield GateMistake(
            ("champion",),
            f"is another than publish.champion ({config.publish.champion}), which is compared "
            "anyway: remove one of them",
        )


def _without_gate(publish: PromotionSection) -> Iterator[GateMistake]:
    remedy = "add publish.gate: {} for the default one"
    if publish.champion is not None:
        message = f"no adapter becomes champion without a gate: {remedy}"
        yield GateMistake(("publish", "champion"), message)
    if publish.regressions:
        message = f"a gate judges older test sets, and there is none: {remedy}"
        yield GateMistake(("publish", "regressions"), message)
    if publish.pairs is not None:
        message = f"a gate judges by held-out pairs, and there is none: {remedy}"
        yield GateMistake(("publish", "pairs"), message)


def _opponent_mistakes(
    config: TrainConfig | EvaluateConfig, gate: GateSection
) -> Iterator[GateMistake]:
    for key in ("better_than", "no_worse_than"):
        for index, name in enumerate(getattr(gate, key) or []):
            why = _why_absent(config, name)
            if why:
                yield GateMistake((*GATE, key, index), why)
    both = set(gate.better_than or []) & set(gate.no_worse_than or [])
    for name in sorted(both):
        message = f"{name} is in better_than too, which is more: remove it here"
        yield GateMistake((*GATE, "no_worse_than"), message)
    resolved = resolved_gate(config)
    assert resolved is not None
    if not resolved.better_than and not resolved.no_worse_than:
        message = "names no opponent, so nothing would be proved: name one in better_than"
        yield GateMistake(GATE, message)


def _why_absent(config: TrainConfig | EvaluateConfig, name: str) -> str | None:
    """Return why an opponent will not be there, or None if it will."""
    others = list(config.evaluation.others)
    if name in others or name == "floors":
        return None
    if name == "base":
        return "a file of summaries has no base" if _is_file_of_summaries(config) else None
    if name == "champion":
        if champion_of(config) is not None:
            return None
        return "there is no champion to compare with: set publish.champion"
    if name == "others":
        return None if others else "there are no others: name files in evaluation.others"
    return f"got {name}; wanted {_nearest(name, [*get_args(Opponent), *others])}"


def _metrics_of(gate: GateSection) -> dict[tuple[str, ...], str]:
    """Return the metrics that a gate names, by where it does."""
    named: dict[tuple[str, ...], str] = {(*GATE, "metric"): gate.metric}
    for name in gate.guards or {}:
        named[(*GATE, "guards", name)] = name
    return named


def _metric_mistakes(
    config: TrainConfig | EvaluateConfig,
    named: Mapping[tuple[str, ...], str],
    metrics: Sequence[KnownMetric],
) -> Iterator[GateMistake]:
    """Yield what is wrong with the metrics that a config names, by where it does."""
    known = {metric.name: metric for metric in metrics}
    for path, name in named.items():
        why = _why_unfit(config, name, known[name]) if name in known else None
        if name not in known:
            why = f"got {name}, which is no metric; wanted {_nearest(name, list(known))}"
        if why:
            yield GateMistake(path, why)


def _why_unfit(config: TrainConfig | EvaluateConfig, name: str, metric: KnownMetric) -> str | None:
    """Return why nothing of this config can be judged by a metric, or None if it can."""
    if metric.direction == "neither":
        return f"neither more nor less {name} is better, so nothing can be compared by it"
    if "finish_reason" in metric.needs and _is_file_of_summaries(config):
        return f"{name} needs an adapter: a file of summaries does not say how each one ended"
    key = f"{name}_model"
    if "model" in metric.needs and getattr(config.evaluation, key, None) is None:
        return f"{name} is measured with a model: set evaluation.{key}"
    return None


def _regression_mistakes(config: TrainConfig | EvaluateConfig) -> Iterator[GateMistake]:
    regressions = config.publish.regressions
    where = ("publish", "regressions")
    if regressions and champion_of(config) is None:
        message = "older test sets are compared with the champion: set publish.champion"
        yield GateMistake(where, message)
    if regressions and _is_file_of_summaries(config):
        message = "a file of summaries has none of older test sets: remove this, or name an adapter"
        yield GateMistake(where, message)
    names = [each.name for each in regressions]
    for index, name in enumerate(names):
        if name in names[:index]:
            yield GateMistake((*where, index, "name"), f"got {name} twice; names must differ")


def _pair_mistakes(config: TrainConfig | EvaluateConfig) -> Iterator[GateMistake]:
    if config.publish.pairs is None or not isinstance(config, EvaluateConfig):
        return
    where = ("publish", "pairs")
    if _is_file_of_summaries(config):
        message = "a file of summaries has none of held-out pairs: remove this, or name an adapter"
        yield GateMistake(where, message)
    elif config.train is None:
        message = (
            "nobody would know if the adapter was trained on these conversations: name its "
            "training data by the key train"
        )
        yield GateMistake(where, message)


def _reload_mistakes(config: TrainConfig | EvaluateConfig) -> Iterator[GateMistake]:
    if not isinstance(config, TrainConfig) or not config.model.trust_remote_code:
        return
    if config.publish.verify:
        message = (
            "a gate demands that the adapter be reloaded without the base's own code "
            "(model.trust_remote_code), and nothing passes: set publish.verify: false, or remove "
            "model.trust_remote_code if transformers knows the model's type"
        )
        yield GateMistake(("publish", "verify"), message)


def _is_file_of_summaries(config: TrainConfig | EvaluateConfig) -> bool:
    return isinstance(config, EvaluateConfig) and config.summaries is not None


def _nearest(name: str, names: Sequence[str]) -> str:
    lowered = {each.lower(): each for each in names}
    near = difflib.get_close_matches(name.lower(), lowered, n=1)
    if near:
        return f"one of {', '.join(names)}; did you mean {lowered[near[0]]}?"
    return f"one of {', '.join(names)}"
