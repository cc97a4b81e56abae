"""Compare recap's training with a plain SFTTrainer script of the same settings.

`python benchmarks/train_speed.py [--steps N] [--repeats N] [--base DIR]` prints a line per pair of
runs, the median of their ratios (recap / plain; below 1 is faster) and the middle half of them.
Each run is a process of its own. Only training is timed, with evaluation and checkpoint at the last
step, and without the loading of libraries.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

import yaml
from pairs import compare, quartiles

ROOT = Path(__file__).parent.parent
DATA = ROOT / "examples" / "demo"
MAX_RATIO = 1.05


def recap_seconds(base: str, work: Path, steps: int, save_every_steps: int | None = None) -> float:
    """Train with recap and return the seconds, from run.json.

    Without `save_every_steps`, the only checkpoint is at the end.
    """
    config = {
        "run": "bench",
        "model": {"base": base},
        "data": {
            "train": str(DATA / "train.jsonl"),
            "validation": str(DATA / "validation.jsonl"),
            "cleaning": [],
        },
        "output": str(work),
        "training": {
            "max_steps": steps,
            "batch_size": 16,
            "gradient_accumulation_steps": 1,
            "learning_rate": 2e-3,
            "max_tokens": 512,
            "save_every_steps": save_every_steps or steps,
            "evaluate_every_steps": steps,
            "sample_summaries": 0,
        },
        "evaluation": {"max_conversations": 1},
    }
    (work / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    run([sys.executable, "-m", "job", "train", str(work / "config.yaml")])
    journal = json.loads((work / "bench" / "run.json").read_text())
    seconds: float = journal["facts"]["timings"]["train_seconds"]
    return seconds


def plain_seconds(base: str, work: Path, steps: int) -> float:
    """Train with the plain script and return the seconds."""
    script = str(ROOT / "benchmarks" / "plain_sft.py")
    data = [str(DATA / "train.jsonl"), str(DATA / "validation.jsonl")]
    output = run([sys.executable, script, base, *data, str(work), str(steps)])
    (line,) = [line for line in output.splitlines() if line.startswith('{"train_seconds"')]
    seconds: float = json.loads(line)["train_seconds"]
    return seconds


def run(command: list[str]) -> str:
    """Return the output of a command; end this process if it fails."""
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    done = subprocess.run(
        command, capture_output=True, text=True, env=environment, cwd=ROOT, check=False
    )
    if done.returncode:
        sys.exit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr[-4000:]}")
    return done.stdout


def main() -> int:
    """Run both by turns and print the ratio; return 1 if it is too large."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--repeats", type=int, default=6)
    parser.add_argument("--base", default=str(DATA / "base"))
    options = parser.parse_args()
    ratios, seconds = compare(
        ("recap", lambda work: recap_seconds(options.base, work, options.steps)),
        ("plain", lambda work: plain_seconds(options.base, work, options.steps)),
        options.repeats,
    )
    low, ratio, high = quartiles(ratios)
    verdict = ": MISSED" if ratio > MAX_RATIO else ""
    print(f"training, recap / plain SFTTrainer script: {ratio:.3f} of the time,")
    print(f"the middle half of {len(ratios)} pairs from {low:.3f} to {high:.3f}")
    print(f"(wanted: at most {MAX_RATIO}){verdict}")
    found = {
        "benchmark": "train_speed",
        "ratio": round(ratio, 4),
        "seconds": seconds,
        "steps": options.steps,
    }
    print(json.dumps(found))
    return int(ratio > MAX_RATIO)


if __name__ == "__main__":
    sys.exit(main())
