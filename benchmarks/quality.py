"""Fine-tune a real base on real conversations, and show what it is worth against every opponent.

`python -m benchmarks.quality --tweetsumm DIR --base DIR [--out DIR] [--set KEY=VALUE] [--steps N]`
runs `recap train` on quality.yaml and prints the table of scores on the validation split, with 95%
intervals, and how the adapter stands against floors, base and people. The folder of TweetSumm has
train.json and validation.json in DialogStudio's shape; the base is SmolLM2-135M-Instruct, as
`make build/smollm2-135m-instruct` makes it. `--steps` is for a trial of the script with ten
conversations to score, whose scores mean nothing. Ends with 1 if a full run misses what it must
reach.
"""

import argparse
import json
import os
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import wrap
from typing import Any

import psutil

from job.evaluation.metrics.all_metrics import first_metrics
from job.evaluation.result import (
    Evaluation,
    comparison_sentence,
    mean_score,
    ranked_systems,
    verdict,
)

ROOT = Path(__file__).parent.parent
CONFIG = ROOT / "benchmarks" / "quality.yaml"
DEFAULT_OUT = ROOT / "build" / "quality"
METRICS = first_metrics(3)
BASE, LEADS = "base without adapter", ("lead-2", "first and last turn")
MUST_BEAT = (BASE, *LEADS)
MAX_MINUTES = 60
MAX_GIB = 8
SECONDS_BETWEEN_LOOKS = 0.5
TRIAL_CONVERSATIONS = 10
# Flags of /proc/cpuinfo: x86 with AVX-512 or AMX, and ARM.
BFLOAT16_FLAGS = ("avx512_bf16", "amx_bf16", "bf16")
ABOUT = """\
# A recipe judged by what it writes

`make bench-quality` fine-tunes SmolLM2-135M-Instruct on TweetSumm's training split by `recap train`
with `benchmarks/quality.yaml`, and scores it on the validation split as it would serve. It writes
this page to `build/quality/quality.md`. The base is made of its 4-bit weights in a package of the
Python index, and is a little worse than the original. The conversations are not part of recap.
"""


@dataclass(frozen=True)
class Cost:
    """The cost of the run: wall time, and the peak of its processes' memory together."""

    minutes: float
    peak_gib: float


def main() -> int:
    """Train, score, print and write the page; return 1 if a full run misses what it must reach."""
    options = _options()
    out: Path = options.out.resolve()
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    dtype = "bfloat16" if computes_in_bfloat16() else "float32"
    cost = measured(_command(options, out, dtype), out / "train.log")
    evaluation, journal = _results(out / "runs" / "quality")
    found = [*missed(evaluation, cost)]
    lines = [*ABOUT.splitlines(), "", *_facts(journal, cost), "", *_table(evaluation), ""]
    lines += [f"- {comparison_sentence(evaluation, name)}." for name in evaluation.differences]
    lines += ["", *wrap(_standing(evaluation), 100)]
    page = "\n".join(lines) + "\n"
    (out / "quality.md").write_text(page, encoding="utf-8")
    print(page)
    print(f"report: {out / 'runs' / 'quality' / 'report' / 'report.html'}")
    if options.steps is not None:
        print(f"a trial of {options.steps} steps: its scores mean nothing")
        return 0
    for miss in found:
        print(f"MISSED: {miss}")
    return int(bool(found))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tweetsumm", default=os.environ.get("RECAP_TWEETSUMM"))
    parser.add_argument("--base", default=os.environ.get("RECAP_SMOLLM2"))
    parser.add_argument("--out", type=Path, default=DEFAULT_OUT, help="folder that is replaced")
    parser.add_argument("--steps", type=int, help="train for so many steps only, to try the script")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    options = parser.parse_args()
    for name, variable in (("tweetsumm", "RECAP_TWEETSUMM"), ("base", "RECAP_SMOLLM2")):
        folder = getattr(options, name)
        if folder is None or not Path(folder).is_dir():
            sys.exit(f"{variable} (or --{name}) names no folder: got {folder}")
    return options


def _command(options: argparse.Namespace, out: Path, dtype: str) -> list[str]:
    command = [sys.executable, "-m", "job", "train", str(CONFIG)]
    for name, value in {
        "base": Path(options.base).resolve(),
        "tweetsumm": Path(options.tweetsumm).resolve(),
        "output": out / "runs",
        "dtype": dtype,
    }.items():
        command += ["--var", f"{name}={value}"]
    overrides = list(options.set)
    if options.steps is not None:
        overrides += [f"training.max_steps={options.steps}"]
        overrides += [f"data.validation={_few(Path(options.tweetsumm), out)}"]
    for override in overrides:
        command += ["--set", override]
    return command


def _few(tweetsumm: Path, out: Path) -> Path:
    """Write the first conversations of the validation split to a file in `out`, and return it."""
    dialogs = json.loads((tweetsumm / "validation.json").read_text(encoding="utf-8"))
    few = out / "validation.json"
    first = dict(list(dialogs.items())[:TRIAL_CONVERSATIONS])
    few.write_text(json.dumps(first), encoding="utf-8")
    return few


