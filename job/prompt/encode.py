"""The prompt: the only place that turns text into token ids and a loss mask.

Purpose: conversation (+ summary) → ids, the same for training and for inference. The text around the conversation is
rendered once, when a run begins, and travels with the adapter as `prompt.json`: a later template, library or date
changes nothing. Text from a conversation is data: control tokens that a customer typed stay ordinary text.
Knows nothing of where conversations come from, nor of the model.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from job.config.sections import CleaningStep, PromptSection
from job.conversations.record import Conversation
from job.errors import ConfigError, DamagedError, DataError
from job.prompt.plain_ids import plain_ids

FILE = "prompt.json"
LONGEST_TOKEN = 256  # characters; vocabularies have runs of 128 spaces, none has more than this
CHARACTERS_AT_ONCE = (
    8  # for each token of room: a long turn is cut by characters first, and tokenized by pieces
)
IGNORED = -100  # the label of tokens without loss, as torch's cross-entropy has it
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


class EncodedPrompt(NamedTuple):
    """Token ids of a prompt, and how many turns were left out of its middle to make it fit."""

    ids: list[int]
    dropped_turns: int


class EncodedPart(NamedTuple):
    """Token ids of the prompt of a part of a conversation, and how many turns begin in it."""

    ids: list[int]
    turns: int


@dataclass(frozen=True)
class EncodedExample:
    """A training row: ids of prompt, summary and end, and labels of the same length (-100 on the prompt)."""

    input_ids: list[int]
    labels: list[int]
    dropped_turns: int


def make_prompt(
    section: PromptSection, tokenizer: Tokenizer, cleaning: Iterable[CleaningStep] = ()
) -> Prompt:
    """Render what stands around a conversation; ConfigError if the tokenizer cannot serve."""
    if tokenizer.eos_token_id is None:
        raise ConfigError(
            "model.base: its tokenizer has no end-of-sequence token, so no summary could ever end"
        )
    if section.style == "instruction":
        before = f"### Instruction: {section.system}\n\n### Input:\n"
        after = "\n\n### Response:\n"
    else:
        before, after = _render_chat(section.system, tokenizer)
    return Prompt(before, after, section.style == "chat", dict(section.labels), tuple(cleaning))


def encode_prompt(
    conversation: Conversation, prompt: Prompt, tokenizer: Tokenizer, max_tokens: int
) -> EncodedPrompt:
    """The prompt in at most `max_tokens` tokens; whole turns are dropped from the middle where it must be.

    Raises NothingToSummarizeError without any text, TooLongError when even the two ends do not fit.
    """
    every_line = _lines(conversation, prompt)
    lines = _not_surely_dropped(every_line, max_tokens * LONGEST_TOKEN, conversation, max_tokens)
    dropped = len(every_line) - len(lines)
    ids = _prompt_ids(lines, prompt, tokenizer)
    if len(ids) <= max_tokens:
        return EncodedPrompt(ids, dropped)
    counts = [len(line) for line in plain_ids([line + "\n" for line in lines], tokenizer)]
    head, tail = _kept_ends(counts, max_tokens - (len(ids) - sum(counts)))
    while head + tail >= min(len(lines), 2):
        ids = _prompt_ids([*lines[:head], *lines[len(lines) - tail :]], prompt, tokenizer)
        if len(ids) <= max_tokens:
            return EncodedPrompt(ids, dropped + len(lines) - head - tail)
        head, tail = (head - 1, tail) if head > tail else (head, tail - 1)
    raise TooLongError(
        f"{conversation.source}: {sum(counts)} tokens in {len(lines)} turns; even the first and the last turn alone "
        f"do not fit into {max_tokens} tokens with the instruction"
    )


def encode_parts(
    conversation: Conversation,
    prompt: Prompt,
    tokenizer: Tokenizer,
    max_tokens: int,
    max_parts: int,
) -> list[EncodedPart]:
    """Prompts of at most `max_tokens` tokens that together hold every turn, each as many whole turns as fit.

    A turn that does not fit into a prompt of its own goes on in the next, cut at a space. Raises
    NothingToSummarizeError without any text, TooLongError where it takes more than `max_parts` prompts.
    """
    lines = _lines(conversation, prompt)
    if sum(map(len, lines)) <= max_tokens * LONGEST_TOKEN:
        ids = _prompt_ids(lines, prompt, tokenizer)
        if len(ids) <= max_tokens:
            return [EncodedPart(ids, len(lines))]
    room = max_tokens - len(_prompt_ids([""], prompt, tokenizer))
    parts: list[EncodedPart] = []
    group: list[tuple[str, int]] = []  # lines, and whether a turn begins in each
    used = 0
    for line, begins, cost in _pieces(conversation, prompt, tokenizer, room):
        if group and used + cost > room:
            parts += _closed(group, prompt, tokenizer, max_tokens)
            group, used = [], 0
        group.append((line, begins))
        used += cost
        if len(parts) >= max_parts:
            raise TooLongError(
                f"{conversation.source}: it takes more than {max_parts} parts of {max_tokens} tokens; raise "
                "generation.max_input_tokens, or cut the conversation"
            )
    return parts + _closed(group, prompt, tokenizer, max_tokens)


def encode_example(
    conversation: Conversation, summary: str, prompt: Prompt, tokenizer: Tokenizer, max_tokens: int
) -> EncodedExample:
    """A training row of at most `max_tokens` tokens: the prompt gives way, the summary never does."""
    answer = [*plain_ids([summary.strip()], tokenizer)[0], tokenizer.eos_token_id]
    encoded = encode_prompt(conversation, prompt, tokenizer, max_tokens - len(answer))
    return EncodedExample(
        input_ids=encoded.ids + answer,
        labels=[IGNORED] * len(encoded.ids) + answer,
        dropped_turns=encoded.dropped_turns,
    )


def write_prompt(folder: Path, prompt: Prompt) -> None:
    """Save the prompt beside the adapter."""
    (folder / FILE).write_text(
        json.dumps(asdict(prompt), ensure_ascii=False, indent=2) + "\n", encoding="utf-8"
    )


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
        ids = plain_ids([prompt.before + text + prompt.after], tokenizer)[0]
        return ids if tokenizer.bos_token_id is None else [tokenizer.bos_token_id, *ids]
    before, after = tokenizer([prompt.before, prompt.after], add_special_tokens=False)["input_ids"]
    return [*before, *plain_ids([text], tokenizer)[0], *after]


def _lines(conversation: Conversation, prompt: Prompt) -> list[str]:
    lines = [
        prompt.line(turn.role, text) for turn in conversation.turns if (text := turn.text.strip())
    ]
    if not lines:
        raise NothingToSummarizeError(f"{conversation.source}: no turn has any text")
    return lines


def _not_surely_dropped(
    lines: list[str], characters: int, conversation: Conversation, max_tokens: int
) -> list[str]:
    """The lines that may fit, told by characters: a line of 50 MB would take minutes and gigabytes to tokenize."""
    if sum(map(len, lines)) <= characters:
        return lines
    head, tail = _kept_ends([len(line) for line in lines], characters)
    kept = [*lines[:head], *lines[len(lines) - tail :]]
    if sum(map(len, kept)) > characters:
        raise TooLongError(
            f"{conversation.source}: the first and the last of {len(lines)} turns alone have "
            f"{sum(map(len, kept))} characters, which never fit into {max_tokens} tokens"
        )
    return kept


def _pieces(
    conversation: Conversation, prompt: Prompt, tokenizer: Tokenizer, room: int
) -> Iterator[tuple[str, int, int]]:
    """Lines of at most `room` tokens: (line, 1 where a turn begins and 0 where one goes on, tokens)."""
    for turn in conversation.turns:
        waiting, begins = ([text] if (text := turn.text.strip()) else []), 1
        while waiting:
            text = waiting.pop()
            line = prompt.line(turn.role, text)
            whole = len(text) <= max(room, 1) * CHARACTERS_AT_ONCE
            cost = len(plain_ids([line + "\n"], tokenizer)[0]) if whole else room + 1
            if cost <= room:
                yield line, begins, cost
                begins = 0
            elif len(text) < 2:
                raise TooLongError(
                    f"{conversation.source}: {room} tokens beside the instruction hold no turn at all"
                )
            else:
                first, rest = _cut(
                    text, len(text) // 2 if whole else max(room, 1) * CHARACTERS_AT_ONCE
                )
                waiting += [rest, first] if rest else [first]


def _cut(text: str, place: int) -> tuple[str, str]:
    """The text in two, at the last space before `place`, or there if that is far away."""
    space = text.rfind(" ", place // 2, place + 1)
    place = space if space > 0 else place
    return text[:place].rstrip() or text[:place], text[place:].lstrip()


def _closed(
    group: list[tuple[str, int]], prompt: Prompt, tokenizer: Tokenizer, max_tokens: int
) -> list[EncodedPart]:
    """The group as one prompt; as two where tokens that join lines make it too long after all."""
    ids = _prompt_ids([line for line, _ in group], prompt, tokenizer)
    if len(ids) <= max_tokens or len(group) == 1:
        return [EncodedPart(ids, sum(begins for _, begins in group))]
    half = len(group) // 2
    return [
        part
        for some in (group[:half], group[half:])
        for part in _closed(some, prompt, tokenizer, max_tokens)
    ]


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
    rendered = _template(
        tokenizer, [{"role": "system", "content": system}, {"role": "user", "content": mark}]
    )
    if rendered is None or system not in rendered:
        rendered = _template(tokenizer, [{"role": "user", "content": f"{system}\n\n{mark}"}])
    if rendered is None or rendered.count(mark) != 1:
        raise ConfigError(
            "prompt.style is chat, but the chat template of model.base does not render a user's message"
        )
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
