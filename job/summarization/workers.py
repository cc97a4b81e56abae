"""The workers of one machine: a process for each GPU, below this one, which only watches them.

They take the chunks of this machine's shard one after the other, so that all end at about the same
time. If one dies, the others continue; the next attempt does the chunk that it had.
"""

import json
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import IO, Any, Literal

from job.config.commands import SummarizeConfig
from job.config.load import resolved_yaml
from job.errors import CRASHED_OR_KILLED, ConfigError, ExitCode
from job.gpus.visible import is_mig
from job.inference.taken import fill
from job.launch.memory import own_control_group
from job.launch.outcome import MORE_MEMORY, Outcome
from job.launch.processes import ProcessTree, Start, adopt_orphans
from job.launch.variables import worker_variables
from job.storage.scratch import work_folder
from job.summarization.shard import CLAIMS_VARIABLE, Shard
from job.telemetry import Progress, event, progress

COMMAND = (sys.executable, "-m", "job", "summarize")
GRACE_SECONDS = 8.0  # a worker ends itself after 5; docker kills all 10 seconds after its signal

# Codes after which a scheduler runs a night again, the most telling first. All others are final.
RUN_AGAIN = (*CRASHED_OR_KILLED, int(ExitCode.RETRY))
ERROR = "error: "  # in the line by which a command reports why it ends


@dataclass(frozen=True)
class Layout:
    """The workers of a machine: for each the GPUs that it may see, by CUDA's names of them.

    Without GPUs, `gpus` is empty, and the workers share the CPUs.
    """

    workers: int
    gpus: tuple[tuple[str, ...], ...] = ()


def gpus_of_a_worker(config: SummarizeConfig, gpus: int) -> int:
    """Return how many GPUs share the weights: as the config says, or as the adapter was judged.

    What an adapter was judged with is 1 on a machine of fewer GPUs.
    """
    if "tensor_parallel" in config.model_fields_set or gpus < 2:
        return config.tensor_parallel
    wanted = fill(config).config.tensor_parallel
    return wanted if wanted <= gpus else 1


def plan_workers(
    workers: int | Literal["auto"],
    tensor_parallel: int,
    gpus: Sequence[str],
) -> Layout:
    """Return how `gpus`, the names of those that are visible, are shared among workers.

    Raise ConfigError if there are too few.
    """
    if not gpus:
        return Layout(1 if workers == "auto" else workers)
    if tensor_parallel > len(gpus):
        raise ConfigError(
            f"tensor_parallel: {tensor_parallel}, but {_count(gpus)} visible on this machine: take "
            "a machine with more of them, or lower it"
        )
    if tensor_parallel > 1 and any(map(is_mig, gpus)):
        raise ConfigError(
            f"tensor_parallel: {tensor_parallel}, but this machine has MIG devices, of which CUDA "
            "gives a process one: take whole GPUs, or set tensor_parallel: 1"
        )
    at_most = len(gpus) // tensor_parallel
    if workers == "auto":
        workers = at_most
    if workers > at_most:
        each = f" with {tensor_parallel} GPUs each (tensor_parallel)" if tensor_parallel > 1 else ""
        raise ConfigError(
            f"workers: {workers}{each}, but {_count(gpus)} visible on this machine: {at_most} at "
            "the most"
        )
    shares = []
    for worker in range(workers):
        shares.append(tuple(gpus[worker * tensor_parallel :][:tensor_parallel]))
    return Layout(workers, tuple(shares))


def describe_workers(config: SummarizeConfig, gpus: Sequence[str]) -> str:
    """Return how many workers a machine will start, and how many this one would, for a plan."""
    each = f"{config.tensor_parallel} GPUs" if config.tensor_parallel > 1 else "GPU"
    if config.workers == "auto":
        text = f"one for each {each} of a machine"
    else:
        text = f"{config.workers} on each machine"
        if config.tensor_parallel > 1:
            text += f", with {each} each"
    try:
        here = str(plan_workers(config.workers, config.tensor_parallel, gpus).workers)
    except ConfigError as error:
        # The machine that plans need not be one that works.
        return f"{text}; none here ({error})"
    if config.workers == "auto" or gpus:
        number = f"{len(gpus)} GPUs" if len(gpus) != 1 else "1 GPU"
        text += f"; {here} here, with {number}" if gpus else f"; {here} here, without a GPU"
    return text


def run_workers(
    config: SummarizeConfig,
    shard: Shard,
    layout: Layout,
    command: Sequence[str] = COMMAND,
) -> Outcome:
    """Summarize the shard with the workers of `layout`, and return one outcome for all of them.

    `command` is what a worker runs, before the path of its config and its shard.
    """
    event("workers", workers=layout.workers, gpus=[" ".join(gpus) for gpus in layout.gpus])
    config = config.model_copy(update={"workers": layout.workers})
    adopt_orphans()
    with work_folder(config.run) as work, _Logs() as logs:
        (work / "config.yaml").write_text(resolved_yaml(config), encoding="utf-8")
        (work / "claims").mkdir()
        words = [*command, str(work / "config.yaml"), "--shard", f"{shard.index}/{shard.count}"]
        starts = []
        for worker in range(layout.workers):
            gpus = layout.gpus[worker] if layout.gpus else None
            environment = worker_variables(os.environ, gpus, layout.workers)
            environment[CLAIMS_VARIABLE] = str(work / "claims")
            starts.append(Start(words, environment, logs.reader(worker)))

        # A worker is asked, and ends the processes that vLLM has below it.
        tree = ProcessTree(GRACE_SECONDS, "launchers")
        memory = own_control_group()
        counts = memory.counts()
        with tree.handling_stop_signals():
            returned = tree.run_all(starts)
    return judge_workers(
        returned,
        logs.errors,
        is_stopped=tree.deadline is not None,
        at_memory_limit=memory.kill_since(counts),
    )


