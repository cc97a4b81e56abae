"""The sections of `recap feedback`: how rows of verdicts are read, and how rows are held out.

Help texts are whole sentences. They are the source of docs/configuration.md and of the JSON Schema.
"""

import re
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from job.config.data_sections import CsvSection
from job.config.sections import LARGEST_SEED, Name, Section

VerdictField = Literal["id", "digest", "verdict", "edited", "reason", "by", "at"]
# -1 as databases, pandas and spreadsheets write it: -1.0, "-1.00", "-1,0", with a minus sign.
WHOLE_NUMBER = re.compile(r"([-+\u2212]?)(\d{1,18})(?:\.0*|,0{1,2})?")


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
        "{good: up, bad: down, skipped: none}. up and down mean themselves. true, t and 1 are up. "
        "false, f, 0 and -1 are down. Numbers are the same with zeros behind the point.",
    )
    csv: CsvSection = CsvSection()

    @model_validator(mode="after")
    def _each_name_is_of_one_field(self) -> Self:
        named = [self.name_of(field) for field in ("id", "digest", "verdict", "edited")]
        for name in named:
            if named.count(name) > 1:
                raise ValueError(f"names gives '{name}' to two fields: name each key once")
        return self

    @model_validator(mode="after")
    def _each_value_has_one_meaning(self) -> Self:
        seen: dict[str, str] = {}
        for value in self.values:
            other = seen.setdefault(verdict_word(value), value)
            if other != value:
                raise ValueError(
                    f"values has '{other}' and '{value}', which are the same value, as case does "
                    "not count, and 1.0 is 1: keep one"
                )
        return self

    def name_of(self, field: VerdictField) -> str:
        """Return the key or column of a field."""
        return self.names.get(field, field)


def verdict_word(value: Any) -> str:
    """Return a value of the verdict for comparison: text without case, and 1 for 1.0 and "+1"."""
    word = str(value).strip().casefold()
    found = WHOLE_NUMBER.fullmatch(word)
    if found is None:
        return word
    sign, digits = found.groups()
    number = int(digits) if sign in ("", "+") else -int(digits)
    return str(number)


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
