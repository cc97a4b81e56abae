"""The section `data` of a config: how files are read as conversations, and what training reads.

`sections` has the sections that all commands share, and the rules for help texts.
"""

import codecs
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from job.config.patterns import Globs
from job.config.sections import Name, OneOrMoreNames, Section, Uris, as_list, to_plain

CleaningStep = Literal["links", "mentions", "signatures", "html_entities", "whitespace"]
# Keys that were added after some outputs were finished.
LATER_READING_KEYS = ("turns", "reference", "drop_roles", "csv")


class CsvSection(Section):
    """Form of the CSV and TSV files of the input."""

    delimiter: str | None = Field(
        None,
        description="Character between the cells. null detects the comma, tab, semicolon or "
        "vertical bar in the header.",
    )
    escape: str | None = Field(
        None,
        description="Character before a quote that belongs to a cell. Spark, Athena and MySQL "
        "write a backslash. null means that such quotes are doubled.",
    )
    encoding: str = Field(
        "utf-8",
        description="Python's name of the encoding, such as cp1252 or latin-1. UTF-16 with a "
        "byte order mark is detected. JSON is always read as UTF-8 or UTF-16.",
    )

    @field_validator("delimiter", "escape")
    @classmethod
    def _is_one_character(cls, value: str | None) -> str | None:
        if value is not None and (len(value) != 1 or value in '"\r\n'):
            raise ValueError("wanted one character that is neither a quote nor a line break")
        return value

    @field_validator("encoding")
    @classmethod
    def _is_an_encoding_of_text(cls, value: str) -> str:
        try:
            "".encode(value)  # fails for codecs of Python that are not of text, such as base64
            return codecs.lookup(value).name
        except (LookupError, ValueError) as error:
            raise ValueError(
                "is no encoding that Python knows; cp1252, latin-1, utf-16-le and shift_jis are "
                "some"
            ) from error

    @model_validator(mode="after")
    def _escape_is_no_delimiter(self) -> Self:
        if self.escape is not None and self.escape == self.delimiter:
            raise ValueError("delimiter and escape are the same character")
        return self


class ReadingSection(Section):
    """Reading of files as conversations."""

    format: Literal[
        "auto",
        "recap",
        "messages",
        "sharegpt",
        "dialogstudio",
        "qmsum",
        "mediasum",
        "zendesk",
        "intercom",
        "table",
        "transcript",
    ] = Field("auto", description="Format of the files. auto detects it by the content.")
    columns: dict[Literal["id", "conversation", "summary"], OneOrMoreNames] = Field(
        default_factory=dict,
        description="Names of columns or keys. The defaults are `id`; `dialogue`, `conversation` "
        "or `transcript`; and `summary`. A list names several summaries: {summary: [summary1, "
        "summary2]}.",
    )
    turns: dict[Literal["list", "role", "text"], Name] = Field(
        default_factory=dict,
        description="Keys of a list of turns in a form that recap does not know: of the list "
        "itself, and of the speaker and the text in each turn. Dots join a path: {list: "
        "chat.events, role: author.type, text: body}.",
    )
    reference: Literal["summary", "last_assistant"] = Field(
        "summary",
        description="Where a chat has its reference summary: under `summary` (or the key that "
        "columns names), or in its last message, by the assistant, which is then not a turn.",
    )
    roles: dict[str, Literal["customer", "agent", "system"]] | Literal["as_written"] = Field(
        default_factory=dict,
        description="Other names of roles, such as {bot: agent}. as_written keeps every label as "
        "it is.",
    )
    drop_roles: list[Name] = Field(
        [],
        description="Speakers whose turns are dropped, such as [tool, developer, system]. A "
        "label or its role matches, in upper or lower case.",
    )
    cleaning: list[CleaningStep] | Literal["auto", "tweets"] = Field(
        "auto",
        description="Cleaning steps in order. tweets is all of them, in the order links, "
        "mentions, signatures, html_entities, whitespace. auto is tweets for TweetSumm and "
        "whitespace for other data. [] changes nothing.",
    )
    csv: CsvSection = CsvSection()
    include: Globs = Field(
        [],
        description="Patterns of the files to read below a folder or prefix, such as "
        "'*.jsonl.gz' or 'calls/**'. [] reads all files. A file that the input names itself is "
        "always read.",
    )
    exclude: Globs = Field(
        [],
        description="Patterns of the files below a folder or prefix that are not read.",
    )

    @model_validator(mode="after")
    def _keys_are_clear(self) -> Self:
        several = [
            use for use, name in self.columns.items() if use != "summary" and isinstance(name, list)
        ]
        if several:
            raise ValueError(f"columns.{several[0]} is a list; only summary may be several columns")
        if "list" in self.turns and self.format != "auto":
            raise ValueError(
                f"turns.list names the list of turns, which format: {self.format} looks for "
                "elsewhere: remove format, or turns.list"
            )
        return self

    @property
    def summary_columns(self) -> list[str]:
        """The columns or keys of the reference summaries."""
        return as_list(self.columns.get("summary", "summary"))

    def column(self, use: Literal["id", "conversation"]) -> str | None:
        """The name that `columns` gives for the id or the conversation."""
        name = self.columns.get(use)
        assert not isinstance(name, list)  # checked when the config was read
        return name


