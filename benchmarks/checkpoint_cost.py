"""What checkpointing costs a step: the same training with a checkpoint now and then and with one at its end.

`python benchmarks/checkpoint_cost.py [--steps N] [--every N] [--repeats N]` prints a line per pair of runs and the
median share of the time that the checkpoints take. Checkpoints are verified and committed while the training goes on.
"""

import argparse
import json

from pairs import compare, quartiles
from train_speed import DATA, recap_seconds


def main() -> None:
    """Run both by turns and print the cost."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--every", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=6)
    options = parser.parse_args()
    base = str(DATA / "base")
    ratios, seconds = compare(
        (
            f"every {options.every}",
            lambda work: recap_seconds(base, work, options.steps, options.every),
        ),
        ("at the end", lambda work: recap_seconds(base, work, options.steps)),
        options.repeats,
    )
    low, cost, high = (ratio - 1 for ratio in quartiles(ratios))
    print(
        f"a checkpoint every {options.every} steps costs {cost:.1%} of the training time ({options.steps} steps), the"
    )
    print(f"middle half of {len(ratios)} pairs from {low:.1%} to {high:.1%}")
    print(json.dumps({"benchmark": "checkpoint_cost", "cost": round(cost, 4), "seconds": seconds}))


if __name__ == "__main__":
    main()
