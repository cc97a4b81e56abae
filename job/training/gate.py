"""The gate at the end of a training: its verdict in run.json, and the promotion if it passed.

The order is: judge, publish the adapter with its verdict, switch the pointer, finish the run. A run
that is killed in between is judged again, against whoever is champion then. Only where the pointer
was switched already, the next attempt does nothing but finish: the adapter that serves must not be
written again.
"""

import json
from collections.abc import Mapping
from typing import Any

from job.errors import DamagedError, DataError, GateError, MissingError
from job.evaluation.contest import Contest, verdict_of
from job.evaluation.gate import FILE, GateResult
from job.evaluation.gate_screen import gate_screen
from job.evaluation.promotion import Judged, promote, was_promoted
from job.evaluation.result import NotScored
from job.evaluation.systems import Scored
from job.model.champion import find_pointer
from job.model.fetch import Adapter, read_adapter
from job.printable import printable
from job.storage.folders import fetch_folder
from job.telemetry import event
from job.training.attempt import CurrentAttempt
from job.training.merged import note_published
from job.training.prepare import Run
from job.training.publish import push


def settle_gate(attempt: CurrentAttempt, contest: Contest, result: Scored | NotScored) -> None:
    """Make the published adapter the champion if it passed, and note the verdict for run.json.

    Prints the gate's screen. Raise RetryError if somebody switched the champion since the contest
    began: the next attempt judges the adapter against the new one.
    """
    run = attempt.run
    verdict = verdict_of(result, run.config)
    if verdict is None:
        return
    adapter = _published(run)
    if verdict.passed and isinstance(result, Scored):
        source = f"{run.store.uri}/report/evaluation.json"
        judged = Judged(adapter, result.evaluation, source, f"recap train {run.config.run}")
        promote(contest.champion, judged, run.config.storage)
    _note(attempt, verdict, adapter)


def raise_verdict(attempt: CurrentAttempt) -> None:
    """Raise GateError, with the gate's screen, if the adapter did not pass; print it if it did."""
    if not attempt.gate:
        return
    if not attempt.gate["passed"]:
        raise GateError(attempt.gate["screen"])
    print(printable(attempt.gate["screen"]), flush=True)


def is_promoted(run: Run) -> bool:
    """Return True if an earlier attempt made this run's adapter the champion.

    So it is also if somebody has replaced that champion since: a rollback must not be undone.
    """
    uri = run.config.publish.champion
    if uri is None:
        return False
    try:
        adapter = _published(run)
        pointer = find_pointer(uri, run.config.storage)
    except (MissingError, DataError):
        return False
    is_own = adapter.manifest.extra.get("fingerprint") == run.identity()["fingerprint"]
    return is_own and was_promoted(pointer, adapter)


def finish_promoted(attempt: CurrentAttempt) -> None:
    """Note what an earlier attempt published and promoted. Pushes to the Hub if configured."""
    run = attempt.run
    event("an earlier attempt made the adapter the champion: only run.json is left to write")
    adapter = _published(run)
    attempt.published["adapter"] = adapter.uri
    hub = run.config.publish.hub
    if hub is not None:
        folder = run.work / "published"
        fetch_folder(run.store, "adapter", folder)
        push(run, folder, hub)
        attempt.published["hub"] = hub
    if run.config.publish.merged:
        note_published(attempt, adapter.digest)
    verdict = GateResult.from_json(_read_json(run.store.read(f"adapter/{FILE}")))
    _note(attempt, verdict, adapter)


def _note(attempt: CurrentAttempt, verdict: GateResult, adapter: Adapter) -> None:
    pointer = attempt.run.config.publish.champion
    attempt.gate.update(
        passed=verdict.passed,
        verdict=verdict.verdict(),
        pointer=pointer,
        digest=adapter.digest,
        screen=gate_screen(verdict, adapter.uri, pointer),
    )


def _published(run: Run) -> Adapter:
    return read_adapter(f"{run.store.uri}/adapter", run.config.storage)


def _read_json(content: bytes) -> Mapping[str, Any]:
    try:
        found: Mapping[str, Any] = json.loads(content)
    except ValueError as error:
        raise DamagedError(f"{FILE} is no JSON ({error}): evaluate the adapter again") from error
    return found
