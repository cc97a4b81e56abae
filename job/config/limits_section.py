"""The section `limits` of a training config."""

from typing import Literal, Self

from pydantic import Field, model_validator

from job.config.sections import Section


class TrainLimitsSection(Section):
    """The limits beyond which a training ends with an error."""

    max_excluded_fraction: float = Field(
        0.01,
        ge=0,
        le=1,
        description="Maximum fraction of rows that cannot be made to fit into max_tokens. A run "
        "with more ends with an error.",
    )
    max_unreferenced_fraction: float = Field(
        0.5,
        ge=0,
        le=1,
        description="Maximum fraction of conversations without a reference summary, in train and "
        "in validation. They are left out with a warning. A run with more ends with an error.",
    )
    max_shortened_fraction: float | None = Field(
        None,
        ge=0,
        le=1,
        description="Maximum fraction of rows that lose turns to fit into max_tokens. A run with "
        "more ends with an error. null has no limit.",
    )
    max_cut_fraction: float | None = Field(
        None,
        ge=0,
        le=1,
        description="Maximum fraction of references that are longer than "
        "generation.max_new_tokens, so that the adapter learns summaries that are then cut. A run "
        "with more ends with an error. null has no limit.",
    )
    max_poor_fraction: float | None = Field(
        None,
        ge=0,
        le=1,
        description="Maximum fraction of references that have fewer than three words, or are "
        "those of another conversation, too. A run with more ends with an error. null has no "
        "limit.",
    )
    max_repeated_fraction: float | None = Field(
        None,
        ge=0,
        le=1,
        description="Maximum fraction of the conversations of train or validation that repeat "
        "another one of them, with the same words or nearly. A run with more ends with an error. "
        "null has no limit.",
    )
    grace_seconds: float = Field(
        25, gt=0, description="Maximum time from a stop signal to the end of every process."
    )
    spot_notice: str | None = Field(
        None,
        pattern="^https?://",
        description="URL that answers once this machine is about to be reclaimed. It is asked "
        "every 5 s, and an answer stops the run like a stop signal. On EC2 it is "
        "http://169.254.169.254/latest/meta-data/spot/instance-action. null is RECAP_SPOT_NOTICE "
        "of the environment, which infra/aws sets; without it, nothing is asked.",
    )
    stall_minutes: float = Field(
        30, gt=0, description="Maximum time without a training step. Then the run ends with 75."
    )
    rendezvous_minutes: float = Field(
        30,
        gt=0,
        description="Maximum time that the machines of one training wait for each other at the "
        "start. A machine that is started later must pull its image first. Then the run ends with "
        "75.",
    )
    max_silent_attempts: int | None = Field(
        3,
        ge=1,
        description="Maximum number of attempts in a row that are killed without a word and "
        "without a newer checkpoint, as where memory is too small. The next one ends with 64. "
        "null has no limit.",
    )
    upload_minutes: float = Field(
        10, gt=0, description="Maximum time for the upload of a checkpoint."
    )
    max_gradient_norm: float | None = Field(
        None,
        gt=0,
        description="Maximum norm of gradients before clipping. Divergence is a larger norm in "
        "divergence_steps steps in a row. null has no limit.",
    )
    divergence_steps: int = Field(
        5,
        ge=1,
        description="Number of steps in a row with a norm above max_gradient_norm that count as "
        "divergence.",
    )
    on_divergence: Literal["stop", "roll_back"] = Field(
        "stop",
        description="What to do if loss or gradients are NaN, infinite or too large. stop ends "
        "the run with 70. roll_back returns to the last checkpoint and goes on with half the "
        "learning rate, at most twice.",
    )

    @model_validator(mode="after")
    def _waiting_for_storage_is_no_stall(self) -> Self:
        if self.stall_minutes <= self.upload_minutes:
            raise ValueError(
                f"stall_minutes {self.stall_minutes:g} is not above upload_minutes "
                f"{self.upload_minutes:g}: no step is done while the training waits for a "
                "checkpoint's upload, so raise one or lower the other"
            )
        return self
