"""Compare recap's training with what a user would otherwise use, with the same rows and settings.

`python -m benchmarks.train_speed [--rows demo] [--steps N] [--repeats N] [--base DIR]
[--peers NAME …]` prints a line per round of runs, and for each peer the median of the ratios
(recap / peer; below 1 is faster) and the middle half of them. Each run is a process of its own.
Only training is timed, with evaluation and checkpoint at the last step, and without the loading of
libraries. Rows are those of the demo, or `mixed`: its conversations, cut to one turn, two, and so
on.

| peer | is |
|---|---|
| plain | plain_sft.py: TRL's SFTTrainer in one script, its adapter in float32 as recap's is |
| random | the same with rows in random order, which is TRL's default |
| notebook | notebook_recipe.py: transformers' Trainer, 4 x 4 padded rows, logits of all tokens |
| trl | `trl sft` with its best flags; its adapter is bfloat16, which a CPU computes slowly |
| unsloth | plain_sft.py with Unsloth's model in bfloat16, where Unsloth is installed |
"""

import argparse
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

import yaml

from benchmarks.pairs import machine, quartiles, ratios, run_by_turns
from benchmarks.sft_rows import DEMO, prompts_and_completions, write_data

ROOT = Path(__file__).parent.parent
# Of recap's time to that of the plain script, by rows.
MAX_RATIOS = {"demo": 1.0, "mixed": 1 / 1.3}

# What `trl sft` needs for the settings that recap is given, and its fastest way to do the same.
TRL_FLAGS = (
    "--dataset_test_split validation --use_peft --load_in_4bit --use_bnb_nested_quant "
    "--lora_r 16 --lora_alpha 32 --lora_dropout 0.05 --lora_target_modules all-linear "
    "--per_device_train_batch_size 16 --per_device_eval_batch_size 16 --learning_rate 2e-3 "
    "--lr_scheduler_type cosine --warmup_steps 0.05 --max_length 512 --seed 42 "
    "--train_sampling_strategy group_by_length --gradient_checkpointing false --optim adamw_torch "
    "--eval_strategy steps --save_strategy steps --logging_steps 10 --disable_tqdm true"
)
RUNTIME = re.compile(r"'train_runtime': '?([0-9.]+)")

# A training of DATA (the folder of its conversations) on BASE in an empty folder: its seconds.
Train = Callable[[str, Path, Path, int], float]


def recap_seconds(
    base: str, data: Path, work: Path, steps: int, save_every_steps: int | None = None
) -> float:
    """Train with recap and return the seconds, from run.json.

    Without `save_every_steps`, the only checkpoint is at the end.
    """
    config = {
        "run": "bench",
        "model": {"base": base},
        "data": {
            "train": str(data / "train.jsonl"),
            "validation": str(data / "validation.jsonl"),
            "cleaning": [],
            "overlap": "allow",  # of mixed rows, whose first turns are often the same
        },
        "output": str(work),
        "lora": {"dropout": 0.05},  # as its peers have it
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
    run([sys.executable, "-m", "job", "train", str(work / "config.yaml")], work)
    journal = json.loads((work / "bench" / "run.json").read_text())
    seconds: float = journal["facts"]["timings"]["train_seconds"]
    return seconds


def script_seconds(
    script: str, way: Sequence[str], base: str, data: Path, work: Path, steps: int
) -> float:
    """Train with a script beside this one and return the seconds that it prints."""
    arguments = [base, str(data), str(work / "out"), str(steps), *way]
    output = run([sys.executable, "-m", f"benchmarks.{script}", *arguments], work)
    (line,) = [line for line in output.splitlines() if line.startswith('{"train_seconds"')]
    seconds: float = json.loads(line)["train_seconds"]
    return seconds


def trl_seconds(base: str, data: Path, work: Path, steps: int) -> float:
    """Train with the command `trl sft` and return the seconds that it logs."""
    import torch

    rows = work / "rows"
    rows.mkdir()
    for path in data.glob("*.jsonl"):
        lines = map(json.dumps, prompts_and_completions(path))
        (rows / path.name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    places = f"--model_name_or_path {base} --dataset_name {rows} --output_dir {work / 'out'}"
    numbers = f"--max_steps {steps} --eval_steps {steps} --save_steps {steps}"
    device = "--bf16 true --dtype bfloat16"
    if not torch.cuda.is_available():
        device = "--bf16 false --dtype float32 --use_cpu true"
    # What `trl sft` starts by accelerate's launcher, which one process does not need.
    command = [sys.executable, "-m", "trl.scripts.sft"]
    output = run([*command, *f"{places} {numbers} {device} {TRL_FLAGS}".split()], work)
    return float(RUNTIME.findall(output)[-1])


def run(command: Sequence[str], work: Path) -> str:
    """Return the output of a command; end this process if it fails."""
    environment = os.environ | {
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "UNSLOTH_COMPILE_LOCATION": str(work / "unsloth"),
    }
    done = subprocess.run(
        command, capture_output=True, text=True, env=environment, cwd=ROOT, check=False
    )
    if done.returncode:
        sys.exit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr[-4000:]}")
    return done.stdout


PEERS: dict[str, Train] = {
    "plain": partial(script_seconds, "plain_sft", ["grouped"]),
    "random": partial(script_seconds, "plain_sft", ["random"]),
    "notebook": partial(script_seconds, "notebook_recipe", []),
    "trl": trl_seconds,
    "unsloth": partial(script_seconds, "plain_sft", ["unsloth"]),
}


def main() -> int:
    """Run all by turns and print the ratios; return 1 if that to the plain script is too large."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", choices=MAX_RATIOS, default="demo")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--repeats", type=int, default=6)
    parser.add_argument("--base", default=str(DEMO / "base"))
    parser.add_argument("--peers", nargs="+", choices=PEERS, default=list(PEERS))
    options = parser.parse_args()
    peers = [peer for peer in options.peers if peer != "unsloth" or find_spec("unsloth")]

    with TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        write_data(data, are_mixed=options.rows == "mixed")
        trainings: dict[str, Train] = {"recap": recap_seconds} | {
            name: PEERS[name] for name in peers
        }
        ways = {
            name: partial(_seconds, train, options.base, data, options.steps)
            for name, train in trainings.items()
        }
        seconds = run_by_turns(ways, options.repeats)

    found = {}
    for peer in peers:
        its = ratios(seconds["recap"], seconds[peer])
        low, found[peer], high = quartiles(its)
        print(f"{options.rows} rows, recap / {peer}: {found[peer]:.3f} of the time,", end=" ")
        print(f"the middle half of {len(its)} rounds from {low:.3f} to {high:.3f}")
    limit = MAX_RATIOS[options.rows]
    is_missed = found.get("plain", 0) > limit
    print(f"(wanted: at most {limit:.2f} of the plain script's){': MISSED' if is_missed else ''}")
    line = {
        "benchmark": "train_speed",
        "rows": options.rows,
        "steps": options.steps,
        "ratios": {peer: round(ratio, 4) for peer, ratio in found.items()},
        "seconds": seconds,
        **machine(),
    }
    print(json.dumps(line))
    return int(is_missed)


def _seconds(train: Train, base: str, data: Path, steps: int, work: Path) -> float:
    return train(base, data, work, steps)


if __name__ == "__main__":
    sys.exit(main())
