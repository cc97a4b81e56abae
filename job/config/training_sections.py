"""The sections that only a training config has: adapter, optimization, publication.

`limits_section` has its limits.
"""

import re
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from job.config.gate_sections import PromotionSection
from job.config.method_sections import DpoSection, KtoSection
from job.config.sections import LARGEST_SEED, Name, Section, Uri

ROWS_AT_ONCE_OF_AUTO = 4  # of training.batch_size: as many as by default


class LoraSection(Section):
    """The adapter that is trained."""

    r: int = Field(16, ge=1, description="Rank of the adapter's matrices.")
    alpha: int = Field(
        32, ge=1, description="Scale of the adapter. Its output is multiplied by alpha / r."
    )
    variant: Literal["lora", "rslora", "dora"] = Field(
        "lora",
        description="Variant of LoRA. rslora scales by alpha / √r, for high ranks. dora learns "
        "magnitude and direction separately, and is slower.",
    )
    dropout: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="Dropout on the adapter's input. It takes time and memory in each pass. A tiny "
        "base, the only one measured, learned as well without it.",
    )
    target_modules: Literal["all-linear"] | Annotated[list[Name], Field(min_length=1)] = Field(
        "all-linear",
        description="Modules that get an adapter. all-linear is every linear layer of the language "
        "model but the head; experts and their routers get none. A list gives their names.",
    )


class SelectionSection(Section):
    """Selection of the adapter by the summaries that it generates (adapter_from: best_metric)."""

    metric: Name = Field(
        "rougeL",
        description="Metric that chooses. It is the best mean over the conversations, and the "
        "earlier adapter if two are equal.",
    )
    conversations: int = Field(
        50,
        ge=1,
        description="Number of validation conversations that each candidate summarizes. Of 20 and "
        "more, at most half are chosen for it, and the others score the adapter.",
    )
    candidates: int = Field(
        8,
        ge=2,
        description="Maximum number of adapters that are kept for the selection: that of the last "
        "evaluation, and of the others those with the smallest validation loss.",
    )


