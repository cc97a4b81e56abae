"""Answer what a plan asks of the memory of a training: what it needs, where it fits, and how much
larger a micro-batch could be.

A few steps are simulated. Between them, the peak of each phase is a straight line: by the number of
rows, and by the number of layers that compute their activations again.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from job.config.sections import ModelSection
from job.config.training_sections import LoraSection
from job.gpus.cards import Card
from job.memory.devices import FLASH_SINCE, Device, Rows
from job.memory.levels import (
    Filling,
    Pass,
    PassNeed,
    fastest_pass,
    least_level,
    margin_of,
    other_bytes,
)
from job.memory.shape import BaseShape, shape_of
from job.memory.sharded import Stored, shared, stored_of
from job.memory.simulate import make_subject, simulate
from job.memory.step import (
    ACTIVATIONS,
    ADAPTER,
    BACKWARD,
    BASE,
    FORWARD,
    GRADIENTS,
    Peak,
    Step,
)
from job.model.skeleton import make_skeleton

MIB = 1 << 20

# torch's counters do not have them. A context is 0.1 to 0.5 GiB, by GPU and driver.
CONTEXT_BYTES = 512 * MIB
WORKSPACE_BYTES = 17 * MIB  # of cuBLAS, for two threads
WORKSPACE_BYTES_SINCE_HOPPER = 64 * MIB
HOPPER = (9, 0)
TIGHT_SHARE = 0.92  # of a GPU's memory

MAX_ROWS = 4096
BYTES_OF_FLOAT32 = 4  # in which an adapter trains


@dataclass(frozen=True)
class Question:
    """A training whose memory is asked for.

    `rows` are those of its largest micro-batch. `levels` are the levels of recomputation that the
    run may take. With `filling`, it chooses the number of rows by its memory. `processes` are the
    numbers of those that may share the training, each on a GPU with a whole base. If GPUs share the
    base, `sharing` are the numbers of them to ask about, and there is one level. `host_bytes` are
    free on a CPU, if that is asked about.
    """

    folder: Path
    model: ModelSection
    lora: LoraSection
    optimizer: str
    rows: Rows
    levels: Sequence[int | None]
    filling: Filling | None
    processes: Sequence[int]
    cards: Sequence[Card]
    host_bytes: int | None
    sharing: Sequence[int] = ()


@dataclass(frozen=True)
class Need:
    """The memory of a step on one device in bytes: by part, and what torch reserves for it.

    `beyond` is what CUDA has besides. Of the layers, each `recomputed`-th computes its activations
    again, or none does.
    """

    recomputed: int | None
    parts: dict[str, int]
    reserved: int
    beyond: int

    @property
    def tensors(self) -> int:
        """The sum of the parts."""
        return sum(self.parts.values())

    @property
    def with_context(self) -> int:
        """All that the GPU must have."""
        return self.reserved + self.beyond


@dataclass(frozen=True)
class Fit:
    """The need of a step on a card, and the largest number of rows in a micro-batch that fits.

    `rows` is the number in a micro-batch of the training. `largest_rows` is of the same tokens
    each, with all the recomputation that the run may take. `gpus` such cards share the training,
    and the base, too, if it `is_shared`.
    """

    card: Card
    need: Need
    verdict: Literal["fits", "tight", "does not fit"]
    largest_rows: int
    rows: int
    is_filled: bool = False
    gpus: int = 1
    is_shared: bool = False


@dataclass(frozen=True)
class Estimate:
    """The answer: the need of a CPU if it was asked for, and fits of each card.

    There is one for each number of processes. Of a base that GPUs share, a card has a fit for each
    number of them, up to the first that fits.
    """

    shape: BaseShape
    on_cpu: Need | None
    fits: tuple[Fit, ...]


@dataclass(frozen=True)
class Unknown:
    """The reason why a step could not be simulated.

    If it `was_refused`, a library computed it and raised: it may refuse the training's, too.
    """

    why: str
    was_refused: bool = False


@dataclass(frozen=True)
class Line:
    """The peaks of a step by the number of its rows, from two numbers that were simulated."""

    rows: int
    at: Peak
    more_rows: int
    at_more: Peak

    def peak(self, rows: int) -> Peak:
        """Return the peak of this number of rows."""
        share = (rows - self.rows) / (self.more_rows - self.rows)
        return _between(self.at, self.at_more, share)


def estimate(question: Question) -> Estimate:
    """Simulate what the question needs, and answer it. Raises what `make_skeleton` raises."""
    is_shared = bool(question.sharing)
    skeleton = make_skeleton(question.folder, question.model, is_shared)
    shape = shape_of(skeleton, question.model.quantization)
    on_cpu = None
    if question.host_bytes is not None:
        processes = question.processes[0]
        peaks = _simulate_levels(question, Device(), question.rows, _dtype_on(None, question.model))
        level = _pass(question, peaks, shape.layers, None, processes).level
        on_cpu = _need(peak_at_level(peaks, level, shape.layers), level, None, processes)

    simulated: dict[tuple[Device, str], dict[int | None, Line]] = {}
    fits = []
    for card in question.cards:
        dtype = _dtype_on(card, question.model)
        device = Device(min(card.capability, FLASH_SINCE))  # those since compute the same
        key = device, dtype
        if key not in simulated:
            simulated[key] = _lines(question, device, dtype)
        if question.sharing:
            section = question.model.model_copy(update={"dtype": dtype})
            stored = stored_of(make_skeleton(question.folder, section, sharded=True))
            fits += fits_shared(question, card, simulated[key], stored)
        else:
            fits += [
                fit_on(question, card, simulated[key], shape.layers, processes)
                for processes in question.processes
            ]
    return Estimate(shape, on_cpu, tuple(fits))


def fits_shared(
    question: Question, card: Card, lines: dict[int | None, Line], stored: Stored
) -> list[Fit]:
    """Return the fits of GPUs that share a base, by their number, up to the first that fits."""
    found = []
    for gpus in question.sharing:
        of_one = {
            level: replace(
                line,
                at=shared(line.at, stored, gpus),
                at_more=shared(line.at_more, stored, gpus),
            )
            for level, line in lines.items()
        }
        fit = fit_on(question, card, of_one, stored.layers)  # FSDP has no buckets of gradients
        found.append(replace(fit, gpus=gpus, is_shared=True))
        if fit.verdict == "fits":
            break
    return found


def _lines(question: Question, device: Device, dtype: str) -> dict[int | None, Line]:
    rows = question.rows
    more = replace(rows, count=2 * rows.count, learned=2 * rows.learned)
    at = _simulate_levels(question, device, rows, dtype)
    at_more = _simulate_levels(question, device, more, dtype)
    return {level: Line(rows.count, at[level], more.count, at_more[level]) for level in at}


def _simulate_levels(
    question: Question, device: Device, rows: Rows, dtype: str
) -> dict[int | None, Peak]:
    """Return the peaks with the least and the most recomputation that the run may take."""
    section = question.model.model_copy(update={"dtype": dtype})
    subject = make_subject(question.folder, section, question.lora, bool(question.sharing))
    peaks = {}
    for level in {question.levels[0], question.levels[-1]}:
        # With gradients of earlier micro-batches, not all layers need to be simulated.
        step = Step(rows, device, question.optimizer, level, has_earlier_gradients=True)
        peaks[level] = simulate(subject, step)
    return peaks


def fit_on(
    question: Question,
    card: Card,
    lines: dict[int | None, Line],
    layers: int,
    processes: int = 1,
) -> Fit:
    """Return the need on a card of each of the processes.

    `lines` have the first and the last level of recomputation.
    """
    peaks = {level: line.peak(question.rows.count) for level, line in lines.items()}
    chosen = _pass(question, peaks, layers, card, processes)
    peaks = {level: line.peak(chosen.rows) for level, line in lines.items()}
    need = _need(peak_at_level(peaks, chosen.level, layers), chosen.level, card, processes)
    last = question.levels[-1]

    def fits(rows: int) -> bool:
        return _need(lines[last].peak(rows), last, card, processes).with_context <= card.memory

    verdict: Literal["fits", "tight", "does not fit"] = "fits"
    # Before torch gives up, it frees what it has reserved and no tensor needs.
    if need.tensors + need.beyond > card.memory:
        verdict = "does not fit"
    elif need.with_context > TIGHT_SHARE * card.memory:
        verdict = "tight"
    is_filled = question.filling is not None
    return Fit(card, need, verdict, _largest(fits), chosen.rows, is_filled, gpus=processes)


def _pass(
    question: Question,
    peaks: dict[int | None, Peak],
    layers: int,
    card: Card | None,
    processes: int,
) -> Pass:
    """Return the pass that a training chooses by what is free once its model is loaded."""
    rows = question.rows.count
    if len(question.levels) == 1:
        return Pass(rows, question.levels[0])
    room = question.host_bytes
    if card is not None:
        room = card.memory - CONTEXT_BYTES
    assert room is not None
    forward = peaks[None].phases[FORWARD]
    adapter = forward.get(ADAPTER, 0)
    free = room - forward.get(BASE, 0) - adapter
    other = other_bytes(adapter // BYTES_OF_FLOAT32)
    activations = float(forward.get(ACTIVATIONS, 0))
    margin = margin_of(processes)
    if card is not None and question.filling is not None:
        need = PassNeed(activations / rows, other, layers)
        return fastest_pass(need, question.levels, free, margin, question.filling)
    need = PassNeed(activations, other, layers)
    return Pass(rows, least_level(need, question.levels, free, margin))


def _largest(fits: Callable[[int], bool]) -> int:
    """Return the largest number of rows that fits, 0 if one does not."""
    low, high = 0, MAX_ROWS + 1
    while high - low > 1:
        middle = (low + high) // 2
        if fits(middle):
            low = middle
        else:
            high = middle
    return low


def _need(peak: Peak, level: int | None, card: Card | None, processes: int) -> Need:
    parts = dict(peak.parts)
    if processes > 1:
        # DistributedDataParallel reduces gradients in buckets, which have all of them again.
        parts["buckets of gradients"] = parts.get(GRADIENTS, 0)
    tensors = sum(parts.values())
    reserved = max(tensors, peak.reserved + tensors - peak.tensors)
    if card is None:
        return Need(level, parts, reserved, beyond=0)
    is_new = card.capability >= HOPPER
    workspace = WORKSPACE_BYTES_SINCE_HOPPER if is_new else WORKSPACE_BYTES
    return Need(level, parts, reserved, CONTEXT_BYTES + workspace)


def peak_at_level(peaks: dict[int | None, Peak], level: int | None, layers: int) -> Peak:
    """Return the peak if each `level`-th of the layers recomputes, from that of none and of all.

    Each layer keeps its activations, or what it begins with. One that recomputes is there whole in
    the backward pass, however few there are.
    """
    if level in peaks:
        return peaks[level]
    none, every = peaks[None], peaks[1]
    recomputing = -(-layers // (level or 1))
    peak = _between(none, every, recomputing / layers)
    for phase, parts in peak.phases.items():
        working = [each.phases[phase].get(BACKWARD, 0) for each in (none, every)]
        parts[BACKWARD] = max(working)
    return Peak(peak.phases, round(peak.tensors * every.reserved / every.tensors))


def _between(first: Peak, second: Peak, share: float) -> Peak:
    """Return the peak at this share of the way from the first to the second, which it may pass."""
    phases = {}
    for phase, parts in first.phases.items():
        others = second.phases[phase]
        phases[phase] = {
            part: round(parts.get(part, 0) + (others.get(part, 0) - parts.get(part, 0)) * share)
            for part in {*parts, *others}
        }
    peak = Peak(phases, 0)
    gap = first.reserved / first.tensors + (
        second.reserved / second.tensors - first.reserved / first.tensors
    ) * min(max(share, 0), 1)
    return Peak(phases, round(peak.tensors * gap))


def _dtype_on(card: Card | None, section: ModelSection) -> str:
    """Return the dtype of the computation on a card, or on a CPU."""
    if section.dtype != "auto":
        return section.dtype
    if card is None:
        return "float32"
    return "bfloat16" if card.has_bfloat16 else "float16"
