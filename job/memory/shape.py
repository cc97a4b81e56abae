"""The shape of a base: what its memory in a generation and its operations follow from."""

from dataclasses import dataclass
from typing import Any

BYTES_OF_A_NUMBER = 2  # in 16 bits
# With a constant of quantization for each 64 numbers: in float32, or quantized itself.
BYTES_OF_A_4_BIT_NUMBER = {"nf4": 0.5 + 4 / 64, "nf4-double": 0.5 + 1 / 64 + 4 / 64 / 256}


@dataclass(frozen=True)
class BaseShape:
    """The sizes in a base's config, and its parameters by a model without weights.

    Bases that compress keys and values (DeepSeek) have a smaller cache than follows from them.
    """

    layers: int
    width: int
    inner_width: int
    key_heads: int
    head_size: int
    vocabulary: int
    layer_parameters: int  # without embeddings and head
    weights: int  # bytes
    number_bytes: int = BYTES_OF_A_NUMBER  # of what is not in 4 bits

    @property
    def cache_of_a_token(self) -> int:
        """The bytes of keys and values of one token in all layers."""
        return 2 * self.layers * self.key_heads * self.head_size * self.number_bytes


def shape_of(
    model: Any, quantization: str | None, number_bytes: int = BYTES_OF_A_NUMBER
) -> BaseShape:
    """Return the shape of a model without weights, in 4 bits of this kind or in 16 bits.

    What is not in 4 bits has `number_bytes`: four where it computes in float32.
    """
    from job.model.quantization import four_bit_share

    text = model.config.get_text_config()
    heads = getattr(text, "num_attention_heads", 0)  # state-space models have none, and no cache
    share = four_bit_share(model)
    four_bit = BYTES_OF_A_4_BIT_NUMBER.get(quantization or "", BYTES_OF_A_4_BIT_NUMBER["nf4"])
    plain = (share.total - share.four_bit) * number_bytes
    return BaseShape(
        layers=text.num_hidden_layers,
        width=text.hidden_size,
        inner_width=getattr(text, "intermediate_size", None) or 4 * text.hidden_size,
        key_heads=getattr(text, "num_key_value_heads", None) or heads,
        head_size=getattr(text, "head_dim", None) or text.hidden_size // max(1, heads),
        vocabulary=text.vocab_size,
        layer_parameters=share.total - share.embeddings,
        weights=round(plain + share.four_bit * four_bit),
        number_bytes=number_bytes,
    )
