"""The facts of a model card besides the scores, and how text stands in one.

No text of a conversation goes into a card: it may be public, where the data may not be.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import yaml

from job.config.commands import TrainConfig
from job.evaluation.gate import GateResult
from job.model.license import License
from job.model.quantization import WeightsInMemory
from job.printable import visible
from job.prompt.template import Prompt

HUB_DATASETS = "hf://datasets/"
# What may begin markup within a line: also a link or an image, and emphasis at the edge of a word.
MARKUP = re.compile(r"[\\`*|]|~~|\](?=[(\[:])|(?<!\w)_|_(?!\w)")


@dataclass(frozen=True)
class Split:
    """Conversations that a run used.

    `name` is train or validation, `digest` that of the content.
    """

    name: str
    uris: Sequence[str]
    conversations: int
    digest: str


@dataclass(frozen=True)
class MergedFacts:
    """Merged weights: their dtype, and in a sentence how they agree with the adapter."""

    dtype: str
    agreement: str


@dataclass(frozen=True)
class CardFacts:
    """The facts of a card besides the scores.

    `base` is `Base.identity()`: uri, revision (only of a Hub id) and digest. The scores are those
    of the last of `splits`. `ends` are the ids of tokens that end a summary.
    """

    config: TrainConfig
    base: Mapping[str, Any]
    prompt: Prompt
    splits: Sequence[Split]
    versions: Mapping[str, str]
    ends: Sequence[int]
    weights: WeightsInMemory | None = None  # of the base in training
    license: License | None = None
    reload: str | None = None  # how it was reloaded before it was published, in a sentence
    gate: GateResult | None = None
    merged: MergedFacts | None = None  # of a card of merged weights, not of an adapter
    reward: Sequence[str] | None = None  # what a reward model is worth, in sentences
    start: str | None = None  # the adapter that the training started from, after `from the`

    @property
    def base_name(self) -> str:
        """The base as a person names it: a Hub id, a location or a folder."""
        return str(self.base["uri"]).removeprefix("hf://")

    @property
    def is_base_on_hub(self) -> bool:
        """True if the base has a commit, which only a Hub id has."""
        return bool(self.base.get("revision"))


def data_name(uri: str) -> str:
    """Return a Hub dataset's id, or the last part of a path.

    The card may be public, and names of buckets need not be.
    """
    if uri.startswith(HUB_DATASETS):
        return "/".join(uri.removeprefix(HUB_DATASETS).split("/")[:2])
    return uri.rstrip("/").rsplit("/", 1)[-1]


def text_of(text: str) -> str:
    """Return text for a line of Markdown, in which no markup and no HTML begins."""
    return MARKUP.sub(r"\\\g<0>", escape(visible(text, one_line=True), quote=False))


def code_of(text: str) -> str:
    """Return text as a span of code, in which a backtick becomes an apostrophe."""
    return f"`{visible(text, one_line=True).replace('`', chr(39))}`"


def fenced(language: str, text: str) -> str:
    """Return text as a block of code that nothing in the text can end."""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{text.rstrip()}\n{fence}"


def yaml_of(content: Mapping[str, Any]) -> str:
    """Return YAML in the order of the keys."""
    text: str = yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=1000)
    return text
