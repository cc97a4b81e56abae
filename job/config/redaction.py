"""The section that says which personal data no model is to read. Knows nothing of how it is found."""

import re
from typing import Literal

from pydantic import Field, field_validator

from job.config.sections import Section

Kind = Literal["email", "phone", "card", "iban", "ssn", "ip", "url", "handle"]
KINDS: list[Kind] = ["email", "phone", "card", "iban", "ssn", "ip", "url", "handle"]
PROBES = (
    "",
    "a",
    "a 1.",
)  # where a pattern that can match nothing does so: at a border of words, if nowhere else


class RedactionSection(Section):
    """Personal data that is replaced by placeholders before the model reads it."""

    kinds: list[Kind] = Field(
        default=KINDS,
        description="The kinds of personal data that are replaced. Cards and accounts (iban) are known by their "
        "checksum, phone numbers by the rules of their country, US social security numbers (ssn) by their shape.",
    )
    patterns: dict[str, str] = Field(
        default_factory=dict,
        description="Own patterns by name, in RE2's syntax, e.g. {order: 'ORD-[0-9]+'} for [ORDER_1].",
    )
    phone_region: str = Field(
        "US", description="Country (ISO 3166) of phone numbers written without its code."
    )

    @field_validator("patterns")
    @classmethod
    def _patterns_find_something(cls, patterns: dict[str, str]) -> dict[str, str]:
        import re2  # linear in the text, whatever the pattern: Python's own can take hours over one line

        quiet = re2.Options()
        quiet.log_errors = False
        for name, pattern in patterns.items():
            if not re.fullmatch(r"[a-z][a-z0-9_]{0,30}", name) or name in KINDS:
                raise ValueError(
                    f"'{name}' is no name of a pattern: wanted small letters, digits and _ (31 at most), and none of "
                    f"{', '.join(KINDS)}"
                )
            try:
                compiled = re2.compile(pattern, quiet)
            except re2.error as error:
                message = (
                    error.args[0].decode() if isinstance(error.args[0], bytes) else error.args[0]
                )
                raise ValueError(
                    f"{name}: not a pattern of RE2, which has no look-around and no back-references: {message}"
                ) from None
            if any(
                match.start() == match.end()
                for probe in PROBES
                for match in compiled.finditer(probe)
            ):
                raise ValueError(
                    f"{name}: matches the empty string, so it would replace nothing, everywhere"
                )
        return patterns

    @field_validator("phone_region")
    @classmethod
    def _region_is_known(cls, region: str) -> str:
        import phonenumbers

        if region not in phonenumbers.SUPPORTED_REGIONS:
            raise ValueError(
                f"'{region}' is no country with phone numbers: wanted two capital letters, like DE"
            )
        return region
