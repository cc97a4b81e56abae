"""The section `redaction` of a config: which personal data is replaced by placeholders."""

import re
from typing import Literal

from pydantic import Field, field_validator

from job.config.sections import Section

Kind = Literal["email", "phone", "card", "iban", "ssn", "ip", "url", "handle"]
KINDS: list[Kind] = ["email", "phone", "card", "iban", "ssn", "ip", "url", "handle"]
# Texts in which a pattern that can match the empty string does: at a border of words, at least.
PROBES = ("", "a", "a 1.")


class RedactionSection(Section):
    """Personal data that is replaced by placeholders before the model reads it."""

    kinds: list[Kind] = Field(
        default=KINDS,
        description="Kinds of personal data that are replaced. Cards and accounts (iban) are "
        "detected by their checksum, phone numbers by the rules of their country, and US social "
        "security numbers (ssn) by their shape.",
    )
    patterns: dict[str, str] = Field(
        default_factory=dict,
        description="Patterns of your own by name, in RE2's syntax. {order: 'ORD-[0-9]+'} makes "
        "[ORDER_1].",
    )
    phone_region: str = Field(
        "US",
        description="Country (ISO 3166) of phone numbers that are written without a country code.",
    )

    @field_validator("patterns")
    @classmethod
    def _patterns_find_something(cls, patterns: dict[str, str]) -> dict[str, str]:
        # RE2's time is linear in the text. Python's own engine can take hours for one line.
        import re2

        quiet = re2.Options()
        quiet.log_errors = False
        for name, pattern in patterns.items():
            if not re.fullmatch(r"[a-z][a-z0-9_]{0,30}", name) or name in KINDS:
                raise ValueError(
                    f"'{name}' is no name of a pattern: wanted small letters, digits and _ (31 at "
                    f"most), and none of {', '.join(KINDS)}"
                )
            try:
                compiled = re2.compile(pattern, quiet)
            except re2.error as error:
                message = error.args[0]
                if isinstance(message, bytes):
                    message = message.decode()
                raise ValueError(
                    f"{name}: not a pattern of RE2, which has no look-around and no "
                    f"back-references: {message}"
                ) from None
            found = [match for probe in PROBES for match in compiled.finditer(probe)]
            if any(match.start() == match.end() for match in found):
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
