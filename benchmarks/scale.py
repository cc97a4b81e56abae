"""Measure how time and memory grow: with conversations, lengths of rows, processes and shards.

`python -m benchmarks.scale [--only NAME …] [--conversations N …] [--out FILE]` appends a line of
JSON after every point to FILE (build/bench/scale.jsonl), and `python -m benchmarks.plots FILE`
draws them. Every point is a process of its own, whose peak memory is that of the largest process.
A million conversations, which `--conversations` adds, take minutes and gigabytes.

| name | grows | measures |
|---|---|---|
| preparation | conversations | reading, splitting and encoding, to the first batch of a training |
| night | conversations | `recap summarize` without the model, with the demo's tokenizer |
| length | tokens of a row | a step of 8 rows of a small base |
| processes | training processes | a training of the demo's base, on the same CPUs |
| workers | workers of a night | a night with the demo's base, on the same CPUs |
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml

from benchmarks import rows_scale, summarize_scale
from benchmarks.pairs import machine

ROOT = Path(__file__).parent.parent
DATA = ROOT / "examples" / "demo"
CONVERSATIONS = [1_000, 10_000, 100_000]
TOKENS = [256, 512, 1_024, 2_048, 4_096, 8_192]
PROCESSES = [1, 2, 4]
STEPS = 8
ROWS_OF_A_STEP = 8
PROMPTS = 64
KEYS = ("seconds", "cpu_seconds", "peak_mib")

Point = dict[str, Any]


def train_rows_of(tokens: int) -> Point:
    """Train on rows of so many tokens, in this process."""
    from benchmarks.gpu.trainers import recap_trainer

    training = {
        "batch_size": 2,
        "gradient_accumulation_steps": ROWS_OF_A_STEP // 2,
        "max_tokens": tokens,
        "max_steps": 2,
        "activation_checkpointing": False,
    }
    with TemporaryDirectory(prefix="recap-scale-") as folder:
        rows = f"{2 * ROWS_OF_A_STEP}x{tokens}"
        specification = {"shape": "tiny", "rows": rows, "config": {"training": training}}
        trainer = recap_trainer(specification, Path(folder))
        started, cpu = time.perf_counter(), time.process_time()
        trainer.train()
    steps = training["max_steps"]
    return {
        "seconds": (time.perf_counter() - started) / steps,
        "cpu_seconds": (time.process_time() - cpu) / steps,
    }


def train_with_processes(count: int) -> Point:
    """Train with so many processes, and 16 rows in a step whatever their number."""
    training = {
        "processes": count,
        "max_steps": STEPS,
        "batch_size": 16 // count,
        "gradient_accumulation_steps": 1,
        "sample_summaries": 0,
        "save_every_steps": STEPS,
        "evaluate_every_steps": STEPS,
    }
    with TemporaryDirectory(prefix="recap-scale-") as folder:
        content = {
            "run": "scale",
            "model": {"base": str(DATA / "base")},
            "data": {name: str(DATA / f"{name}.jsonl") for name in ("train", "validation")},
            "output": folder,
            "training": training,
            "evaluation": {"max_conversations": 1},
            "publish": {"verify": False},
        }
        _recap("train", content, Path(folder))
        journal = json.loads((Path(folder) / "scale" / "run.json").read_text(encoding="utf-8"))
    return {"seconds": journal["facts"]["timings"]["train_seconds"] / STEPS}


def summarize_with_workers(count: int) -> Point:
    """Summarize with so many workers, without an adapter, from start to end."""
    with TemporaryDirectory(prefix="recap-scale-") as folder:
        lines = (DATA / "heldout.jsonl").read_text(encoding="utf-8").splitlines()[:PROMPTS]
        (Path(folder) / "in.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
        content = {
            "run": "scale",
            "input": f"{folder}/in.jsonl",
            "output": f"{folder}/out",
            "model": {"base": str(DATA / "base"), "dtype": "float32"},
            "engine": "transformers",
            "workers": count,
            "chunks": {"records": PROMPTS // max(PROCESSES)},
            "generation": {"max_new_tokens": 32},
        }
        started = time.perf_counter()
        _recap("summarize", content, Path(folder))
        return {"seconds": time.perf_counter() - started}


def _recap(command: str, content: dict[str, Any], folder: Path) -> None:
    path = folder / f"{command}.yaml"
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    subprocess.run(
        [sys.executable, "-m", "job", command, str(path)],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )


POINTS: dict[str, tuple[Callable[[int], Point], list[int]]] = {
    "length": (train_rows_of, TOKENS),
    "processes": (train_with_processes, PROCESSES),
    "workers": (summarize_with_workers, PROCESSES),
}


def points_of(name: str, conversations: list[int]) -> Iterator[Point]:
    """Measure all points of one curve, each in a process of its own, and yield them."""
    if name == "preparation":
        for count in conversations:
            found = rows_scale.run(count, ["first"])["first"]
            yield _point(count, found)
    elif name == "night":
        for count in conversations:
            yield _point(count, summarize_scale.run(count, "tokenizer"))
    else:
        for size in POINTS[name][1]:
            done = subprocess.run(
                [sys.executable, "-m", "benchmarks.scale", "--point", name, str(size)],
                cwd=ROOT,
                # On a busy machine, threads that wait for each other would count as CPU seconds.
                env=os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
                stdout=subprocess.PIPE,
                text=True,
                check=True,
            )
            yield {"size": size, **json.loads(done.stdout.splitlines()[-1])}


def _point(size: int, found: Point) -> Point:
    return {"size": size, **{key: found[key] for key in KEYS if key in found}}


def measure(name: str, size: int) -> Point:
    """Measure one point in this process, with the peak memory of it and of its largest child."""
    found = POINTS[name][0](size)
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    largest_child = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    return {**found, "peak_mib": max(own, largest_child) / 1024}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = ["preparation", "night", *POINTS]
    parser.add_argument("--only", nargs="+", choices=names, default=names)
    parser.add_argument("--conversations", type=int, nargs="+", default=CONVERSATIONS)
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "bench" / "scale.jsonl")
    parser.add_argument("--point", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.point:
        print(json.dumps(measure(options.point[0], int(options.point[1]))))
        return
    options.out.parent.mkdir(parents=True, exist_ok=True)
    for name in options.only:
        for point in points_of(name, options.conversations):
            line = json.dumps({"curve": name, **point} | machine())
            print(line, flush=True)
            with options.out.open("a", encoding="utf-8") as file:
                file.write(line + "\n")


if __name__ == "__main__":
    main()
