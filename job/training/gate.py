"""The gate at the end of a training: its verdict in run.json, and the promotion if it passed.

The order is: judge, publish the adapter with its verdict, note the verdict, switch the pointer,
deliver, finish the run. Where an attempt is killed on this way, the next one goes on with the
adapter in storage (`published`), and judges it against whoever is champion then.
"""

from dataclasses import asdict

from job.evaluation.contest import Contest, verdict_of
from job.evaluation.gate import GateResult
from job.evaluation.gate_screen import gate_screen
from job.evaluation.promotion import Judged, promote
from job.evaluation.reload import Reload, waits_for_reload
from job.evaluation.result import NotScored
from job.evaluation.systems import Scored
from job.model.fetch import Adapter, read_adapter
from job.model.kinds import check_scores_summaries, check_writes_summaries
from job.printable import printable
from job.training import journal
from job.training.attempt import CurrentAttempt
from job.training.prepare import Run


def settle_gate(
    attempt: CurrentAttempt, contest: Contest, result: Scored | NotScored, reload: Reload | None
) -> None:
    """Note the verdict in run.json, and make the published adapter the champion if it passed.

    Raise RetryError if somebody switched the champion since the contest began: the next attempt
    judges the adapter against the new one.
    """
    run = attempt.run
    verdict = verdict_of(result, run.config)
    if verdict is None:
        return
    adapter = published_adapter(run)
    note_verdict(attempt, verdict, adapter, is_promoted=False)
    if attempt.entry is not None:
        journal.save(run.store, attempt.entry)
    if verdict.passed and isinstance(result, Scored):
        source = f"{run.store.uri}/report/evaluation.json"
        by = f"recap train {run.config.run}"
        judged = Judged(adapter, result.evaluation, source, by, reload)
        promote(contest.champion, judged, run.config.storage)
        attempt.gate[journal.PROMOTED] = True


def raise_verdict(attempt: CurrentAttempt) -> None:
    """Raise GateError, with the gate's screen, if the adapter did not pass; print it if it did.

    Only rank 0 knows the verdict.
    """
    config = attempt.run.config
    not_passed = None if attempt.entry is None else journal.gate_error(attempt.entry, config)
    if not_passed is not None:
        raise not_passed
    if attempt.gate and config.publish.gate is not None:
        print(printable(attempt.gate["screen"]), flush=True)


def note_verdict(
    attempt: CurrentAttempt, verdict: GateResult, adapter: Adapter, is_promoted: bool
) -> None:
    """Note the verdict for run.json, and whether the pointer was switched."""
    pointer = attempt.run.config.publish.champion
    attempt.gate.update(
        {
            "passed": verdict.passed,
            "verdict": verdict.verdict(),
            "checks": [asdict(check) for check in verdict.checks],
            "pointer": pointer,
            "digest": adapter.digest,
            "screen": gate_screen(verdict, adapter.uri, pointer),
            journal.PROMOTED: is_promoted,
            journal.WAITS_FOR_RELOAD: waits_for_reload(verdict),
        }
    )


def published_adapter(run: Run) -> Adapter:
    """Return the run's adapter in storage."""
    check = check_writes_summaries if run.config.writes_summaries else check_scores_summaries
    return read_adapter(f"{run.store.uri}/adapter", run.config.storage, check)
