"""Count the floating-point operations of a base with an adapter, by its modules and its config.

A product of matrices costs two operations for each weight and token. Norms, activations, routers,
convolutions and the scan of state-space layers are not counted: they cost time, not products.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from job.model import Model
from job.model.modules import linear_modules, shapes_of_experts

OPERATIONS_OF_A_PRODUCT = 2  # a multiplication and an addition
FULL = "full_attention"  # among the `layer_types` of a config
SLIDING = "sliding_attention"
NAMES_OF_CHOSEN_EXPERTS = ("num_experts_per_tok", "num_experts_per_token", "moe_topk", "top_k")


@dataclass(frozen=True)
class TokenRows:
    """Rows of tokens: how many of each length, and how many tokens are learned in all.

    Each has so many `answers` to its prompt.
    """

    by_length: Mapping[int, int]
    learned: int
    answers: int = 1

    @property
    def tokens(self) -> int:
        """The number of tokens of all rows."""
        return sum(length * rows for length, rows in self.by_length.items())

    def pairs(self, window: int | None) -> int:
        """Return the number of pairs of tokens that attention computes, later ones among them.

        Kernels that leave later tokens out compute about half of them.
        """
        pairs = 0
        for length, rows in self.by_length.items():
            pairs += rows * length * (length if window is None else min(length, window))
        return pairs


@dataclass(frozen=True)
class Products:
    """The weights that a token is multiplied with in one pass, and the sizes of attention.

    `layers` are the base's without its head: of experts, those that a token is sent to.
    `attention` has the multiplications for a pair of tokens, in scores and in sums over values, by
    the number of tokens that a layer looks back at, None for all.
    """

    layers: int
    head: int
    attention: Mapping[int | None, int]

    def forward(self, rows: TokenRows, adapter: int = 0) -> float:
        """Return the operations of a pass with an adapter of so many weights, without the head."""
        of_weights = (self.layers + adapter) * rows.tokens
        of_pairs = sum(each * rows.pairs(window) for window, each in self.attention.items())
        return float(OPERATIONS_OF_A_PRODUCT * (of_weights + of_pairs))

    def scoring(self, rows: TokenRows, adapter: int = 0) -> float:
        """Return the operations of a pass that ends with the loss of the learned tokens."""
        return self.forward(rows, adapter) + OPERATIONS_OF_A_PRODUCT * self.head * rows.learned

    def training(self, rows: TokenRows, adapter: int, recomputed: float = 0.0) -> float:
        """Return the operations of training the adapter on these rows once.

        The base has no gradients of weights: backward, it costs what it costs forward, an adapter
        twice that, and attention, too. `recomputed` is the share of layers whose forward pass is
        computed again. The head is computed for learned tokens alone.
        """
        forward = self.forward(rows, adapter)
        of_pairs = sum(each * rows.pairs(window) for window, each in self.attention.items())
        backward = (self.layers + 2 * adapter) * rows.tokens + 2 * of_pairs
        head = 2 * self.head * rows.learned
        return forward * (1 + recomputed) + OPERATIONS_OF_A_PRODUCT * (backward + head)


def products_of(model: Model) -> Products:
    """Return what a token is multiplied with, of a base that has no adapter yet.

    It needs no weights. Where a config does not tell how many experts a token is sent to, all of
    them count.
    """
    layers = sum(_weights_of(module) for module in linear_modules(model).values())
    layers += _weights_of_experts(model)
    head = model.get_output_embeddings()
    return Products(layers, 0 if head is None else _weights_of(head), _attention_of(model))


def _weights_of(module: Any) -> int:
    """Return the number of weights of a linear module, packed or not."""
    if hasattr(module, "in_features"):
        return int(module.in_features * module.out_features)
    return int(module.weight.numel())  # Conv1D


def _weights_of_experts(model: Model) -> int:
    """Return the number of weights of the experts that a token is sent to, in all layers."""
    config = model.config.get_text_config()
    named = [getattr(config, name, None) for name in NAMES_OF_CHOSEN_EXPERTS]
    chosen = next((count for count in named if isinstance(count, int)), None)
    total = 0
    for count, rows, columns in shapes_of_experts(model):
        total += rows * columns * (count if chosen is None else min(chosen, count))
    return total


def _attention_of(model: Model) -> dict[int | None, int]:
    """Return the multiplications for a pair of tokens by window, of all layers that attend."""
    config = model.config.get_text_config()
    heads = getattr(config, "num_attention_heads", None) or 0  # state-space models have none
    size = getattr(config, "head_dim", None) or config.hidden_size // max(1, heads)
    # DeepSeek's heads have other sizes for scores than for values.
    scores = getattr(config, "qk_head_dim", None) or size
    values = getattr(config, "v_head_dim", None) or size
    kinds = getattr(config, "layer_types", None) or [FULL] * config.num_hidden_layers
    found: dict[int | None, int] = {}
    for kind in kinds:
        if kind in (FULL, SLIDING):
            window = getattr(config, "sliding_window", None) if kind == SLIDING else None
            found[window] = found.get(window, 0) + heads * (scores + values)
    return found
