"""Make a base with its adapter of fake tensors: shapes and lifetimes without numbers.

A base is made on torch's meta device first. The libraries cannot move 4-bit weights from there to
fake tensors, so each tensor is replaced by a fake one here.
"""

from collections.abc import Callable
from typing import Any

import torch
from bitsandbytes.functional import QuantState, dequantize_4bit
from bitsandbytes.nn import Linear4bit
from bitsandbytes.nn.parametrize import Bnb4bitParametrization
from peft import get_peft_model
from trl.trainer.utils import add_fused_lm_head

from job.config.training_sections import LoraSection
from job.errors import ConfigError
from job.model import Model
from job.model.adapter import lora_config
from job.model.families import prepare_for_training

BLOCK = 64  # numbers with one constant of quantization
BLOCK_OF_CONSTANTS = 256

# What RecapTrainer asks of TRL's head.
HEAD_OUTPUTS = ("log_probs",)


def layers_of(base: Model) -> Any:
    """Return the list of a base's layers; None if there is none of the length in its config."""
    count = getattr(base.config.get_text_config(), "num_hidden_layers", None)
    for _, module in base.named_modules():
        if isinstance(module, torch.nn.ModuleList) and len(module) == count:
            return module
    return None


def keep_layers(base: Model, count: int) -> None:
    """Delete all layers of a base but the first `count`."""
    layers = layers_of(base)
    del layers[count:]
    base.config.get_text_config().num_hidden_layers = count


def adapt(base: Model, section: LoraSection) -> Model:
    """Put an adapter on a base without weights, as a training does, and TRL's head."""
    prepare_for_training(base)
    base.requires_grad_(False)
    with torch.device("meta"):
        for module in base.modules():
            if type(module) is Linear4bit:
                base.is_loaded_in_4bit = True  # peft asks
                # DoRA asks for it as soon as it is made.
                state = _state_of(module.out_features, module.in_features, base)
                module.weight.quant_state = state
        model = get_peft_model(base, lora_config(section, base))
    add_fused_lm_head(model.get_base_model(), outputs=HEAD_OUTPUTS)
    return model.train()


def materialize(model: Model, of_base: Callable[[], Any], of_adapter: Callable[[], Any]) -> None:
    """Replace each tensor of a model on meta by a fake one. Call it in torch's fake mode.

    The base's are made within the context of `of_base`, then the adapter's within `of_adapter`, in
    float32. Raise ConfigError for a quantization whose kernels have no fakes.
    """
    _check_simulable(model)
    base = model.get_base_model()
    made: dict[int, tuple[torch.nn.Parameter, torch.nn.Parameter]] = {}
    for is_trained, context in ((False, of_base), (True, of_adapter)):
        with context():
            for module in model.modules():
                for name, before in module._parameters.items():
                    if before is None or before.requires_grad != is_trained:
                        continue
                    if before.device.type != "meta":
                        continue
                    if id(before) not in made:
                        # What is replaced is kept: its id must stay its own.
                        made[id(before)] = _fake(module, name, before, base), before
                    module._parameters[name] = made[id(before)][0]
                if not is_trained:
                    for name, buffer in module._buffers.items():
                        if buffer is not None:
                            module._buffers[name] = torch.empty(buffer.shape, dtype=buffer.dtype)


def _fake(module: Any, name: str, before: torch.nn.Parameter, base: Model) -> torch.nn.Parameter:
    if name == "weight" and type(module) is Linear4bit:
        return _fake_4bit(module, base)
    if name == "original" and isinstance(module[0], Bnb4bitParametrization):
        state = module[0].quant_state
        numbers = state.shape.numel()
        module[0].quant_state = _state(torch.Size(state.shape), state.dtype, _is_double(base))
        packed = torch.empty((-(-numbers // 2), 1), dtype=torch.uint8)
        return torch.nn.Parameter(packed, requires_grad=False)
    dtype = torch.float32 if before.requires_grad else before.dtype
    values = torch.empty(before.shape, dtype=dtype)
    return torch.nn.Parameter(values, requires_grad=before.requires_grad)


def _fake_4bit(module: Linear4bit, base: Model) -> torch.nn.Parameter:
    """Return a plain parameter with what Linear4bit and peft ask of a Params4bit."""
    numbers = module.out_features * module.in_features
    packed = torch.empty((-(-numbers // 2), 1), dtype=torch.uint8)
    weight = torch.nn.Parameter(packed, requires_grad=False)
    weight.quant_state = _state_of(module.out_features, module.in_features, base)
    weight.bnb_quantized = True
    weight.quant_type = "nf4"
    weight.compress_statistics = _is_double(base)
    module.quant_state = weight.quant_state
    module.support_avx512bf16_for_cpu = False
    return weight


def _state_of(outputs: int, inputs: int, base: Model) -> QuantState:
    return _state(torch.Size((outputs, inputs)), _dtype_of(base), _is_double(base))


def _state(shape: torch.Size, dtype: torch.dtype, is_double: bool) -> QuantState:
    blocks = -(-shape.numel() // BLOCK)
    nested = offset = None
    if is_double:
        nested = QuantState(
            absmax=torch.empty(-(-blocks // BLOCK_OF_CONSTANTS)),
            code=torch.empty(256),
            blocksize=BLOCK_OF_CONSTANTS,
            dtype=torch.float32,
        )
        offset = torch.empty(())
    return QuantState(
        absmax=torch.empty(blocks, dtype=torch.uint8 if is_double else torch.float32),
        shape=shape,
        code=torch.empty(16),
        blocksize=BLOCK,
        quant_type="nf4",
        dtype=dtype,
        offset=offset,
        state2=nested,
    )


def _is_double(base: Model) -> bool:
    settings = getattr(base.config, "quantization_config", None)
    return bool(getattr(settings, "bnb_4bit_use_double_quant", False))


def _dtype_of(base: Model) -> torch.dtype:
    settings = getattr(base.config, "quantization_config", None)
    return getattr(settings, "bnb_4bit_compute_dtype", None) or base.config.dtype


def _check_simulable(model: Model) -> None:
    for module in model.modules():
        kind = type(module).__name__
        if kind == "Linear8bitLt" or hasattr(module, "qweight"):
            raise ConfigError(f"the kernels of {kind} cannot be simulated")


def dequantized(module: Any) -> torch.Tensor:
    """Return a layer's weight in 16 bits, for DoRA, which knows 4-bit weights by their class."""
    from peft.utils.integrations import dequantize_module_weight

    state = getattr(module.weight, "quant_state", None)
    if state is None:
        plain: torch.Tensor = dequantize_module_weight(module)
        return plain
    whole: torch.Tensor = dequantize_4bit(module.weight.data, state)
    return whole
