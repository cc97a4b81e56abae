"""A run whose store fails in some way is done in the end, or asks to be run again."""

import itertools
import threading
import time
from collections import Counter
from typing import Any

import pytest

from job.errors import ExitCode
from tests.faults.real import RealRun
from tests.faults.s3_proxy import (
    FINAL_FAULTS,
    TRANSIENT_ANSWERS,
    TRANSIENT_FAULTS,
    Fault,
    FaultyS3,
    Plan,
    Request,
    random_faults,
)
from tests.faults.trials import Trials, adapter_digest, journal_of, published_folders, store_of

ALLOWED = (ExitCode.DONE, ExitCode.RETRY, ExitCode.FORBIDDEN)


def run_under(plan: Plan, trials: Trials, proxy: FaultyS3, config: dict[str, Any]) -> int:
    """Run under the plan, then to the end without it; return the first exit code.

    Assert that the code is an allowed one, and that everything published verifies.
    """
    store = store_of(config)
    proxy.reset(plan)
    child = trials.start(config)
    code = child.wait()
    proxy.reset()
    assert code in ALLOWED, child.log()
    if code != ExitCode.DONE:
        published_folders(store)
        trials.finish(config)
    published_folders(store)
    assert journal_of(store)["state"] == "finished"
    return code


def test_a_store_that_fails_now_and_then_changes_nothing(trials, proxy, small_on_s3):
    trials.finish(small_on_s3)
    reference = adapter_digest(store_of(small_on_s3))
    config = small_on_s3 | {"run": "hurt"}
    plan = random_faults(1, 0.15, TRANSIENT_ANSWERS)
    assert run_under(plan, trials, proxy, config) == ExitCode.DONE
    assert proxy.faults
    assert adapter_digest(store_of(config)) == reference


@pytest.mark.faults
def test_a_store_that_hangs_does_not_hold_a_run_that_gave_it_up(proxy, small_on_s3, tmp_path):
    patient = small_on_s3["storage"] | {"timeout_seconds": 3600}
    config = small_on_s3 | {"storage": patient, "limits": {"upload_minutes": 0.02}}
    may_answer = threading.Event()

    def plan(request: Request) -> None:
        if request.method == "PUT" and "/checkpoints/" in request.path:
            may_answer.wait()

    proxy.reset(plan)
    run = RealRun(config, tmp_path)
    assert run.end(run.start()) == ExitCode.RETRY, run.log
    assert "limits.upload_minutes" in run.log
    may_answer.set()
    assert not published_folders(store_of(config))


def test_a_run_that_another_finished_while_it_waited_does_nothing(trials, proxy, small_on_s3):
    trials.finish(small_on_s3)
    journal = journal_of(store_of(small_on_s3))
    # The training process itself: the command would not even have started it.
    trials.finish(small_on_s3)
    assert journal_of(store_of(small_on_s3)) == journal


@pytest.mark.faults
def test_two_processes_roll_back_alike_on_a_slow_store(proxy, small_on_s3, tmp_path):
    training = {
        "processes": 2,
        "epochs": 20,
        "save_every_steps": 1,
        "learning_rate": 1.0,
        "evaluate_every_steps": 99,
    }
    limits = {"max_gradient_norm": 4, "divergence_steps": 2, "on_divergence": "roll_back"}
    config = small_on_s3 | {"training": small_on_s3["training"] | training, "limits": limits}

    def plan(request: Request) -> None:
        if request.method == "PUT" and request.path.endswith("manifest.json"):
            time.sleep(1)  # half of the client's timeout

    proxy.reset(plan)
    run = RealRun(config, tmp_path)
    assert run.end(run.start()) == ExitCode.BUG, run.log
    assert run.log.count("going back to the last checkpoint") == 4, "each of both, twice"
    assert "gradient norms beyond the limit" in run.log
    assert "this is a bug" not in run.log
    assert "there is no checkpoint to go back to" not in run.log


CONDITIONAL = {
    "409 once": (409, 1),
    "409 always": (409, 10**6),
    "412": (412, 1),
}  # status, number of answers


@pytest.mark.faults
@pytest.mark.parametrize("kind", CONDITIONAL)
@pytest.mark.parametrize("which", [1, 2])
def test_a_refused_conditional_write_is_retried_or_ends_the_run(
    trials, proxy, small_on_s3, kind, which
):
    status, times = CONDITIONAL[kind]
    guarded = itertools.count(1)

    def plan(request: Request) -> Fault | None:
        if not request.guarded or not which <= next(guarded) < which + times:
            return None
        return Fault("status", status)

    code = run_under(plan, trials, proxy, small_on_s3)
    print(f"\nguarded write {which}, {kind}: {ExitCode(code).name}")


@pytest.mark.faults
def test_whatever_a_store_does_everything_committed_stays_whole(trials, proxy, small_on_s3):
    trials.finish(small_on_s3)
    reference = adapter_digest(store_of(small_on_s3))
    codes: Counter[str] = Counter()
    for seed in range(24):
        if seed < 12:
            plan = random_faults(seed, 0.1 + 0.02 * seed, TRANSIENT_FAULTS)
        else:
            plan = random_faults(seed, 0.05, TRANSIENT_FAULTS + FINAL_FAULTS)
        config = small_on_s3 | {"run": f"hurt-{seed}"}
        code = run_under(plan, trials, proxy, config)
        codes[ExitCode(code).name] += 1
        assert adapter_digest(store_of(config)) == reference, seed
    kinds = {"cut", "stall", "reset", "503 SlowDown", "500 InternalError", "403 AccessDenied"}
    assert kinds <= proxy.faults.keys()
    print(f"\n24 runs ended {dict(codes)}; faults: {proxy.faults}")
