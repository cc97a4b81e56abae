"""Token ids of text from a conversation, in which control tokens that somebody typed stay text."""

import json
from functools import lru_cache
from typing import Any

from job.model import Tokenizer
from job.model.control_tokens import hide_control_tokens


def plain_ids(texts: list[str], tokenizer: Tokenizer) -> list[list[int]]:
    """Return the ids of each text, none of them a control token.

    Control tokens that a customer typed are ordinary characters.
    """
    core = _plain_core(tokenizer)
    if core is None:
        encoded: list[list[int]] = tokenizer(
            texts,
            add_special_tokens=False,
            split_special_tokens=True,
        )["input_ids"]
        return encoded
    return [found.ids for found in core.encode_batch_fast(texts, add_special_tokens=False)]


# Asked once: the call sets padding and truncation of the tokenizer, which threads must not do while
# another one encodes.
@lru_cache(maxsize=2)
def control_text_ids(tokenizer: Tokenizer, before: str, after: str) -> list[list[int]]:
    """Return the ids of both texts, in which control tokens are meant as such."""
    ids: list[list[int]] = tokenizer([before, after], add_special_tokens=False)["input_ids"]
    return ids


# Every record of a run asks for the same tokenizer's core, and making it takes seconds for a large
# vocabulary.
@lru_cache(maxsize=2)
def _plain_core(tokenizer: Tokenizer) -> Any | None:
    """Return a copy of the tokenizer's core that finds no control token in a text.

    None for a tokenizer written in Python, which has no core; its `split_special_tokens` splits
    every added token.
    """
    if not tokenizer.is_fast:
        return None
    from tokenizers import Tokenizer as Core

    state = json.loads(tokenizer.backend_tokenizer.to_str())
    hide_control_tokens(state)
    # Truncation and padding that were once saved with a tokenizer would cut and fill texts. A
    # post-processor adds control tokens, which are not asked for, and takes a tenth of the time.
    unused = dict.fromkeys(("truncation", "padding", "post_processor"))
    core = Core.from_str(json.dumps(state | unused))
    core.encode_special_tokens = True  # that is, split them
    return core
