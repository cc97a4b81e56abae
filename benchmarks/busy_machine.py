"""A step of the demo's training beside two busy processes, against one alone: by turns, as medians.

`python benchmarks/busy_machine.py [--steps N] [--repeats N] [--set NAME=VALUE]` runs the training in three
ways: alone, alone with the waiting that libgomp would do by itself, and beside two processes that keep a
CPU each. It prints a line per round, then how much longer a step takes beside them and how much longer it
takes alone than by libgomp's waiting. `--set` tries another variable of OpenMP's. Nothing else may run.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import yaml
from train_speed import DATA, ROOT

MAX_SLOWDOWN_BESIDE = 2.5
MAX_SLOWDOWN_ALONE = 1.05
BUSY_PROCESSES = 2
BY_ITSELF = {"GOMP_SPINCOUNT": "300000"}  # libgomp's own number, which a user might set
WAYS = ("alone", "by itself", "beside")


def step_seconds(steps: int, environment: Mapping[str, str]) -> float:
    """Return the seconds of a step, as run.json records them, checkpoint and evaluation included."""
    config = yaml.safe_load((DATA / "train.yaml").read_text(encoding="utf-8"))
    config["run"] = "busy"
    config["model"]["base"] = str(DATA / "base")
    config["data"] |= {name: str(DATA / f"{name}.jsonl") for name in ("train", "validation")}
    config["training"] |= {"max_steps": steps, "sample_summaries": 0}
    config["training"] |= {"save_every_steps": steps, "evaluate_every_steps": steps}
    config["evaluation"] = {"max_conversations": 1}
    with tempfile.TemporaryDirectory() as work:
        config["output"] = work
        path = Path(work) / "config.yaml"
        path.write_text(yaml.safe_dump(config), encoding="utf-8")
        whole = os.environ | {"HF_HUB_OFFLINE": "1"} | environment
        words = [sys.executable, "-m", "job", "train", str(path)]
        done = subprocess.run(
            words, cwd=ROOT, env=whole, capture_output=True, text=True, check=False
        )
        if done.returncode:
            sys.exit(f"the training ended with {done.returncode}:\n{done.stderr[-4000:]}")
        journal = json.loads((Path(work) / "busy" / "run.json").read_text(encoding="utf-8"))
    seconds: float = journal["facts"]["timings"]["train_seconds"]
    return seconds / steps


@contextmanager
def busy(processes: int) -> Iterator[None]:
    """Keep so many CPUs busy while the block runs."""
    words = [sys.executable, "-c", "while True: pass"]
    running = [subprocess.Popen(words) for _ in range(processes)]
    try:
        yield
    finally:
        for process in running:
            process.kill()
            process.wait()


def measure(way: str, steps: int, variables: Mapping[str, str]) -> float:
    """Return the seconds of a step in one of the WAYS."""
    with busy(BUSY_PROCESSES if way == "beside" else 0):
        return step_seconds(steps, BY_ITSELF if way == "by itself" else variables)


def main() -> int:
    """Measure the three ways by turns; return 1 where a limit is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE")
    options = parser.parse_args()
    variables = dict(pair.split("=", 1) for pair in options.set)
    seconds: dict[str, list[float]] = {way: [] for way in WAYS}
    for repeat in range(options.repeats):
        for way in WAYS if repeat % 2 == 0 else reversed(WAYS):
            seconds[way].append(measure(way, options.steps, variables))
        shown = ", ".join(f"{way} {measured[-1]:.3f} s" for way, measured in seconds.items())
        print(f"round {repeat + 1}: {shown}; load {os.getloadavg()[0]:.1f}", flush=True)
    alone, by_itself, beside = (statistics.median(seconds[way]) for way in WAYS)
    found = {"beside": beside / alone, "alone": alone / by_itself}
    limits = {"beside": MAX_SLOWDOWN_BESIDE, "alone": MAX_SLOWDOWN_ALONE}
    missed = [name for name, ratio in found.items() if ratio > limits[name]]
    print(
        f"beside two busy processes a step takes {found['beside']:.2f} times as long (at most {limits['beside']})"
    )
    print(f"alone it takes {found['alone']:.2f} of libgomp's own time (at most {limits['alone']})")
    print("MISSED: " + ", ".join(missed) if missed else "held")
    print(
        json.dumps(
            {"benchmark": "busy_machine", "ratios": found, "seconds": seconds, "set": variables}
        )
    )
    return int(bool(missed))


if __name__ == "__main__":
    sys.exit(main())
