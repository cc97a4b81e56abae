"""Claims about the measurements for a GPU, run on a CPU: each variant measures what it shows."""

import importlib
import tempfile
from collections.abc import Mapping
from typing import Any

import pytest

from benchmarks.gpu.measurements import measurements
from benchmarks.gpu.worker import KINDS

# The measuring processes are not ended by a library's warning.
pytestmark = [pytest.mark.quality, pytest.mark.filterwarnings("default")]
ALL = {each.name: each for each in measurements("tiny", "tiny")}


class EnoughError(Exception):
    """Ends a process's work, in this one."""


class FewTurns:
    """The turn of a process that is asked for so many rounds."""

    def __init__(self, rounds: int) -> None:
        self._rounds = rounds
        self.found: list[Mapping[str, Any]] = []

    def report(self, found: Mapping[str, Any]) -> None:
        self.found.append(found)
        if len(self.found) > self._rounds:
            raise EnoughError


@pytest.mark.parametrize("name", ALL)
def test_every_variant_measures_its_columns(name, places, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    measurement = ALL[name]
    for group in measurement.groups:
        for variant, specification in group.variants.items():
            turn = FewTurns(min(group.rounds, 1))
            module, function = KINDS[specification["kind"]].split(".")
            measure = getattr(importlib.import_module(f"benchmarks.gpu.{module}"), function)
            try:
                measure(specification, turn)
            except EnoughError:
                assert len(turn.found) == min(group.rounds, 1) + 1
            assert turn.found, variant
            # A CPU's memory has no reservation.
            wanted = set(measurement.columns) - {"reserved_gb"}
            assert wanted - set(turn.found[-1]) <= set(), variant
            assert all(value is not None for value in turn.found[-1].values())
