"""Measure recap on this machine's GPU beside what a user would otherwise use.

`python -m benchmarks.gpu [--only NAME …] [--shape 7b] [--seconds 540] [--out FOLDER]` runs the
measurements of `measurements.py` in order of worth. Each variant is a process of its own. A line of
JSON is appended to results.jsonl in FOLDER after every round, and the tables come last, in
tables.md too. At `--seconds`, everything ends and the tables show what was measured until then.

`--shape tiny` runs all of it on a CPU in minutes, to find mistakes before a GPU is rented.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from benchmarks.gpu.measurements import Measurement, measurements
from benchmarks.gpu.tables import tables
from benchmarks.gpu.turns import ROOT, rounds_by_turns

LOGS = ROOT / "build" / "bench-gpu-logs"  # one for each process
PATIENCE_ON_A_CPU = 10  # a busy one must not cut a dry run short
LIBRARIES = ("torch", "transformers", "trl", "peft", "bitsandbytes", "triton")


class Results:
    """The JSON lines of this run: in a file after each of them, and in memory."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.lines: list[dict[str, Any]] = []
        self._path = folder / "results.jsonl"
        self._path.unlink(missing_ok=True)

    def add(self, line: dict[str, Any]) -> None:
        """Append a line to the file, and print it in short."""
        self.lines.append(line)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        print(" ".join(f"{key}={_short(value)}" for key, value in line.items()), flush=True)


def run(
    all_of: Sequence[Measurement], results: Results, deadline: float, patience: float = 1
) -> None:
    """Measure all in turn until `deadline`, by `time.monotonic`.

    The limit of each group is multiplied by `patience`.
    """
    for measurement in all_of:
        for number, group in enumerate(measurement.groups):
            now = time.monotonic()
            if now >= deadline:
                return
            limit = min(deadline, now + patience * group.seconds)
            logs = LOGS / measurement.name
            for found in rounds_by_turns(group.variants, group.rounds, limit, logs):
                results.add({"measurement": measurement.name, "group": number, **found})


def machine() -> dict[str, Any]:
    """Return card, CPUs, versions and revision, without loading torch."""
    asked = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    versions = {"python": sys.version.split()[0]}
    for name in LIBRARIES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return {
        "gpu": _first_line(asked) or "no GPU",
        "cpus": os.cpu_count(),
        "versions": versions,
        "revision": _first_line(["git", "describe", "--always", "--dirty"]) or "unknown",
    }


def main() -> int:
    """Run the measurements; return 1 if one of them has no result at all."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shape", default="7b", choices=["tiny", "1b", "7b", "13b"])
    parser.add_argument("--only", nargs="+", help="names of measurements")
    parser.add_argument("--seconds", type=float, default=540)
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "bench-gpu")
    options = parser.parse_args()
    deadline = time.monotonic() + options.seconds
    small = "tiny" if options.shape == "tiny" else "1b"
    all_of = measurements(options.shape, small)
    if options.only:
        all_of = [each for each in all_of if each.name in options.only]

    results = Results(options.out)
    found = machine()
    results.add({"machine": found, "shape": options.shape})
    if options.shape != "tiny" and found["gpu"] == "no GPU":
        print("there is no GPU: `--shape tiny` tries the measurements on a CPU", file=sys.stderr)
        return 2
    run(all_of, results, deadline, PATIENCE_ON_A_CPU if options.shape == "tiny" else 1)
    text = tables(results.lines, all_of)
    (options.out / "tables.md").write_text(text + "\n", encoding="utf-8")
    print(f"\n{text}")

    done = {line["measurement"] for line in results.lines[1:] if "failed" not in line}
    missing = [each.name for each in all_of if each.name not in done]
    if missing:
        print(f"not measured: {', '.join(missing)}", file=sys.stderr)
    return int(bool(missing))


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _first_line(command: Sequence[str]) -> str:
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return done.stdout.partition("\n")[0].strip() if done.returncode == 0 else ""


if __name__ == "__main__":
    sys.exit(main())
