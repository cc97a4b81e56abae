"""Run `plain_load` in a process of its own, which knows nothing of recap."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from job.errors import OUT_OF_MEMORY
from job.launch.memory import own_control_group
from job.launch.variables import variables_of_no_rank
from job.model.libraries import DISABLE_COMPILER
from job.training import plain_load

GIB = 2**30
# Of Python, as in `package.ClassName: text`. The text may name a path.
ERROR = re.compile(r"(?:\w+\.)*(?P<name>\w*(?:Error|Exception|Exit))\b")
NO_ROOM = "No space left on device"


@dataclass(frozen=True)
class PlainModel:
    """A base in a folder, the adapter beside it if there is one, and how they are loaded."""

    base: Path
    adapter: Path | None
    auto_class: str  # of transformers
    quantization: str  # nf4, nf4-double, or any other name for weights that are read as they are
    dtype: str
    parameters: int  # of the base


@dataclass(frozen=True)
class Question:
    """Prompts to answer, and a text after each whose tokens the model is asked about, or none.

    `prompt_texts` are the prompts as text, for the tokenizer.
    """

    prompts: Sequence[list[int]]
    prompt_texts: Sequence[str]
    texts: Sequence[list[int]]
    ends: Sequence[int]  # tokens that end an answer
    max_new_tokens: int


@dataclass(frozen=True)
class Answers:
    """The tokens of a greedy answer to each prompt.

    `expected` counts the tokens of each text that the model, reading on, expects most. Of a reward
    model there are `scores` alone, of each prompt with its text, and the number of parameters of
    the base in 4 bits.
    """

    tokens: list[list[int]]
    expected: list[int]
    scores: list[float] = field(default_factory=list)
    four_bit: int = 0


@dataclass(frozen=True)
class Readings:
    """The ids of each prompt's text, and the text of each prompt's ids, by a tokenizer."""

    ids: list[list[int]]
    texts: list[str]


@dataclass(frozen=True)
class PlainAnswer:
    """The answers of a fresh process, and those of the base without the adapter.

    The latter are there only if there is an adapter, and texts. `readings` are by the
    tokenizer beside the adapter, or beside the base without one. `adapter` is a digest of the
    weights of a reward model in memory.
    """

    versions: dict[str, str]
    readings: Readings
    answers: Answers
    answers_of_base: Answers | None = None
    adapter: str = ""


class PlainLoadError(Exception):
    """The process gave no answer. `why` names no path, so that a public card can have it.

    `is_of_machine` is True if the machine is the reason, as its memory: then nothing is known of
    the adapter.
    """

    def __init__(self, why: str, detail: str = "", is_of_machine: bool = True) -> None:
        super().__init__(detail or why)
        self.why = why
        self.is_of_machine = is_of_machine


@dataclass
class PlainProcess:
    """Starts a process for each question, with its files in `folder`."""

    folder: Path
    timeout_seconds: float
    command: Sequence[str] = (sys.executable, "-P", plain_load.__file__)
    _waiting: "subprocess.Popen[bytes] | None" = field(default=None, init=False)

    @contextmanager
    def started(self) -> Iterator[None]:
        """Start the process of the next question now; the end of the block ends it if it waits.

        It imports its libraries meanwhile, which takes seconds, and touches no GPU.
        """
        self._waiting = self._start()
        try:
            yield
        finally:
            process = self._waiting
            self._waiting = None
            if process is not None:
                _end(process)

    def ask(self, model: PlainModel, question: Question) -> PlainAnswer:
        """Return the answer of a fresh process; raise PlainLoadError if it gives none."""
        missing = missing_memory(model)
        if missing:
            raise PlainLoadError(missing)
        answer = self.folder / "answer.json"
        answer.unlink(missing_ok=True)
        request = {
            "base": str(model.base),
            "adapter": str(model.adapter) if model.adapter else None,
            "auto_class": model.auto_class,
            "quantization": model.quantization,
            "dtype": model.dtype,
            "ends": list(question.ends),
            "prompts": list(question.prompts),
            "prompt_texts": list(question.prompt_texts),
            "texts": list(question.texts),
            "max_new_tokens": question.max_new_tokens,
            "answer": str(answer),
        }
        code = self._run(json.dumps(request).encode() + b"\n")
        if code != 0 or not answer.is_file():
            raise _no_answer(code, self._log.read_text(encoding="utf-8", errors="replace"))
        found = json.loads(answer.read_text(encoding="utf-8"))
        return PlainAnswer(
            found["versions"],
            Readings(**found["readings"]),
            Answers(**found["answers"]),
            Answers(**found["answers_of_base"]) if "answers_of_base" in found else None,
            found.get("adapter", ""),
        )

    def _run(self, request: bytes) -> int:
        """Run the program with a request, and return its exit code."""
        process = self._waiting or self._start()
        self._waiting = None
        try:
            assert process.stdin is not None
            with suppress(BrokenPipeError):  # it ended before: its log says why
                process.stdin.write(request)
                process.stdin.flush()
            return process.wait(self.timeout_seconds)
        except subprocess.TimeoutExpired as error:
            why = f"it took more than {self.timeout_seconds:g} seconds"
            raise PlainLoadError(why) from error
        finally:
            # Also when a stop signal ends the wait: there is no time for both.
            _end(process)

    def _start(self) -> "subprocess.Popen[bytes]":
        self.folder.mkdir(parents=True, exist_ok=True)
        # All that it needs is here, and it compiles nothing: bitsandbytes would import the
        # compiler, which takes a second.
        own = {"HF_HUB_OFFLINE": "1", DISABLE_COMPILER: "1"}
        with self._log.open("wb") as output:
            return subprocess.Popen(
                self.command,
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=variables_of_no_rank(os.environ) | own,
            )

    @property
    def _log(self) -> Path:
        return self.folder / "log"


def _end(process: "subprocess.Popen[bytes]") -> None:
    process.kill()
    with process:  # closes stdin, and waits
        pass


def missing_memory(model: PlainModel) -> str:
    """Return why a base cannot be loaded on a CPU once more; empty if it can, or may.

    The kernel would kill a process, maybe this one. On a GPU, loading fails in good order.
    """
    import torch

    if torch.cuda.is_available():
        return ""
    needed = model.parameters * getattr(torch, model.dtype).itemsize
    free = psutil.virtual_memory().available
    limit_gib = own_control_group().limit_gib()
    if limit_gib is not None:
        free = min(free, int(limit_gib * GIB) - psutil.Process().memory_info().rss)
    if needed <= free:
        return ""
    return f"its base needs {needed / GIB:.1f} GiB of memory, and {free / GIB:.1f} GiB are free"


def _no_answer(code: int, log: str) -> PlainLoadError:
    """Return the error of a process that ended with this code and log."""
    lines = [line for line in log.splitlines() if line.strip()]
    # The text of an error may have lines of its own, as one for each weight that does not fit.
    errors = [line for line in lines if ERROR.match(line)]
    if code < 0:
        return PlainLoadError(f"the process was killed by {signal.Signals(-code).name}")
    if OUT_OF_MEMORY.search(log):
        return PlainLoadError("there was no memory to load it once more")
    if NO_ROOM in log:
        return PlainLoadError("the disk was full")

    why = f"the process ended with {code}, and not with an answer"
    text = lines[-1] if lines else "it wrote nothing"
    if errors and (error := ERROR.match(errors[-1])):
        why = f"loading it failed ({error['name']})"
        text = "\n".join(lines[lines.index(errors[-1]) :])
    return PlainLoadError(why, f"{why}: {text}", is_of_machine=False)
