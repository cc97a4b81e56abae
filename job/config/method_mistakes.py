"""Mistakes of a training's method: keys that it does not have, or cannot have together."""

from collections.abc import Iterator
from typing import Any

from job.config.commands import TrainConfig
from job.config.method_sections import DpoSection, Judged, KtoSection, Method
from job.config.mistakes import Mistake
from job.config.scoring_sections import ScoringSection
from job.config.sections import GenerationSection
from job.config.serving_section import ServeSection
from job.config.training_sections import PublishSection

COLUMNS: dict[Judged, tuple[str, ...]] = {
    "pairs": ("chosen", "rejected"),
    "thumbs": ("completion", "label"),
}
LEARNED_BY: dict[Judged, Method] = {"pairs": "dpo", "thumbs": "kto"}
MIN_THUMBS_OF_A_STEP = 2  # TRL's
NO_SUMMARIES = "a reward model writes no summaries; remove it"
# Keys of `evaluation` and of `publish` that a reward model has.
SCORED = ("max_conversations", "bootstrap_samples")
PUBLISHED = ("license", "language", "verify")
OTHER_REMEDIES = {
    "hub": "it is published in output alone; remove it, and upload that folder yourself",
    "private": "no repository of the Hub is created; remove it",
}

Impossible = tuple[tuple[str, ...], Any, str]  # key, value to show if any, and the remedy


def method_mistakes(config: TrainConfig) -> Iterator[Mistake]:
    """Yield the mistakes of a config of which each key is right by itself."""
    method = config.method
    for kind, columns in COLUMNS.items():
        other = LEARNED_BY[kind]
        for column in columns:
            if kind != config.judged and column in config.data.columns:
                yield Mistake(
                    ("data", "columns", column),
                    f"is a column of {kind}, which method: {other} learns from, not "
                    f"method: {method}: remove it, or set method: {other}",
                )
    own = {"dpo": DpoSection(), "kto": KtoSection()}
    for section, default in own.items():
        if section != method and getattr(config.training, section) != default:
            yield Mistake(
                ("training", section),
                f"is for method: {section}, and this is method: {method}: remove it, or set "
                f"method: {section}",
            )
    impossible: list[Impossible] = []
    if config.judged is not None:
        impossible += _impossible(config)
    if not config.writes_summaries:
        impossible += _of_summaries(config)
    for path, value, remedy in impossible:
        key = ".".join(path)
        if value is not None:
            key += f": {str(value).lower() if isinstance(value, bool) else value}"
        yield Mistake(path, f"{key} is not for method: {method}: {remedy}")


def _impossible(config: TrainConfig) -> Iterator[Impossible]:
    """Yield keys that a training on preferences cannot have as they are, and the remedy."""
    training, data = config.training, config.data
    if training.packing:
        yield (
            ("training", "packing"),
            True,
            "each answer needs a row of its own; remove it, rows of similar length are batched",
        )
    if training.distribution == "fsdp":
        yield (
            ("training", "distribution"),
            "fsdp",
            "several processes hold the whole base each (ddp); use a smaller base or larger GPUs",
        )
    if config.lora.dropout:
        yield (
            ("lora", "dropout"),
            config.lora.dropout,
            "the adapter is compared with the one that the training starts from, without chance; "
            "remove it"
            if config.writes_summaries
            else "TRL trains reward models without chance; remove it",
        )
    if config.method == "kto" and training.rows_of_a_step < MIN_THUMBS_OF_A_STEP:
        yield (
            ("training", "batch_size"),
            training.batch_size,
            "each step compares its thumbs with a mean over all of them; raise it to 2 at least, "
            "or training.gradient_accumulation_steps",
        )
    if data.format == "transcript":
        yield (
            ("data", "format"),
            "transcript",
            "a transcript has no judged answers; give files of records with them",
        )
    if data.references == "first":
        yield (
            ("data", "references"),
            "first",
            "each pair or thumb is a record of its own; remove it",
        )


def _of_summaries(config: TrainConfig) -> Iterator[Impossible]:
    """Yield keys about the summaries that an adapter writes, set for one that writes none."""
    training = config.training
    if training.adapter_from == "best_metric":
        why = "a reward model writes no summaries; choose best_evaluation, by the validation loss"
        yield ("training", "adapter_from"), "best_metric", why
    for key, default in (("generation", GenerationSection()), ("serve", ServeSection())):
        if getattr(config, key) != default:
            yield (key,), None, NO_SUMMARIES
    sections = {"evaluation": (ScoringSection(), SCORED), "publish": (PublishSection(), PUBLISHED)}
    for name, (defaults, allowed) in sections.items():
        section = getattr(config, name)
        for key in type(defaults).model_fields:
            if key not in allowed and getattr(section, key) != getattr(defaults, key):
                yield (name, key), None, OTHER_REMEDIES.get(key, NO_SUMMARIES)
