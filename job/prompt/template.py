"""The text around a conversation in a prompt, and the file that keeps it with an adapter.

It is rendered once, when a run begins, and travels with the adapter as prompt.json: a later chat
template, library or date changes nothing.
"""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import ClassVar

from pydantic import ConfigDict, TypeAdapter, ValidationError

from job.config.data_sections import CleaningStep
from job.config.sections import PromptSection
from job.errors import ConfigError, DamagedError
from job.identity import json_digest
from job.model import Tokenizer
from job.model.families import render_chat
from job.model.tokenizer_files import DEFAULT, undecided

FILE = "prompt.json"
MARK = "conversation-goes-here"  # stands for the conversation while a chat template is rendered

REMEDY = (
    "this is no adapter that recap trained; give the config a prompt section and model.base, or "
    "train the adapter with recap"
)


@dataclass(frozen=True)
class Prompt:
    """The text around a conversation, and the names of its roles.

    With `control_tokens`, `before` and `after` contain the base's control tokens (style chat).
    `labels` name roles. `cleaning` are the steps that every conversation goes through before it is
    encoded, so that training and summarizing see the same text.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid", strict=True)

    before: str
    after: str
    control_tokens: bool
    labels: dict[str, str]
    cleaning: tuple[CleaningStep, ...]

    def line(self, role: str, text: str) -> str:
        """Return a turn as it is written in the prompt."""
        return f"{self.labels.get(role, role)}: {text}"


def make_prompt(
    section: PromptSection,
    tokenizer: Tokenizer,
    cleaning: Iterable[CleaningStep] = (),
) -> Prompt:
    """Render the text around a conversation; raise ConfigError if the tokenizer cannot serve."""
    if tokenizer.eos_token_id is None:
        raise ConfigError(
            "model.base: its tokenizer has no end-of-sequence token, so no summary could ever end"
        )
    if section.style == "instruction":
        before = f"### Instruction: {section.system}\n\n### Input:\n"
        after = "\n\n### Response:\n"
    else:
        before, after = _chat_around_conversation(section.system, tokenizer)
    return Prompt(before, after, section.style == "chat", dict(section.labels), tuple(cleaning))


def prompt_digest(prompt: Prompt) -> str:
    """Return the digest over all that a prompt consists of."""
    return json_digest(asdict(prompt))


def prompt_text(prompt: Prompt) -> str:
    """Return the content of prompt.json."""
    return json.dumps(asdict(prompt), ensure_ascii=False, indent=2) + "\n"


def parse_prompt(content: bytes, folder: str, remedy: str) -> Prompt:
    """Return the prompt in prompt.json; raise DamagedError, with the remedy, if it is none."""
    try:
        return TypeAdapter(Prompt).validate_json(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "JSON"
        raise DamagedError(
            f"{folder}: {FILE} is unreadable ({where}: {first['msg']}): {remedy}"
        ) from error


def write_prompt(folder: Path, prompt: Prompt) -> None:
    """Write prompt.json in an adapter's folder."""
    (folder / FILE).write_text(prompt_text(prompt), encoding="utf-8")


def read_prompt(folder: Path) -> Prompt:
    """Return the prompt that an adapter was trained with.

    Raise DamagedError if its folder has none, or one that cannot be read.
    """
    file = folder / FILE
    if not file.is_file():
        raise DamagedError(f"{folder}: {FILE} is missing: {REMEDY}")
    return parse_prompt(file.read_bytes(), str(folder), REMEDY)


def _chat_around_conversation(system: str, tokenizer: Tokenizer) -> tuple[str, str]:
    """Return the text before and after the conversation by the base's chat template."""
    if not tokenizer.chat_template:
        raise ConfigError(
            "prompt.style is chat, but the tokenizer of model.base has no chat template: "
            "use an instruct model, or prompt.style: instruction"
        )
    named = tokenizer.chat_template
    if isinstance(named, dict) and DEFAULT not in named:
        raise ConfigError(undecided(list(named), "model.base"))
    rendered = render_chat(system, MARK, tokenizer)
    if rendered is None or rendered.count(MARK) != 1:
        raise ConfigError(
            "prompt.style is chat, but the chat template of model.base does not render a user's "
            "message"
        )
    before, after = rendered.split(MARK)
    return before, after
