"""Start workers of a night without loading the libraries each time: a process that has loaded them, and forks.

Reads JSON lines from stdin: {"start": config, "shard": "0/3", "log": path, "environment": {…}, "kill_at_call": n or
null, "deadly": text or null} is answered with the child's process number, {"wait": number} with how it ended (negative:
by a signal).
"""

import json
import os
import signal
import sys

from tests.faults.forks import load

HEAVY = ("torch", "pyarrow.parquet", "job.summarization.summarize")


def main() -> None:
    load(HEAVY)
    for line in sys.stdin:
        asked = json.loads(line)
        if "wait" in asked:
            print(os.waitstatus_to_exitcode(os.waitpid(asked["wait"], 0)[1]), flush=True)
            continue
        child = os.fork()
        if child == 0:
            os.environ.update(asked["environment"])
            log = os.open(asked["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(log, 1)
            os.dup2(log, 2)
            os._exit(_summarize(asked))
        print(child, flush=True)


def _summarize(asked) -> int:  # type: ignore[no-untyped-def]
    from benchmarks.stand_in import StandInEngine, stand_in
    from job import cli
    from job.config.commands import SummarizeConfig
    from job.errors import ExitCode, RecapError, Stopped
    from job.summarization.shard import find_shard
    from job.summarization.summarize import summarize
    from job.telemetry import configure_logging

    calls = 0

    def before() -> None:
        nonlocal calls
        if calls == asked["kill_at_call"]:
            os.kill(os.getpid(), signal.SIGKILL)
        calls += 1

    class Engine(StandInEngine):
        """Has a process killed that gives it the deadly text."""

        def generate(self, prompts, *rest):  # type: ignore[no-untyped-def]
            if asked["deadly"] and any(
                asked["deadly"].encode() in bytes(prompt) for prompt in prompts
            ):
                os.kill(os.getpid(), signal.SIGKILL)
            return super().generate(prompts, *rest)

    try:  # a stop may come at once
        cli._sigterm_preempts()
        configure_logging()
        config = SummarizeConfig.model_validate(asked["start"])
        summarize(config, stand_in(Engine(before)), find_shard(asked["shard"], None, {}))
    except RecapError as error:
        print(f"ended: {error}", file=sys.stderr, flush=True)
        return int(error.exit_code)
    except Stopped:
        return ExitCode.RETRY
    except BaseException:
        import traceback

        traceback.print_exc()
        return 70
    return 0


if __name__ == "__main__":
    main()
