"""Compute the loss by a model's own logits where TRL's fused head would compute another one.

Before that, make sure that the loss is one to learn from: each token is predicted unseen.

TRL 1.16 multiplies the hidden states of a model's body by the weights of its head, and knows some
factors and caps by their names in a config. Models that do more between body and head (BERT and its
kin, ModernBERT, Inkling), or call it otherwise (RecurrentGemma's cap), would silently be trained on
another loss than their own.
"""

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from trl.trainer.utils import FusedCausalLMOutput

from job.errors import ConfigError, is_out_of_memory
from job.model import Model
from job.model.architecture import looks_ahead
from job.prompt.encode import IGNORED
from job.training.random_state import own_gpus

TOKENS = 16

# The mean difference of log-probabilities, as a fraction of their mean. In 16 bits, logits are
# rounded.
MAX_DIFFERENCE = 1e-3
MAX_DIFFERENCE_IN_16_BITS = 2e-2

# The same for what later tokens change in the logits of those before, as a fraction of the change
# in their own. A model that looks ahead is far above, and rounding among experts far below.
MAX_LEAK = 1e-3
MAX_LEAK_IN_16_BITS = 0.1


def check_looks_back(model: Model, embeddings: int, dtype: torch.dtype) -> None:
    """Raise ConfigError if later tokens change the logits of those before them.

    Then each token sees the one that it should predict. A config may not tell: the code may be the
    base's own. `dtype` is that of the computation: what accelerate has prepared returns float32
    from 16 bits, too. Collective if the model is wrapped or sharded; changes no random state.
    """
    device = next(model.parameters()).device
    ids = torch.arange(TOKENS, device=device).repeat(2, 1)  # (rows, tokens)
    ids[1, TOKENS // 2 :] += TOKENS
    with trying(model):
        logits = model(input_ids=ids % embeddings, use_cache=False).logits

    change = (logits[0] - logits[1]).float().abs().mean(dim=-1)
    before, after = change.split(TOKENS // 2)
    allowed = MAX_LEAK if dtype == torch.float32 else MAX_LEAK_IN_16_BITS
    if before.mean() > allowed * after.mean():
        raise ConfigError(looks_ahead("this base is a model"))


def is_fused_head_right(model: Model, embeddings: int, dtype: torch.dtype) -> bool:
    """Return True if TRL's fused head gives the log-probabilities that the model's own logits give.

    `dtype` is that of the computation. Collective if the model is wrapped or sharded. Computes some
    tokens twice, and changes no random state.
    """
    device = next(model.parameters()).device
    ids = torch.arange(TOKENS, device=device)[None] % embeddings  # (1, tokens)
    try:
        with trying(model):
            logits = model(input_ids=ids, use_cache=False).logits
            wanted = _log_probabilities(logits, ids)
            found = model(input_ids=ids, labels=ids, use_cache=False, fused_lm_head=True).log_probs
    except (AttributeError, RuntimeError, IndexError) as error:
        if is_out_of_memory(error):
            raise
        return False

    allowed = MAX_DIFFERENCE if dtype == torch.float32 else MAX_DIFFERENCE_IN_16_BITS
    return bool((found - wanted).abs().mean() <= allowed * wanted.abs().mean())


@contextmanager
def trying(model: Model) -> Iterator[None]:
    """Compute without gradients and dropout during the block, and change no random state."""
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad(), torch.random.fork_rng(own_gpus()):
            yield
    finally:
        model.train(was_training)


def use_own_head(base: Model) -> None:
    """Replace TRL's fused head on a base, which has no adapter around it, by the base's own.

    The logits of all tokens are in memory at once.
    """
    forward = base.forward

    @functools.wraps(forward)
    def with_own_head(
        *args: Any,
        fused_lm_head: bool = False,
        labels: Tensor | None = None,
        num_items_in_batch: Any = None,
        **named: Any,
    ) -> Any:
        if not fused_lm_head:
            if labels is not None:
                named["labels"] = labels
            return forward(*args, **named)
        assert labels is not None
        logits = forward(*args, **named | {"use_cache": False}).logits
        return _output(logits, labels, num_items_in_batch)

    base.forward = with_own_head


def _output(logits: Tensor, labels: Tensor, num_items: Any) -> FusedCausalLMOutput:
    """Return what recap reads of TRL's fused head, zero for tokens without a label."""
    mask = labels[:, 1:] != IGNORED
    log_probs = _log_probabilities(logits, labels.clamp(min=0)) * mask
    count = mask.sum().clamp(min=1) if num_items is None else num_items
    return FusedCausalLMOutput(
        loss=-log_probs.sum() / count,
        log_probs=log_probs,
        label_mask=mask,
    )


def _log_probabilities(logits: Tensor, ids: Tensor) -> Tensor:
    """Return the log-probability of each next token: (batch, tokens - 1)."""
    next_ids = ids[:, 1:, None].to(logits.device)
    return logits[:, :-1].float().log_softmax(dim=-1).gather(-1, next_ids).squeeze(-1)
