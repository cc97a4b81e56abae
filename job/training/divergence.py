"""When a training has run away. Gradient norms, step by step → DivergedError. Knows nothing of what is done about it.

A loss that is NaN or infinite makes the gradients so, and all processes see the same norm: none goes on alone.
"""

import math

from job.errors import DivergedError


class Divergence:
    """What the last gradient norms were like."""

    def __init__(self, max_norm: float | None, steps: int, scaled: bool) -> None:
        self._max_norm, self._steps, self._scaled = max_norm, steps, scaled
        self._in_a_row = 0

    @property
    def suspected(self) -> bool:
        """Whether the last norm was beyond the limit: what is saved now may be no good checkpoint."""
        return self._in_a_row > 0

    def judge(self, norm: float, step: int) -> None:
        """DivergedError if the norm is no number, or the last so many were beyond the limit.

        With a gradient scaler (`scaled`) norms that are no numbers are part of its search; they count as too large.
        """
        finite = math.isfinite(norm)
        if not finite and not self._scaled:
            remedy = REMEDY if step > 1 else REMEDY_AT_STEP_1
            what = f"loss or gradients are no numbers (gradient norm {norm})"
            raise DivergedError(f"step {step}: {what}; {remedy}")
        too_large = not finite or (self._max_norm is not None and norm > self._max_norm)
        self._in_a_row = self._in_a_row + 1 if too_large else 0
        if self._in_a_row >= self._steps:
            limit = (
                "" if self._max_norm is None else f" (limits.max_gradient_norm {self._max_norm:g})"
            )
            raise DivergedError(
                f"step {step}: gradient norms beyond the limit{limit} for {self._in_a_row} steps, the last {norm:.4g}; "
                f"{REMEDY}"
            )


REMEDY = (
    "lower training.learning_rate or raise warmup_ratio, look at the rows before it, or set "
    "limits.on_divergence: roll_back"
)
REMEDY_AT_STEP_1 = (
    "nothing was learned before it, so the base computes them: copy or fetch the base again, set "
    "model.dtype: float32, or look at the first rows"
)