def computes_in_bfloat16() -> bool:
    """Return True if the CPU computes in bfloat16: others emulate it, and a step takes minutes."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return False
    flags = set(text.split())
    return any(flag in flags for flag in BFLOAT16_FLAGS)


def measured(command: Sequence[str], log: Path) -> Cost:
    """Run a command with its output in `log`, and return its cost. Ends this process if it fails.

    The memory is the sum over the process and all below it: pages that they share count twice.
    """
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    begun = time.monotonic()
    peak = 0
    with log.open("w", encoding="utf-8") as file:
        process = psutil.Popen(command, cwd=ROOT, env=environment, stdout=file, stderr=file)
        while process.poll() is None:
            peak = max(peak, _bytes_of_tree(process))
            time.sleep(SECONDS_BETWEEN_LOOKS)
    if process.returncode:
        sys.exit(f"recap train ended with {process.returncode}: see {log}")
    return Cost((time.monotonic() - begun) / 60, peak / 2**30)


def _bytes_of_tree(process: psutil.Process) -> int:
    total = 0
    try:
        for each in (process, *process.children(recursive=True)):
            total += each.memory_info().rss
    except psutil.NoSuchProcess:  # it ended between the two calls
        pass
    return total


def _results(folder: Path) -> tuple[Evaluation, Any]:
    """Return the evaluation and the journal of a run. Ends this process if it has no scores."""
    scores = folder / "report" / "evaluation.json"
    if not scores.is_file():
        sys.exit(f"the adapter has no scores: see {folder / 'report' / 'report.html'}")
    evaluation = json.loads(scores.read_text(encoding="utf-8"))
    journal = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    return Evaluation.from_json(evaluation), journal


def missed(evaluation: Evaluation, cost: Cost) -> Iterator[str]:
    """Yield what a full run must reach and has not."""
    for name in MUST_BEAT:
        if verdict(evaluation, name) != "beats":
            yield comparison_sentence(evaluation, name)
    if cost.minutes > MAX_MINUTES:
        load = os.getloadavg()[2]
        yield f"{cost.minutes:.0f} minutes of {MAX_MINUTES}, at a load of {load:.0f}"
    if cost.peak_gib > MAX_GIB:
        yield f"{cost.peak_gib:.1f} GiB of memory of {MAX_GIB}"


def _facts(journal: Any, cost: Cost) -> Iterator[str]:
    environment = journal["facts"]["environment"]
    training = journal["config"]["training"]
    data = journal["facts"]["data"]["train"]
    seconds = journal["facts"]["timings"]["train_seconds"]
    threads = os.environ.get("OMP_NUM_THREADS", "one a core")
    rows = training["batch_size"] * training["gradient_accumulation_steps"]
    length = data["tokens"] / data["rows"]
    steps = (
        f"{training['max_steps']} steps"
        if training["max_steps"]
        else (f"{training['epochs']:g} epochs")
    )
    facts = [
        f"Recipe: {steps} of {rows} rows a step, {data['rows']:,} rows of {length:.0f} tokens, "
        f"learning rate {training['learning_rate']}, rank {journal['config']['lora']['r']}, in "
        f"{journal['config']['model']['dtype']}.",
        f"Cost: {cost.minutes:.0f} minutes, of which {seconds / 60:.0f} in training; at most "
        f"{cost.peak_gib:.1f} GiB of memory in all processes.",
        f"Machine: {environment['cpu']}, {environment['cores']} cores (threads: {threads}), no "
        f"GPU; load of the last quarter of an hour: {os.getloadavg()[2]:.0f}.",
        f"Versions: Python {environment['python']}, "
        + ", ".join(f"{name} {number}" for name, number in environment["versions"].items())
        + ".",
    ]
    for fact in facts:
        yield from wrap(fact, 100, initial_indent="- ", subsequent_indent="  ")


def _table(evaluation: Evaluation) -> Iterator[str]:
    yield f"{evaluation.conversations} conversations; means over the references, 95% intervals."
    yield ""
    yield "| | " + " | ".join(metric.title for metric in METRICS) + " | words |"
    yield "|---" + "|---:" * (len(METRICS) + 1) + "|"
    for name in ranked_systems(evaluation):
        cells = [_cell(evaluation, name, metric) for metric in METRICS]
        words = evaluation.systems[name].words.mean
        yield f"| {name} | {' | '.join(cells)} | {words:.1f} |"


def _cell(evaluation: Evaluation, name: str, metric: Any) -> str:
    score = mean_score(evaluation, name, metric)
    return f"{score.mean:.3f} [{score.low:.3f}, {score.high:.3f}]" if score else ""


def _standing(evaluation: Evaluation) -> str:
    """Return how the adapter stands between the constant sentence and people, in plain words."""
    scores = {name: mean_score(evaluation, name) for name in evaluation.systems}
    constant = next(name for name in scores if name.startswith("constant"))
    judged, floor, people = (scores[name] for name in (evaluation.judged, constant, "human"))
    if judged is None or floor is None or people is None:
        return "Where it stands between the constant sentence and people is not known."
    share = (judged.mean - floor.mean) / (people.mean - floor.mean)
    against = {
        "beats": "beats the constant sentence",
        "loses to": "loses to the constant sentence",
    }.get(verdict(evaluation, constant), "is not shown to beat the constant sentence")
    return (
        f"By ROUGE-L, the adapter {against}. On the way from the constant sentence "
        f"({floor.mean:.3f}) to a second person ({people.mean:.3f}) it stands at {share:.0%} "
        f"({judged.mean:.3f})."
    )


if __name__ == "__main__":
    sys.exit(main())
