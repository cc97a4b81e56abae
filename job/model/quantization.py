"""The quantization of a base: the one that it was published with, and the one that recap adds.

`model.quantization` names how plain weights are quantized. A base that is quantized already keeps
its own quantization, whatever that key says.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from job.errors import DataError
from job.model import Model


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
        # compressed-tensors called it compression_config before.
        for key in ("quantization_config", "compression_config"):
            if each.get(key) is not None:
                return each[key]
    return None


def four_bit_share(model: Model) -> FourBitShare:
    """Count the parameters of a model, loaded or a skeleton, and those of them in 4 bits.

    Two 4-bit parameters are stored as one byte; each of them is counted.
    """
    from bitsandbytes.nn import Linear4bit
    from torch.nn import Embedding

    packed: dict[int, int] = {}  # by tensor: a tied one is counted once
    embeddings: dict[int, int] = {}
    for module in model.modules():
        if isinstance(module, Linear4bit):
            packed[id(module.weight)] = module.in_features * module.out_features
        elif isinstance(module, Embedding):
            embeddings[id(module.weight)] = module.weight.numel()

    head = model.get_output_embeddings()
    if head is not None and id(head.weight) not in packed:
        embeddings[id(head.weight)] = head.weight.numel()

    four_bit = sum(packed.values())
    others = sum(each.numel() for each in model.parameters() if id(each) not in packed)
    return FourBitShare(four_bit, four_bit + others, sum(embeddings.values()))
