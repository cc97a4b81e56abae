"""The keys of `generation` that only a night has: candidates of each summary, and their judge."""

from typing import Self

from pydantic import Field, model_validator

from job.config.sections import GenerationSection, RewardModelSection
from job.config.serving_section import AdapterDigest


class NightRewardModelSection(RewardModelSection):
    """The reward model of a night, on a base of its own."""

    adapter_digest: AdapterDigest | None = Field(
        None,
        description="Digest of the reward model, or its first 12 or more digits. A reward model "
        "with another digest ends the run with 65.",
    )


class NightGenerationSection(GenerationSection):
    """Generation of the summaries of a night."""

    candidates: int = Field(
        1,
        ge=1,
        le=64,
        description="Number of summaries that are drawn for each conversation. The one that the "
        "reward model scores highest is written. Each costs as much as a summary. It needs a "
        "temperature above 0.",
    )
    reward_model: NightRewardModelSection | None = Field(
        None,
        description="Reward model that chooses among the candidates. null is for one candidate.",
    )

    @model_validator(mode="after")
    def _candidates_differ_and_are_judged(self) -> Self:
        if self.candidates == 1:
            if self.reward_model is not None:
                raise ValueError(
                    "reward_model chooses among several candidates, and candidates is 1: set "
                    "candidates: 4, or remove reward_model"
                )
            return self
        if self.reward_model is None:
            raise ValueError(
                f"candidates: {self.candidates} needs a reward model that chooses one of them: set "
                "reward_model.adapter, or remove candidates"
            )
        if self.temperature == 0:
            raise ValueError(
                f"candidates: {self.candidates} would all be the same at temperature: 0: set "
                "temperature: 0.7 here (that of the adapter does not count), or remove candidates "
                "and reward_model"
            )
        return self
