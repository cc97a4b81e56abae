"""recap's training against a plain SFTTrainer script: same settings, same machine, same run, by turns.

`python benchmarks/train_speed.py [--steps N] [--repeats N] [--base DIR]` prints a line per pair of runs and the median
of their ratios (recap / plain; below 1 is faster) with the middle half of them. Each run is a process of its own; only
training is timed (evaluation and checkpoint at the last step included), not the loading of libraries.
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
WANTED = 1.05


def recap_seconds(base: str, work: Path, steps: int, save_every_steps: int | None = None) -> float:
    """Seconds of one `recap train`, as its run.json tells; a checkpoint at the end, or every so many steps."""
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
    seconds: float = json.loads((work / "bench" / "run.json").read_text())["facts"]["timings"][
        "train_seconds"
    ]
    return seconds


def plain_seconds(base: str, work: Path, steps: int) -> float:
    """Seconds of one run of the plain script."""
    script = str(ROOT / "benchmarks" / "plain_sft.py")
    data = str(DATA / "train.jsonl"), str(DATA / "validation.jsonl")
    out = run([sys.executable, script, base, *data, str(work), str(steps)])
    line = next(line for line in reversed(out.splitlines()) if line.startswith('{"train_seconds"'))
    seconds: float = json.loads(line)["train_seconds"]
    return seconds


def run(command: list[str]) -> str:
    """The output of a command that must succeed."""
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    done = subprocess.run(
        command, capture_output=True, text=True, env=environment, cwd=ROOT, check=False
    )
    if done.returncode:
        sys.exit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr[-4000:]}")
    return done.stdout


def main() -> int:
    """Run both by turns and print the ratio; 1 where it is missed."""
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
    print(
        f"training, recap / plain SFTTrainer script: {ratio:.3f} of the time, the middle half of {len(ratios)} pairs"
    )
    print(
        f"from {low:.3f} to {high:.3f} (wanted: at most {WANTED}){'' if ratio <= WANTED else ': MISSED'}"
    )
    print(
        json.dumps(
            {
                "benchmark": "train_speed",
                "ratio": round(ratio, 4),
                "seconds": seconds,
                "steps": options.steps,
            }
        )
    )
    return int(ratio > WANTED)


if __name__ == "__main__":
    sys.exit(main())
