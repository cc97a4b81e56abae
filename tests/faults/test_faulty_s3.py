"""A run whose store errs, stalls and lies is done in the end, or says that it should be run again."""

import itertools
import random
import threading
import time
from collections import Counter

import pytest

from job.errors import ExitCode
from tests.faults.real import RealRun
from tests.faults.s3_proxy import Fault, FaultyS3, Plan, Request
from tests.faults.trials import adapter_digest, journal_of, published, store_of

ALLOWED = (ExitCode.DONE, ExitCode.RETRY, ExitCode.FORBIDDEN)
PASSING = [
    Fault("status", 500), Fault("status", 503), Fault("reset"), Fault("cut"), Fault("stall", seconds=4),
]  # fmt: skip
# Answers that are not passing: what is refused once is refused for good.
FINAL = [
    Fault("status", 403),
    Fault("status", 403, "RequestTimeTooSkewed"),
    Fault("status", 409),
    Fault("status", 412),
]


def at_random(seed: int, share: float, faults: list[Fault]) -> Plan:
    """So large a share of the requests is hurt; 409 and 412 answer only what is conditional, as services do."""
    draw = random.Random(seed)

    def plan(request: Request) -> Fault | None:
        fault = draw.choice(faults) if draw.random() < share else None
        if fault is not None and fault.status in (409, 412) and not request.guarded:
            return Fault("status", 500)
        return fault

    return plan


def hurt(trials, proxy: FaultyS3, config, plan: Plan) -> int:
    """Run under the plan: an allowed end, and nothing that does not verify; then to the end without."""
    store = store_of(config)
    proxy.reset(plan)
    child = trials.start(config)
    code = child.wait()
    proxy.reset()
    assert code in ALLOWED, child.log()
    if code != ExitCode.DONE:
        published(store)
        trials.finish(config)
    published(store)
    assert journal_of(store)["state"] == "finished"
    return code


def test_a_store_that_errs_now_and_then_is_borne(trials, proxy, small_on_s3):
    trials.finish(small_on_s3)
    reference = adapter_digest(store_of(small_on_s3))
    config = small_on_s3 | {"run": "hurt"}
    assert hurt(trials, proxy, config, at_random(1, 0.15, PASSING[:4])) == ExitCode.DONE
    assert proxy.faults
    assert adapter_digest(store_of(config)) == reference


@pytest.mark.faults
def test_a_store_that_hangs_does_not_keep_a_run_that_has_given_it_up(proxy, small_on_s3, tmp_path):
    patient = small_on_s3["storage"] | {"timeout_seconds": 3600}
    config = small_on_s3 | {"storage": patient, "limits": {"upload_minutes": 0.02}}
    goes_on = threading.Event()

    def plan(request: Request) -> None:
        if request.method == "PUT" and "/checkpoints/" in request.path:
            goes_on.wait()

    proxy.reset(plan)
    run = RealRun(config, tmp_path)
    assert run.end(run.start()) == ExitCode.RETRY, run.said
    assert "limits.upload_minutes" in run.said
    goes_on.set()
    assert not published(store_of(config))


def test_a_run_that_another_one_finished_while_it_waited_does_nothing(trials, proxy, small_on_s3):
    trials.finish(small_on_s3)
    story = journal_of(store_of(small_on_s3))
    trials.finish(
        small_on_s3
    )  # the training process itself: the command would not even have started it
    assert journal_of(store_of(small_on_s3)) == story


@pytest.mark.faults
def test_two_processes_go_back_to_the_same_checkpoint_however_slow_the_store(
    proxy, small_on_s3, tmp_path
):
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
            time.sleep(1)  # half of what the client waits

    proxy.reset(plan)
    run = RealRun(config, tmp_path)
    assert run.end(run.start()) == ExitCode.BUG, run.said
    assert run.said.count("going back to the last checkpoint") == 4, "each of both, twice"
    assert "gradient norms beyond the limit" in run.said
    assert "this is a bug" not in run.said
    assert "there is no checkpoint to go back to" not in run.said


CONDITIONAL = {
    "409 once": (409, 1),
    "409 always": (409, 10**6),
    "412": (412, 1),
}  # status, how often


@pytest.mark.faults
@pytest.mark.parametrize("kind", CONDITIONAL)
@pytest.mark.parametrize("which", [1, 2])
def test_a_conditional_write_that_is_refused_is_asked_again_or_ends_the_run(
    trials, proxy, small_on_s3, kind, which
):
    status, times = CONDITIONAL[kind]
    guarded = itertools.count(1)

    def plan(request: Request) -> Fault | None:
        if not request.guarded or not which <= next(guarded) < which + times:
            return None
        return Fault("status", status)

    code = hurt(trials, proxy, small_on_s3, plan)
    print(f"\nguarded write {which}, {kind}: {ExitCode(code).name}")


@pytest.mark.faults
def test_whatever_a_store_does_everything_committed_stays_whole(trials, proxy, small_on_s3):
    trials.finish(small_on_s3)
    reference = adapter_digest(store_of(small_on_s3))
    ends: Counter[str] = Counter()
    for seed in range(24):
        config = small_on_s3 | {"run": f"hurt-{seed}"}
        faults, share = (PASSING, 0.1 + 0.02 * seed) if seed < 12 else (PASSING + FINAL, 0.05)
        ends[ExitCode(hurt(trials, proxy, config, at_random(seed, share, faults))).name] += 1
        assert adapter_digest(store_of(config)) == reference, seed
    kinds = {"cut", "stall", "reset", "503 SlowDown", "500 InternalError", "403 AccessDenied"}
    assert kinds <= proxy.faults.keys()
    print(f"\n24 runs ended {dict(ends)}; faults: {proxy.faults}")
