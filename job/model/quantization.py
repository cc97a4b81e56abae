"""The quantization of a base: the one that it was published with, and the one that recap adds.

`model.quantization` names how plain weights are quantized. A base that is quantized already keeps
its own quantization, whatever that key says. What no library here can train on is read into plain
weights while it is loaded, and these are quantized as the key says. The rest is refused by name.
"""

import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from job.errors import ConfigError, DataError
from job.model import Model
from job.model.headers import tensor_shapes

# Of a config; compressed-tensors had the second before.
OWN_KEYS = ("quantization_config", "compression_config")

# Ends of the names of tensors.
OF_ACTIVATIONS = re.compile(r"\.(input|output|activation|[qkv])_scale(_inv)?$")
OF_QUANTIZATION = re.compile(
    r"(scale|scales|scale_inv|scale_2|zero_point|zeros|zeros?_shape|qweight|qzeros|g_idx|absmax"
    r"|quant_map|quant_state\.\w+|_blocks|weight_packed|weight_shape|\.SCB|weight_format"
    r"|codebooks?|codes|qdata)$"
)
# Names that only a quantization gives. The end `scale` may be that of a norm: what is loaded is
# asked by OF_QUANTIZATION only about tensors that the model does not have.
ONLY_OF_QUANTIZATION = re.compile(
    r"\.(weight_scale|weight_scale_inv|weight_scale_2|weight_packed|qweight|qzeros|g_idx"
    r"|\w+_proj_blocks|absmax|quant_state\.\w+|SCB)$"
)
OF_BITSANDBYTES = re.compile(r"\.(absmax|quant_state\.\w+|SCB)$")
MLX = ("group_size", "bits")  # keys; it names no method


@dataclass(frozen=True)
class FourBitShare:
    """The number of parameters in 4 bits, of all (embeddings included), and of embeddings."""

    four_bit: int
    total: int
    embeddings: int

    @property
    def of_linear(self) -> float:
        """The share of the parameters in 4 bits among those that are no embeddings."""
        others = self.total - self.embeddings
        return self.four_bit / others if others else 0.0


@dataclass(frozen=True)
class WeightsInMemory:
    """The weights of a loaded base: for the log, run.json, the report and the model card."""

    quantization: str  # of the weights in memory: none, the base's own, or recap's
    own: str | None  # the base's own quantization, in its files
    auto_class: str  # the class of transformers that loads the base outside of recap
    share: FourBitShare

    def facts(self) -> dict[str, Any]:
        """Return the facts as JSON types."""
        return {
            "quantization": self.quantization,
            "quantization_of_the_base": self.own or "none",
            "parameters": self.share.total,
            "in_4_bits": self.share.four_bit,
            "of_embeddings": self.share.embeddings,
            "auto_class": self.auto_class,
        }

    def sentence(self) -> str:
        """Return one sentence for people, without a full stop."""
        share = self.share
        text = (
            f"{share.four_bit:,} of {share.total:,} parameters were in 4 bits "
            f"({share.embeddings:,} are those of embeddings); quantization: {self.quantization}"
        )
        if self.own and self.own != self.quantization:
            text += f", read from {self.own}"
        return text


@dataclass(frozen=True)
class Method:
    """A way to quantize that this recap can load, and what the libraries can do with it.

    A method that `is_dequantized` leaves plain weights in memory. Others are kept as they are: peft
    trains an adapter beside such weights, and bitsandbytes alone can give them back in 16 bits.
    """

    packages: tuple[str, ...] = ()  # that reading it needs, beyond recap's own
    is_dequantized: bool = False
    is_mergeable: bool = True


# By the name that quantization_of returns. Of transformers 5.19 and peft 0.21.
METHODS = {
    "bnb-4bit": Method(),
    "bnb-8bit": Method(),
    "fp8": Method(is_dequantized=True),
    "mxfp8": Method(is_dequantized=True),
    "mxfp4": Method(is_dequantized=True),
    "compressed-tensors": Method(("compressed_tensors",), is_dequantized=True),
    "gptq": Method(("optimum", "gptqmodel"), is_mergeable=False),
    "awq": Method(("gptqmodel",), is_mergeable=False),
}


@dataclass(frozen=True)
class Quantization:
    """The way in which the weights of a base are read, and held in memory."""

    own: str | None  # the base's own method
    is_dequantized: bool
    by_recap: str | None  # model.quantization, if recap quantizes

    @property
    def in_memory(self) -> str:
        """The name of what is in memory: plain weights, the base's own method, or recap's."""
        if self.by_recap:
            return self.by_recap
        return "none" if self.is_dequantized or self.own is None else self.own


