"""Measure the cost of checkpoints: trainings with several of them, and with one at the end.

`python -m benchmarks.checkpoint_cost [--steps N] [--every N] [--repeats N]` prints a line per round
of runs and the median share of the time that the checkpoints take. They are verified and committed
while the training continues.
"""

import argparse
import json
from pathlib import Path

from benchmarks.pairs import machine, quartiles, ratios, run_by_turns
from benchmarks.sft_rows import DEMO
from benchmarks.train_speed import recap_seconds


def main() -> None:
    """Run both by turns and print the cost."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--every", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=6)
    options = parser.parse_args()
    base = str(DEMO / "base")

    def several(work: Path) -> float:
        return recap_seconds(base, DEMO, work, options.steps, options.every)

    def only_the_last(work: Path) -> float:
        return recap_seconds(base, DEMO, work, options.steps)

    frequent, rare = f"every {options.every}", "at the end"
    seconds = run_by_turns({frequent: several, rare: only_the_last}, options.repeats)
    found = ratios(seconds[frequent], seconds[rare])
    low, cost, high = (ratio - 1 for ratio in quartiles(found))
    every = f"a checkpoint every {options.every} of {options.steps} steps"
    print(f"{every} costs {cost:.1%} of the training time,")
    print(f"the middle half of {len(found)} rounds from {low:.1%} to {high:.1%}")
    line = {"benchmark": "checkpoint_cost", "cost": round(cost, 4), "seconds": seconds}
    print(json.dumps(line | machine()))


if __name__ == "__main__":
    main()
