"""A run that is killed at any operation of its store goes on as if nothing had been."""

from typing import Any

import pytest

from job.errors import ExitCode
from tests.faults.s3_proxy import FaultyS3
from tests.faults.trials import Trials, adapter_digest, journal_of, logged, published, store_of


def kill_at(trials: Trials, proxy: FaultyS3, config: dict[str, Any], number: int) -> None:
    """Start a run and kill it, without a word, when its n-th request is done but not yet answered."""
    started = []

    def after(request):
        if request.number == number and started:
            started[0].kill()

    proxy.reset(after=after)
    started.append(trials.start(config))
    code = started[0].wait()
    assert code in (-9, ExitCode.DONE), started[0].log()
    proxy.reset()


def operations(trials: Trials, proxy: FaultyS3, config: dict[str, Any]) -> int:
    """How many requests an undisturbed run makes."""
    proxy.reset()
    trials.finish(config)
    return proxy.requests


def goes_on_after(trials: Trials, proxy: FaultyS3, config: dict[str, Any], number: int, reference: dict[str, Any]):
    hurt = config | {"run": f"killed-{number}"}
    kill_at(trials, proxy, hurt, number)
    store = store_of(hurt)
    seen = published(store)
    ended = "adapter" in seen
    trials.finish(hurt)
    assert adapter_digest(store) == adapter_digest(store_of(reference)), number
    assert logged(store) == logged(store_of(reference)), number
    assert journal_of(store)["state"] == "finished"
    published(store)
    return ended


def test_a_run_killed_at_some_operations_ends_with_the_same_adapter(trials, proxy, small_on_s3):
    count = operations(trials, proxy, small_on_s3)
    for number in (count // 4, count // 2, count - 4):
        goes_on_after(trials, proxy, small_on_s3, number, small_on_s3)


@pytest.mark.faults
def test_a_run_killed_at_every_operation_ends_with_the_same_adapter(trials, proxy, small_on_s3):
    count = operations(trials, proxy, small_on_s3)
    after_the_adapter = sum(
        goes_on_after(trials, proxy, small_on_s3, number, small_on_s3) for number in range(1, count + 1)
    )
    print(f"\nkilled at each of {count} operations, {after_the_adapter} of them after the adapter: all went on")
