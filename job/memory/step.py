"""Simulate one training step of a base with its adapter, and return the peak of its memory.

The model is transformers', the adapter peft's, the head TRL's, the optimizer torch's; only the loop
is written out here, as transformers and RecapTrainer run it, since theirs waits for numbers.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from peft.tuners.lora import dora
from torch._subclasses.fake_tensor import FakeTensorMode

from job.memory.allocator import CachingAllocator
from job.memory.devices import Device, Rows, computing_on, mixed_precision, rules_of
from job.memory.fakes import dequantized, materialize
from job.memory.tracker import Tracker
from job.model import Model
from job.model.shared_prompt import SharedRows

FORWARD = "forward"  # a phase; the others are parts

BASE = "base"
ADAPTER = "adapter"
OPTIMIZER = "optimizer"
GRADIENTS = "gradients"
ACTIVATIONS = "activations"  # made in the forward pass
BACKWARD = "backward"  # recomputed activations, their gradients, unpacked weights

MIN_PAGED_NUMBERS = 100_000  # of bitsandbytes: smaller states stay on the GPU
MIN_8_BIT_NUMBERS = 4096  # smaller states stay in 32 bits
BLOCK_8_BIT = 256


@dataclass(frozen=True)
class Step:
    """The training step to simulate, besides its model.

    With `has_earlier_gradients`, it has more than one micro-batch: gradients of the others are
    there. Each `recomputed`-th layer computes its activations again in the backward pass.
    """

    rows: Rows
    device: Device
    optimizer: str
    recomputed: int | None
    has_earlier_gradients: bool = True


@dataclass(frozen=True)
class Peak:
    """The bytes by part when a phase had most, and those that the allocator reserved in the end."""

    phases: dict[str, dict[str, int]]
    reserved: int

    @property
    def phase(self) -> str:
        """The phase with the largest sum."""
        return max(self.phases, key=lambda name: sum(self.phases[name].values()))

    @property
    def parts(self) -> dict[str, int]:
        """The bytes by part at the peak."""
        return self.phases[self.phase]

    @property
    def tensors(self) -> int:
        """The bytes of all tensors at the peak."""
        return sum(self.parts.values())


def simulate_step(model: Model, step: Step, dtype: torch.dtype) -> Peak:
    """Return the peak of a step of a training under way. `model` is on meta, and is used up."""
    _set_recomputation(model.get_base_model(), step.recomputed)
    allocator = CachingAllocator() if step.device.is_gpu else None
    tracker = Tracker(rules_of(step.device, step.rows), allocator)
    plain = dora.dequantize_module_weight
    dora.dequantize_module_weight = dequantized
    try:
        with FakeTensorMode(allow_non_fake_inputs=True), tracker:
            of_base = partial(tracker.within, "loading", BASE)
            of_adapter = partial(tracker.within, "loading", ADAPTER)
            materialize(model, of_base, of_adapter)
            with computing_on(step.device, step.rows, dtype):
                _take_step(model, step, tracker, dtype)
    finally:
        dora.dequantize_module_weight = plain
    del tracker.peaks["loading"]
    return Peak(tracker.peaks, allocator.reserved if allocator else 0)


def _take_step(model: Model, step: Step, tracker: Tracker, dtype: torch.dtype) -> None:
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = _make_optimizer(trained, step)
    with tracker.within("update", OPTIMIZER):
        # A training under way has the optimizer's states.
        for weight in trained:
            weight.grad = torch.zeros_like(weight)
            tracker.assign(weight.grad, GRADIENTS)
        optimizer.step()
        if not step.has_earlier_gradients:
            optimizer.zero_grad()
    for weight in trained:
        weight.register_post_accumulate_grad_hook(
            lambda each: tracker.assign(each.grad, GRADIENTS) if each.grad is not None else None
        )

    with tracker.within(FORWARD, ACTIVATIONS):
        inputs = _inputs(step.rows, model.config.get_text_config().vocab_size, dtype)
        with mixed_precision(dtype):
            output = model(**inputs, use_cache=False, fused_lm_head=True)
            loss = -output.log_probs.sum() * 0.5
            del output
    with tracker.within("backward", BACKWARD):
        loss.backward()
        del loss
    with tracker.within("update", BACKWARD):
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()


def _inputs(rows: Rows, vocabulary: int, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """Return the inputs of a micro-batch without the mask of padding, which a training leaves out.

    Fakes have no values: which tokens have a label is answered by the tracker's rules.
    """
    shape = (1, rows.count * rows.tokens) if rows.are_joined else (rows.count, rows.tokens)
    inputs = {
        "input_ids": torch.randint(0, vocabulary, shape),
        "labels": torch.randint(0, vocabulary, shape),
    }
    if rows.are_pairs:
        positions = torch.randint(0, rows.tokens, shape)
        ends = torch.zeros(rows.count, dtype=torch.int64)
        shared = SharedRows(inputs["input_ids"], positions, ends, ends.clone())
        inputs |= {"position_ids": positions, "attention_mask": shared.mask(dtype)}
    if rows.are_joined:
        inputs["position_ids"] = torch.randint(0, rows.tokens, shape)
    return inputs


def _set_recomputation(base: Model, recomputed: int | None) -> None:
    if recomputed is None:
        return
    if recomputed == 1:
        base.gradient_checkpointing_enable({"use_reentrant": False})
    else:
        base.gradient_checkpointing_enable({"use_reentrant": False}, every_n_layers=recomputed)
    base.enable_input_require_grads()


def _make_optimizer(trained: list[torch.nn.Parameter], step: Step) -> Any:
    if step.optimizer == "adamw_torch":
        # foreach is torch's default on GPUs.
        return torch.optim.AdamW(trained, foreach=step.device.is_gpu)
    paged = "paged" in step.optimizer and step.device.is_gpu
    is_anything_paged = paged and any(each.numel() >= MIN_PAGED_NUMBERS for each in trained)
    is_fused = step.optimizer == "adamw_torch_fused"
    if is_fused or (step.optimizer == "paged_adamw_32bit" and not is_anything_paged):
        return torch.optim.AdamW(trained, fused=True)
    return _StatesOfBitsandbytes(trained, step.optimizer.endswith("8bit"), paged)


class _StatesOfBitsandbytes:
    """The states of an optimizer of bitsandbytes, which writes through pointers."""

    def __init__(self, trained: Iterable[torch.nn.Parameter], in_8_bits: bool, paged: bool) -> None:
        self._trained = list(trained)
        self._in_8_bits = in_8_bits
        self._paged = paged
        self._states: list[torch.Tensor] = []

    def step(self) -> None:
        if self._states:
            return
        for weight in self._trained:
            numbers = weight.numel()
            if self._paged and numbers >= MIN_PAGED_NUMBERS:
                continue  # in the host's memory
            size = numbers * 8
            if self._in_8_bits and numbers >= MIN_8_BIT_NUMBERS:
                size = numbers * 2 + 2 * 4 * -(-numbers // BLOCK_8_BIT)
            self._states.append(torch.empty(size, dtype=torch.uint8))

    def zero_grad(self) -> None:
        for weight in self._trained:
            weight.grad = None
