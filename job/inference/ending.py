"""The end of an answer: which tokens end one, and the text before it. The same for every engine."""

from collections.abc import Collection, Sequence
from typing import Any

from job.inference.engine import Generated
from job.model.load import Tokenizer


def end_tokens(tokenizer: Tokenizer, generation_config: Any) -> frozenset[int]:
    """Return the ids that end an answer.

    These are the tokenizer's end token, which training teaches, and those of the base's generation
    config, which a chat model was taught before.
    """
    ids = getattr(generation_config, "eos_token_id", None)
    several = ids if isinstance(ids, list) else [ids]
    return frozenset(id for id in [tokenizer.eos_token_id, *several] if id is not None)


def to_answer(tokens: Sequence[int], ends: Collection[int], tokenizer: Tokenizer) -> Generated:
    """Return generated tokens as an answer. `tokens` may still end with an end token."""
    stopped = bool(tokens) and tokens[-1] in ends
    kept = tokens[:-1] if stopped else tokens
    text: str = tokenizer.decode(
        kept,
        skip_special_tokens=True,
        clean_up_tokenization_spaces=False,
    )
    return Generated(text, len(kept), "stop" if stopped else "length")