class DataSection(ReadingSection):
    """The conversations to train on and to validate on, and how they are read."""

    columns: dict[
        Literal["id", "conversation", "summary", "chosen", "rejected", "completion", "label"],
        OneOrMoreNames,
    ] = Field(  # type: ignore[assignment]
        default_factory=dict,
        description="Names of columns or keys. The defaults are `id`; `dialogue`, `conversation` "
        "or `transcript`; and `summary`. A list names several summaries: {summary: [summary1, "
        "summary2]}. Pairs have `chosen` and `rejected` (method: dpo), and thumbs `completion` and "
        "`label` (method: kto).",
    )
    train: Uris = Field(
        description="Conversations to train on: a file, a prefix, hf://datasets/…, or a list of "
        "them."
    )
    validation: Uris | None = Field(
        None,
        description="Conversations to validate on, named like those of train. null holds out "
        "validation_fraction of train.",
    )
    test: Uris | None = Field(
        None,
        description="Conversations with reference summaries that score the adapter at the end, "
        "named like those of train. null scores those of validation. Thumbs have no references: "
        "with method: kto, there are no scores without test. With method: reward, it has pairs.",
    )
    validation_fraction: float = Field(
        0.1,
        gt=0,
        lt=1,
        description="Fraction of the training conversations that is held out if validation is "
        "null.",
    )
    replay: Uris | None = Field(
        None,
        description="Earlier conversations that are learned again beside those of train, against "
        "forgetting. They are named and read like those of train. What repeats a conversation of "
        "train, or one that judges the adapter, is left out.",
    )
    replay_share: float = Field(
        0.2,
        gt=0,
        lt=1,
        description="Fraction of the rows of an epoch that are of replay. Which of its "
        "conversations are chosen depends on their content and training.seed.",
    )
    references: Literal["first", "all"] = Field(
        "all",
        description="Train on the first reference summary of each conversation, or on all of "
        "them, with a row for each.",
    )
    overlap: Literal["error", "drop", "allow"] = Field(
        "error",
        description="What to do if a validation conversation is in train too: end with an error, "
        "drop it from train, or allow it.",
    )


def reading_identity(reading: ReadingSection) -> dict[str, Any]:
    """Return the section as plain types, without LATER_READING_KEYS that have their default.

    An output that was finished before such a key existed has the same identity as one of today.
    """
    fields, plain = type(reading).model_fields, to_plain(reading)
    for key in LATER_READING_KEYS:
        if getattr(reading, key) == fields[key].get_default(call_default_factory=True):
            del plain[key]
    return plain
