"""Quirks of models that think before they answer: find the answer among what was generated.

A thought is never a part of a summary, not even half of one that was cut. Marks of thoughts count
where no customer can have put them: as control tokens, which no text of a conversation encodes to,
or, for a tokenizer that has none, at the very beginning of an answer. A summary that quotes
`<think>` stays as it is.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from job.model import Tokenizer
from job.telemetry import warn

# What opens a thought, and what closes it. A new family is a line here.
THOUGHTS = {
    "<think>": "</think>",  # DeepSeek-R1, Qwen3, GLM-4.5, SmolLM3, MiniMax, Kimi K2, ERNIE, Hunyuan
    "<thinking>": "</thinking>",
    "<thought>": "</thought>",  # EXAONE Deep
    "<reasoning>": "</reasoning>",
    "[THINK]": "[/THINK]",  # Magistral
    "<|START_THINKING|>": "<|END_THINKING|>",  # Command A Reasoning
    "<seed:think>": "</seed:think>",  # Seed-OSS
    "<longcat_think>": "</longcat_think>",
    "<|channel>": "<channel|>",  # Gemma 4
    "<|inner_prefix|>": "<|inner_suffix|>",  # Apertus
    "<|begin_of_thought|>": "<|end_of_thought|>",  # OpenThinker
    "◁think▷": "◁/think▷",  # Kimi-VL
}

# Of gpt-oss and Muse: each message has a header before it, with its channel or recipient.
HEADER_BEGINS = ("<|start|>", "<|channel|>")
HEADER_ENDS = "<|message|>"
THOUGHTS_HEADER = re.compile(r"analysis|commentary|\bto=self\b")


MAY_THINK = (
    "may think before it answers: its prompt asks for no thoughts, and those that come are left "
    "out of summaries, but count in generation.max_new_tokens"
)


class Answer(NamedTuple):
    """The text of an answer, and whether the model generated a thought and no answer after it."""

    text: str
    is_only_thought: bool = False


@dataclass(frozen=True)
class _Marks:
    """The marks of thoughts in a vocabulary, as ids, and those that it has no token for."""

    closing: Mapping[int, int]  # by what opens the thought
    header_begins: frozenset[int]
    header_ends: int | None
    texts: Mapping[str, str]


def may_think(tokenizer: Tokenizer) -> bool:
    """Return True if the chat template knows thoughts.

    Not by the vocabulary: those that answer at once share it with those that think (Qwen3).
    """
    template = str(tokenizer.chat_template or "")
    marks = [*THOUGHTS, *THOUGHTS.values(), "<|channel|>analysis", "to=self"]
    return any(mark in template for mark in marks)


def warn_of_thoughts(tokenizer: Tokenizer) -> None:
    """Log a warning if the base may think before it answers."""
    if may_think(tokenizer):
        warn(f"model.base {MAY_THINK}")


def read_answer(tokens: Sequence[int], tokenizer: Tokenizer) -> Answer:
    """Return the answer among generated tokens, which end before the end token."""
    marks = _marks(tokenizer)
    if marks.header_ends is not None and marks.header_begins & set(tokens):
        said, has_thought = _without_thought_messages(tokens, marks, tokenizer)
    else:
        said, has_thought = _without_thoughts(tokens, marks)
    text: str = tokenizer.decode(
        said,
        skip_special_tokens=True,
        # The library would remove spaces before punctuation, which the model may have written.
        clean_up_tokenization_spaces=False,
    )
    # Some models think again, after an empty thought that they were asked for.
    while begin := next(filter(text.lstrip().startswith, marks.texts), None):
        text = text.partition(marks.texts[begin])[2]
        has_thought = True
    return Answer(text, has_thought and not text.strip())


def _without_thoughts(tokens: Sequence[int], marks: _Marks) -> tuple[list[int], bool]:
    """Return the tokens outside of thoughts, and whether there was a thought."""
    said: list[int] = []
    closes: int | None = None
    has_thought = False
    for token in tokens:
        if closes is not None:
            if token == closes:
                closes = None
        elif token in marks.closing:
            closes = marks.closing[token]
            has_thought = True
        elif token in marks.closing.values():
            # Nothing opened it, so the prompt did: all before is a thought.
            said.clear()
            has_thought = True
        else:
            said.append(token)
    return said, has_thought


def _without_thought_messages(
    tokens: Sequence[int], marks: _Marks, tokenizer: Tokenizer
) -> tuple[list[int], bool]:
    """Return the tokens of the first message that is an answer, and whether there was a thought."""
    said: list[int] = []
    header: list[int] | None = None
    is_thought = False  # the prompt's own header is that of an answer
    has_thought = False
    for token in tokens:
        if token == marks.header_ends:
            if header is None:  # the prompt began it
                header = said
                said = []
            is_thought = bool(THOUGHTS_HEADER.search(tokenizer.decode(header)))
            has_thought = has_thought or is_thought
            header = None
        elif token in marks.header_begins:
            if tokenizer.decode(said, skip_special_tokens=True).strip():
                break
            header = header or []
        elif header is not None:
            header.append(token)
        elif not is_thought:
            said.append(token)
    return said, has_thought or header is not None


@lru_cache(maxsize=2)
def _marks(tokenizer: Tokenizer) -> _Marks:
    ids = tokenizer.get_added_vocab()
    closing = {}
    texts = {}
    for begin, end in THOUGHTS.items():
        if begin in ids and end in ids:
            closing[ids[begin]] = ids[end]
        else:
            texts[begin] = end
    begins = frozenset(ids[text] for text in HEADER_BEGINS if text in ids)
    return _Marks(closing, begins, ids.get(HEADER_ENDS), texts)
