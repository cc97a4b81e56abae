"""Start workers of a night that need not load the libraries: this process has, and forks.

It reads a JSON line per request from stdin. {"start": config, "shard": "0/3", "log": path,
"environment": {…}, "kill_at_call": n or null, "deadly": text or null, "deadly_for": "adapter",
"challenger", "judge" (the reward model) or null for both adapters, "kill_while_loading": bool} is
answered with the child's process number. {"wait": number} is answered with its exit code (or the
negative number of the signal that ended it). {"command": words, "log": path, "environment": {…}}
starts `recap` with these words.
"""

import json
import os
import signal
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from zlib import crc32

from tests.faults.forks import load

HEAVY = ("torch", "pyarrow.parquet", "job.summarization.summarize")


def main() -> None:
    load(HEAVY)
    for line in sys.stdin:
        request = json.loads(line)
        if "wait" in request:
            _, status = os.waitpid(request["wait"], 0)
            print(os.waitstatus_to_exitcode(status), flush=True)
            continue
        child = os.fork()
        if child == 0:
            _prepare(request)
            os._exit(_run(request) if "command" in request else _summarize(request))
        print(child, flush=True)


def _prepare(request: dict[str, Any]) -> None:
    """Set the environment of the child, and let it write to its log."""
    os.environ.update(request["environment"])
    log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)


def _run(request: dict[str, Any]) -> int:
    from job import cli

    try:
        return cli.run(request["command"])
    finally:
        sys.stdout.flush()
        sys.stderr.flush()


def _summarize(request: dict[str, Any]) -> int:
    """Summarize with the stand-in engine, as `recap summarize` would; return the exit code."""
    from job import cli
    from job.config.commands import SummarizeConfig
    from job.errors import ExitCode, RecapError, Stopped
    from job.summarization.shard import find_shard
    from job.summarization.summarize import summarize
    from job.summarization.summarizer import Summarizer
    from job.telemetry import configure_logging
    from tests.stand_in import StandInEngine, stand_in

    calls = 0

    class Engine(StandInEngine):
        """Kills this process at the call, or at the prompt, that the request names."""

        def __init__(self, name: str) -> None:
            super().__init__(mark=f" by the {name}")
            self._dies = request["deadly_for"] in (None, name)

        def generate(self, prompts: Sequence[list[int]], *rest: Any) -> Any:
            die_or_count(self._dies and any(map(is_deadly, prompts)))
            return super().generate(prompts, *rest)

    def die_or_count(is_deadly: bool) -> None:
        nonlocal calls
        if is_deadly or calls == request["kill_at_call"]:
            os.kill(os.getpid(), signal.SIGKILL)
        calls += 1

    def score(conversations: Sequence[Any], summaries: Sequence[str]) -> list[float]:
        """Return a reward of each summary that any process gives."""
        dies = request["deadly_for"] == "judge"
        die_or_count(dies and any(request["deadly"] in str(each) for each in conversations))
        return [crc32(summary.encode()) % 1000 / 10 for summary in summaries]

    def open_summarizer(filled: Any, cache: Path) -> Summarizer:
        if request["kill_while_loading"]:
            os.kill(os.getpid(), signal.SIGKILL)
        open_both = stand_in(Engine("adapter"), challenger=Engine("challenger"), score=score)
        return open_both(filled, cache)

    def is_deadly(prompt: list[int]) -> bool:
        return bool(request["deadly"]) and request["deadly"].encode() in bytes(prompt)

    try:
        cli._stop_on_sigterm()  # within the `try`: a stop may come at once
        configure_logging()
        config = SummarizeConfig.model_validate(request["start"])
        summarize(config, open_summarizer, find_shard(request["shard"], None, os.environ))
    except RecapError as error:
        print(f"ended: {error}", file=sys.stderr, flush=True)
        return int(error.exit_code)
    except Stopped:
        return ExitCode.RETRY
    except BaseException:
        traceback.print_exc()
        return 70
    return 0


if __name__ == "__main__":
    main()
