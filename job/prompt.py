"""The prompt: the only place that turns text into token ids and a loss mask.

Purpose: conversation (+ summary) → ids, the same for training and for inference. The text around the conversation is
rendered once, when a run begins, and travels with the adapter as `prompt.json`: a later template, library or date
changes nothing. Text from a conversation is data: control tokens that a customer typed stay ordinary text.
Knows nothing of where conversations come from, nor of the model.
"""

import json
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from job.config.sections import CleaningStep, PromptSection
from job.conversations.record import Conversation
from job.errors import ConfigError, DamagedError, DataError

FILE = "prompt.json"
IGNORED = -100  # the label of tokens without loss, as torch's cross-entropy has it
BLANK = re.compile(r"[\s▁]+")  # ▁ is sentencepiece's space
Tokenizer = Any  # a transformers PreTrainedTokenizerBase


class TooLongError(DataError):
    """Even the first and the last turn together do not fit."""


class NothingToSummarizeError(DataError):
    """No turn has any text."""


@dataclass(frozen=True)
class Prompt:
    """What stands around a conversation; `control_tokens` says whether it holds the base's control tokens (chat).

    `cleaning` are the steps that conversations go through before, so that training and summarizing see the same text.
    """

    before: str
    after: str
    control_tokens: bool
    labels: dict[str, str]
    cleaning: tuple[CleaningStep, ...]

    def line(self, role: str, text: str) -> str:
        """One turn as it stands in the prompt."""
        return f"{self.labels.get(role, role)}: {text}"


@dataclass(frozen=True)
class EncodedPrompt:
    """Token ids of a prompt, and how many turns were left out of its middle to make it fit."""

    ids: list[int]
    dropped_turns: int


@dataclass(frozen=True)
class EncodedExample:
    """A training row: ids of prompt, summary and end, and labels of the same length (-100 on the prompt)."""

    input_ids: list[int]
    labels: list[int]
    dropped_turns: int


def make_prompt(section: PromptSection, tokenizer: Tokenizer, cleaning: Iterable[CleaningStep] = ()) -> Prompt:
    """Render what stands around a conversation; ConfigError if the tokenizer cannot serve."""
    if tokenizer.eos_token_id is None:
        raise ConfigError("model.base: its tokenizer has no end-of-sequence token, so no summary could ever end")
    if section.style == "instruction":
        before = f"### Instruction: {section.system}\n\n### Input:\n"
        after = "\n\n### Response:\n"
    else:
        before, after = _render_chat(section.system, tokenizer)
    return Prompt(before, after, section.style == "chat", dict(section.labels), tuple(cleaning))


def encode_prompt(conversation: Conversation, prompt: Prompt, tokenizer: Tokenizer, max_tokens: int) -> EncodedPrompt:
    """The prompt in at most `max_tokens` tokens; whole turns are dropped from the middle where it must be.

    Raises NothingToSummarizeError without any text, TooLongError when even the two ends do not fit.
    """
    lines = [prompt.line(turn.role, text) for turn in conversation.turns if (text := turn.text.strip())]
    if not lines:
        raise NothingToSummarizeError(f"{conversation.source}: no turn has any text")
    ids = _prompt_ids(lines, prompt, tokenizer)
    if len(ids) <= max_tokens:
        return EncodedPrompt(ids, 0)
    counts = [len(line) for line in _plain_ids([line + "\n" for line in lines], tokenizer)]
    head, tail = _kept_ends(counts, max_tokens - (len(ids) - sum(counts)))
    while head + tail >= min(len(lines), 2):
        ids = _prompt_ids([*lines[:head], *lines[len(lines) - tail :]], prompt, tokenizer)
        if len(ids) <= max_tokens:
            return EncodedPrompt(ids, len(lines) - head - tail)
        head, tail = (head - 1, tail) if head > tail else (head, tail - 1)
    raise TooLongError(
        f"{conversation.source}: {sum(counts)} tokens in {len(lines)} turns; even the first and the last turn alone "
        f"do not fit into {max_tokens} tokens with the instruction"
    )


def encode_example(
    conversation: Conversation, summary: str, prompt: Prompt, tokenizer: Tokenizer, max_tokens: int
) -> EncodedExample:
    """A training row of at most `max_tokens` tokens: the prompt gives way, the summary never does."""
    answer = [*_plain_ids([summary.strip()], tokenizer)[0], tokenizer.eos_token_id]
    encoded = encode_prompt(conversation, prompt, tokenizer, max_tokens - len(answer))
    return EncodedExample(
        input_ids=encoded.ids + answer,
        labels=[IGNORED] * len(encoded.ids) + answer,
        dropped_turns=encoded.dropped_turns,
    )