class TrainingSection(Section):
    """The optimization."""

    epochs: float = Field(3, gt=0, le=10**6, description="Number of passes over the training rows.")
    max_steps: int | None = Field(
        None, ge=1, description="Maximum number of optimizer steps. null trains for all epochs."
    )
    start_from: Uri | None = Field(
        None,
        description="Adapter to train further: a folder, s3:// prefix or Hub id, or the pointer to "
        "the champion (a file that ends in .json), which a run resolves once. Its prompt, cleaning "
        "and LoRA settings are taken, and its base must be model.base. A reward model (method: "
        "reward) starts from another one, never from a pointer. null trains a new adapter.",
    )
    learning_rate: float = Field(
        2e-4,
        gt=0,
        le=1,
        description="Peak learning rate. With method dpo or kto, the default is 1e-5, and with "
        "reward 1e-4.",
    )
    dpo: DpoSection = Field(default_factory=DpoSection)
    kto: KtoSection = Field(default_factory=KtoSection)
    batch_size: Literal["auto"] | Annotated[int, Field(ge=1, le=10**6)] = Field(
        4,
        description="Number of the longest rows in a forward pass on one device. A pair is one "
        "row where the base allows both summaries to share their prompt, else two. Of shorter "
        "rows, a pass has as many as need no more memory. Where memory runs out, a single process "
        "makes smaller passes of the same step by itself. auto gives a step as many rows as 4 "
        "does. On a GPU, its passes have as many rows as take the least time within the free "
        "memory, if activation_checkpointing is auto too, without deterministic and fsdp. No GPU "
        "has tried it yet.",
    )
    gradient_accumulation_steps: int = Field(
        4,
        ge=1,
        description="An optimizer step has batch_size times as many rows on each device, in as "
        "many forward passes as their lengths ask for.",
    )
    max_tokens: int = Field(
        2048,
        ge=16,
        le=10_000_000,
        description="Maximum number of tokens in a row. Longer conversations lose middle turns.",
    )
    optimizer: Literal[
        "adamw_torch", "adamw_torch_fused", "paged_adamw_32bit", "paged_adamw_8bit", "adamw_8bit"
    ] = Field(
        "adamw_torch_fused",
        description="Optimizer. The states of LoRA are small, so plain AdamW needs little memory. "
        "paged_adamw_32bit moves to the host only tensors of 100,000 numbers or more: where an "
        "adapter has none, and on CPUs, adamw_torch_fused computes the same in less time, and is "
        "taken for it.",
    )
    scheduler: Literal["cosine", "linear", "constant", "constant_with_warmup"] = Field(
        "cosine", description="Learning rate schedule after the warmup."
    )
    warmup_ratio: float = Field(
        0.05,
        ge=0,
        lt=1,
        description="Fraction of the steps in which the learning rate rises. It is 0 in the "
        "first step.",
    )
    weight_decay: float = Field(0.0, ge=0, description="Weight decay.")
    max_grad_norm: float = Field(1.0, gt=0, description="Norm to which gradients are clipped.")
    packing: bool = Field(
        False,
        description="Pack several rows into one of max_tokens, in which each sees itself alone. On "
        "GPUs a kernel for rows of any length computes their attention: FlashAttention 3 where it "
        "is installed, else torch's own. Elsewhere, and in bases with dropout in their attention, "
        "packing is seldom faster than micro-batches of similar length.",
    )
    group_by_length: bool = Field(
        True, description="Batch rows of similar length, which saves padding."
    )
    activation_checkpointing: bool | Literal["auto"] = Field(
        "auto",
        description="Recompute activations in the backward pass, which saves memory and takes "
        "longer. auto recomputes no layer, every fourth, third or second, or all, by the memory "
        "that is free and what one pass of the longest row needs; with fsdp on GPUs, all.",
    )
    save_every_steps: int | None = Field(
        None, ge=1, description="Number of optimizer steps between checkpoints."
    )
    save_every_epochs: float | None = Field(
        None, gt=0, description="Number of epochs between checkpoints. With neither key, it is 0.5."
    )
    evaluate_every_steps: int | None = Field(
        None,
        ge=1,
        description="Number of optimizer steps between evaluations of the validation loss.",
    )
    evaluate_every_epochs: float | None = Field(
        None,
        gt=0,
        description="Number of epochs between evaluations of the validation loss. With neither "
        "key, it is 0.5.",
    )
    log_every_steps: int = Field(
        10,
        ge=1,
        description="Number of optimizer steps between log lines with loss, learning rate, "
        "gradient norm and speed.",
    )
    keep_last: int = Field(2, ge=1, description="Number of checkpoints that are kept.")
    adapter_from: Literal["last_step", "best_evaluation", "best_metric"] = Field(
        "last_step",
        description="Which adapter is published: that of the last step, of the evaluation with "
        "the smallest validation loss, or of the evaluation whose adapter generates the best "
        "summaries (selection).",
    )
    selection: SelectionSection = Field(default_factory=SelectionSection)
    patience: int | None = Field(
        None,
        ge=1,
        description="Number of evaluations in a row without a smaller validation loss after "
        "which training stops. null never stops it early.",
    )
    sample_summaries: int = Field(
        3,
        ge=0,
        description="Number of validation conversations that are summarized for TensorBoard at "
        "each evaluation.",
    )
    evaluation_share: float = Field(
        0.1,
        gt=0,
        le=1,
        description="Maximum share of the training's time for evaluations and sample summaries, of "
        "which a minute is always allowed. An evaluation beyond it is skipped, except the last and "
        "those that choose the adapter or end the training. 1 has no limit.",
    )
    deterministic: bool = Field(
        False,
        description="Use algorithms on GPUs that add in one order, and fail where there is none: a "
        "run that is interrupted and resumed on the same kind of GPU then ends with the same "
        "bytes. It is slower, and no GPU has shown it yet. On CPUs that holds without it.",
    )
    seed: int = Field(42, ge=0, le=LARGEST_SEED, description="Seed of everything that is random.")
    processes: int | None = Field(
        None,
        ge=1,
        description="Number of training processes on each machine. null is one for each GPU, or "
        "one on CPU.",
    )
    distribution: Literal["ddp", "fsdp"] = Field(
        "ddp",
        description="How several processes share the work. With ddp, each holds the whole base. "
        "With fsdp, each holds a share of it, which is slower, and is for bases that exceed one "
        "GPU.",
    )
    compile: bool = Field(
        False,
        description="Compile the layers of the base with torch.compile, for training alone. The "
        "first step takes a minute or more. The results are those of plain layers within rounding, "
        "and so is the adapter of a run that is interrupted and resumed. Not yet tried on a GPU.",
    )
    fused_lora: bool | None = Field(
        None,
        description="Compute each layer of the adapter together with its layer of the base, in "
        "fewer operations, for training alone. The results are those of peft within rounding. "
        "Layers with lora.dropout or dora stay peft's. null does so on CPUs, where it was found "
        "to be faster. Not yet tried on a GPU.",
    )

    @property
    def rows_at_once(self) -> int:
        """The number of the longest rows in a forward pass, unless it fills the memory."""
        return ROWS_AT_ONCE_OF_AUTO if self.batch_size == "auto" else self.batch_size

    @property
    def rows_of_a_step(self) -> int:
        """The number of rows of each device in an optimizer step."""
        return self.rows_at_once * self.gradient_accumulation_steps

    @property
    def fills_memory(self) -> bool:
        """True if passes on a GPU are to have as many rows as its memory allows."""
        is_free = self.batch_size == "auto" and self.activation_checkpointing == "auto"
        return is_free and not self.deterministic and self.distribution != "fsdp"

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
                f"optimizer {self.optimizer} cannot be shared by fsdp: use adamw_torch or "
                "adamw_torch_fused"
            )
        return self

    @model_validator(mode="after")
    def _compiled(self) -> Self:
        if self.compile and self.distribution == "fsdp":
            raise ValueError("compile: true is not for distribution: fsdp: leave one of them out")
        if self.compile and self.deterministic:
            raise ValueError(
                "deterministic promises the same bytes, which code that is compiled anew in each "
                "process does not give: leave compile or deterministic out"
            )
        return self

    @model_validator(mode="after")
    def _fused(self) -> Self:
        if self.fused_lora and self.distribution == "fsdp":
            raise ValueError(
                "fused_lora: true is not for distribution: fsdp: leave one of them out"
            )
        if self.fused_lora and self.compile:
            raise ValueError(
                "compile makes few operations of the adapter's, too: leave compile or fused_lora "
                "out"
            )
        return self


