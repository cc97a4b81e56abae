"""The sections of a training config alone: adapter, optimization, publication, limits.

The help lines are the source of docs/configuration.md, as in `sections`. Knows nothing of how they are used.
"""

import re
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from job.config.sections import LARGEST_SEED, Name, Section


class LoraSection(Section):
    """The adapter that is trained."""

    r: int = Field(16, ge=1, description="Rank.")
    alpha: int = Field(
        32, ge=1, description="Scale; the adapter's output is multiplied by alpha / r."
    )
    variant: Literal["lora", "rslora", "dora"] = Field(
        "lora",
        description="Plain LoRA; rslora scales by alpha / √r, for high ranks; dora learns magnitude and direction "
        "apart, which is slower.",
    )
    dropout: float = Field(0.05, ge=0, lt=1, description="Dropout on the adapter's input.")
    target_modules: Literal["all-linear"] | Annotated[list[Name], Field(min_length=1)] = Field(
        "all-linear",
        description="Modules that get an adapter: all linear layers but the head, or names.",
    )


class TrainingSection(Section):
    """The optimization."""

    epochs: float = Field(3, gt=0, description="Passes over the training rows.")
    max_steps: int | None = Field(
        None, ge=1, description="Stop after so many optimizer steps; null is by epochs."
    )
    learning_rate: float = Field(2e-4, gt=0, le=1, description="Peak learning rate.")
    batch_size: int = Field(4, ge=1, description="Rows per device and forward pass.")
    gradient_accumulation_steps: int = Field(
        4, ge=1, description="Forward passes per optimizer step."
    )
    max_tokens: int = Field(
        2048, ge=16, description="Tokens of a row at most; longer conversations lose middle turns."
    )
    optimizer: Literal[
        "adamw_torch", "adamw_torch_fused", "paged_adamw_32bit", "paged_adamw_8bit", "adamw_8bit"
    ] = Field(
        "adamw_torch",
        description="Optimizer; LoRA's states are small, so plain AdamW costs little memory.",
    )
    scheduler: Literal["cosine", "linear", "constant", "constant_with_warmup"] = Field(
        "cosine", description="Learning rate schedule after the warmup."
    )
    warmup_ratio: float = Field(
        0.05,
        ge=0,
        lt=1,
        description="Share of the steps in which the rate rises. The first step has rate 0.",
    )
    weight_decay: float = Field(0.0, ge=0, description="Weight decay.")
    max_grad_norm: float = Field(1.0, gt=0, description="Gradients are clipped to this norm.")
    packing: bool = Field(False, description="Pack several rows into one of max_tokens.")
    group_by_length: bool = Field(
        True, description="Batch rows of similar length, which saves padding."
    )
    activation_checkpointing: bool | Literal["auto"] = Field(
        "auto",
        description="Recompute activations to save memory; auto is on with a GPU, off without.",
    )
    save_every_steps: int | None = Field(
        None, ge=1, description="Checkpoint every so many optimizer steps."
    )
    save_every_epochs: float | None = Field(
        None, gt=0, description="The same in epochs; with neither, every half epoch."
    )
    evaluate_every_steps: int | None = Field(
        None, ge=1, description="Validation loss every so many optimizer steps."
    )
    evaluate_every_epochs: float | None = Field(
        None, gt=0, description="The same in epochs; with neither, every half epoch."
    )
    log_every_steps: int = Field(
        10, ge=1, description="Loss, rate, gradient norm and speed every so many steps."
    )
    keep_last: int = Field(2, ge=1, description="Checkpoints that are kept.")
    adapter_from: Literal["last_step", "best_evaluation"] = Field(
        "last_step",
        description="Which adapter comes out: of the last step, or of the evaluation with the smallest loss.",
    )
    patience: int | None = Field(
        None,
        ge=1,
        description="Stop after so many evaluations in a row without a smaller validation loss; null: never.",
    )
    sample_summaries: int = Field(
        3,
        ge=0,
        description="Validation conversations summarized for TensorBoard at each evaluation.",
    )
    seed: int = Field(42, ge=0, le=LARGEST_SEED, description="Seed of everything random.")
    processes: int | None = Field(
        None,
        ge=1,
        description="Training processes on each machine; null is one per GPU, or one on CPU.",
    )
    distribution: Literal["ddp", "fsdp"] = Field(
        "ddp",
        description="How several processes share the work: ddp holds the whole base in each, fsdp a share of it (for "
        "bases beyond one GPU; slower).",
    )

    @model_validator(mode="after")
    def _one_unit_each(self) -> Self:
        for word in ("save", "evaluate"):
            if getattr(self, f"{word}_every_steps") and getattr(self, f"{word}_every_epochs"):
                raise ValueError(
                    f"{word}_every_steps and {word}_every_epochs are both set: keep one of them"
                )
        return self

    @model_validator(mode="after")
    def _sharded_optimizer(self) -> Self:
        if self.distribution == "fsdp" and not self.optimizer.startswith("adamw_torch"):
            raise ValueError(
                f"optimizer {self.optimizer} cannot be shared by fsdp: use adamw_torch or adamw_torch_fused"
            )
        return self


class PublishSection(Section):
    """Where the adapter goes besides the output."""

    hub: str | None = Field(
        None, description="Hugging Face Hub repository (org/name); the token is HF_TOKEN."
    )
    private: bool = Field(True, description="Create the Hub repository as private.")

    @field_validator("hub")
    @classmethod
    def _hub_is_org_and_name(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch(r"[\w.-]+/[\w.-]+", value):
            raise ValueError(f"'{value}' is not org/name")
        return value


class TrainLimitsSection(Section):
    """What a training run puts up with."""

    max_excluded_fraction: float = Field(
        0.01,
        ge=0,
        le=1,
        description="Rows that fit no way into max_tokens; a greater share of them ends the run.",
    )
    max_unreferenced_fraction: float = Field(
        0.5,
        ge=0,
        le=1,
        description="Conversations without a reference summary are left out with a warning; a "
        "greater share of them in train or in validation ends the run.",
    )
    grace_seconds: float = Field(
        25, gt=0, description="Time from a stop signal to the end of every process."
    )
    spot_notice: str | None = Field(
        None,
        pattern="^https?://",
        description="URL that answers when this machine will be reclaimed, asked every 5 s, which starts the same end "
        "earlier; on EC2 http://169.254.169.254/latest/meta-data/spot/instance-action; null: RECAP_SPOT_NOTICE of the "
        "environment says, as in infra/aws; without that nobody is asked.",
    )
    stall_minutes: float = Field(
        30, gt=0, description="Without a training step for so long, the run ends with 75."
    )
    upload_minutes: float = Field(10, gt=0, description="Time for a checkpoint to reach storage.")
    max_gradient_norm: float | None = Field(
        None,
        gt=0,
        description="Gradients (before clipping) beyond it, several steps in a row, are divergence.",
    )
    divergence_steps: int = Field(
        5, ge=1, description="So many steps in a row beyond max_gradient_norm."
    )
    on_divergence: Literal["stop", "roll_back"] = Field(
        "stop",
        description="Loss or gradients that are no numbers, or too large: stop with 70, or go back to the last "
        "checkpoint and on with half the learning rate (twice at the most).",
    )

    @model_validator(mode="after")
    def _waiting_for_storage_is_no_stall(self) -> Self:
        if self.stall_minutes <= self.upload_minutes:
            raise ValueError(
                f"stall_minutes {self.stall_minutes:g} is not above upload_minutes {self.upload_minutes:g}: no step is "
                "done while the training waits for a checkpoint's upload, so raise one or lower the other"
            )
        return self
