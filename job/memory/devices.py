"""Let a simulated step compute as its device would, where fake tensors on a CPU would not.

On a wheel of torch without CUDA, fake tensors on "cuda" end the process. So they are on a CPU, and
the kernels of a GPU are put in their place by name. The sizes of a kernel's own memory are from its
source.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional
from transformers import masking_utils
from trl.kernels import chunked_logprob
from trl.trainer import utils as trl_utils

from job.memory.allocator import BLOCK_BYTES
from job.memory.tracker import Rules

aten = torch.ops.aten
MIB = 1 << 20

# Of compute capability. Ampere was the first with the kernel of flash attention.
FLASH_SINCE = (8, 0)
MAX_FLASH_HEAD = 256  # dimensions
MIN_ROWS_OF_A_PRODUCT = 5  # of bitsandbytes' kernels, which dequantize the whole weight from there
ABSMAX_BLOCK = 64  # numbers
# Learned tokens whose logits TRL's head computes at a time: its own number, and one for CPUs, where
# each token takes several buffers of 32,768 numbers.
TOKENS_OF_A_TILE = 4096
TOKENS_OF_A_TILE_ON_A_CPU = 64


@dataclass(frozen=True)
class Device:
    """The kind of device that a step runs on: a CPU, or a GPU of this compute capability."""

    capability: tuple[int, int] | None = None

    @property
    def is_gpu(self) -> bool:
        """True for a GPU."""
        return self.capability is not None

    @property
    def has_flash(self) -> bool:
        """True if its attention needs no memory for scores in any head."""
        return self.capability is not None and self.capability >= FLASH_SINCE


@dataclass(frozen=True)
class Rows:
    """The rows of a micro-batch: their number, the tokens of each with padding, and those learned.

    Joined rows are one of all tokens. In a row of `are_pairs`, two answers share a prompt.
    """

    count: int
    tokens: int
    learned: int  # of all rows
    are_joined: bool = False
    are_pairs: bool = False


def rules_of(device: Device, rows: Rows) -> Rules:
    """Return what the tracker must know of the device, and of data that is not there."""

    def answer(func: Any, args: Sequence[Any], named: Mapping[str, Any]) -> Any:
        return _answer_by_data(func, args, rows.learned)

    if device.is_gpu:
        return Rules(answer, _scratch_on_gpu, BLOCK_BYTES)
    return Rules(answer, _scratch_on_cpu)


def _answer_by_data(func: Any, args: Sequence[Any], learned: int) -> Any:
    """Return the result of what depends on data: which tokens have a label."""
    is_selection = func is aten.index.Tensor and len(args[1]) == 1
    if is_selection and args[1][0].dtype == torch.bool:
        mask = args[1][0]
        return args[0].new_empty((learned, *args[0].shape[mask.dim() :]))
    places = (aten.index_put.default, aten._unsafe_index_put.default)
    if func in places and args[1][0].dtype == torch.bool:
        return torch.empty_like(args[0])
    in_place = (aten.index_put_.default, aten._index_put_impl_.default)
    if func in in_place and args[1][0].dtype == torch.bool:
        return args[0]
    if func is aten.masked_select.default:
        return args[0].new_empty((learned,))
    return NotImplemented


def _scratch_on_gpu(func: Any, args: Sequence[Any]) -> list[int]:
    name = func.name()
    if name == "bitsandbytes::gemm_4bit":
        inputs, _, shape = args[:3]
        if inputs.numel() // inputs.shape[-1] < MIN_ROWS_OF_A_PRODUCT:
            return []
        numbers = shape[0] * shape[1]
        sizes = [numbers * inputs.element_size()]
        if len(args) > 7 and args[7] is not None:  # constants of quantization are quantized, too
            sizes += [numbers // ABSMAX_BLOCK * 4] * 2
        return sizes
    if name == "aten::_softmax_backward_data":  # gradient times output
        return [args[0].numel() * args[0].element_size()]
    if name in (
        "aten::_scaled_dot_product_flash_attention_backward",
        "aten::_scaled_dot_product_efficient_attention_backward",
    ):
        query, key = args[1:3]
        sizes = [query.numel() * 4]  # its gradient, added up in float32
        if key.shape[1] != query.shape[1]:  # gradients of key and value for every head
            sizes.append(2 * query.numel() * query.element_size())
        return sizes
    return []


def _scratch_on_cpu(func: Any, args: Sequence[Any]) -> list[int]:
    if func.name() != "bitsandbytes::gemm_4bit":
        return []
    inputs, _, shape = args[:3]
    numbers = shape[0] * shape[1]
    return [numbers * inputs.element_size()]


@contextmanager
def computing_on(device: Device, rows: Rows, dtype: torch.dtype) -> Iterator[None]:
    """During the block, let the libraries compute what they would on the device, in `dtype`."""
    with ExitStack() as stack:

        def put(owner: Any, name: str, value: Any) -> None:
            stack.enter_context(_replaced(owner, name, value))

        # As RecapTrainer: logits of learned tokens alone.
        put(trl_utils, "_use_triton", lambda device: True)
        tokens = TOKENS_OF_A_TILE if device.is_gpu else TOKENS_OF_A_TILE_ON_A_CPU
        put(chunked_logprob, "TOKEN_CHUNK_SIZE", tokens)
        put(masking_utils, "find_packed_sequence_indices", _packed_as(device, rows))
        if device.is_gpu:
            put(functional, "dropout", _dropout_on_gpu(functional.dropout))
            put(functional, "scaled_dot_product_attention", _attention_on_gpu(device))
            # TRL's kernels of Triton, which write into tensors that are there.
            put(chunked_logprob, "_use_triton", lambda device: True)
            put(chunked_logprob, "_forward_kernel", _NoKernel())
            put(chunked_logprob, "_backward_kernel", _NoKernel())
            put(chunked_logprob, "triton", _NoTriton())
            put(chunked_logprob, "_addmm_fp32", lambda total, a, b: None)
            stack.enter_context(_autocast_flag(dtype))
        yield


def mixed_precision(dtype: torch.dtype) -> torch.autocast:
    """Return the context of a forward pass in `dtype`.

    Its end frees the copies of weights in that dtype: a backward pass is outside, as in a training.
    """
    return torch.autocast("cpu", dtype=dtype, enabled=dtype != torch.float32)


class _NoTriton:
    """The part of the package that TRL calls beside its kernels."""

    @staticmethod
    def cdiv(a: int, b: int) -> int:
        return -(-a // b)


class _NoKernel:
    """A kernel of Triton that allocates nothing: kernel[grid](...)."""

    def __getitem__(self, grid: Any) -> Callable[..., None]:
        return lambda *args, **named: None


@contextmanager
def _replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    missing = object()
    before = getattr(owner, name, missing)
    setattr(owner, name, value)
    try:
        yield
    finally:
        if before is missing:
            delattr(owner, name)
        else:
            setattr(owner, name, before)


@contextmanager
def _autocast_flag(dtype: torch.dtype) -> Iterator[None]:
    """Set the flag of CUDA's autocast, for which peft asks on any device."""
    before = torch.is_autocast_enabled("cuda"), torch.get_autocast_dtype("cuda")
    torch.set_autocast_enabled("cuda", dtype != torch.float32)
    torch.set_autocast_dtype("cuda", dtype)
    try:
        yield
    finally:
        torch.set_autocast_enabled("cuda", before[0])
        torch.set_autocast_dtype("cuda", before[1])


