"""Predict how long repeated work still takes, by the time that it has taken so far.

Knows no clock: whoever measures passes seconds.
"""


class Pace:
    """The time of a unit of work. The first measurements count only until there are others.

    They are slow: memory is allocated, kernels are chosen and caches are filled.
    """

    def __init__(self, warm_up: int = 1) -> None:
        """Take the first `warm_up` measurements for slow ones."""
        self._warm_up_left = warm_up
        self._early = _Sum()
        self._steady = _Sum()

    def add(self, units: float, seconds: float) -> None:
        """Note that `units` of work took `seconds`."""
        if self._warm_up_left:
            self._warm_up_left -= 1
            self._early.add(units, seconds)
        else:
            self._steady.add(units, seconds)

    @property
    def is_steady(self) -> bool:
        """True if anything was measured after the warm-up."""
        return self._steady.units > 0

    @property
    def unit_seconds(self) -> float | None:
        """The mean time of a unit; None before anything was measured."""
        found = self._steady if self.is_steady else self._early
        return found.seconds / found.units if found.units else None

    def seconds_for(self, units: float) -> float | None:
        """Return the time that so many units take; None before anything was measured."""
        each = self.unit_seconds
        return None if each is None else each * units


class _Sum:
    def __init__(self) -> None:
        self.units = 0.0
        self.seconds = 0.0

    def add(self, units: float, seconds: float) -> None:
        self.units += units
        self.seconds += seconds
