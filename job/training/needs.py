"""The needs of a training that a trainer is told of, besides the settings that TRL has."""

from collections.abc import Callable
from dataclasses import dataclass

from job.config.limits_section import TrainLimitsSection


@dataclass(frozen=True)
class Needs:
    """The needs of a training that TRL's settings do not express.

    With `shares_prompts`, both summaries of a pair are one row where the base allows it.
    """

    limits: TrainLimitsSection
    needs_validation_loss: bool
    wait_for_uploads: Callable[[], None]
    rows_at_once: int
    fills_memory: bool
    chooses_recomputation: bool
    shares_prompts: bool = True
