"""The page with the results of the runs, of which benchmarks/results/ keeps one."""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from textwrap import wrap
from typing import Any

from job.evaluation.metrics.all_metrics import first_metrics
from tests.real.runs import Run, read

METRICS = first_metrics(3)
COMMANDS = {  # by their names in the runs
    "train": "train",
    "evaluate": "evaluate",
    "beside": "summarize",
    "merged": "summarize with merged weights",
}
ABOUT = """\
# A real base on a CPU

`make test-real` writes this page to `build/real/real-base.md`. It trains SmolLM2-135M-Instruct as
`examples/laptop.yaml` does, but for the base, which is made of its 4-bit weights in a package of
the Python index (`tests/real/base.py`), and is a little worse than the original. Scores are means
over the references of held-out conversations, with 95% intervals. The tuned base and the base
without adapter are scored on weights quantized as in the training.
"""


def write_page(path: Path, runs: Sequence[Run]) -> str:
    """Write quality, seconds, machine and versions of these runs, and return the page."""
    lines = [*ABOUT.splitlines(), *_machine(_journal(runs[0])["facts"]["environment"])]
    for run in runs:
        lines += ["", *_section(run)]
    page = "\n".join(lines) + "\n"
    path.write_text(page, encoding="utf-8")
    return page


def _journal(run: Run) -> Any:
    return json.loads(read(run.adapter.parent / "run.json"))


def _machine(environment: Mapping[str, Any]) -> Iterator[str]:
    threads = os.environ.get("OMP_NUM_THREADS", "one a core")
    versions = [f"{name} {number}" for name, number in environment["versions"].items()]
    facts = [
        f"Machine: {environment['cpu']}, {environment['cores']} cores (threads: {threads}), "
        f"{environment['memory_gib']:.0f} GiB of memory, no GPU.",
        f"Load of the machine in the last quarter of an hour: {os.getloadavg()[2]:.0f}. By itself, "
        "a run is a load of one for each thread.",
        f"Versions: Python {environment['python']}, {', '.join(versions)}.",
    ]
    yield ""
    for fact in facts:
        yield from wrap(fact, 100, initial_indent="- ", subsequent_indent="  ")


def _section(run: Run) -> Iterator[str]:
    journal = _journal(run)
    evaluation = run.evaluation()
    training = journal["config"]["training"]
    rows = training["batch_size"] * training["gradient_accumulation_steps"]
    data = journal["facts"]["data"]["train"]
    yield f"## {run.data.name} conversations, {run.quantization or 'float32, not quantized'}"
    yield ""
    yield (
        f"{training['max_steps']} steps of {rows} rows of {data['tokens'] / data['rows']:.0f} "
        f"tokens, learning rate {training['learning_rate']}; scored on "
        f"{evaluation['conversations']} conversations."
    )
    yield ""
    yield "| | " + " | ".join(metric.title for metric in METRICS) + " | words |"
    yield "|---" + "|---:" * (len(METRICS) + 1) + "|"
    for name, system in _ranked(evaluation):
        yield f"| {name} | {' | '.join(_cells(system))} |"
    yield ""
    times = [
        f"{command} {run.seconds[name]:.0f} s"
        for name, command in COMMANDS.items()
        if name in run.seconds
    ]
    yield f"Time of the commands, with loading: {', '.join(times)}."


def _ranked(evaluation: Mapping[str, Any]) -> list[tuple[str, Any]]:
    systems = [item for item in evaluation["systems"].items() if "rougeL" in item[1]["scores"]]
    return sorted(systems, key=lambda item: -item[1]["scores"]["rougeL"]["mean"]["mean"])


def _cells(system: Mapping[str, Any]) -> Iterator[str]:
    for metric in METRICS:
        score = system["scores"][metric.name]["mean"]
        yield f"{score['mean']:.3f} [{score['low']:.3f}, {score['high']:.3f}]"
    yield f"{system['words']['mean']:.1f}"