def choose_quantization(
    config: Mapping[str, Any],
    uri: str,
    wanted: str | None,
    is_merging: bool = False,
) -> Quantization:
    """Return how to load a base, by the JSON of its config and `model.quantization`.

    For merging, the weights become plain ones. Raise ConfigError, with the remedy, for a base whose
    own quantization nothing here can read or merge.
    """
    own = quantization_of(config)
    if own is None:
        return Quantization(None, False, None if is_merging else wanted)

    method = METHODS.get(own)
    already = f"model.base: {uri} is already quantized ({own})"
    remedy = "use the base that it was made from, which recap quantizes by model.quantization"
    if method is None:
        known = ", ".join(METHODS)
        raise ConfigError(f"{already}, which recap cannot load (it can {known}): {remedy}")
    missing = [name for name in method.packages if find_spec(name) is None]
    if missing:
        names = " and ".join(name.replace("_", "-") for name in missing)
        raise ConfigError(
            f"{already}, and reading it needs {names}, not installed here: install it, or {remedy}"
        )
    if is_merging and not method.is_mergeable:
        raise ConfigError(
            f"{already}, and its weights cannot be read in 16 bits to merge an adapter into them: "
            "set adapter_weights: separate"
        )
    if method.is_dequantized:
        return Quantization(own, True, None if is_merging else wanted)
    return Quantization(own, is_merging, None)


def quantization_of(config: Mapping[str, Any]) -> str | None:
    """Return the name of a base's own quantization, by the JSON of its config; None if plain.

    bitsandbytes is bnb-4bit or bnb-8bit; any other has the name that its config gives it. Raise
    DataError for a quantization without a name.
    """
    own = own_settings(config)
    if own is None:
        return None
    if not isinstance(own, Mapping):
        raise DataError("model.base: quantization_config in config.json is no JSON object")
    if own.get("load_in_4bit"):
        return "bnb-4bit"
    if own.get("load_in_8bit"):
        return "bnb-8bit"
    name = own.get("quant_method")
    if name is None and all(key in own for key in MLX):
        return "mlx"
    if not isinstance(name, str) or not name:
        raise DataError("model.base: quantization_config in config.json has no quant_method")
    return name


def own_settings(config: Mapping[str, Any]) -> Any:
    """Return what config.json says of the base's own quantization; None if nothing.

    Multimodal bases may say it of their language model alone.
    """
    of_text = config.get("text_config")
    configs = [config, of_text] if isinstance(of_text, Mapping) else [config]
    for each in configs:
        for key in OWN_KEYS:
            if each.get(key) is not None:
                return each[key]
    return None


def check_tensor_names(names: Iterable[str], config: Mapping[str, Any], uri: str) -> None:
    """Compare the names of tensors with the quantization that config.json names.

    Headers and an index have them: a plan reads no weights. Raise DataError for a config that is
    silent, ConfigError for one that kept bitsandbytes' settings of weights that are plain by now.
    """
    own = quantization_of(config)
    if own is None:
        found = sorted(name for name in names if ONLY_OF_QUANTIZATION.search(name))
        if found:
            raise unnamed_quantization(found, uri)
    elif own.startswith("bnb-") and not any(map(OF_BITSANDBYTES.search, names)):
        raise ConfigError(
            f"model.base: the config.json of {uri} says that its weights are quantized ({own}), "
            "but they are plain: remove quantization_config from its config.json"
        )


def unnamed_quantization(tensors: list[str], uri: str) -> DataError:
    """Return the error for tensors of a quantization that the config does not name."""
    return DataError(
        f"model.base: {uri} has tensors of a quantization that its config.json does not name "
        f"({', '.join(tensors[:3])}): its weights cannot be read without them; use the base that "
        "it was made from"
    )


def check_blocks(path: Path, uri: str, config: Mapping[str, Any]) -> None:
    """Raise ConfigError for FP8 weights whose last block is a part of one.

    transformers 5.19 divides rows and columns evenly among the scales. For DeepSeek-V3's 576 rows
    in blocks of 128 it raises an error; 192 rows would silently get scales of other rows.
    """
    block = own_settings(config).get("weight_block_size")
    if not block:
        return
    for file in sorted(path.glob("*.safetensors")):
        shapes = tensor_shapes(file)
        for name, shape in shapes.items():
            scales = shapes.get(f"{name}_scale_inv", [])
            for size, count, width in zip(shape, scales, block, strict=False):
                if count > 1 and size != count * width:
                    raise ConfigError(
                        f"model.base: {uri} is quantized (fp8) in blocks of {width} that do not "
                        f"divide the {size} of {name}, which transformers reads wrongly: use the "
                        "base that it was made from"
                    )


def set_own(config: Any, quantization: Quantization) -> None:
    """Ask in a transformers config for what `quantization` says of the base's own.

    Not by an argument to from_pretrained: that replaces other settings of the base, such as its
    list of modules that are not quantized.
    """
    if quantization.own is None:
        return
    for each in (config, config.get_text_config()):
        for key in OWN_KEYS:
            settings = getattr(each, key, None)
            if settings is not None:
                # transformers 5 does not know the older key, and would read plain weights.
                each.quantization_config = settings
                if METHODS[quantization.own].is_dequantized:
                    settings["dequantize"] = True