def judge_workers(
    returned: Sequence[int],
    errors: Mapping[int, str],
    is_stopped: bool,
    at_memory_limit: str | None = None,
) -> Outcome:
    """Return the outcome of all workers from their return codes and their last errors.

    `at_memory_limit` is what happened if the container's memory limit killed one of them. That is
    not final: a record may have needed too much, and the next attempt isolates it.

    The first row that applies decides:

    ========================================  ==================================
    the workers                               the machine
    ========================================  ==================================
    all are done                              0
    one ended with a code that is final       that code, of the first such worker
    a stop was requested                      75
    one crashed, was killed, or asks for it   that code, in this order
    ========================================  ==================================

    A final code goes first: a scheduler would repeat the night, and find the same error again.
    """
    codes = {}
    for worker, code in enumerate(returned):
        # Popen returns -N after signal N, a shell returns 128 + N.
        code = 128 - code if code < 0 else code
        if code != ExitCode.DONE:
            codes[worker] = code
    if not codes:
        return Outcome(ExitCode.DONE, "done")

    final = [code for code in codes.values() if code not in RUN_AGAIN]
    if final:
        code = final[0]
    elif is_stopped:
        code = int(ExitCode.RETRY)
    else:
        code = min(codes.values(), key=RUN_AGAIN.index)

    why = {}
    for worker, ended in codes.items():
        why[worker] = errors.get(worker) or _why(ended, at_memory_limit)
    return Outcome(code, _describe(codes, why, len(returned)))


def _describe(codes: Mapping[int, int], why: Mapping[int, str], workers: int) -> str:
    """Return what happened to the workers that failed; one sentence if the same happened to all."""
    if len(codes) == workers and len(set(why.values())) == 1:
        return next(iter(why.values()))
    each = [f"worker {worker} ended with {codes[worker]} ({why[worker]})" for worker in codes]
    kept = "what the workers committed is kept: run the same command again to resume"
    return f"{len(codes)} of {workers} workers failed: {'; '.join(each)}; {kept}"


def _why(code: int, at_memory_limit: str | None) -> str:
    if code == 128 + signal.SIGKILL:
        if at_memory_limit:
            return f"{at_memory_limit}: {MORE_MEMORY}, or lower workers"
        return "killed from outside, by the host or because memory ran out"
    if code > 128:
        return f"ended by signal {code - 128}"
    return "the log above says why"


class _Logs:
    """Reads the logs of workers, and makes one log and one progress bar of them."""

    def __init__(self) -> None:
        self.errors: dict[int, str] = {}  # the last one of each worker
        self._bars: dict[str, Progress] = {}  # by name
        self._done: dict[tuple[str, int], int] = {}  # by name and worker
        self._stack = ExitStack()
        self._lock = threading.Lock()

    def __enter__(self) -> "_Logs":
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def reader(self, worker: int) -> Callable[[IO[bytes]], None]:
        """Return a function that reads the log of this worker to its end."""

        def read(stream: IO[bytes]) -> None:
            with stream:
                for raw in stream:
                    line = raw.decode(errors="replace").rstrip("\n")
                    with self._lock:
                        self._log(worker, line)

        return read

    def _log(self, worker: int, line: str) -> None:
        fields = _fields_of(line)
        if fields is None:
            # No event: an error, a traceback, or a library's message.
            kind, found, text = line.partition(ERROR)
            is_error = bool(found) and kind in ("", "config ")
            if is_error:
                self.errors[worker] = text
            event(line, logging.ERROR if is_error else logging.WARNING, worker=worker)
            return

        message = str(fields.pop("message"))
        fields.pop("time", None)
        name = str(fields.pop("level", "info")).upper()
        level = logging.getLevelNamesMapping().get(name, logging.INFO)
        if "done" in fields and "per_second" in fields:
            self._advance(worker, message, fields)
        else:
            event(message, level, **{**fields, "worker": worker})

    def _advance(self, worker: int, name: str, fields: Mapping[str, Any]) -> None:
        """Add what the worker has done since its last line to the progress of all."""
        if name not in self._bars:
            bar = progress(name, fields.get("total"), str(fields.get("unit", "it")))
            self._bars[name] = self._stack.enter_context(bar)
        before = self._done.get((name, worker), 0)
        self._done[name, worker] = fields["done"]
        self._bars[name].advance(fields["done"] - before)


def _fields_of(line: str) -> dict[str, Any] | None:
    """Return the fields of an event; None for any other line."""
    try:
        fields = json.loads(line)
    except ValueError:
        return None
    return fields if isinstance(fields, dict) and "message" in fields else None


def _count(gpus: Sequence[str]) -> str:
    return "1 GPU is" if len(gpus) == 1 else f"{len(gpus)} GPUs are"
