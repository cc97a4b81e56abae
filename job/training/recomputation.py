"""Let as few layers as fit compute their activations again in the backward pass.

To compute all of them again costs about a third more time. How much memory they need otherwise is
measured, by one forward pass of the longest row; `job.memory.levels` has the rules. On a GPU this
has not been tried yet.
"""

import inspect
import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import psutil
import torch

from job.errors import is_out_of_memory
from job.launch.memory import own_control_group
from job.memory.levels import (
    LEVELS,
    Filling,
    PassNeed,
    fastest_pass,
    least_level,
    margin_of,
    other_bytes,
)
from job.model import Model
from job.model.load import free_gpu_bytes, free_memory
from job.telemetry import event
from job.training.random_state import own_gpus

NO_INPUTS: Mapping[str, Any] = {}


class Recomputation:
    """The recomputation of a model in training, which begins without any, and may need more."""

    def __init__(
        self, model: Model, is_by_memory: bool, ranks: int = 1, sequences: int = 1
    ) -> None:
        # A row of preferences has several sequences, padded to the longest of them.
        self._sequences = sequences
        self._model = model  # an adapter on a base, not wrapped
        self._base = model.get_base_model()
        # Those that are left. Empty if the config has decided.
        self._levels = levels_of(self._base) if is_by_memory else []
        self.is_chosen = not is_by_memory
        self._margin = margin_of(ranks)
        self.level: int | None = None  # that was set last
        # Of a row of so many tokens, besides ids and labels.
        self.inputs_of: Callable[[int], Mapping[str, Any]] = lambda tokens: {}

    def choose(self, row_tokens: int, rows: int) -> None:
        """Let as few layers recompute as a micro-batch of `rows` such rows allows."""
        self.is_chosen = True
        need = self._measure(row_tokens, rows)
        free_memory()
        level = self._levels[-1]
        if need is not None:
            level = least_level(need, self._levels, free_bytes(), self._margin)
        self._set(level)

    def fill(self, row_tokens: int, filling: Filling) -> int:
        """Let layers recompute, and return of how many such rows a micro-batch takes least time.

        The config must not have decided on recomputation.
        """
        self.is_chosen = True
        need = self._measure(row_tokens, 1)
        free_memory()
        if need is None:
            self._set(self._levels[-1])
            return 1
        found = fastest_pass(need, self._levels, free_bytes(), self._margin, filling)
        self._set(found.level)
        event("rows of a micro-batch by the memory that is free", rows=found.rows)
        return found.rows

    def holds(self, level: int | None, row_tokens: int, rows: float) -> bool:
        """Return True if a micro-batch of so many such rows fits, with recomputation of `level`.

        It did in an earlier attempt, so nothing is added for what was not measured.
        """
        need = self._measure(row_tokens, 1)
        free_memory()
        if need is None or level not in self._levels:
            return False
        of_rows = replace(need, activation_bytes=need.activation_bytes * rows)
        return of_rows.bytes_at(level, margin=1.0) <= free_bytes()

    def take(self, level: int | None) -> None:
        """Let layers recompute as an earlier attempt did."""
        self.is_chosen = True
        self._set(level)

    def add(self) -> bool:
        """Let more layers recompute. Return False if there are none, or the config has decided."""
        if not self._levels:
            return False
        self._set(self._levels[0])
        return True

    def _measure(self, row_tokens: int, rows: int) -> PassNeed | None:
        tokens = row_tokens // self._sequences
        inputs = self.inputs_of(tokens)
        return measure_need(self._model, self._base, tokens, rows * self._sequences, inputs)

    def _set(self, level: int | None) -> None:
        set_level(self._base, level)
        self.level = level
        self._levels = self._levels[self._levels.index(level) + 1 :]
        layers = "none" if level is None else "all" if level == 1 else f"one of {level}"
        event("layers that compute activations again in the backward pass", layers=layers)


def levels_of(base: Model) -> list[int | None]:
    """Return the levels that a base and this version of transformers have."""
    if not getattr(base, "supports_gradient_checkpointing", False):
        return [None]
    parameters = inspect.signature(base.gradient_checkpointing_enable).parameters
    if "every_n_layers" in parameters:
        return list(LEVELS)
    return [None, 1]


def set_level(base: Model, level: int | None) -> None:
    """Let each `level`-th layer recompute in training from now on, or none."""
    if level is None:
        base.gradient_checkpointing_disable()
    elif level == 1:
        base.gradient_checkpointing_enable()
    else:
        base.gradient_checkpointing_enable(every_n_layers=level)


def measure_need(
    model: Model, base: Model, row_tokens: int, rows: int, inputs: Mapping[str, Any] = NO_INPUTS
) -> PassNeed | None:
    """Return the memory of a step whose micro-batch has `rows` of `row_tokens` tokens.

    `inputs` are those of one row besides its ids. `base` recomputes nothing at this moment. Return
    None if one row does not fit into memory, or the model does not compute. Changes no random
    state.
    """
    device = next(model.parameters()).device
    embeddings = base.get_input_embeddings().num_embeddings
    ids = torch.arange(row_tokens, device=device)[None] % embeddings
    was_training = model.training
    model.train()
    try:
        with torch.random.fork_rng(own_gpus()):
            kept = _bytes_kept(model, ids, inputs)
    except (AttributeError, RuntimeError, IndexError, TypeError, ValueError) as error:
        if not is_out_of_memory(error):
            raise
        return None
    finally:
        model.train(was_training)

    trained = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
    layers = base.config.get_text_config().num_hidden_layers
    return PassNeed(float(kept * rows), other_bytes(trained), max(1, layers))


def _bytes_kept(model: Model, ids: torch.Tensor, inputs: Mapping[str, Any]) -> int:
    """Return the bytes that a forward pass keeps for its backward pass, weights left out."""
    weights = {each.untyped_storage().data_ptr() for each in model.parameters()}
    kept: dict[int, int] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        named = {"input_ids": ids, "labels": ids, "use_cache": False} | dict(inputs)
        output = model(**named, fused_lm_head=True)
    # Only now may the graph go: a block that is free again would be counted once for two tensors.
    del output
    total: int = sum(kept.values())
    return total


def free_bytes() -> int:
    """Return the memory that is free for this process: of its GPU, or its share of the host's."""
    if torch.cuda.is_available():
        return free_gpu_bytes()
    free: int = psutil.virtual_memory().available
    limit_gib = own_control_group().limit_gib()
    if limit_gib is not None:
        free = min(free, int(limit_gib * 2**30) - psutil.Process().memory_info().rss)
    return free // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
