"""A run that is killed at any operation of its store goes on as if nothing had been."""

import signal
from collections import Counter
from typing import Any

import pytest

from job.errors import ExitCode
from job.storage.store import Store
from tests.faults.s3_proxy import FaultyS3
from tests.faults.trials import Trials, journal_of, logged, on_tensorboard, published, store_of


def stop_at(
    trials: Trials, proxy: FaultyS3, config: dict[str, Any], number: int, sent: signal.Signals
) -> int:
    """Start a run and send it a signal when its n-th request is done but not yet answered; how it ended.

    The slower a run, the more requests renew its lease, so the last of those counted may not come: only then it is
    done.
    """
    started = []

    def after(request):
        if request.number == number and started:
            started[0].send(sent)

    proxy.reset(after=after)
    started.append(trials.start(config))
    code = started[0].wait()
    stopped = -signal.SIGKILL if sent == signal.SIGKILL else ExitCode.RETRY
    assert code == (ExitCode.DONE if proxy.requests < number else stopped), started[0].log()
    proxy.reset()
    return code


def what_came_out(
    store: Store,
) -> tuple[str, dict[tuple[int, str], Any], list[list[tuple[int, float]]]]:
    """The digest of the adapter, where everything verifies; what the last checkpoint tells; the curves.

    In the checkpoint the evaluation of its own step does not count, which a stop may have left for later.
    """
    found = logged(store)
    last = max(step for step, _ in found)
    kept = {what: value for what, value in found.items() if what != (last, "eval_loss")}
    return (
        published(store)["adapter"],
        kept,
        [on_tensorboard(store, tag) for tag in ("train/loss", "validation/loss")],
    )


def operations(trials: Trials, proxy: FaultyS3, config: dict[str, Any]) -> int:
    """How many requests an undisturbed run makes."""
    proxy.reset()
    trials.finish(config)
    return proxy.requests


def goes_on_after(
    trials: Trials,
    proxy: FaultyS3,
    whole: dict[str, Any],
    at: tuple[int, signal.Signals],
    wanted: Any,
) -> tuple[int, bool]:
    """Stop a run at an operation, look at what is there, and finish it; how it ended, and whether with an adapter."""
    number, sent = at
    hurt = whole | {"run": f"{sent.name}-{number}".lower()}
    code = stop_at(trials, proxy, hurt, number, sent)
    store = store_of(hurt)
    seen = published(store)
    assert seen.get("adapter", wanted[0]) == wanted[0], number
    trials.finish(hurt)
    assert what_came_out(store) == wanted, number
    assert journal_of(store)["state"] == "finished"
    return code, "adapter" in seen


def test_a_run_killed_at_some_operations_ends_with_the_same_adapter(trials, proxy, small_on_s3):
    count = operations(trials, proxy, small_on_s3)
    wanted = what_came_out(store_of(small_on_s3))
    for number in (count // 2, count - 4):
        goes_on_after(trials, proxy, small_on_s3, (number, signal.SIGKILL), wanted)


@pytest.mark.faults
@pytest.mark.parametrize(("sent", "every"), [(signal.SIGKILL, 1), (signal.SIGTERM, 3)])
def test_a_run_stopped_at_every_operation_ends_with_the_same_adapter(
    trials, proxy, small_on_s3, sent, every
):
    fewer = {"max_steps": 4, "keep_last": 1}  # two checkpoints; the second prunes the first
    whole = small_on_s3 | {
        "run": f"whole-{sent.name}".lower(),
        "training": small_on_s3["training"] | fewer,
    }
    if sent == signal.SIGTERM:  # every step at which it stops is one whose evaluation it owes
        whole["training"] = whole["training"] | {"evaluate_every_steps": 1}
    count = operations(trials, proxy, whole)
    wanted = what_came_out(store_of(whole))
    numbers = range(1, count + 1, every)
    ends = Counter(
        goes_on_after(trials, proxy, whole, (number, sent), wanted) for number in numbers
    )
    missed = sum(times for (code, _), times in ends.items() if code == ExitCode.DONE)
    assert missed <= count // 10, "the signal came at every operation but the last few"
    told = {
        f"ended {code}{', adapter there' * adapter}": times
        for (code, adapter), times in sorted(ends.items())
    }
    print(
        f"\n{sent.name} at {len(numbers)} of {count} operations, all went on to the same adapter: {told}"
    )
