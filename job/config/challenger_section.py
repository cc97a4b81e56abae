"""The section `challenger` of a night: an adapter beside the champion, and the records it gets."""

from typing import Literal, Self

from pydantic import Field, model_validator

from job.config.sections import LARGEST_SEED, Section, Uri
from job.config.serving_section import AdapterDigest

ONE_MERGED_ADAPTER = (
    "adapter_weights: merged leaves a base that serves one adapter alone, and challenger is set: "
    "set adapter_weights: separate, or remove challenger"
)


class ChallengerSection(Section):
    """An adapter that is tried beside the one that serves, on the same base and by one engine.

    Exactly one of shadow and canary is set.
    """

    adapter: Uri = Field(
        description="Folder, s3:// prefix or Hub id of the challenger, or a pointer (a file that "
        "ends in .json), which a night resolves once. It must be an adapter for the same base."
    )
    adapter_digest: AdapterDigest | None = Field(
        None,
        description="Digest of the challenger, or its first 12 or more digits. A challenger with "
        "another digest ends the run with 65.",
    )
    shadow: float | None = Field(
        None,
        gt=0,
        le=1,
        description="Fraction of the conversations that the challenger summarizes, too. Its "
        "lines are in shadow.jsonl beside the summaries, and are never delivered.",
    )
    canary: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="Fraction of the conversations that the challenger summarizes in place of the "
        "adapter. Each line names the adapter that wrote it.",
    )
    seed: int = Field(
        0,
        ge=0,
        le=LARGEST_SEED,
        description="Seed of the choice. The id of a conversation and the seed decide whether it "
        "is chosen, in each night.",
    )

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if (self.shadow is None) == (self.canary is None):
            raise ValueError(
                "exactly one of shadow and canary must be set: shadow writes a second summary that "
                "nobody reads, canary replaces the adapter's summary"
            )
        return self

    @property
    def mode(self) -> Literal["shadow", "canary"]:
        """The way in which the challenger is tried."""
        return "canary" if self.shadow is None else "shadow"

    @property
    def share(self) -> float:
        """The fraction of the conversations that it gets."""
        share = self.canary if self.shadow is None else self.shadow
        assert share is not None, "one of them is set"
        return share
