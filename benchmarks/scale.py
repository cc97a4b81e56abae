"""Measure how time and memory grow: with conversations, lengths of rows, processes and shards.

`python -m benchmarks.scale [--only NAME …] [--conversations N …] [--out FILE]` appends a line of
JSON after every point to FILE (build/bench/scale.jsonl), and `python -m benchmarks.plots FILE`
draws them. Every point is a process of its own, whose peak memory is that of the largest process.
A million conversations, which `--conversations` adds, take minutes and gigabytes.

| name | grows | measures |
|---|---|---|
| preparation | conversations | reading, splitting and encoding, to the rows of a training |
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

ROOT = Path(__file__).parent.parent
DATA = ROOT / "examples" / "demo"
CONVERSATIONS = [1_000, 10_000, 100_000]
TOKENS = [256, 512, 1_024, 2_048, 4_096, 8_192]
PROCESSES = [1, 2, 4]
STEPS = 8
ROWS_OF_A_STEP = 8
PROMPTS = 64

Point = dict[str, Any]


def prepare_conversations(count: int) -> Point:
    """Prepare a training of so many conversations, in this process."""
    from job.config.commands import TrainConfig
    from job.storage.open import open_store
    from job.training.prepare import prepare

    with TemporaryDirectory(prefix="recap-scale-") as folder:
        work = Path(folder)
        lines = (DATA / "train.jsonl").read_text(encoding="utf-8").splitlines()
        with (work / "train.jsonl").open("w", encoding="utf-8") as file:
            for number in range(count):
                record = json.loads(lines[number % len(lines)])
                record["id"] = f"c{number}"
                # No two are alike, as in real data: equal ones would be counted as overlap.
                record["turns"][0]["text"] += f" It is number {number}."
                file.write(json.dumps(record) + "\n")
        config = TrainConfig.model_validate(
            {
                "run": "scale",
                "model": {"base": str(DATA / "base")},
                "data": {
                    "train": str(work / "train.jsonl"),
                    "validation": str(DATA / "validation.jsonl"),
                    "references": "first",
                },
                "output": str(work / "out"),
                "training": {"max_tokens": 512},
            }
        )
        started, cpu = time.perf_counter(), time.process_time()
        run = prepare(config, work, open_store(f"{work}/out/scale", config.storage))
        seconds = time.perf_counter() - started
        rows = len(run.data.rows.train.dataset)
    return {"seconds": seconds, "cpu_seconds": time.process_time() - cpu, "rows": rows}


def train_rows_of(tokens: int) -> Point:
    """Train on rows of so many tokens, in this process."""
    from benchmarks.gpu.trainers import recap_trainer

    training = {
        "batch_size": 2,
        "gradient_accumulation_steps": ROWS_OF_A_STEP // 2,
        "max_tokens": tokens,
        "max_steps": 2,
        "optimizer": "adamw_torch",
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
    "preparation": (prepare_conversations, CONVERSATIONS),
    "length": (train_rows_of, TOKENS),
    "processes": (train_with_processes, PROCESSES),
    "workers": (summarize_with_workers, PROCESSES),
}


def points_of(name: str, conversations: list[int]) -> Iterator[Point]:
    """Measure all points of one curve, each in a process of its own, and yield them."""
    if name == "night":
        from benchmarks.summarize_scale import run

        for count in conversations:
            found = run(count, "tokenizer")
            yield {"size": count, "peak_mib": found["peak_mib"], "seconds": found["seconds"]}
        return
    sizes = conversations if name == "preparation" else POINTS[name][1]
    for size in sizes:
        with TemporaryDirectory(prefix="recap-scale-") as cache:
            done = subprocess.run(
                [sys.executable, "-m", "benchmarks.scale", "--point", name, str(size)],
                cwd=ROOT,
                env=os.environ | {"HF_HUB_OFFLINE": "1", "RECAP_CACHE": cache},
                stdout=subprocess.PIPE,
                text=True,
                check=True,
            )
        yield {"size": size, **json.loads(done.stdout.splitlines()[-1])}


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
    names = [*POINTS, "night"]
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
            line = json.dumps({"curve": name, **point})
            print(line, flush=True)
            with options.out.open("a", encoding="utf-8") as file:
                file.write(line + "\n")


if __name__ == "__main__":
    main()
