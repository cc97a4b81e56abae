"""Estimate how long a training run takes on a GPU, part by part, and what it costs.

recap has measured nothing on a GPU. Each rate is a range, and its assumption is part of the text:
the best that others have published, and for the rest what a careful person would plan with.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from job.config.commands import TrainConfig
from job.gpus.cards import Card
from job.model.operations import Products, TokenRows
from job.model.room import MissingWeights
from job.training.intervals import interval, multiples, seconds_for_evaluations

MINUTE = 60
HOUR = 3600
DAY = 24 * HOUR

# Of the peak. The most is published: 12,500 tokens/s of an 8B base in bfloat16 with LoRA on one
# H100, by NVIDIA's NeMo in 2026: 402 of 989 TFLOP/s, at four operations by token and parameter.
MOST_SHARE = 0.41
# Assumed: short rows and a base in 4 bits, which is unpacked for each pass.
LEAST_SHARE = 0.1

# Of a CPU's speed in a large product, measured by the plan.
LEAST_SHARE_OF_A_CPU = 0.2
MOST_SHARE_OF_A_CPU = 1.0

# Of a token step, assumed: it reads all weights, and CPUs launch its kernels.
MOST_SHARE_OF_MEMORY_RATE = 0.8
LEAST_SHARE_OF_MEMORY_RATE = 0.3
LAUNCH_SECONDS = 0.03
MOST_AT_ONCE = 64  # summaries
LEAST_AT_ONCE = 8
BYTES_OF_A_WEIGHT = 2  # while it generates

# Of the start, assumed: weight files are downloaded, if they are elsewhere, and read into memory.
BYTES_PER_SECOND = (1e8, 1e9)
ASSUMPTION = (
    f"assumed: {LEAST_SHARE:.0%} to {MOST_SHARE:.0%} of the published peak; nothing was "
    "measured on a GPU\n(docs/plan.md#time-and-cost). A run predicts its time after five steps"
)


@dataclass(frozen=True)
class Range:
    """The least and the most of seconds."""

    least: float
    most: float

    def __add__(self, other: "Range") -> "Range":
        return Range(self.least + other.least, self.most + other.most)

    def times(self, count: float) -> "Range":
        """Return the range of so many of them, one after the other."""
        return Range(self.least * count, self.most * count)

    def text(self) -> str:
        """Return it for people."""
        least, unit = _shown(self.least)
        most, unit_of_most = _shown(self.most)
        if self.most < 1:
            return "under 1 s"
        if unit != unit_of_most:
            return f"{least} {unit} to {most} {unit_of_most}"
        return f"{least} {unit}" if least == most else f"{least} to {most} {unit}"


@dataclass(frozen=True)
class Rates:
    """The shares of its peak that a kind of device reaches, and the seconds until it begins."""

    least_share: float
    most_share: float
    start: Range


# The start is that of the machine, its image and libraries, assumed; of this machine's CPU, of
# libraries alone.
GPU = Rates(LEAST_SHARE, MOST_SHARE, Range(1 * MINUTE, 10 * MINUTE))
CPU = Rates(LEAST_SHARE_OF_A_CPU, MOST_SHARE_OF_A_CPU, Range(10, 30))


@dataclass(frozen=True)
class Steps:
    """The optimizer steps of a training, and those of an epoch."""

    all: int
    per_epoch: int


@dataclass(frozen=True)
class Base:
    """The sizes of a base that time depends on: products, all weights, and those of the adapter.

    Both summaries of a pair share their prompt in rows of at most `max_shared_tokens`.
    """

    products: Products
    weights: int
    adapter: int
    max_shared_tokens: int = 0


@dataclass(frozen=True)
class Work:
    """The work of a run. Operations are floating-point ones.

    `training` are those of all steps, and `again` those of one more forward pass of all layers in
    each. `evaluation` are those of one evaluation, and `prompt` those of reading one prompt.
    `new_tokens` are those of a summary: the mean of references, and the most. `start_bytes` are
    those of the weight files, each time that they are copied.
    """

    steps: int
    tokens: int
    learned: int
    training: float
    again: float
    evaluations: int
    evaluation: float
    evaluation_share: float  # 1 if none is ever skipped
    samples: int  # summaries of an evaluation
    summaries: int
    prompt: float
    new_tokens: tuple[float, int]
    weight_bytes: int
    start_bytes: int
    # Each further process makes a step larger, and not the number of steps smaller.
    grows_with_processes: bool
    reference: float = 0.0  # of all rows, once before the first step


@dataclass(frozen=True)
class Durations:
    """The seconds of the parts of a run, in their order."""

    start: Range
    reference: Range
    training: Range
    evaluations: Range
    scores: Range

    @property
    def total(self) -> Range:
        """All of them."""
        return self.start + self.reference + self.training + self.evaluations + self.scores


def work_of(
    config: TrainConfig,
    base: Base,
    splits: Mapping[str, TokenRows],
    steps: Steps,
    summaries: int,
    files: MissingWeights,
) -> Work:
    """Return the work of a training with these rows, of which padding is not counted.

    `summaries` are generated after the last step. `files` are those of the base's weights.
    """
    section = config.training
    train, validation = splits["train"], splits["validation"]
    epochs = steps.all / steps.per_epoch
    every = interval(section.evaluate_every_steps, section.evaluate_every_epochs, steps.per_epoch)
    decides = section.adapter_from != "last_step" or section.patience is not None
    rows = sum(validation.by_length.values())
    most = config.generation.max_new_tokens
    forward = base.products.forward(validation, base.adapter)
    judged = config.judged is not None
    # Of a thumb, its prompt with the summary of another is computed, too, without a gradient.
    passes = 2 if config.judged == "thumbs" else 1
    judging = {
        name: passes * base.products.scoring(rows, base.adapter) for name, rows in splits.items()
    }
    training = base.products.training(train, base.adapter)
    if config.judged == "thumbs":
        training += base.products.scoring(train, base.adapter)
    return Work(
        steps=steps.all,
        tokens=round(train.tokens * epochs),
        learned=round(train.learned * epochs),
        training=training * epochs,
        again=base.products.forward(train, base.adapter) * epochs,
        reference=sum(judging.values()) if judged else 0.0,
        evaluations=multiples(every, 0, steps.all - 1) + 1,
        evaluation=judging["validation"],
        evaluation_share=1.0 if decides else section.evaluation_share,
        samples=section.sample_summaries,
        summaries=summaries,
        prompt=forward / rows,
        new_tokens=(min(validation.learned / rows / validation.answers, most), most),
        weight_bytes=BYTES_OF_A_WEIGHT * base.weights,
        start_bytes=files.total if files.is_local else 2 * files.total,
        grows_with_processes=section.max_steps is not None and section.processes is None,
    )


def durations_on(
    card: Card, work: Work, recomputed: float, gpus: int = 1, rates: Rates = GPU
) -> Durations | None:
    """Return the time of each part on so many GPUs of this kind; None if its rates are unknown.

    `recomputed` is the share of layers whose forward pass is computed again. Scores are made by one
    GPU alone.
    """
    if card.peak_tflops is None or card.memory_rate is None:
        return None
    peak = card.peak_tflops * 1e12
    sharing = 1 if work.grows_with_processes else gpus

    def products(operations: float, gpus: int) -> Range:
        seconds = operations / peak / gpus
        return Range(seconds / rates.most_share, seconds / rates.least_share)

    def summaries(count: int) -> Range:
        return products(count * work.prompt, 1) + _decoding(work, card.memory_rate or 1, count)

    training = products(work.training + recomputed * work.again, sharing)
    each = products(work.evaluation, gpus) + summaries(work.samples)
    slow, fast = BYTES_PER_SECOND
    return Durations(
        start=rates.start + Range(work.start_bytes / fast, work.start_bytes / slow),
        reference=products(work.reference, sharing),
        training=training,
        evaluations=each + _skipping(each.times(work.evaluations - 1), work, training),
        scores=summaries(work.summaries),
    )


def _decoding(work: Work, memory_rate: float, count: int) -> Range:
    """Return the time to generate so many summaries, in batches whose size is not known."""
    read = work.weight_bytes / (memory_rate * 1e9)
    mean, most = work.new_tokens
    least_steps = math.ceil(count / MOST_AT_ONCE) * mean
    most_steps = math.ceil(count / LEAST_AT_ONCE) * most
    slow = read / LEAST_SHARE_OF_MEMORY_RATE + LAUNCH_SECONDS
    return Range(least_steps * read / MOST_SHARE_OF_MEMORY_RATE, most_steps * slow)


def _skipping(evaluations: Range, work: Work, training: Range) -> Range:
    """Return the time of evaluations between steps, of which the run skips what is too much."""
    return Range(
        min(evaluations.least, seconds_for_evaluations(work.evaluation_share, training.least)),
        min(evaluations.most, seconds_for_evaluations(work.evaluation_share, training.most)),
    )


def table_of(work: Work, columns: Mapping[str, Durations]) -> Iterator[str]:
    """Yield the lines of a table: a line for each part, and a column for each device."""
    evaluations = f"{work.evaluations:,} evaluations" if work.evaluations > 1 else "1 evaluation"
    rows = [("start", [each.start for each in columns.values()])]
    if work.reference:
        rows.append(("reference", [each.reference for each in columns.values()]))
    rows += [
        (f"{work.steps:,} steps", [each.training for each in columns.values()]),
        (evaluations, [each.evaluations for each in columns.values()]),
        (f"{work.summaries:,} summaries", [each.scores for each in columns.values()]),
        ("in all", [each.total for each in columns.values()]),
    ]
    yield _row("", columns)
    for name, cells in rows:
        yield _row(name, [cell.text() for cell in cells])


def facts_of(durations: Durations) -> dict[str, Any]:
    """Return the seconds of each part as JSON types: the least and the most."""
    parts = {
        "start": durations.start,
        "reference": durations.reference,
        "training": durations.training,
        "evaluations": durations.evaluations,
        "scores": durations.scores,
        "total": durations.total,
    }
    return {f"{name}_seconds": [round(x.least), round(x.most)] for name, x in parts.items()}


def _row(name: str, cells: Sequence[str] | Mapping[str, Any]) -> str:
    return f"{name:18}{''.join(f'{cell:21}' for cell in cells)}".rstrip()


def _shown(seconds: float) -> tuple[str, str]:
    """Return a number for people, and its unit."""
    if seconds < MINUTE:
        return f"{max(1, round(seconds))}", "s"
    if seconds < HOUR:
        return f"{round(seconds / MINUTE)}", "min"
    if seconds < 2 * DAY:
        return f"{seconds / HOUR:.1f}", "h"
    return f"{seconds / DAY:.1f}", "days"
