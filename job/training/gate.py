"""The gate at the end of a training: its verdict in run.json, and the promotion if it passed.

The order is: judge, publish the adapter with its verdict, switch the pointer, deliver, finish the
run. A run that is killed before the switch is judged again, against whoever is champion then. Where
nothing is left to judge, the next attempt only delivers and finishes: an adapter that may serve
must not be written again.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from job.errors import DamagedError, DataError, GateError, MissingError
from job.evaluation.contest import Contest, verdict_of
from job.evaluation.gate import FILE, GateResult
from job.evaluation.gate_screen import gate_screen
from job.evaluation.promotion import Judged, promote, was_promoted
from job.evaluation.result import Evaluation, NotScored
from job.evaluation.systems import Scored
from job.model.champion import find_pointer
from job.model.fetch import Adapter, read_adapter
from job.printable import printable
from job.storage.folders import fetch_folder
from job.telemetry import event
from job.training.attempt import CurrentAttempt
from job.training.deliver import deliver
from job.training.journal import gate_error
from job.training.prepare import Run


def settle_gate(attempt: CurrentAttempt, contest: Contest, result: Scored | NotScored) -> None:
    """Make the published adapter the champion if it passed, and note the verdict for run.json.

    Prints the gate's screen. Raise RetryError if somebody switched the champion since the contest
    began: the next attempt judges the adapter against the new one.
    """
    run = attempt.run
    verdict = verdict_of(result, run.config)
    if verdict is None:
        return
    adapter = published_adapter(run)
    if verdict.passed and isinstance(result, Scored):
        source = f"{run.store.uri}/report/evaluation.json"
        judged = Judged(adapter, result.evaluation, source, f"recap train {run.config.run}")
        promote(contest.champion, judged, run.config.storage)
    _note(attempt, verdict, adapter)


def raise_verdict(attempt: CurrentAttempt) -> None:
    """Raise GateError, with the gate's screen, if the adapter did not pass; print it if it did.

    Only rank 0 knows the verdict.
    """
    not_passed = _not_passed(attempt)
    if not_passed is not None:
        raise not_passed
    if attempt.gate and attempt.run.config.publish.gate is not None:
        print(printable(attempt.gate["screen"]), flush=True)


def _not_passed(attempt: CurrentAttempt) -> GateError | None:
    """Return the error that the run ends with if it is finished now; None except on rank 0."""
    return None if attempt.entry is None else gate_error(attempt.entry, attempt.run.config)


def is_settled(attempt: CurrentAttempt) -> bool:
    """Return True if an earlier attempt published the run's adapter, and nothing is left to judge.

    So it is without a gate, after the run's verdict that it passed, and if it has become champion,
    also if somebody has replaced that champion since: a rollback must not be undone.
    """
    run = attempt.run
    try:
        adapter = published_adapter(run)
        is_own = bool(adapter.manifest.extra.get("fingerprint") == run.identity()["fingerprint"])
        if not is_own or run.config.publish.gate is None:
            return is_own
        is_judged = attempt.gate.get("digest") == adapter.digest
        if is_judged and _not_passed(attempt) is None:
            return True
        uri = run.config.publish.champion
        return uri is not None and was_promoted(find_pointer(uri, run.config.storage), adapter)
    except (MissingError, DataError):
        return False


def finish_settled(attempt: CurrentAttempt) -> None:
    """Note what earlier attempts published, and deliver what they did not."""
    run = attempt.run
    event("an earlier attempt published the adapter: it is not written again")
    adapter = published_adapter(run)
    attempt.published["adapter"] = adapter.uri
    folder = run.work / "published"
    fetch_folder(run.store, "adapter", folder)
    scores: Evaluation | NotScored = NotScored("it was published without scores", "")
    if (folder / "evaluation.json").is_file():
        scores = Evaluation.from_json(_read_json(folder / "evaluation.json"))
    else:
        attempt.left_out.setdefault("scores", "the adapter was published without them")
    # Without a verdict, a person promoted what was published before the config had a gate.
    if run.config.publish.gate is not None and (folder / FILE).is_file():
        _note(attempt, GateResult.from_json(_read_json(folder / FILE)), adapter)
    deliver(attempt, folder, adapter, scores)


def _note(attempt: CurrentAttempt, verdict: GateResult, adapter: Adapter) -> None:
    pointer = attempt.run.config.publish.champion
    attempt.gate.update(
        passed=verdict.passed,
        verdict=verdict.verdict(),
        pointer=pointer,
        digest=adapter.digest,
        screen=gate_screen(verdict, adapter.uri, pointer),
    )


def published_adapter(run: Run) -> Adapter:
    """Return the run's adapter in storage."""
    return read_adapter(f"{run.store.uri}/adapter", run.config.storage)


def _read_json(path: Path) -> Mapping[str, Any]:
    try:
        found: Mapping[str, Any] = json.loads(path.read_bytes())
    except ValueError as error:
        raise DamagedError(
            f"{path.name} is no JSON ({error}): evaluate the adapter again"
        ) from error
    return found
