"""Where an answer ends, and what it says: the same for every engine. Knows nothing of how tokens come about."""

from collections.abc import Collection, Sequence
from typing import Any

from job.inference.engine import Generated
from job.model import Tokenizer


def end_tokens(tokenizer: Tokenizer, generation_config: Any) -> frozenset[int]:
    """The tokenizer's end token, which training teaches, and those of the base's generation config (chat models)."""
    ids = getattr(generation_config, "eos_token_id", None)
    several = ids if isinstance(ids, list) else [ids]
    return frozenset(id for id in [tokenizer.eos_token_id, *several] if id is not None)


def to_answer(tokens: Sequence[int], ends: Collection[int], tokenizer: Tokenizer) -> Generated:
    """New tokens, the end token still among them, as an answer."""
    stopped = bool(tokens) and tokens[-1] in ends
    kept = tokens[:-1] if stopped else tokens
    text: str = tokenizer.decode(kept, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return Generated(text, len(kept), "stop" if stopped else "length")
