"""The section `data` of a config: how files are read as conversations, and what training reads.

`sections` has the sections that all commands share, and the rules for help texts.
"""

import codecs
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from job.config.patterns import Globs
from job.config.sections import Name, OneOrMoreNames, Section, Uris, as_list, to_plain

CleaningStep = Literal["links", "mentions", "signatures", "html_entities", "whitespace"]
# Reading keys that are younger than some finished outputs.
LATER_READING_KEYS = ("turns", "reference", "drop_roles", "csv")


class CsvSection(Section):
    """How the CSV and TSV files of the input are written."""

    delimiter: str | None = Field(
        None,
        description="Character that separates the cells. null takes the comma, tab, semicolon or "
        "vertical bar that the header is separated by.",
    )
    escape: str | None = Field(
        None,
        description="Character that makes a quote behind it part of the cell. Spark, Athena and "
        "MySQL write a backslash. null means that quotes are doubled.",
    )
    encoding: str = Field(
        "utf-8",
        description="Python's name of the encoding, such as cp1252 or latin-1. A file in UTF-16 "
        "with a byte order mark is recognized, and JSON is always read as UTF-8 or UTF-16.",
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
            "".encode(value)  # fails for codecs that Python has but that are none of text: base64
            return codecs.lookup(value).name
        except (LookupError, ValueError) as error:
            raise ValueError(
                "is no encoding that Python knows; cp1252, latin-1, utf-16-le and shift_jis are some"
            ) from error

    @model_validator(mode="after")
    def _escape_is_no_delimiter(self) -> Self:
        if self.escape is not None and self.escape == self.delimiter:
            raise ValueError("delimiter and escape are the same character")
        return self


class ReadingSection(Section):
    """How files are read as conversations."""

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
    ] = Field("auto", description="Format of the files; auto looks at the content.")
    columns: dict[Literal["id", "conversation", "summary"], OneOrMoreNames] = Field(
        default_factory=dict,
        description="Columns or keys by name; by default `id`, `dialogue` (or `conversation`, "
        "`transcript`), `summary`. Several summaries are a list: {summary: [summary1, summary2]}.",
    )
    turns: dict[Literal["list", "role", "text"], Name] = Field(
        default_factory=dict,
        description="Keys of a list of turns that recap does not know: the list's, and in each "
        "turn the speaker's and the text's; a path is joined by dots, e.g. {list: chat.events, "
        "role: author.type, text: body}.",
    )
    reference: Literal["summary", "last_assistant"] = Field(
        "summary",
        description="Where chats have their reference: under `summary` (or what columns names), or "
        "as the last message, by the assistant, which then is no turn.",
    )
    roles: dict[str, Literal["customer", "agent", "system"]] | Literal["as_written"] = Field(
        default_factory=dict,
        description="Other names of roles, e.g. {bot: agent}; as_written keeps any label.",
    )
    drop_roles: list[Name] = Field(
        [],
        description="Turns of these speakers are left out, e.g. [tool, developer, system]: labels "
        "as they are written, or roles that labels stand for, in upper or lower case.",
    )
    cleaning: list[CleaningStep] | Literal["auto", "tweets"] = Field(
        "auto",
        description="Cleaning steps in order; tweets is the classic set (links, mentions, signatures, html_entities, "
        "whitespace); auto is tweets for TweetSumm and whitespace elsewhere; [] changes nothing.",
    )
    csv: CsvSection = CsvSection()
    include: Globs = Field(
        default_factory=list,
        description="Patterns of the files to read below a folder or prefix, e.g. '*.jsonl.gz' or 'calls/**'; [] is "
        "all. A file that is named itself is always read.",
    )
    exclude: Globs = Field(
        default_factory=list,
        description="Patterns of files below a folder or prefix that are left out.",
    )

    @model_validator(mode="after")
    def _keys_are_clear(self) -> Self:
        several = [use for use in ("id", "conversation") if isinstance(self.columns.get(use), list)]
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
        """The columns or keys of the references."""
        return as_list(self.columns.get("summary", "summary"))

    def column(self, use: Literal["id", "conversation"]) -> str | None:
        """The name that `columns` gives for the id or the conversation."""
        name = self.columns.get(use)
        assert not isinstance(name, list)  # checked when the config was read
        return name


class DataSection(ReadingSection):
    """The conversations to learn from and to validate on."""

    train: Uris = Field(description="File, prefix, list of them, or hf://datasets/… to train on.")
    validation: Uris | None = Field(
        None, description="The same to validate on; null holds out validation_fraction."
    )
    validation_fraction: float = Field(
        0.1,
        gt=0,
        lt=1,
        description="Share of the training conversations held out when validation is null.",
    )
    references: Literal["first", "all"] = Field(
        "all",
        description="Train on each conversation's first reference summary, or on all (a row each).",
    )
    overlap: Literal["error", "drop", "allow"] = Field(
        "error",
        description="Conversations of validation that also stand in train: an error, dropped from train, or allowed.",
    )


def reading_identity(reading: ReadingSection) -> dict[str, Any]:
    """Return the section as plain types, without later keys that have their default.

    An output that was finished before such a key existed has the same identity as one of today.
    """
    fields, plain = type(reading).model_fields, to_plain(reading)
    for key in LATER_READING_KEYS:
        if getattr(reading, key) == fields[key].get_default(call_default_factory=True):
            del plain[key]
    return plain