def write_prompt(folder: Path, prompt: Prompt) -> None:
    """Save the prompt beside the adapter."""
    (folder / FILE).write_text(json.dumps(asdict(prompt), ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


def read_prompt(folder: Path) -> Prompt:
    """The prompt that an adapter was trained with; DamagedError if it has none that can be read."""
    try:
        raw = json.loads((folder / FILE).read_text(encoding="utf-8"))
        return Prompt(**raw | {"cleaning": tuple(raw["cleaning"])})
    except (FileNotFoundError, KeyError, TypeError, ValueError) as error:
        raise DamagedError(
            f"{folder}: {FILE} is missing or unreadable ({error}): this is no adapter that recap trained; "
            "give the config a prompt section and model.base, or train the adapter with recap"
        ) from error


def _prompt_ids(lines: list[str], prompt: Prompt, tokenizer: Tokenizer) -> list[int]:
    text = "\n".join(lines)
    if not prompt.control_tokens:
        start = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
        return start + _plain_ids([prompt.before + text + prompt.after], tokenizer)[0]
    before, after = tokenizer([prompt.before, prompt.after], add_special_tokens=False)["input_ids"]
    return [*before, *_plain_ids([text], tokenizer)[0], *after]


def _plain_ids(texts: list[str], tokenizer: Tokenizer) -> list[list[int]]:
    """Ids of texts in which nothing is a control token, whatever they say."""
    plain = _plain_encoder(tokenizer)
    if plain is None:  # a tokenizer in Python, which takes no added token out of a text that it must split
        encoded: list[list[int]] = tokenizer(texts, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        return encoded
    return [found.ids for found in plain.encode_batch(texts, add_special_tokens=False)]


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
    if state["model"]["type"] == "Unigram":  # its vocabulary lists the control tokens, and would find them in a text
        _hide_controls(state["model"]["vocab"], controls)
    core = Core.from_str(json.dumps(state | {"truncation": None, "padding": None}))
    core.encode_special_tokens = True
    return core


def _hide_controls(vocabulary: list[list[Any]], controls: list[dict[str, Any]]) -> None:
    """Give control tokens names that no text holds: records with a NUL character are refused."""
    for token in controls:
        if token["id"] < len(vocabulary) and vocabulary[token["id"]][0] == token["content"]:
            token["content"] = vocabulary[token["id"]][0] = f"\0{token['id']}\0"


def _kept_ends(counts: list[int], budget: int) -> tuple[int, int]:
    """How many turns of the beginning and of the end fit into `budget` tokens, taken by turns from both sides."""
    head, tail, used = 0, 0, 0
    while head + tail < len(counts):
        from_head = head <= tail
        cost = counts[head] if from_head else counts[len(counts) - 1 - tail]
        if used + cost > budget and head + tail >= 2:
            break
        used += cost
        head, tail = (head + 1, tail) if from_head else (head, tail + 1)
    return head, tail


def _render_chat(system: str, tokenizer: Tokenizer) -> tuple[str, str]:
    """Text before and after the conversation by the base's chat template; a base without system role gets one turn."""
    if not tokenizer.chat_template:
        raise ConfigError(
            "prompt.style is chat, but the tokenizer of model.base has no chat template: "
            "use an instruct model, or prompt.style: instruction"
        )
    mark = "conversation-goes-here"
    rendered = _template(tokenizer, [{"role": "system", "content": system}, {"role": "user", "content": mark}])
    if rendered is None or system not in rendered:
        rendered = _template(tokenizer, [{"role": "user", "content": f"{system}\n\n{mark}"}])
    if rendered is None or rendered.count(mark) != 1:
        raise ConfigError("prompt.style is chat, but the chat template of model.base does not render a user's message")
    before, after = rendered.split(mark)
    return before, after


def _template(tokenizer: Tokenizer, messages: list[dict[str, str]]) -> str | None:
    from jinja2 import TemplateError

    try:
        # Templates with a thinking mode know enable_thinking; the others ignore it. A summary needs no thinking.
        rendered: str = tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=True, enable_thinking=False
        )
    except TemplateError:
        return None
    return rendered
