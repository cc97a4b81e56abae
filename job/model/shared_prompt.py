"""Put two answers to one prompt into one row, so that the prompt is computed once.

A row is [prompt, first answer, last token of the prompt, second answer]. The second part has the
positions that it has after the prompt, and sees neither the first answer nor the token that it
repeats. Both answers get the log-probabilities that they have in sequences of their own.
"""

import inspect
import sys
from dataclasses import dataclass

import torch

from job.model import Model
from job.model.operations import FULL, SLIDING

UNLIMITED = sys.maxsize
MASKED_ATTENTION = ("sdpa", "eager")  # those of transformers that take a mask of all pairs
# Names of the number of tokens that a layer looks back at, or picks among those before.
OTHER_WINDOWS = ("window_size", "attention_chunk_size", "index_topk", "local_attention")
WINDOWS = ("sliding_window", *OTHER_WINDOWS)
MASK_ALIGNMENT = 16  # numbers; CUDA's kernels copy a mask otherwise, in each layer


def max_shared_tokens(model: Model) -> int:
    """Return the most tokens of a row in which both answers are computed as in sequences.

    That is 0 for a base with layers that read a row in its order (state spaces, convolutions),
    with positions that it counts by itself (ALiBi), with an attention that takes no such mask, or
    with code of its own. Of layers that look back at some tokens alone, the mask does not say so,
    or they count them in the row: it may be no longer than that. `model` may be without weights.
    """
    config = model.config.get_text_config()
    types = getattr(config, "layer_types", None)
    is_possible = (
        type(model).__module__.startswith("transformers.")
        and config._attn_implementation in MASKED_ATTENTION
        and "position_ids" in inspect.signature(type(model.base_model).forward).parameters
        and set(types or [FULL]) <= {FULL, SLIDING}
        and not model._is_stateful
        and not getattr(config, "alibi", False)
        and not config.is_encoder_decoder
    )
    if not is_possible:
        return 0
    # A config without types of layers may mean all of them.
    names = WINDOWS if types is None or SLIDING in types else OTHER_WINDOWS
    windows = [getattr(config, name, None) for name in names]
    return min((each for each in windows if isinstance(each, int) and each), default=UNLIMITED)


@dataclass(frozen=True)
class SharedRows:
    """The rows of a batch, which are padded at their ends, with what the base must know of them."""

    ids: torch.Tensor  # (rows, tokens)
    positions: torch.Tensor  # (rows, tokens)
    ends_of_prompts: torch.Tensor  # the index of the last token: (rows,)
    starts: torch.Tensor  # the index of its repetition: (rows,)

    def mask(self, dtype: torch.dtype) -> torch.Tensor:
        """Return what is added to the scores of all pairs of tokens: (rows, 1, tokens, tokens).

        It is in the `dtype` of the computation: kernels would convert any other one in each layer,
        and keep each copy for the backward pass.
        """
        rows, tokens = self.ids.shape
        places = torch.arange(tokens, device=self.ids.device)
        query, key = places[:, None], places[None, :]  # (tokens, 1), (1, tokens)
        end, start = self.ends_of_prompts[:, None, None], self.starts[:, None, None]
        is_hidden = (query >= start) & (key >= end) & (key < start)  # (rows, tokens, tokens)
        is_hidden |= key > query
        width = -(-tokens // MASK_ALIGNMENT) * MASK_ALIGNMENT
        mask = torch.zeros(rows, 1, tokens, width, dtype=dtype, device=self.ids.device)
        mask = mask[..., :tokens]
        return mask.masked_fill_(is_hidden[:, None], torch.finfo(dtype).min)

    def is_second(self) -> torch.Tensor:
        """Return True where a label of the row, but for its first, is of the second answer."""
        places = torch.arange(1, self.ids.shape[1], device=self.ids.device)
        return places > self.starts[:, None]