def remove_own(config: Any) -> None:
    """Remove the base's own quantization from a transformers config."""
    for each in (config, config.get_text_config()):
        for key in OWN_KEYS:
            if hasattr(each, key):
                delattr(each, key)


def make_plain(model: Model, dtype: Any) -> None:
    """Make plain weights of those that a base's own quantization left in memory.

    What is saved is then plain as well: the conversions that transformers remembers from loading
    would quantize again, into a folder whose config names no quantization.
    """
    if getattr(model, "is_quantized", False):
        were_conv1d = _made_of_conv1d(model)
        model.dequantize(dtype)
        model.is_loaded_in_4bit = model.is_loaded_in_8bit = False
        for name in were_conv1d:
            model.set_submodule(name, _as_conv1d(model.get_submodule(name)))
    for module in model.modules():
        if hasattr(module, "quantization_scheme"):
            _forget_scheme(module)
    for parameter in model.parameters():
        # MXFP4 becomes bfloat16, whatever was asked for.
        if parameter.dtype.is_floating_point and parameter.dtype.itemsize < dtype.itemsize:
            parameter.data = parameter.data.to(dtype)
    model._weight_conversions = None


def _made_of_conv1d(model: Model) -> list[str]:
    """Return the names of bitsandbytes' layers in place of GPT-2's Conv1D."""
    from transformers.pytorch_utils import Conv1D

    layers = model.named_modules()
    return [name for name, layer in layers if getattr(layer, "source_cls", None) is Conv1D]


def _as_conv1d(layer: Any) -> Any:
    """Return the Conv1D that computes what a linear layer does: its weight is the transpose.

    bitsandbytes' layers become Linear, whose weights a GPT-2 would read the wrong way round.
    """
    from torch import device, nn
    from transformers.pytorch_utils import Conv1D

    with device("meta"):
        conv = Conv1D(layer.out_features, layer.in_features)
    conv.weight = nn.Parameter(layer.weight.data.T.contiguous(), requires_grad=False)
    conv.bias = layer.bias
    return conv


def _forget_scheme(module: Any) -> None:
    """Let a layer of compressed-tensors compute as its plain class does.

    Else it goes on to round what comes in, as FP8 hardware would: a training would learn from other
    numbers than any engine computes with the weights in 16 bits.
    """
    from compressed_tensors.quantization.quant_metadata import QuantizationMetadata

    QuantizationMetadata.clear_quantization(module)


def is_part_of_quantization(key: str, quantization: Quantization) -> bool:
    """Return True for the name of a tensor without which quantized weights cannot be read.

    Scales of activations and of the cache are no such part if the base names its quantization:
    weights in 16 bits do without them.
    """
    if quantization.own is not None and OF_ACTIVATIONS.search(key):
        return False
    return OF_QUANTIZATION.search(key) is not None


def four_bit_share(model: Model) -> FourBitShare:
    """Count the parameters of a model, loaded or a skeleton, and those of them in 4 bits.

    Two 4-bit parameters are stored as one byte; each of them is counted. A tied one is counted
    once.
    """
    from torch.nn import Embedding

    four_bit: dict[int, int] = {}  # the number of parameters by tensor
    embeddings: dict[int, int] = {}
    for module in model.modules():
        for tensor, count in _packed(module):
            four_bit[id(tensor)] = count
        if isinstance(module, Embedding):
            embeddings[id(module.weight)] = module.weight.numel()

    head = model.get_output_embeddings()
    if head is not None and id(head.weight) not in four_bit:
        embeddings[id(head.weight)] = head.weight.numel()

    packed = sum(four_bit.values())
    others = sum(each.numel() for each in model.parameters() if id(each) not in four_bit)
    return FourBitShare(packed, packed + others, sum(embeddings.values()))


def _packed(module: Model) -> list[tuple[Any, int]]:
    """Return the module's own tensors in 4 bits, each with the number of its parameters."""
    # GPTQ's and AWQ's layers pack eight parameters into an integer.
    if hasattr(module, "qweight") and getattr(module, "bits", None) == 4:
        return [(module.qweight, module.in_features * module.out_features)]
    if "bitsandbytes" not in sys.modules:
        return []
    from bitsandbytes.nn import Linear4bit
    from bitsandbytes.nn.parametrize import Bnb4bitParametrization

    if isinstance(module, Linear4bit):
        return [(module.weight, module.in_features * module.out_features)]
    found = []
    for parametrized in getattr(module, "parametrizations", {}).values():
        if isinstance(parametrized[0], Bnb4bitParametrization):
            found.append((parametrized.original, parametrized[0].quant_state.shape.numel()))
    return found
