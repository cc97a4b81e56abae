"""Compute an adapter's layer in training by the fewest operations: with its base, in one function.

peft computes y = x Wᵀ + scaling · (x Aᵀ) Bᵀ (Hu et al. 2021) by a product, a multiplication and an
addition after the base, and autograd adds the gradients of x in the same way. Each of these reads
and writes all of y or x. Here the second product adds to y, and that of the gradient to the base's.
The results are the same within rounding. Evaluations and summaries stay peft's own, so that a
verdict does not depend on it. Not yet tried on a GPU.
"""

from collections.abc import Callable
from typing import Any

import bitsandbytes
import torch
from bitsandbytes.functional import dequantize_4bit
from peft.tuners.lora import Linear, LoraLayer
from peft.tuners.lora.bnb import Linear4bit
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable

from job.config.training_sections import TrainingSection
from job.model import Model
from job.telemetry import event


def is_wanted(section: TrainingSection) -> bool:
    """Return True if the config asks for it, or leaves it to a machine where it has been measured.

    That is a CPU.
    """
    if section.fused_lora is not None:
        return section.fused_lora
    is_possible = not section.compile and section.distribution != "fsdp"
    return is_possible and not torch.cuda.is_available()


def fuse_adapter(model: Model) -> None:
    """Let the layers of an adapter compute by one function whenever they train.

    Layers of another kind stay as they are: those with dropout or DoRA, of Conv1D, of experts, and
    of a base in 8 bits.
    """
    layers = [each for each in model.modules() if isinstance(each, LoraLayer)]
    fused = [each for each in layers if _is_plain(each)]
    for layer in fused:
        layer.forward = _while_training(layer)
    event("layers of the adapter compute by one function each", layers=len(fused), of=len(layers))


def _is_plain(layer: LoraLayer) -> bool:
    """Return True for LoRA without dropout on a frozen linear layer that autograd goes through."""
    linear, packed = nn.Linear, bitsandbytes.nn.Linear4bit
    is_linear = type(layer) is Linear and type(layer.base_layer) is linear
    is_packed = type(layer) is Linear4bit and type(layer.base_layer) is packed
    if not (is_linear or is_packed) or layer.lora_variant or any(layer.lora_bias.values()):
        return False
    has_dropout = any(type(each) is not nn.Identity for each in layer.lora_dropout.values())
    frozen = not any(each.requires_grad for each in layer.base_layer.parameters())
    return frozen and not has_dropout


def _while_training(layer: LoraLayer) -> Callable[..., Tensor]:
    """Return the layer's forward pass, which is fused where gradients are needed."""
    plain = layer.forward

    def forward(x: Tensor, *arguments: Any, **named: Any) -> Tensor:
        # The reference of pairs is the base without adapter, or with another one.
        is_single = len(layer.active_adapters) == 1 and layer.active_adapters[0] in layer.lora_A
        is_adapted = is_single and not (layer.disable_adapters or layer.merged)
        is_trained = layer.training and torch.is_grad_enabled()
        if arguments or named or not (is_adapted and is_trained):
            return plain(x, *arguments, **named)
        name = layer.active_adapters[0]
        down, up = layer.lora_A[name].weight, layer.lora_B[name].weight
        return _Fused.apply(x, down, up, layer.scaling[name], layer.base_layer)

    return forward


class _Fused(torch.autograd.Function):  # type: ignore[misc]
    """y = base(x) + scaling · (x downᵀ) upᵀ, with gradients of x, down and up."""

    @staticmethod
    def forward(
        ctx: FunctionCtx, x: Tensor, down: Tensor, up: Tensor, scaling: float, base: nn.Module
    ) -> Tensor:
        """Compute y of x (…, inputs), down (rank, inputs) and up (outputs, rank)."""
        kind = x.device.type
        is_mixed = torch.is_autocast_enabled(kind)
        dtype = torch.get_autocast_dtype(kind) if is_mixed else down.dtype
        rows = x.reshape(-1, x.shape[-1]).to(dtype)
        narrow = rows @ down.to(dtype).t()  # (rows, rank)
        of_base = base(x)  # (…, outputs)
        y = of_base.reshape(-1, of_base.shape[-1])
        _add(y, narrow, up.to(dtype).t(), scaling)
        ctx.save_for_backward(rows, narrow, down, up)
        ctx.scaling, ctx.base, ctx.shape, ctx.input_dtype = scaling, base, x.shape, x.dtype
        return y.view(of_base.shape)

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: FunctionCtx, of_y: Tensor) -> tuple[Tensor | None, ...]:
        """Compute the gradients by that of y (…, outputs)."""
        rows, narrow, down, up = ctx.saved_tensors
        dtype = rows.dtype
        of_y = of_y.reshape(-1, of_y.shape[-1]).to(dtype)
        of_narrow = (of_y @ up.to(dtype)).mul_(ctx.scaling)  # (rows, rank)
        of_down = (of_narrow.t() @ rows).to(down.dtype)
        of_up = (of_y.t() @ narrow).to(up.dtype).mul_(ctx.scaling)
        of_x = None
        if ctx.needs_input_grad[0]:
            of_x = of_y @ _weight(ctx.base).to(dtype)
            of_x.addmm_(of_narrow, down.to(dtype))
            of_x = of_x.view(ctx.shape).to(ctx.input_dtype)
        return of_x, of_down, of_up, None, None


def _add(y: Tensor, left: Tensor, right: Tensor, scaling: float) -> None:
    """Add a product to y, in place."""
    if y.dtype == left.dtype:
        y.addmm_(left, right, alpha=scaling)
    else:
        y.add_(left @ right, alpha=scaling)


def _weight(base: nn.Module) -> Tensor:
    """Return a linear layer's weight (outputs, inputs), out of 4 bits if it is in them."""
    weight = base.weight
    if isinstance(base, bitsandbytes.nn.Linear4bit):
        return dequantize_4bit(weight.view(-1, 1), weight.quant_state)
    return weight
