"""Predict memory and time on GPUs that are named or found, and a training's memory on a CPU.

Nothing here is an error of a plan: a prediction may be wrong, and where memory runs out a job goes
on with smaller batches.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from job.config.commands import TrainConfig
from job.config.method_sections import sequences_of_a_row
from job.config.sections import AdapterModelSection, GenerationSection
from job.gpus.cards import CARDS, Card, card_named, found_cards
from job.launch.memory import own_control_group
from job.model.operations import TokenRows
from job.preflight.access import SmallFiles
from job.preflight.checks import Check
from job.preflight.cost import Fitting, Places, measured_cpu, places_of, time_checks
from job.preflight.duration import Steps, Work
from job.telemetry import event

if TYPE_CHECKING:  # they import torch
    from job.memory.estimate import Estimate, Fit, Need, Question, Unknown
    from job.memory.generation import GenerationNeed
    from job.model import Model

GIB = 1 << 30
MIB = 1 << 20
CPU = "cpu"  # among the names of GPUs
PROMPT_TOKENS = 2048  # of a long conversation, if the config does not limit prompts
LIBRARIES_BYTES = 1_200_000_000  # that a training process holds beside its tensors
MIN_SHOWN_BYTES = MIB
NOT_ASKED = Check(
    "memory",
    f"not asked: name what it might run on with --gpu ({', '.join([*CARDS, CPU])})",
    is_known=False,
)
# Of GPUs that may share a base by fsdp, if the config does not name a number.
SHARING = (2, 4, 8)
NOT_SHARED_BY_CPUS = "not asked: a base that CPUs share by fsdp; name GPUs with --gpu"
DERIVED = (
    "derived for a base that GPUs share by fsdp, from a simulated step of a GPU with all of it;\n"
    "nothing of it was measured (docs/memory.md#gpus-that-share-a-base)"
)
SEVERAL = 2
NAMES = {
    "backward": "backward pass",
    "buckets of gradients": "gradients in transit",
    "gathered": "gathered layers",
}


@dataclass(frozen=True)
class Devices:
    """The devices that a training might run on, and the price of an hour of one GPU."""

    cards: tuple[Card, ...] = ()
    has_cpu: bool = False
    price: float | None = None

    @property
    def are_named(self) -> bool:
        """True if the user named any of them."""
        return bool(self.cards) or self.has_cpu


NONE_NAMED = Devices()


@dataclass(frozen=True)
class Lengths:
    """The tokens of the rows.

    `longest` is the most of a training row after packing, and `most_learned` the most that one
    learns. `splits` are all rows before packing, by split, and `identity` is theirs in the cache.
    Both summaries of a pair are in one row if it `shares_prompts`.
    """

    longest: int
    most_learned: int
    splits: Mapping[str, TokenRows]
    steps: Steps
    identity: dict[str, Any] | None = None
    shares_prompts: bool = False


def find_devices(names: Sequence[str], price: float | None = None) -> Devices:
    """Return the devices of these names, the CPU among them. Raise ConfigError for an unknown one.

    Of no names, return none: `device_checks` looks for those of this machine.
    """
    cards = [card_named(name) for name in dict.fromkeys(names) if name != CPU]
    return Devices(tuple(cards), CPU in names, price)


def device_checks(
    config: TrainConfig,
    small: SmallFiles,
    lengths: Lengths,
    work: Work,
    devices: Devices,
    nodes: int,
) -> list[Check]:
    """Return what a step needs, part by part, where it fits, how long the run takes and its cost.

    Simulates a step in another process. Without named devices, takes the GPUs of this machine.
    """
    devices = or_found(devices)
    is_shared = config.training.distribution == "fsdp"
    if not devices.are_named:
        memory, places = NOT_ASKED, Places([])
    elif is_shared and not devices.cards:
        memory, places = Check("memory", NOT_SHARED_BY_CPUS, is_known=False), Places([])
    else:
        question = question_of(config, small.folder, lengths, devices, nodes)
        memory, places = _simulated(question, devices)
    times = time_checks(work, places, config.training.processes, devices.price, measured_cpu)
    return [memory, *times]


def _simulated(question: "Question", devices: Devices) -> tuple[Check, Places]:
    from job.memory.child import ask_child
    from job.memory.estimate import Estimate

    event("simulating a training step, to predict its memory: some seconds")
    answer = ask_child(question)
    if isinstance(answer, Estimate):
        return memory_check(question, answer), places_of(answer)
    return unknown_memory_check(answer), _unknown(devices, question.sharing)


def unknown_memory_check(answer: "Unknown") -> Check:
    """Return that the memory is not known; a warning if the training may fail by the same."""
    text = f"not known: a step could not be simulated: {answer.why}"
    if answer.was_refused:
        text = (
            "warning: a library refused a simulated step, and may refuse the first of the "
            f"training, which then ends with 64: {answer.why}\n"
            "so what the training needs is not known"
        )
    return Check("memory", text, is_known=False)


def _unknown(devices: Devices, sharing: Sequence[int]) -> Places:
    """Return the devices as places of which nobody knows whether they hold the training."""
    all_layers = 1.0
    gpus = [Fitting(card, all_layers, min(sharing, default=1)) for card in devices.cards]
    cpu = all_layers if devices.has_cpu and not sharing else None
    return Places(gpus, cpu, is_known=False)


def or_found(devices: Devices) -> Devices:
    """Return the devices, or the GPUs of this machine if none is named."""
    if devices.are_named:
        return devices
    return Devices(tuple(found_cards()), price=devices.price)


def question_of(
    config: TrainConfig, folder: Path, lengths: Lengths, devices: Devices, nodes: int = 1
) -> "Question":
    """Return what to ask about the largest micro-batch of a training.

    Without `training.processes`, it is asked about one GPU, and about several.
    """
    from job.memory.devices import Rows
    from job.memory.estimate import Question
    from job.memory.levels import LEVELS, Filling
    from job.training.batches import TOKENS_OF_A_PASS_ON_A_GPU

    section = config.training
    # Both sequences of a pair are in one pass.
    sequences = sequences_of_a_row(config.method, lengths.shares_prompts)
    count = max(section.rows_at_once, sequences)
    learned = count * lengths.most_learned
    rows = Rows(count, lengths.longest, learned, section.packing, lengths.shares_prompts)
    checkpointing = section.activation_checkpointing
    levels: Sequence[int | None] = LEVELS
    is_shared = section.distribution == "fsdp"
    if checkpointing != "auto":
        levels = (1,) if checkpointing else (None,)
    elif is_shared:
        levels = (1,)  # as the training does
    sharing: Sequence[int] = ()
    if is_shared:
        sharing = (section.processes,) if section.processes else SHARING
    asks_cpu = devices.has_cpu and not is_shared
    filling = None
    if section.fills_memory:
        filling = Filling(
            sequences * section.rows_of_a_step, TOKENS_OF_A_PASS_ON_A_GPU / lengths.longest
        )
    return Question(
        folder=folder,
        model=config.model,
        lora=config.lora,
        optimizer=section.optimizer,
        rows=rows,
        levels=levels,
        filling=filling,
        processes=_processes(section.processes, nodes),
        cards=devices.cards,
        host_bytes=free_host_bytes() - LIBRARIES_BYTES if asks_cpu else None,
        sharing=sharing,
    )


def _processes(processes: int | None, nodes: int) -> tuple[int, ...]:
    """Return the numbers of processes to ask about: what several of them need is the same."""
    if processes is not None:
        return (processes * nodes,)
    return (1, SEVERAL) if nodes == 1 else (nodes,)


def memory_check(question: "Question", answer: "Estimate") -> Check:
    """Return the predicted memory on each device, with a warning where it does not fit."""
    rows = question.rows
    lines = [f"predicted for {rows.count} rows of {rows.tokens:,} tokens at once"]
    if question.filling:
        lines = [f"predicted for rows of {rows.tokens:,} tokens, by free memory"]
    if question.sharing:
        lines.append(DERIVED)
    # Of GPUs that share a base, the largest number that was asked about.
    most = {fit.card.name: fit.gpus for fit in answer.fits}
    for fit in answer.fits:
        if not fit.is_shared and fit.gpus > question.processes[0]:
            lines.append(_line_of_several(fit))
        else:
            lines += _lines_of(fit, not fit.is_shared or fit.gpus == most[fit.card.name])
    if answer.on_cpu is not None and question.host_bytes is not None:
        need, free = answer.on_cpu, question.host_bytes
        warning = "" if need.tensors <= free else "warning: "
        lines.append(
            f"{warning}on a CPU: {(need.tensors + LIBRARIES_BYTES) / GIB:.1f} GiB of the host's "
            f"memory, of which {(free + LIBRARIES_BYTES) / GIB:.1f} are free here; "
            f"{_level_of(need)}"
        )
    facts = _facts_of(question, answer)
    return Check("memory", "\n".join(lines), facts=facts, is_estimate=True)


def _facts_of(question: "Question", answer: "Estimate") -> dict[str, Any]:
    facts: dict[str, Any] = {"rows": question.rows.count, "tokens_of_a_row": question.rows.tokens}
    facts["gpus"] = [
        _facts_of_need(fit.need)
        | {
            "gpu": fit.card.name,
            "gpus": fit.gpus,
            "bytes": fit.card.memory,
            "verdict": fit.verdict,
            "rows": fit.rows,
            "largest_rows": fit.largest_rows,
        }
        for fit in answer.fits
    ]
    if answer.on_cpu is not None:
        facts["cpu"] = _facts_of_need(answer.on_cpu) | {
            "process_bytes": answer.on_cpu.tensors + LIBRARIES_BYTES,
            "free_bytes": question.host_bytes,
        }
    return facts


def _facts_of_need(need: "Need") -> dict[str, Any]:
    return {
        "bytes_by_part": need.parts,
        "tensor_bytes": need.tensors,
        "reserved_bytes": need.reserved,
        "bytes_with_context": need.with_context,
        "recomputed_layers": None if need.recomputed is None else f"1/{need.recomputed}",
    }


def _line_of_several(fit: "Fit") -> str:
    """Return the difference that further GPUs make, each of which has the whole base."""
    warning = "" if fit.verdict == "fits" else "warning: "
    return (
        f"{warning}several {fit.card.name}, each {fit.verdict}: {size_text(fit.need.with_context)} "
        f"with CUDA's context; {_level_of(fit.need)}; {_rows_of(fit)}"
    )


def _rows_of(fit: "Fit") -> str:
    if not fit.largest_rows:
        return "not one such row fits"
    if fit.is_filled:
        return f"about {fit.rows:,} such rows at once, of at most {fit.largest_rows:,} that fit"
    return f"at most about {fit.largest_rows:,} such rows at once"


def size_text(count: int) -> str:
    """Return bytes for people."""
    return f"{count / GIB:.1f} GiB" if count >= GIB else f"{count / MIB:.0f} MiB"


def _lines_of(fit: "Fit", is_last: bool) -> list[str]:
    """Return what a fit has for people. With fewer GPUs than those that fit, it is no warning."""
    need = fit.need
    warning = "warning: " if is_last and fit.verdict != "fits" else ""
    parts = []
    for part, size in sorted(need.parts.items(), key=lambda item: -item[1]):
        if size >= MIN_SHOWN_BYTES:
            parts.append(f"{NAMES.get(part, part)} {size_text(size)}")
    card = f"{fit.card.name} ({fit.card.memory / GIB:.1f} GiB)"
    each = ""
    if fit.gpus > 1:
        card = f"{fit.gpus} x {fit.card.name} ({fit.card.memory / GIB:.1f} GiB each)"
        each = " on each"
    return [
        f"{warning}{card} {fit.verdict}: {size_text(need.tensors)} of tensors{each}, "
        f"about {size_text(need.reserved)} held by torch, "
        f"{size_text(need.with_context)} with CUDA's context; {_level_of(need)}; {_rows_of(fit)}",
        f"  {', '.join(parts)}",
    ]


def _level_of(need: "Need") -> str:
    """Return how many layers compute their activations again."""
    if need.recomputed is None:
        return "no layer recomputes"
    if need.recomputed == 1:
        return "all layers recompute"
    return f"one layer of {need.recomputed} recomputes"


def generation_check(
    model: "Model",
    section: AdapterModelSection,
    generation: GenerationSection,
    devices: Devices,
    bytes_beside: Callable[[int], int] = lambda _number_bytes: 0,
    bytes_to_score: int = 0,
) -> Check:
    """Return how many conversations each engine can summarize at once on each card, by formula.

    `model` has no weights. `bytes_beside` returns those of other models in the same memory, by the
    bytes of a number there, and vLLM leaves `bytes_to_score` to them. Prompts have as many tokens
    as they may, or PROMPT_TOKENS if that is less. On a CPU, return the host's memory that the night
    needs.
    """
    from job.memory.generation import need_of_transformers, need_of_vllm, need_on_a_cpu, text_of
    from job.memory.shape import shape_of

    devices = or_found(devices)
    if not devices.are_named:
        return NOT_ASKED
    shape = shape_of(model, section.quantization)
    tokens = generation.max_input_tokens or PROMPT_TOKENS
    needs = []
    beside = bytes_beside(2) if devices.cards else 0
    for card in devices.cards:
        needs.append(need_of_transformers(shape, generation, tokens, card, beside))
        needs.append(need_of_vllm(shape, generation, tokens, card, beside + bytes_to_score))
    lines = [f"estimated for prompts of {tokens:,} tokens, by formula"]
    if needs:
        lines.append(text_of(needs))
    if devices.has_cpu:
        number_bytes = 4 if section.dtype in ("auto", "float32") else 2
        on_cpu = shape_of(model, section.quantization, number_bytes)
        free = free_host_bytes()
        beside = bytes_beside(number_bytes)
        need = need_on_a_cpu(on_cpu, generation, tokens, free - LIBRARIES_BYTES, beside)
        lines.append(_line_of_a_cpu(need, free))
    if beside:
        lines.append(f"with {size_text(beside)} of a challenger or a reward model beside the model")
    return Check("memory", "\n".join(lines), is_estimate=True)


def _line_of_a_cpu(need: "GenerationNeed", free: int) -> str:
    total = need.total + LIBRARIES_BYTES
    warning = "warning: " if total > free else ""
    return (
        f"{warning}on a CPU: {total / GIB:.1f} GiB of the host's memory for each worker, of which "
        f"{free / GIB:.1f} are free here; {need.sequences:,} of the longest conversations at once"
    )


def free_host_bytes() -> int:
    """Return the memory that a process on this machine may have: what is free, within its limit."""
    free: int = psutil.virtual_memory().available
    limit_gib = own_control_group().limit_gib()
    return free if limit_gib is None else min(free, int(limit_gib * GIB))
