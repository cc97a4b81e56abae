"""Choose how a base computes the loss of its rows: by which head, mask and attention.

Each is tried on the base itself before the first step, so that what makes it fast changes nothing.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from transformers import TrainingArguments

from job.model import Model
from job.telemetry import warn
from job.training.own_head import check_looks_back, is_fused_head_right, use_own_head
from job.training.packed_attention import choose_attention, installed_packages, torch_kernel
from job.training.shortcuts import is_mask_needless, leave_out_mask


@dataclass(frozen=True)
class Precision:
    """The dtype of a training's computation, and the context in which it computes in it."""

    dtype: torch.dtype
    context: Callable[[], AbstractContextManager[object]]


def dtype_of(settings: TrainingArguments) -> torch.dtype:
    """Return the dtype in which a training with these settings computes."""
    if settings.bf16:
        return torch.bfloat16
    return torch.float16 if settings.fp16 else torch.float32


def choose_forward(model: Model, base: Model, precision: Precision, joins_rows: bool) -> None:
    """Collective, once: refuse a base that looks ahead, and replace what computes otherwise.

    `model` is the base with what is around it. `joins_rows` is True if packed rows are one.
    """
    embeddings = base.get_input_embeddings().num_embeddings
    dtype = precision.dtype
    with precision.context():
        check_looks_back(model, embeddings, dtype)
        is_right = is_fused_head_right(model, embeddings, dtype)
        is_needless = is_mask_needless(model, base)
    if not is_right:
        use_own_head(base)
        warn("TRL's head computes another loss than this base: its own is used, with more memory")
    if is_needless:
        leave_out_mask(base)
    if joins_rows:
        with precision.context():
            choose_attention(model, base, dtype, torch_kernel(), installed_packages())
