"""Estimate the memory of a night by formula: weights, keys and values of the cache, batches.

A generation keeps no activations, so its memory follows from a few shapes of the base. The formula
is checked against one published log of vLLM's cache; it was not measured here. Sizes are in bytes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from job.config.sections import GenerationSection
from job.gpus.cards import Card
from job.inference.budget import FIRST_TOKENS, MAX_SHARE
from job.memory.shape import BaseShape

CONTEXT_BYTES = 512 << 20  # of CUDA
GAPS_OF_TRANSFORMERS = 1.1  # what its allocator leaves unused, besides
# vLLM's own defaults (0.32).
VLLM_SHARE = 0.9  # of the GPU's memory that it takes
VLLM_BATCHED_TOKENS = 8192  # of a pass over prompts
VLLM_SEQUENCES = 256
VLLM_GRAPHS_BYTES = 1 << 30  # of its CUDA graphs, at the most
VLLM_LOGITS_COPIES = 3


@dataclass(frozen=True)
class GenerationNeed:
    """The memory of a night on a card with one of the engines, and how much runs at once there.

    `beside` are the bytes of other models: a challenger, a reward model. `sequences` is the number
    of conversations of the longest prompt at once, 0 if it does not fit.
    """

    card: Card
    engine: str
    weights: int
    cache: int
    working: int
    sequences: int
    beside: int = 0

    @property
    def total(self) -> int:
        """The bytes of all parts."""
        return self.weights + self.cache + self.working + self.beside


def need_of_transformers(
    shape: BaseShape, section: GenerationSection, prompt_tokens: int, card: Card, beside: int = 0
) -> GenerationNeed:
    """Return the need of recap's own batches, as large as `section` lets them be.

    `prompt_tokens` is the length of the longest prompt.
    """
    tokens = prompt_tokens + section.max_new_tokens
    wanted = section.max_batch_size
    if section.max_batch_tokens is not None:
        wanted = min(wanted, max(1, section.max_batch_tokens // tokens))
    # recap measures what a token takes, and grows its batches up to this share of what is free.
    taken = shape.weights + beside
    room = MAX_SHARE * ((card.memory - CONTEXT_BYTES) / GAPS_OF_TRANSFORMERS - taken)
    row = _row_of_transformers(shape, prompt_tokens, tokens)
    fitting = int(room // (row.cache + row.working))
    sequences = max(0, min(wanted, fitting))
    return _need_of_rows(shape, row, card, sequences, beside)


def need_on_a_cpu(
    shape: BaseShape, section: GenerationSection, prompt_tokens: int, free: int, beside: int = 0
) -> GenerationNeed:
    """Return the need of recap's own batches on a CPU, whose size does not depend on memory.

    `free` bytes of the host's are left beside libraries. `shape` has the numbers of a CPU's dtype.
    """
    tokens = prompt_tokens + section.max_new_tokens
    at_once = (section.max_batch_tokens or FIRST_TOKENS) // tokens
    sequences = max(1, min(section.max_batch_size, at_once))
    row = _row_of_transformers(shape, prompt_tokens, tokens)
    return _need_of_rows(shape, row, Card("a CPU", free, (0, 0)), sequences, beside)


@dataclass(frozen=True)
class _Row:
    cache: int
    working: int


def _row_of_transformers(shape: BaseShape, prompt_tokens: int, tokens: int) -> _Row:
    """Return the bytes that each conversation of a batch takes."""
    one_layer = 2 * shape.key_heads * shape.head_size * shape.number_bytes
    # A longer cache of a layer is made beside the old one.
    cache = tokens * (shape.cache_of_a_token + one_layer)
    return _Row(cache, _prefill_bytes(shape, prompt_tokens) + 4 * shape.vocabulary)


def _need_of_rows(
    shape: BaseShape, row: _Row, card: Card, sequences: int, beside: int
) -> GenerationNeed:
    cache, working = sequences * row.cache, sequences * row.working
    return GenerationNeed(card, "transformers", shape.weights, cache, working, sequences, beside)


def need_of_vllm(
    shape: BaseShape, section: GenerationSection, prompt_tokens: int, card: Card, beside: int = 0
) -> GenerationNeed:
    """Return the need of vLLM, which takes a share of the card and fills it with its cache."""
    tokens = prompt_tokens + section.max_new_tokens
    working = _prefill_bytes(shape, VLLM_BATCHED_TOKENS) + VLLM_GRAPHS_BYTES
    working += VLLM_SEQUENCES * shape.vocabulary * 4 * VLLM_LOGITS_COPIES
    cache = int(card.memory * VLLM_SHARE - shape.weights - beside - working)
    sequences = min(VLLM_SEQUENCES, cache // max(1, tokens * shape.cache_of_a_token))
    return GenerationNeed(
        card, "vLLM", shape.weights, max(0, cache), working, max(0, int(sequences)), beside
    )


def _prefill_bytes(shape: BaseShape, tokens: int) -> int:
    """Return the bytes of one layer's activations while prompts are read."""
    return tokens * (3 * shape.inner_width + 4 * shape.width) * shape.number_bytes


def text_of(needs: Sequence[GenerationNeed]) -> str:
    """Return a line for each need, for people."""
    lines = []
    for need in needs:
        weights, cache = need.weights / 2**30, need.cache / 2**30
        beside = f"{need.beside / 2**30:.1f} of other models, " if need.beside else ""
        parts = (
            f"{weights:.1f} GiB of weights, {beside}{cache:.1f} of cache, "
            f"{need.working / 2**30:.1f} else"
        )
        at_once = f"about {need.sequences:,} of the longest conversations at once"
        warning = ""
        if not need.sequences:
            at_once = "not one of the longest conversations fits"
            warning = "warning: "
        lines.append(f"{warning}{need.card.name}, {need.engine}: {parts}; {at_once}")
    return "\n".join(lines)
