"""Find out by trial which prompts a model may generate for together.

Shorter prompts of a batch are padded, and padding is masked. Not every family heeds the mask:
convolutions of RecurrentGemma take padding in, MiniMax loses the mask after the first token, and
DeepSeek-V4 compresses real tokens together with padding. RWKV mixes the rows of a batch up
(transformers 5.19). Such answers are wrong, and nothing fails.
"""

from collections.abc import Sequence
from enum import Enum
from typing import Any

from job.errors import is_out_of_memory
from job.inference.batch import Batch, generating
from job.model import Model
from job.telemetry import warn_once

MAX_TOKENS = 16  # of the prompts that are tried
ROWS = 3

# Changes of the logits, as a share of their spread. Beside others, 16 bits round otherwise: by 0.13
# for SmolLM2 in bfloat16. MiniMax and RWKV change by 1 and more. What padding is made of changes
# nothing at all if it is masked; experts that compute it may round otherwise.
MAX_BY_OTHERS = 0.6
MAX_BY_PADDING = 0.05


class Sharing(Enum):
    """Which prompts may share a batch."""

    ALL = "prompts of any length share a batch"
    EQUAL = "only prompts of equal length share a batch"
    NONE = "prompts go one at a time"


def find_sharing(model: Model, prompt: Sequence[int]) -> Sharing:
    """Return which prompts may share a batch. Logs a warning if not all of them may.

    Tries pieces of `prompt`. Raise whatever the model raises on a single one.
    """
    tokens = list(prompt[:MAX_TOKENS])
    size = max(1, len(tokens) // ROWS)
    # All begin alike, as prompts do: a batch computes that once.
    head = tokens[:size]
    unequal = [head + tokens[start:] for start in range(0, len(tokens), size)]
    ends = range(size, len(tokens) + 1, size)
    equal = [head + tokens[end - size : end] for end in ends]

    with generating(model):
        why = _difference(model, unequal)
        if why is None:
            return Sharing.ALL
        sharing = Sharing.EQUAL if _difference(model, equal) is None else Sharing.NONE
    warn_once(f"slower: {sharing.value}: this model answers otherwise beside others", why=why)
    return sharing


def _difference(model: Model, prompts: list[list[int]]) -> str | None:
    """Return how a batch differs from each prompt alone; None if it does not."""
    import torch

    alone = torch.cat([_logits(model, [prompt], 0) for prompt in prompts], dim=1)
    try:
        # Padded with real tokens: the embedding of a padding token may be zero, and leave no trace.
        padded = _logits(model, prompts, min(prompts[0]))
        otherwise = _logits(model, prompts, max(prompts[0]))
    except Exception as error:
        if is_out_of_memory(error) or isinstance(error, torch.AcceleratorError):
            raise
        return f"{type(error).__name__}: {error}"

    spread = (alone - alone.mean(-1, keepdim=True)).norm(dim=-1)
    by_others = ((padded - alone).norm(dim=-1) / spread).max().item()
    by_padding = ((padded - otherwise).norm(dim=-1) / spread).max().item()
    if by_others > MAX_BY_OTHERS or by_padding > MAX_BY_PADDING:
        return f"logits change by {by_others:.0%}, by another padding by {by_padding:.0%}"
    return None


def _logits(model: Model, prompts: list[list[int]], padding: int) -> Any:
    """Return the logits after each prompt, and after one more token: (2, rows, vocabulary)."""
    import torch

    batch = Batch(model, prompts, padding)
    begun = batch.logits
    batch.extend(torch.tensor([prompt[0] for prompt in prompts], device=model.device))
    return torch.stack([begun, batch.logits]).float()