def _packed_as(device: Device, rows: Rows) -> Callable[[torch.Tensor], torch.Tensor | None]:
    """Return transformers' search for joined rows, which would find them in any fake positions.

    Flash attention needs no dense mask: recap lets joined rows attend by torch's kernel there.
    """
    has_mask = rows.are_joined and not device.has_flash

    def find(position_ids: torch.Tensor) -> torch.Tensor | None:
        return torch.zeros_like(position_ids) if has_mask else None

    return find


def _dropout_on_gpu(plain: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    """Return CUDA's dropout, which keeps a mask of bytes. A CPU's keeps a factor by number."""

    def dropout(
        input: torch.Tensor, p: float = 0.5, training: bool = True, inplace: bool = False
    ) -> torch.Tensor:
        if not training or not 0 < p < 1:
            return plain(input, p, training, inplace)
        dropped: torch.Tensor = torch.native_dropout(input, p, True)[0]
        return dropped

    return dropout


def _attention_on_gpu(device: Device) -> Callable[..., torch.Tensor]:
    """Return scaled_dot_product_attention with the choice of kernels that CUDA makes."""

    def attend(
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attn_mask: torch.Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        **named: Any,
    ) -> torch.Tensor:
        scale = named.get("scale")
        is_grouped = key.shape[1] != query.shape[1]
        fits = query.dtype != torch.float32 and query.shape[-1] == value.shape[-1] <= MAX_FLASH_HEAD
        if attn_mask is None and device.has_flash and fits:
            return aten._scaled_dot_product_flash_attention(
                query, key, value, dropout_p, is_causal, False, scale=scale
            )[0]
        if is_grouped:  # the memory-efficient kernel has no grouped heads
            return aten._scaled_dot_product_attention_math(
                query, key, value, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=True
            )[0]
        needs = torch.is_grad_enabled() and any(t.requires_grad for t in (query, key, value))
        return aten._scaled_dot_product_efficient_attention(
            query,
            key,
            value,
            _bias(attn_mask, query, key),
            needs,
            dropout_p,
            is_causal,
            scale=scale,
        )[0]

    return attend


def _bias(mask: torch.Tensor | None, query: torch.Tensor, key: torch.Tensor) -> torch.Tensor | None:
    """Return a mask as the memory-efficient kernel wants it: numbers that are added to scores."""
    if mask is None:
        return None
    if mask.dtype == torch.bool:
        bias = torch.zeros_like(mask, dtype=query.dtype)
        mask = bias.masked_fill_(mask.logical_not(), float("-inf"))
    return mask.expand(query.shape[0], query.shape[1], query.shape[2], key.shape[2])
