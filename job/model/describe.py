"""Describe a base by its model without weights: what a plan says before anything is fetched."""

from dataclasses import dataclass
from pathlib import Path

from job.config.sections import AdapterModelSection, ModelSection
from job.errors import ConfigError
from job.model import Model
from job.model.load import context_tokens, read_quantization
from job.model.modules import experts
from job.model.operations import Products, products_of
from job.model.quantization import FourBitShare, four_bit_share
from job.model.shared_prompt import max_shared_tokens
from job.model.skeleton import make_skeleton

SMALL_SHARE = 0.9  # of the weights in 4 bits, below which not only embeddings stay in 16


@dataclass(frozen=True)
class Facts:
    """The facts of a base as it would be loaded."""

    kind: str  # its model type
    attention: str
    context: int | None
    own_quantization: str | None
    quantization: str  # in memory
    four_bit: FourBitShare
    has_plain_experts: bool  # not in 4 bits
    embeddings: int  # the number of tokens that have one
    products: Products
    max_shared_tokens: int  # of a row in which two answers may share a prompt

    def text(self) -> str:
        """Return the facts in two lines, for people."""
        context = f"context of {self.context:,} tokens" if self.context else "no limit of context"
        own = f", quantized already ({self.own_quantization})" if self.own_quantization else ""
        return f"{self.kind}, attention {self.attention}, {context}{own}\n{self.four_bit_text()}"

    def four_bit_text(self) -> str:
        """Return how many of the parameters are in 4 bits."""
        share = self.four_bit
        if not share.four_bit:
            return f"quantization {self.quantization}: {share.total:,} parameters, none in 4 bits"
        percent = round(100 * share.four_bit / share.total)
        text = f"4 bits: {share.four_bit:,} of {share.total:,} parameters ({percent}%)"
        others = "experts" if self.has_plain_experts else "the others"
        if share.of_linear >= SMALL_SHARE:
            others = "embeddings"
        return f"{text}: {others} stay in 16 bits"


def facts_of(folder: Path, section: ModelSection | AdapterModelSection) -> tuple[Facts, Model]:
    """Return the facts of the base whose small files are in `folder`, and its model.

    The model has no weights. Raise what `make_skeleton` raises.
    """
    model = make_skeleton(folder, section)
    embedding = model.get_input_embeddings()
    if embedding is None or not hasattr(embedding, "num_embeddings"):
        raise ConfigError("model.base: the model has no embedding of tokens")
    quantization = read_quantization(folder, section.base or str(folder), section)
    facts = Facts(
        kind=model.config.model_type,
        attention=model.config.get_text_config()._attn_implementation,
        context=context_tokens(folder),
        own_quantization=quantization.own,
        quantization=quantization.in_memory,
        four_bit=four_bit_share(model),
        has_plain_experts=_has_plain_experts(model),
        embeddings=embedding.num_embeddings,
        products=products_of(model),
        max_shared_tokens=max_shared_tokens(model),
    )
    return facts, model


def _has_plain_experts(model: Model) -> bool:
    """Return True if a parameter has experts in 16 or 32 bits: packed ones have no dimensions."""
    names = set(experts(model))
    return any(weight.dim() == 3 for name, weight in model.named_parameters() if name in names)
