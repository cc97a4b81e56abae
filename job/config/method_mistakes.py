"""Mistakes of a training's method: keys that it does not have, or cannot have together."""

from collections.abc import Iterator
from typing import Any

from job.config.commands import TrainConfig
from job.config.method_sections import JUDGED, DpoSection, KtoSection, Method
from job.config.mistakes import Mistake

COLUMNS: dict[Method, tuple[str, ...]] = {
    "sft": ("summary",),
    "dpo": ("chosen", "rejected"),
    "kto": ("completion", "label"),
}
MIN_THUMBS_OF_A_STEP = 2  # TRL's
LEARNS = {"sft": "references", "dpo": "pairs", "kto": "thumbs"}


def method_mistakes(config: TrainConfig) -> Iterator[Mistake]:
    """Yield the mistakes of a config of which each key is right by itself."""
    method = config.method
    for other, columns in COLUMNS.items():
        for column in columns:
            if other not in (method, "sft") and column in config.data.columns:
                yield Mistake(
                    ("data", "columns", column),
                    f"is a column of {LEARNS[other]}, which method: {other} learns from, not "
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
    if JUDGED[method] is not None:
        for path, value, remedy in _impossible(config):
            key = ".".join(path)
            text = f"{str(value).lower() if isinstance(value, bool) else value}"
            yield Mistake(path, f"{key}: {text} is not for method: {method}: {remedy}")


def _impossible(config: TrainConfig) -> Iterator[tuple[tuple[str, ...], Any, str]]:
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
            "remove it",
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
