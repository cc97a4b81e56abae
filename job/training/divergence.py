"""End a training whose gradients are no numbers, or stay too large."""

import math

from job.errors import DivergedError

REMEDY = (
    "lower training.learning_rate or raise warmup_ratio, look at the rows before it, or set "
    "limits.on_divergence: roll_back"
)
REMEDY_AT_STEP_1 = (
    "nothing was learned before it, so the base computes them: copy or fetch the base again, set "
    "model.dtype: float32, or look at the first rows"
)


class Divergence:
    """Ends a training that has diverged: its gradient norms are no numbers, or stay too large.

    Counts how many steps in a row were beyond the limit. A loss that is NaN or infinite makes the
    norm so. All ranks see the same norm, since it is computed after the gradients are reduced: all
    of them end at the same step.
    """

    def __init__(self, max_norm: float | None, max_steps: int, has_scaler: bool) -> None:
        self._max_norm = max_norm
        self._max_steps = max_steps
        self._has_scaler = has_scaler
        self._too_large_in_a_row = 0

    @property
    def is_suspected(self) -> bool:
        """True if the last norm was beyond the limit. A checkpoint of now may be no good."""
        return self._too_large_in_a_row > 0

    def check(self, norm: float, step: int) -> None:
        """Raise DivergedError if the norm is NaN or infinite, or too large for too many steps.

        fp16's gradient scaler raises its scale until infinities appear, and then skips the step.
        With it, a norm that is not finite counts as too large.
        """
        is_finite = math.isfinite(norm)
        if not is_finite and not self._has_scaler:
            remedy = REMEDY if step > 1 else REMEDY_AT_STEP_1
            raise DivergedError(
                f"step {step}: loss or gradients are no numbers (gradient norm {norm}); {remedy}"
            )

        is_too_large = not is_finite
        if self._max_norm is not None and norm > self._max_norm:
            is_too_large = True
        if not is_too_large:
            self._too_large_in_a_row = 0
            return

        self._too_large_in_a_row += 1
        if self._too_large_in_a_row >= self._max_steps:
            limit = ""
            if self._max_norm is not None:
                limit = f" (limits.max_gradient_norm {self._max_norm:g})"
            raise DivergedError(
                f"step {step}: gradient norms beyond the limit{limit} for "
                f"{self._too_large_in_a_row} steps, the last {norm:.4g}; {REMEDY}"
            )
