"""Leave out of a training step what changes nothing in it.

Only the tokens of a summary are learned, often a tenth of a row: no other needs logits. And a row
ends in its padding, which no token before it can see: without a mask, attention takes its fastest
kernels.
"""

import functools
from typing import Any

import torch
import trl.trainer.utils
from trl.kernels import chunked_logprob

from job.errors import is_out_of_memory
from job.memory.devices import TOKENS_OF_A_TILE_ON_A_CPU
from job.model import Model
from job.training.own_head import trying

TOKENS = 16

# What leaving out the mask may change in the logits of a padded row: so many times what it changes
# in a row without padding, where another kernel rounds otherwise, or this fraction of their mean.
MAX_TIMES_ROUNDING = 4
MAX_CHANGE = 1e-5


def project_learned_tokens_only() -> None:
    """Let TRL's fused head compute logits of tokens with a label alone, on CPUs as on GPUs.

    TRL 1.16 computes those of all tokens wherever Triton is missing, for the sake of accelerators
    that compile a program for each shape. The sums are the same. On a CPU, few tokens are computed
    at a time: their buffers would be most of the memory of a step whose layers recompute.
    """
    trl.trainer.utils._use_triton = _is_every_device_fit
    if not torch.cuda.is_available():
        chunked_logprob.TOKEN_CHUNK_SIZE = TOKENS_OF_A_TILE_ON_A_CPU


def _is_every_device_fit(device: torch.device) -> bool:
    return True


def is_mask_needless(model: Model, base: Model) -> bool:
    """Return True if a padded row's logits are the same without the mask of its padding.

    `model` is the base with what is around it. Collective if it is wrapped or sharded. Computes
    some tokens twice, and changes no random state.
    """
    if getattr(base.config.get_text_config(), "output_router_logits", False):
        return False  # the loss for balanced experts counts the padding
    device = next(model.parameters()).device
    embeddings = base.get_input_embeddings().num_embeddings
    ids = torch.arange(TOKENS, device=device).repeat(2, 1) % embeddings  # (rows, tokens)
    mask = torch.ones_like(ids)
    mask[1, TOKENS // 2 :] = 0
    try:
        with trying(model):
            wanted = model(input_ids=ids, attention_mask=mask, use_cache=False).logits.float()
            found = model(input_ids=ids, use_cache=False).logits.float()
    except (AttributeError, RuntimeError, IndexError, TypeError, ValueError) as error:
        if is_out_of_memory(error):
            raise
        return False

    change = (found - wanted).abs()  # (rows, tokens, vocabulary)
    rounding, of_padded = change[0].mean(), change[1, : TOKENS // 2].mean()
    allowed = max(MAX_TIMES_ROUNDING * rounding, MAX_CHANGE * wanted[0].abs().mean())
    return bool(of_padded <= allowed)


def leave_out_mask(base: Model) -> None:
    """Let the loss of a base, which has no adapter around it, be computed without the mask.

    All rows must end in their padding, as those of TRL's collator do. A mask of all pairs of tokens
    stays: it hides more than padding.
    """
    forward = base.forward

    @functools.wraps(forward)
    def without_mask(
        *args: Any, fused_lm_head: bool = False, attention_mask: Any = None, **named: Any
    ) -> Any:
        is_of_padding = attention_mask is not None and attention_mask.dim() == 2
        if fused_lm_head and is_of_padding:
            attention_mask = None
        return forward(*args, fused_lm_head=fused_lm_head, attention_mask=attention_mask, **named)

    base.forward = without_mask
