"""Measure one variant in this process: `python -m benchmarks.gpu.worker '{"kind": …}'`."""

import importlib
import json
import sys

from benchmarks.gpu.turns import Turn
from job.errors import is_out_of_memory, shortened

# By kind, the function that measures. It takes the variant's specification and its turn.
KINDS = {
    "training": "trainers.train_by_rounds",
    "ceilings": "ceilings.measure_ceilings",
    "profile": "step_profile.profile_step",
    "decoding": "decoding.decode_by_rounds",
    "summaries": "decoding.summarize_by_rounds",
    "determinism": "determinism.compare_runs",
    "memory": "peaks.measure_peaks",
    "phases": "phases.time_phases",
}


def main() -> int:
    """Measure the variant of the command line; report why if it cannot be measured."""
    turn = Turn()
    specification = json.loads(sys.argv[1])
    module, function = KINDS[specification["kind"]].split(".")
    try:
        measure = getattr(importlib.import_module(f"benchmarks.gpu.{module}"), function)
        measure(specification, turn)
    except Exception as error:
        turn.fail("out of memory" if is_out_of_memory(error) else shortened(error, limit=200))
        raise
    return 0


if __name__ == "__main__":
    sys.exit(main())
