"""The sizes of passes that a run chose by its memory: a run that resumes takes them again.

How a step's sums round depends on the passes that it is divided into. run.json has each choice, by
the step after which it was made.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch

from job.memory.levels import Filling
from job.training.ranks import anywhere, least
from job.training.recomputation import Recomputation


@dataclass(frozen=True)
class ChosenPass:
    """The most tokens of a pass, and the layers that recompute in it: each `recomputed`-th."""

    tokens: int
    recomputed: int | None
    device: str


class Passes:
    """The choices of a run. `facts` are those of the attempts before, and get those of this one.

    `save` writes them to storage; it may do nothing. They hold on a `device` of the same name.
    """

    def __init__(
        self, facts: dict[str, Any], device: str, save: Callable[[], None] = lambda: None
    ) -> None:
        self._facts = facts
        self._device = device
        self._save = save

    def choose(
        self,
        recomputation: Recomputation,
        step: int,
        row_tokens: int,
        rows: int,
        filling: Filling | None,
    ) -> int | None:
        """Collective: let layers recompute as memory allows; return the most tokens of a pass.

        Return None for those of the config: `rows` of `row_tokens` tokens. With `filling`, a pass
        has as many rows as memory allows. Where the choice of an earlier attempt still fits, it is
        taken again.
        """
        before = self._after(step)
        if before is not None:
            wanted = before.tokens / row_tokens
            fits = recomputation.holds(before.recomputed, row_tokens, wanted)
            if not anywhere(not fits):
                recomputation.take(before.recomputed)
                return before.tokens
        if filling is None:
            recomputation.choose(row_tokens, rows)
            return None
        tokens = least(recomputation.fill(row_tokens, filling)) * row_tokens
        self.note(step, tokens, recomputation.level)
        return tokens

    def note(self, step: int, tokens: int, recomputed: int | None) -> None:
        """Record a choice that holds from the step after `step` on."""
        self._facts[str(step)] = asdict(ChosenPass(tokens, recomputed, self._device))
        self._save()

    def _after(self, step: int) -> ChosenPass | None:
        """Return the choice that held after `step`, and forget later ones, which will come again.

        Return None without one, and for one of another kind of device.
        """
        for later in [key for key in self._facts if int(key) > step]:
            del self._facts[later]
        if not self._facts:
            return None
        found = ChosenPass(**self._facts[max(self._facts, key=int)])
        return found if found.device == self._device else None


def device_name() -> str:
    """Return the name of this process's GPU, or cpu."""
    return torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
