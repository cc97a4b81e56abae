"""Quantize to nf4, with bitsandbytes, also what transformers leaves in 16 bits.

transformers replaces the modules whose type is torch's Linear, and no others. The experts of a
mixture are parameters of three dimensions, which hold most of its weights: they are packed too, and
unpacked, a layer at a time, when the layer is computed. A subclass of Linear that computes what
Linear does (Falcon's) becomes one.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from bitsandbytes.functional import QuantState, quantize_4bit
from bitsandbytes.nn import Linear4bit, Params4bit
from bitsandbytes.nn.parametrize import (
    Bnb4bitParametrization,
    replace_parameter_4bit,
    replace_parameter_4bit_prequantized,
)
from torch import Tensor, nn
from torch.nn.utils.parametrize import register_parametrization
from transformers import BitsAndBytesConfig
from transformers.integrations.bitsandbytes import Bnb4bitQuantize, replace_with_bnb_linear
from transformers.pytorch_utils import Conv1D
from transformers.quantizers import auto
from transformers.quantizers.quantizer_bnb_4bit import Bnb4BitHfQuantizer
from transformers.quantizers.quantizers_utils import should_convert_module

from job.model import Model
from job.model.packed import Packing

MIN_WIDTH = 16  # inputs or outputs of a layer that is quantized
KEY = "bitsandbytes_4bit"  # of transformers' quantizers


class ExpertsQuantizer(Bnb4BitHfQuantizer):  # type: ignore[misc]
    """transformers' quantizer to 4 bits, which also packs the experts that it leaves out.

    Each tensor is packed once it is read, so that the model in 16 bits need never fit.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.packs_experts = True
        self.packing = Packing()
        self.experts: list[str] = []
        self.states: dict[str, QuantState] = {}

    def _process_model_before_weight_loading(self, model: Model, **kwargs: Any) -> None:
        make_plain_linears(model)
        super()._process_model_before_weight_loading(model, **kwargs)
        if self.packs_experts:
            self.experts = expert_parameters(model, self.modules_to_not_convert)

    @staticmethod
    def get_modules_to_not_convert(model: Model, *arguments: Any, **named: Any) -> list[str]:
        """Return what stays in 16 bits: also layers so narrow that 4 bits would save nothing.

        Gemma 3n limits the weights of such layers while it trains, which fails if they are packed.
        Gates and routers are others.
        """
        kept: list[str] = Bnb4BitHfQuantizer.get_modules_to_not_convert(model, *arguments, **named)
        for name, module in model.named_modules():
            if isinstance(module, nn.Linear) and min(module.weight.shape) < MIN_WIDTH:
                kept.append(name)
        return kept

    def param_needs_quantization(self, model: Model, param_name: str, **kwargs: Any) -> bool:
        """Return True for the weights of a linear layer, and of experts."""
        is_expert = param_name in self.experts
        return is_expert or super().param_needs_quantization(model, param_name, **kwargs)

    def get_quantize_ops(self) -> Any:
        """Return the operation that packs a tensor which was read."""
        return _Quantize(self)

    def pack(self, name: str, weight: Tensor) -> Tensor:
        """Return an expert parameter in 4 bits, and keep what unpacks it."""
        packed, self.states[name] = quantize_4bit(
            weight.contiguous(),
            compress_statistics=self.quantization_config.bnb_4bit_use_double_quant,
            quant_type=self.quantization_config.bnb_4bit_quant_type,
        )
        return packed

    def _process_model_after_weight_loading(self, model: Model, **kwargs: Any) -> Model:
        for name in self.experts:
            module, parameter = _owner(model, name)
            state = self.states.pop(name).as_dict(packed=True)
            device = getattr(module, parameter).device
            replace_parameter_4bit_prequantized(module, parameter, state, device)
        return super()._process_model_after_weight_loading(model, **kwargs)

    def shape_experts(self, model: Model) -> None:
        """Give the experts of a model without weights the modules that loading gives them."""
        for name in self.experts:
            module, parameter = _owner(model, name)
            weight = getattr(module, parameter)
            state = QuantState(absmax=None, shape=weight.shape, dtype=weight.dtype)
            packed = torch.empty(-(-weight.numel() // 2), 1, dtype=torch.uint8, device="meta")
            setattr(module, parameter, nn.Parameter(packed, requires_grad=False))
            register_parametrization(module, parameter, Bnb4bitParametrization(state), unsafe=True)


class _Quantize(Bnb4bitQuantize):  # type: ignore[misc]
    """transformers' operation on a tensor that was read, for an expert or for a linear layer."""

    def convert(self, input_dict: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        result = {}
        for name, value in input_dict.items():
            weight = value[0] if isinstance(value, list) else value
            if name in self.hf_quantizer.experts:
                packed = self.hf_quantizer.pack(name, weight)
                result[name] = nn.Parameter(packed, requires_grad=False)
            else:
                result[name] = self._pack_linear(name, weight, **kwargs)
        return result

    def _pack_linear(self, name: str, weight: Tensor, model: Model, **_: Any) -> Params4bit:
        layer, _parameter = _owner(model, name)
        if issubclass(layer.source_cls, Conv1D):
            weight = weight.T
        layer._is_hf_initialized = True
        packed: Params4bit = self.hf_quantizer.packing.pack(name, weight, layer, weight.device)
        return packed


@contextmanager
def quantizing(experts: bool = True, packing: Packing | None = None) -> Iterator[None]:
    """During the block, let transformers quantize to 4 bits with the class above.

    `experts` are packed, too, or stay in 16 bits.
    """

    def make(settings: BitsAndBytesConfig, **named: Any) -> Bnb4BitHfQuantizer:
        if named.get("pre_quantized", True):
            return Bnb4BitHfQuantizer(settings, **named)
        quantizer = ExpertsQuantizer(settings, **named)
        quantizer.packs_experts = experts
        quantizer.packing = packing or Packing()
        return quantizer

    before = auto.AUTO_QUANTIZER_MAPPING[KEY]
    auto.AUTO_QUANTIZER_MAPPING[KEY] = make
    try:
        yield
    finally:
        auto.AUTO_QUANTIZER_MAPPING[KEY] = before


def quantize_in_place(
    model: Model,
    settings: BitsAndBytesConfig,
    device: torch.device,
    packing: Packing,
    with_experts: bool = True,
) -> None:
    """Quantize a model in the host's memory to 4 bits, and move it to `device`."""
    make_plain_linears(model)
    skipped = ExpertsQuantizer.get_modules_to_not_convert(
        model, settings.llm_int8_skip_modules, model._keep_in_fp32_modules
    )
    plain = dict(model.named_modules())
    replace_with_bnb_linear(model, skipped, settings)
    for name, module in list(model.named_modules()):
        if isinstance(module, Linear4bit):
            before = plain.pop(name)
            weight = before.weight.data
            if isinstance(before, Conv1D):
                weight = weight.T.contiguous()
            module.weight = packing.pack(f"{name}.weight", weight, module, device)
            module.bias = before.bias
    plain.clear()

    for name in expert_parameters(model, skipped) if with_experts else []:
        module, parameter = _owner(model, name)
        weight = getattr(module, parameter)
        weight.data = weight.data.to(device).contiguous()
        replace_parameter_4bit(
            module,
            parameter,
            compress_statistics=settings.bnb_4bit_use_double_quant,
            quant_type=settings.bnb_4bit_quant_type,
        )
    model.to(device)
    model.is_loaded_in_4bit = True  # peft and TRL ask


def expert_parameters(model: Model, skipped: list[str]) -> list[str]:
    """Return the names of the parameters that hold the weights of all experts of a layer."""
    names = []
    for path, module in model.named_modules():
        is_expert = "expert" in f"{path}.{type(module).__name__}".lower()
        if not is_expert or not should_convert_module(path, skipped):
            continue
        for name, parameter in module.named_parameters(recurse=False):
            if parameter.ndim == 3 and parameter.is_floating_point() and "bias" not in name:
                names.append(f"{path}.{name}")
    return names


def make_plain_linears(model: Model) -> None:
    """Make torch's Linear of each subclass of it that computes the same."""
    equal: dict[type, bool] = {}
    for module in model.modules():
        kind = type(module)
        # torch's own subclass belongs to its attention, which reads the weight without calling it.
        is_of_torch = kind.__module__.startswith("torch.")
        if isinstance(module, nn.Linear) and not is_of_torch:
            if kind not in equal:
                equal[kind] = computes_what_linear_does(kind)
            if equal[kind]:
                module.__class__ = nn.Linear


def computes_what_linear_does(kind: type[nn.Linear]) -> bool:
    """Return True if an instance of the class gives what its weight and bias give in Linear.

    Routers and grouped layers are subclasses too. They want other arguments, or return other
    results.
    """
    with torch.device("cpu"):
        inputs = torch.linspace(-1, 1, 24).reshape(2, 3, 4)  # (batch, tokens, features)
        try:
            layer = kind(4, 4).float()
            result = layer(inputs)
        except Exception:  # it is another kind of layer
            return False
        if not isinstance(result, Tensor):
            return False
        wanted = nn.functional.linear(inputs, layer.weight, layer.bias)
        is_equal = result.shape == wanted.shape and torch.allclose(result, wanted)
        return bool(is_equal)


def _owner(model: Model, name: str) -> tuple[nn.Module, str]:
    path, _, parameter = name.rpartition(".")
    return model.get_submodule(path), parameter
