"""The trainers by method: their rows, their loss, and what they log of it."""

from collections.abc import Sequence
from typing import Any

import torch
from trl import SFTTrainer

from job.model import Model
from job.prompt.encode import IGNORED
from job.training.batches import Collator, Tensors, summary_collator
from job.training.rows import lengths_of
from job.training.trainer import RecapTrainer


class SummaryTrainer(RecapTrainer, SFTTrainer):  # type: ignore[misc]
    """Learn the references of conversations: `method: sft`."""

    def lengths_of_rows(self, rows: Any) -> list[int]:
        """Return the number of tokens of each row."""
        return lengths_of(rows)

    def make_collator(self) -> Collator:
        """Return TRL's collator, which pads rows or joins packed ones, for micro-batches."""
        return summary_collator(self.data_collator, self.data_collator.pad_token_id)

    def shares_of(self, batch: Tensors) -> torch.Tensor:
        """Return the number of learned tokens."""
        return (batch["labels"][:, 1:] != IGNORED).sum()[None]

    def compute_loss(
        self,
        model: Model,
        inputs: Tensors,
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Return a micro-batch's share of the step's loss, the mean over all its learned tokens.

        TRL's also computes what nobody reads, and waits for the GPU five times to log it.
        """
        self.choose_forward(model)
        output = model(**inputs, use_cache=False, fused_lm_head=True)
        learned = output.label_mask.sum() if num_items_in_batch is None else num_items_in_batch[0]
        # DDP and FSDP take the mean over ranks, of which each has its share of the sum.
        share = self.ranks.count / learned.clamp(min=1)
        return -output.log_probs.sum() * share

    def judge(self, model: Model, batch: Tensors) -> torch.Tensor:
        """Return the sum of losses and the number of learned tokens."""
        output = model(**batch, use_cache=False, fused_lm_head=True)
        loss = -output.log_probs.double().sum()
        return torch.stack([loss, output.label_mask.sum().double()])

    def conclude(self, findings: Sequence[torch.Tensor]) -> dict[str, float]:
        """Collective: return the mean loss over all learned tokens."""
        sums = torch.stack(list(findings)).sum(dim=0)
        loss, tokens = self.accelerator.reduce(sums, reduction="sum").tolist()
        return {"eval_loss": loss / tokens}
