"""Measure a step of the demo's training beside two busy processes, against one alone.

`python -m benchmarks.busy_machine [--steps N] [--repeats N] [--set NAME=VALUE]` trains in three
ways, by turns: alone, alone with libgomp's own waiting, and beside two processes that keep a CPU
busy each. It prints a line per round, then two ratios of medians: beside to alone, and alone to
libgomp's own waiting. `--set` tries another variable of OpenMP. Nothing else may run meanwhile.
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

from benchmarks.sft_rows import DEMO

MAX_SLOWDOWN_BESIDE = 2.5
MAX_SLOWDOWN_ALONE = 1.05
BUSY_PROCESSES = 2
# A user might set libgomp's own number.
LIBGOMPS_OWN_WAITING = {"GOMP_SPINCOUNT": "300000"}
WAYS = ("alone", "own waiting", "beside")


def step_seconds(steps: int, environment: Mapping[str, str]) -> float:
    """Return the seconds of a step, from run.json, with checkpoint and evaluation."""
    config = yaml.safe_load((DEMO / "train.yaml").read_text(encoding="utf-8"))
    config["run"] = "busy"
    config["model"]["base"] = str(DEMO / "base")
    config["data"] |= {name: str(DEMO / f"{name}.jsonl") for name in ("train", "validation")}
    config["training"] |= {"max_steps": steps, "sample_summaries": 0}
    config["training"] |= {"save_every_steps": steps, "evaluate_every_steps": steps}
    config["evaluation"] = {"max_conversations": 1}
    with tempfile.TemporaryDirectory() as work:
        config["output"] = work
        path = Path(work) / "config.yaml"
        path.write_text(yaml.safe_dump(config), encoding="utf-8")
        done = subprocess.run(
            [sys.executable, "-m", "job", "train", str(path)],
            cwd=DEMO.parents[1],
            env=os.environ | {"HF_HUB_OFFLINE": "1"} | environment,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            sys.exit(f"the training ended with {done.returncode}:\n{done.stderr[-4000:]}")
        journal = json.loads((Path(work) / "busy" / "run.json").read_text(encoding="utf-8"))
    seconds: float = journal["facts"]["timings"]["train_seconds"]
    return seconds / steps


@contextmanager
def busy(processes: int) -> Iterator[None]:
    """Keep so many CPUs busy while the block runs."""
    command = [sys.executable, "-c", "while True: pass"]
    running = [subprocess.Popen(command) for _ in range(processes)]
    try:
        yield
    finally:
        for process in running:
            process.kill()
            process.wait()


def measure(way: str, steps: int, variables: Mapping[str, str]) -> float:
    """Return the seconds of a step in one of the WAYS."""
    with busy(BUSY_PROCESSES if way == "beside" else 0):
        return step_seconds(steps, LIBGOMPS_OWN_WAITING if way == "own waiting" else variables)


def main() -> int:
    """Measure the three ways by turns; return 1 if a ratio is beyond its limit."""
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
    return report(seconds, variables)


def report(seconds: dict[str, list[float]], variables: Mapping[str, str]) -> int:
    """Print the ratios; return 1 if one is beyond its limit."""
    medians = {way: statistics.median(measured) for way, measured in seconds.items()}
    ratios = {
        "beside": medians["beside"] / medians["alone"],
        "alone": medians["alone"] / medians["own waiting"],
    }
    limits = {"beside": MAX_SLOWDOWN_BESIDE, "alone": MAX_SLOWDOWN_ALONE}
    missed = [name for name, ratio in ratios.items() if ratio > limits[name]]

    beside = f"{ratios['beside']:.2f} times as long (at most {limits['beside']})"
    alone = f"{ratios['alone']:.2f} of the time with libgomp's own waiting"
    print(f"beside two busy processes a step takes {beside}")
    print(f"alone it takes {alone} (at most {limits['alone']})")
    print("MISSED: " + ", ".join(missed) if missed else "held")
    found = {"benchmark": "busy_machine", "ratios": ratios, "seconds": seconds, "set": variables}
    print(json.dumps(found))
    return int(bool(missed))


if __name__ == "__main__":
    sys.exit(main())
