"""The sections of `recap feedback`: how rows of verdicts are read, and how rows are held out.

Help texts are whole sentences. They are the source of docs/configuration.md and of the JSON Schema.
"""

from typing import Literal, Self

from pydantic import Field, model_validator

from job.config.data_sections import CsvSection
from job.config.sections import LARGEST_SEED, Name, Section

VerdictField = Literal["id", "digest", "verdict", "edited", "reason", "by", "at"]


class FieldsSection(Section):
    """Reading of the files of verdicts: names of keys or columns, and what their values mean."""

    names: dict[VerdictField, Name] = Field(
        default_factory=dict,
        description="Names of keys or columns. The defaults are id, digest, verdict, edited, "
        "reason, by and at. Dots join a path in JSON: {verdict: rating.value}.",
    )
    values: dict[Name, Literal["up", "down", "none"]] = Field(
        default_factory=dict,
        description="Meaning of other values of the verdict, in upper or lower case, such as "
        "{good: up, bad: down, skipped: none}. up and down mean themselves, and so do true and "
        "false, 1, -1 and 0, which is down.",
    )
    csv: CsvSection = CsvSection()

    @model_validator(mode="after")
    def _each_name_is_of_one_field(self) -> Self:
        named = [self.name_of(field) for field in ("id", "digest", "verdict", "edited")]
        for name in named:
            if named.count(name) > 1:
                raise ValueError(f"names gives '{name}' to two fields: name each key once")
        return self

    def name_of(self, field: VerdictField) -> str:
        """Return the key or column of a field."""
        return self.names.get(field, field)


class FeedbackSplitSection(Section):
    """The rows that are held out of training. No two sides share a conversation."""

    test_weeks: int = Field(
        1,
        ge=0,
        description="Number of the newest weeks with an edit that become the test set. Training "
        "has neither these weeks nor a conversation that occurs in them. Where edits are of too "
        "few weeks, it is the newest weeks with any verdict, and where these are too few, there is "
        "no test set.",
    )
    validation_fraction: float = Field(
        0.1,
        ge=0,
        lt=1,
        description="Fraction of the other conversations that becomes the validation set. A "
        "conversation stays on its side when more data arrives. 0 holds none out.",
    )
    seed: int = Field(
        0, ge=0, le=LARGEST_SEED, description="Seed of the choice of validation conversations."
    )


class FeedbackLimitsSection(Section):
    """The limits beyond which a join ends with an error, and nothing is written."""

    max_unmatched_fraction: float = Field(
        0.5,
        ge=0,
        le=1,
        description="Maximum fraction of rows that join no summary or no conversation. A file with "
        "more ends with 65: most often a field has another name. Rows of summaries that nobody "
        "judged, and rows that a later one replaced, do not count.",
    )
    min_verdicts: int = Field(
        1,
        ge=0,
        description="Minimum number of rows with a verdict or an edit in the files of verdicts. "
        "Fewer end with 66.",
    )
