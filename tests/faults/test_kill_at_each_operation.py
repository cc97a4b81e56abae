"""A run that is killed at any operation of its store resumes, and ends as if undisturbed."""

import signal
from collections import Counter
from dataclasses import dataclass
from typing import Any

import pytest

from job.errors import ExitCode
from job.storage.store import Store
from tests.faults.s3_proxy import FaultyS3, Request
from tests.faults.trials import (
    Child,
    Trials,
    journal_of,
    logged,
    on_tensorboard,
    published_folders,
    store_of,
)


@dataclass(frozen=True)
class Result:
    """All that a finished run leaves and that must not depend on interruptions."""

    adapter: str  # digest
    logged: dict[tuple[int, str], Any]
    curves: list[list[tuple[int, float]]]


def result_of(store: Store) -> Result:
    """Verify every folder and return the result.

    A stop may have left the evaluation of the last checkpoint's step for later, so that checkpoint
    may lack it.
    """
    numbers = logged(store)
    last = max(step for step, _ in numbers)
    numbers.pop((last, "eval_loss"), None)
    curves = [on_tensorboard(store, tag) for tag in ("train/loss", "validation/loss")]
    return Result(published_folders(store)["adapter"], numbers, curves)


@dataclass(frozen=True)
class Interrupted:
    """A run that was stopped, and then finished."""

    code: int  # of the process that was stopped
    had_adapter: bool  # published when it stopped
    result: Result


class Operations:
    """Runs of one config that are stopped at the n-th request to their store."""

    def __init__(self, trials: Trials, proxy: FaultyS3, config: dict[str, Any]) -> None:
        """Run undisturbed, to learn the number of requests and the result."""
        self._trials = trials
        self._proxy = proxy
        self._config = config
        proxy.reset()
        trials.finish(config)
        self.count = proxy.requests
        self.result = result_of(store_of(config))

    def stop_and_resume(self, number: int, sent: signal.Signals) -> Interrupted:
        """Stop a new run at a request, look at what it published, and finish it."""
        hurt = self._config | {"run": f"{sent.name}-{number}".lower()}
        code = self._stop(hurt, number, sent)
        store = store_of(hurt)
        published = published_folders(store)
        assert published.get("adapter", self.result.adapter) == self.result.adapter, number
        self._trials.finish(hurt)
        assert journal_of(store)["state"] == "finished"
        return Interrupted(code, "adapter" in published, result_of(store))

    def _stop(self, config: dict[str, Any], number: int, sent: signal.Signals) -> int:
        """Send the signal when the server has done the request but its answer is not yet sent."""
        started: list[Child] = []

        def after(request: Request) -> None:
            if request.number == number and started:
                started[0].send(sent)

        self._proxy.reset(after=after)
        started.append(self._trials.start(config))
        code = started[0].wait()
        # The slower a run, the more requests renew its lease. So the last of the counted ones may
        # not come, and only then the run is done.
        wanted = -signal.SIGKILL if sent == signal.SIGKILL else ExitCode.RETRY
        if self._proxy.requests < number:
            wanted = ExitCode.DONE
        assert code == wanted, started[0].log()
        self._proxy.reset()
        return code


def test_a_run_killed_at_some_operations_ends_with_the_same_adapter(trials, proxy, small_on_s3):
    operations = Operations(trials, proxy, small_on_s3)
    for number in (operations.count // 2, operations.count - 4):
        interrupted = operations.stop_and_resume(number, signal.SIGKILL)
        assert interrupted.result == operations.result, number


@pytest.mark.faults
@pytest.mark.parametrize(("sent", "every"), [(signal.SIGKILL, 1), (signal.SIGTERM, 3)])
def test_a_run_stopped_at_every_operation_ends_with_the_same_adapter(
    trials, proxy, small_on_s3, sent, every
):
    fewer = {"max_steps": 4, "keep_last": 1}  # two checkpoints; the second prunes the first
    training = small_on_s3["training"] | fewer
    if sent == signal.SIGTERM:
        # Then every step at which it stops is one whose evaluation it still owes.
        training["evaluate_every_steps"] = 1
    whole = small_on_s3 | {"run": f"whole-{sent.name}".lower(), "training": training}
    operations = Operations(trials, proxy, whole)

    numbers = range(1, operations.count + 1, every)
    ends: Counter[tuple[int, bool]] = Counter()
    for number in numbers:
        interrupted = operations.stop_and_resume(number, sent)
        assert interrupted.result == operations.result, number
        ends[interrupted.code, interrupted.had_adapter] += 1
    missed = sum(times for (code, _), times in ends.items() if code == ExitCode.DONE)
    assert missed <= operations.count // 10, "the signal came at every operation but the last few"
    shown = {}
    for (code, has_adapter), times in sorted(ends.items()):
        shown[f"ended {code}{', adapter there' if has_adapter else ''}"] = times
    stopped = f"{sent.name} at {len(numbers)} of {operations.count} operations"
    print(f"\n{stopped}, all resumed to the same adapter: {shown}")
