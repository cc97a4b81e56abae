"""Quirks of chat templates: how to render one message, and where the answer to it begins and ends.

A template is a program that comes with a base. It is rendered within limits, and whatever it does
is the fault of the base. The rules here go by what a template renders, never by its name.
"""

import re
from collections.abc import Collection, Iterator
from typing import Any, NamedTuple

from job.errors import ConfigError
from job.model import Tokenizer
from job.model.bounded import BoundedError, call_bounded
from job.model.thoughts import THOUGHTS
from job.model.tokenizer_files import DEFAULT, no_template, undecided

TEXT = "conversation-goes-here"  # stand for texts while a template is rendered
ANSWER = "summary-goes-here"

# Templates that think are asked not to: a summary needs no thoughts. Others ignore the switches.
SWITCHES: dict[str, Any] = {
    # Qwen3, SmolLM3, GLM-4.5, EXAONE 4, ERNIE 4.5, Hunyuan, Nemotron 3, Gemma 4
    "enable_thinking": False,
    "thinking": False,  # DeepSeek-V3.1, Granite 3, Kimi K2.5
    "reasoning": False,  # Command A Reasoning
    "skip_reasoning": True,  # HyperCLOVA X SEED Think
    "thinking_budget": 0,  # Seed-OSS
    "reasoning_effort": "low",  # gpt-oss
    "reasoning_strength": "low",  # Muse
}
# The same name may have other values elsewhere, and a template may refuse a value.
FEWER_SWITCHES: tuple[dict[str, Any], ...] = ({"enable_thinking": False, "thinking": False}, {})

# A mark that THOUGHTS does not have: of another case, with attributes, or of a template's own.
TAG_OF_THOUGHTS = re.compile(
    r"<([\w:-]*(?:think|thought|reason|ponder|reflect|analysis|scratchpad)[\w:-]*)(?:\s[^<>]*)?>",
    re.IGNORECASE,
)

Message = dict[str, Any]

REMEDY = "use an instruct model with a chat template that works, or prompt.style: instruction"


class Chat(NamedTuple):
    """A chat as the template renders it: the texts around a user's text, and around the answer.

    `after` ends where the answer begins. `closing` follows the answer.
    """

    before: str
    after: str
    closing: str


def render_chat(system: str, tokenizer: Tokenizer) -> Chat:
    """Return the texts around a user's text that follows an instruction.

    Raise ConfigError if the tokenizer has no chat template that renders both.
    """
    if not tokenizer.chat_template:
        raise ConfigError(no_template("model.base"))
    named = tokenizer.chat_template
    if isinstance(named, dict) and DEFAULT not in named:
        raise ConfigError(undecided(list(named), "model.base"))
    try:
        return Chat(*call_bounded(lambda: _render(system, tokenizer)))
    except BoundedError as error:
        raise ConfigError(
            f"prompt.style is chat, but the chat template of model.base fails ({error}); {REMEDY}"
        ) from error


def closing_tokens(closing: str, tokenizer: Tokenizer, ends: Collection[int]) -> list[str]:
    """Return the control tokens with which a template ends an answer, up to one of `ends`.

    Gemma's `<end_of_turn>`, Phi-3's `<|end|>`: bases know these from every answer that they were
    trained on, and the tokenizer's end token from the end of documents. None if the generation
    would not stop there, or if the template ends an answer with text or not at all.
    """
    controls = set(tokenizer.get_added_vocab().values())
    ids: list[int] = []
    for id in tokenizer(closing, add_special_tokens=False)["input_ids"]:
        if id not in controls:
            return []
        ids.append(id)
        if id in ends:
            tokens: list[str] = tokenizer.convert_ids_to_tokens(ids)
            return tokens
    return []


def _render(system: str, tokenizer: Tokenizer) -> Chat:
    """Raise whatever the template raises; ValueError if it does not render a user's text."""
    messages, prompt = _messages_and_prompt(system, tokenizer)
    before, after = prompt.split(TEXT)

    content = ANSWER if isinstance(messages[-1]["content"], str) else _as_parts(ANSWER)
    answer = {"role": "assistant", "content": content}
    try:
        turns = _apply(tokenizer, [*messages, answer], add_generation_prompt=False)
    except Exception:
        turns = ""  # a template need not render answers
    opening, _, closing = turns.partition(ANSWER)
    return Chat(before, _complete(after, opening.partition(TEXT)[2]), closing)


def _messages_and_prompt(system: str, tokenizer: Tokenizer) -> tuple[list[Message], str]:
    """Return the first messages of which the template renders the instruction and the text."""
    altered = None
    failure: Exception = ValueError("it does not render a user's message")
    for messages in _forms(system):
        try:
            prompt = _apply(tokenizer, messages, add_generation_prompt=True)
        except Exception as error:
            failure = error
            continue
        if prompt.count(TEXT) != 1:
            continue
        # Stripped: many templates trim a message, also of the line end of a YAML block.
        if system.strip() in prompt:
            return messages, prompt
        # A template that alters texts, such as their quotes or spaces, still says what was meant.
        if len(messages) == 1 and altered is None:
            altered = messages, prompt
    if altered is None:
        raise failure
    return altered


def _forms(system: str) -> Iterator[list[Message]]:
    """Yield the ways to write an instruction and a text as messages, the best first.

    Gemma, and Mistral's first Instruct models, know no system message: their templates raise an
    error, or drop it silently, and the model would never see the instruction. There the instruction
    begins the user's message. Some multimodal templates (Idefics 3, LLaVA) read a message only as a
    list of parts, and drop a text silently.
    """
    joined = f"{system}\n\n{TEXT}"
    yield [_message("system", system), _message("user", TEXT)]
    yield [_message("user", joined)]
    yield [_message("system", _as_parts(system)), _message("user", _as_parts(TEXT))]
    yield [_message("user", _as_parts(joined))]


def _message(role: str, content: Any) -> Message:
    return {"role": role, "content": content}


def _as_parts(text: str) -> list[dict[str, str]]:
    return [{"type": "text", "text": text}]


def _apply(tokenizer: Tokenizer, messages: list[Message], add_generation_prompt: bool) -> str:
    """Render messages with as many switches as the template takes. Raise what it raises."""
    for switches in (SWITCHES, *FEWER_SWITCHES):
        try:
            rendered: str = tokenizer.apply_chat_template(
                messages,
                tokenize=False,
                add_generation_prompt=add_generation_prompt,
                **switches,
            )
        except Exception as error:
            failure = error
        else:
            return rendered
    raise failure


def _complete(after: str, opening: str) -> str:
    """Return the text after a user's text, up to where the answer proper begins.

    `after` is what the template renders for a model to continue, `opening` what it renders before
    an answer that is there. gpt-oss continues after `<|start|>assistant` and chooses a channel
    itself: the summary belongs into its channel `final`, which `opening` names.

    A space at the end stays out: the first token of most answers begins with it.

    DeepSeek-R1 and its distills open a thought whatever they are asked, and other templates begin
    it. It is closed at once, else the summary would be taught, and generated, as a thought.
    """
    if opening.startswith(after):
        after += opening[len(after) :].rstrip(" ")
    own = {tag[0]: f"</{tag[1]}>" for tag in TAG_OF_THOUGHTS.finditer(after)}
    for begin, end in (THOUGHTS | own).items():
        _, mark, thought = after.rpartition(begin)
        if mark and end not in thought:
            return after + ("\n" + end + "\n\n" if "\n" in thought else end)
    return after
