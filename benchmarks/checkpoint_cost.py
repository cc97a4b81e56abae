"""What checkpointing costs a step: the same training with a checkpoint now and then and with one at its end, by turns.

`python benchmarks/checkpoint_cost.py [--steps N] [--every N] [--repeats N]` prints a line per run and the share of the
time by which the fastest differ. Checkpoints are verified and committed to a folder while the training goes on.
"""

import argparse
import json
import tempfile
from pathlib import Path

from train_speed import DATA, recap_seconds


def main() -> None:
    """Run both by turns and print the cost."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--every", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    seconds: dict[int, list[float]] = {options.every: [], options.steps: []}
    for repeat in range(options.repeats):
        for every, measured in seconds.items():
            with tempfile.TemporaryDirectory() as work:
                measured.append(recap_seconds(str(DATA / "base"), Path(work), options.steps, every))
            told = f"{measured[-1]:7.1f} s for {options.steps} steps"
            print(f"repeat {repeat + 1}  a checkpoint every {every:3} steps {told}", flush=True)
    often, once = min(seconds[options.every]), min(seconds[options.steps])
    cost = (often - once) / once
    print(f"a checkpoint every {options.every} steps costs {cost:.1%} of the training time ({options.steps} steps)")
    print(json.dumps({"benchmark": "checkpoint_cost", "cost": round(cost, 4), "seconds": seconds}))


if __name__ == "__main__":
    main()