class PublishSection(PromotionSection):
    """Publication of the adapter, in the output, on the Hub and as champion."""

    hub: str | None = Field(
        None,
        description="Hugging Face Hub repository (org/name) for the adapter. The token is "
        "HF_TOKEN of the environment.",
    )
    private: bool = Field(True, description="Create the Hub repository as private.")
    license: str | None = Field(
        None,
        pattern="^[a-z0-9][a-z0-9.+-]{0,60}$",
        description="License of the adapter on its card, as the Hub names it, such as apache-2.0 "
        "or other. null is the one that the card of the base names.",
    )
    language: list[Annotated[str, Field(pattern="^[a-z]{2,3}$")]] | None = Field(
        None,
        description="Languages of the conversations on the adapter's card, as codes of ISO 639, "
        "such as [en]. null names none.",
    )
    verify: bool = Field(
        True,
        description="Before anything is published, reload the adapter in a fresh process, by "
        "transformers and peft alone, and compare its summaries with those scored, or the scores "
        "of a reward model (method: reward) with those that recap computed. An adapter "
        "that cannot be loaded or answers otherwise ends the run with 70. One that could not be "
        "reloaded here does not pass a gate. A base that needs code of its own "
        "(model.trust_remote_code) never can: with a gate, set it to false.",
    )
    merged: bool = Field(
        False,
        description="Also publish the base with the adapter merged into it, as weights of 16 bits "
        "in `<output>/<run>/merged/`, for programs that load no adapter. How far its summaries "
        "agree with those of the adapter is measured.",
    )

    @field_validator("hub")
    @classmethod
    def _hub_is_org_and_name(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch(r"[\w.-]+/[\w.-]+", value):
            raise ValueError(f"'{value}' is not org/name")
        return value
