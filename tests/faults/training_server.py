"""Start training processes that need not load the libraries: this process has, and forks.

It reads a JSON line per trial from stdin: {"work": folder, "environment": {…}}. The child runs what
`python -m job.training.worker` runs. The answer is two lines: the child's process number, and its
exit code (or the negative number of the signal that ended it).

BROKEN in the environment of a trial names functions that fail, as `module:function:way` with spaces
between: `raise` an error of a library, `disk` is full, `memory` is too small, or `kill` the
process. INSTRUMENTS names functions of tests/training/instruments.py to call in the child.
"""

import errno
import importlib
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from job.model.libraries import import_bitsandbytes
from tests.faults.forks import load

HEAVY = (
    "peft",
    "transformers.models.llama.modeling_llama",
    "trl",
    "job.evaluation.report",
    "job.training.run",
    "rouge_score.rouge_scorer",
    "sacrebleu.metrics",
)


def main() -> None:
    import_bitsandbytes()
    load(HEAVY)
    _warm_up()
    for line in sys.stdin:
        trial = json.loads(line)
        child = os.fork()
        if child == 0:
            os._exit(_train(Path(trial["work"]), trial["environment"]))
        print(child, flush=True)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


def _warm_up() -> None:
    """Make here what each training would make anew: templates of pages, and tables of weights."""
    from transformers.conversion_mapping import get_checkpoint_conversion_mapping

    from job.pages.render import environment

    pages = environment("job.evaluation")
    for name in pages.list_templates(extensions=["html"]):
        pages.get_template(name)
    get_checkpoint_conversion_mapping("llama")


def _train(work: Path, environment: dict[str, str]) -> int:
    import torch

    from job.training import worker

    os.environ.update(environment)
    time.tzset()  # for a trial with another TZ
    for broken in environment.get("BROKEN", "").split():
        _break(*broken.split(":"))
    log = os.open(work / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    for name in environment.get("INSTRUMENTS", "").split():
        getattr(importlib.import_module("tests.training.instruments"), name)()
    torch.set_num_threads(1)
    return int(worker.main(work))


def _break(module: str, function: str, way: str) -> None:
    """Replace a function, or a method named with its class, by one that fails."""

    def fail(*_: Any, **__: Any) -> None:
        import torch

        if way == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        raise {
            "raise": ValueError("broken on purpose"),
            "disk": OSError(errno.ENOSPC, "No space left on device"),
            "memory": torch.OutOfMemoryError("out of memory, on purpose"),
        }[way]

    owner: Any = importlib.import_module(module)
    *names, last = function.split(".")
    for name in names:
        owner = getattr(owner, name)
    setattr(owner, last, fail)


if __name__ == "__main__":
    main()
