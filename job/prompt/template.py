"""The text around a conversation in a prompt, and the file that keeps it with an adapter.

It is rendered once, when a run begins, and travels with the adapter as prompt.json: a later chat
template, library or date changes nothing.
"""

import json
from collections.abc import Collection, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import ClassVar

from pydantic import ConfigDict, TypeAdapter, ValidationError

from job.config.data_sections import CleaningStep
from job.config.sections import PromptSection
from job.errors import ConfigError, DamagedError
from job.identity import json_digest
from job.model import Tokenizer
from job.model.chat import closing_tokens, render_chat
from job.model.control_tokens import begin_tokens

FILE = "prompt.json"
# Around the instruction of the style of this name.
INSTRUCTION = "### Instruction: "
INPUT = "\n\n### Input:\n"

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

    `begin` are the control tokens in front of a prompt without control tokens of its own: None, in
    adapters of earlier versions, means the tokenizer's begin token if it has one. `end` are those
    that end an answer in training: none means the tokenizer's end token.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid", strict=True)

    before: str
    after: str
    control_tokens: bool
    labels: dict[str, str]
    cleaning: tuple[CleaningStep, ...]
    begin: tuple[str, ...] | None = None
    end: tuple[str, ...] = ()

    def line(self, role: str, text: str) -> str:
        """Return a turn as it is written in the prompt."""
        return f"{self.labels.get(role, role)}: {text}"


def make_prompt(
    section: PromptSection,
    tokenizer: Tokenizer,
    cleaning: Iterable[CleaningStep] = (),
    ends: Collection[int] = (),
) -> Prompt:
    """Render the text around a conversation; raise ConfigError if the tokenizer cannot serve.

    `ends` are the ids that end an answer of the base, besides the tokenizer's end token. They are
    needed to train only.
    """
    if tokenizer.eos_token_id is None:
        raise ConfigError(
            "model.base: its tokenizer has no end-of-sequence token, so no summary could ever end"
        )
    if section.style == "instruction":
        return Prompt(
            before=f"{INSTRUCTION}{section.system}{INPUT}",
            after="\n\n### Response:\n",
            control_tokens=False,
            labels=dict(section.labels),
            cleaning=tuple(cleaning),
            begin=tuple(begin_tokens(tokenizer)),
        )
    chat = render_chat(section.system, tokenizer)
    return Prompt(
        before=chat.before,
        after=chat.after,
        control_tokens=True,
        labels=dict(section.labels),
        cleaning=tuple(cleaning),
        begin=(),
        end=tuple(closing_tokens(chat.closing, tokenizer, ends)),
    )


def instruction_of(prompt: Prompt) -> str | None:
    """Return the instruction in a prompt of that style; None of one by a chat template."""
    before = prompt.before
    if prompt.control_tokens or not (before.startswith(INSTRUCTION) and before.endswith(INPUT)):
        return None
    return before.removeprefix(INSTRUCTION).removesuffix(INPUT)


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
