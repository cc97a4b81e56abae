"""Text from data → token ids in which nothing is a control token, whatever it says.

Knows nothing of prompts.
"""

import json
import re
from functools import lru_cache
from typing import Any

BLANK = re.compile(r"[\s▁]+")  # ▁ is sentencepiece's space
Tokenizer = Any  # a transformers PreTrainedTokenizerBase


def plain_ids(texts: list[str], tokenizer: Tokenizer) -> list[list[int]]:
    """Ids of texts in which nothing is a control token, whatever they say."""
    plain = _plain_encoder(tokenizer)
    if (
        plain is None
    ):  # a tokenizer in Python, which takes no added token out of a text that it must split
        encoded: list[list[int]] = tokenizer(
            texts, add_special_tokens=False, split_special_tokens=True
        )["input_ids"]
        return encoded
    return [found.ids for found in plain.encode_batch_fast(texts, add_special_tokens=False)]


@lru_cache(maxsize=2)
def _plain_encoder(tokenizer: Tokenizer) -> Any | None:
    """A copy of the tokenizer's core that finds no added token in a text, special or not; None if it has no core.

    Chat models mark tokens such as `<tool_call>` and `<think>` as not special, and `split_special_tokens` leaves those
    whole. Runs of spaces and line ends, which some bases add as tokens, are ordinary text and stay.
    """
    if not tokenizer.is_fast:
        return None
    from tokenizers import Tokenizer as Core

    state = json.loads(tokenizer.backend_tokenizer.to_str())
    controls = [token for token in state["added_tokens"] if not BLANK.fullmatch(token["content"])]
    for token in controls:
        token["special"] = True
    if (
        state["model"]["type"] == "Unigram"
    ):  # its vocabulary lists the control tokens, and would find them in a text
        _hide_controls(state["model"]["vocab"], controls)
    core = Core.from_str(json.dumps(state | {"truncation": None, "padding": None}))
    core.encode_special_tokens = True
    return core


def _hide_controls(vocabulary: list[list[Any]], controls: list[dict[str, Any]]) -> None:
    """Give control tokens names that no text holds: records with a NUL character are refused."""
    for token in controls:
        if token["id"] < len(vocabulary) and vocabulary[token["id"]][0] == token["content"]:
            token["content"] = vocabulary[token["id"]][0] = f"\0{token['id']}\0"
