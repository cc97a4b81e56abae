"""The rest of a run whose adapter an earlier attempt has published: judge, promote, deliver.

A published adapter is never written again: any pointer may name it, and its digest is over all of
its files. An attempt that ended before the run had a verdict, or whose champion was switched
meanwhile, leaves this to the next one, which judges the very files that are in storage. The report
and run.json have that verdict, and the adapter's own files the one that it was published with. What
is delivered is a copy, and its card, scores and verdict are the last ones.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import TrainerState
from transformers.trainer import TRAINER_STATE_NAME

from job.errors import DamagedError, DataError, MissingError
from job.evaluation.charts import History
from job.evaluation.contest import begin_contest, judge_reload
from job.evaluation.gate import FILE, GateResult
from job.evaluation.later import EVALUATION, find_later, later_facts
from job.evaluation.promotion import was_promoted
from job.evaluation.reload import VERIFIED, Reload, reload_of
from job.evaluation.result import Evaluation, NotScored
from job.evaluation.systems import Scored
from job.model.champion import RELOAD, find_pointer
from job.model.fetch import Adapter
from job.storage.folders import fetch_folder, write_manifest
from job.telemetry import event, heartbeat
from job.training.attempt import CurrentAttempt
from job.training.deliver import deliver
from job.training.gate import note_verdict, published_adapter, settle_gate
from job.training.journal import PROMOTED, WAITS_FOR_RELOAD, undelivered
from job.training.plain_question import plain_process
from job.training.prepare import Run
from job.training.publish import publish_scores, scores_of, write_findings
from job.training.scoring import adapter_folder, score_or_reason
from job.training.stop import StopSignal
from job.training.verify import reload_adapter


def is_published(run: Run) -> bool:
    """Return True if an earlier attempt published the run's adapter."""
    try:
        found = published_adapter(run).manifest.extra.get("fingerprint")
    except (MissingError, DataError):
        return False
    return bool(found == run.identity()["fingerprint"])


def finish_published(attempt: CurrentAttempt, checkpoint: Path | None, stop: StopSignal) -> None:
    """Do what is left of a run whose adapter is in storage, without a write to the adapter.

    Raise RetryError if somebody switches the champion meanwhile, and what `score_or_reason` raises.
    """
    run = attempt.run
    event("an earlier attempt published the adapter: it is not written again")
    adapter = published_adapter(run)
    attempt.published["adapter"] = adapter.uri
    if not run.config.writes_summaries:
        return  # it was judged before it was published, and is delivered nowhere else
    fetch_folder(run.store, "adapter", adapter_folder(run))
    if is_settled(attempt, adapter):
        with attempt.timed("publish_seconds"), heartbeat("publishing"):
            if run.config.publish.gate is not None:
                _note_published_verdict(attempt, adapter)
            if attempt.gate:
                attempt.gate[PROMOTED] = attempt.gate["passed"]
            later = find_later(adapter, run.config.storage)
            if later is None:
                scores, reload = _published_scores(attempt), reload_of(adapter)
            else:
                scores, reload = later.evaluation, later.reload or reload_of(adapter)
                _write_copy(attempt, adapter, scores, reload)
            deliver(attempt, adapter_folder(run), adapter, scores, reload)
        return

    result, reload = _judge_again(attempt, adapter, checkpoint, stop)
    with attempt.timed("publish_seconds"), heartbeat("publishing"):
        reload = reload or reload_of(adapter)
        _write_copy(attempt, adapter, scores_of(result), reload)
        deliver(attempt, adapter_folder(run), adapter, scores_of(result), reload)


def is_settled(attempt: CurrentAttempt, adapter: Adapter) -> bool:
    """Return True if nothing of a published adapter is left to judge.

    So it is without a gate, after the run's verdict, and if the adapter has become champion, also
    if somebody has replaced that champion since: a rollback must not be undone. A verdict that it
    passed is not the end before the pointer was switched.
    """
    publish = attempt.run.config.publish
    if publish.gate is None:
        return True
    uri = publish.champion
    if uri is not None and was_promoted(find_pointer(uri, attempt.run.config.storage), adapter):
        return True
    noted = attempt.gate
    if noted.get("digest") != adapter.digest or noted["pointer"] != uri:
        return False
    if noted.get(WAITS_FOR_RELOAD):
        return False
    # Earlier versions noted a verdict after the switch.
    return not noted["passed"] or uri is None or bool(noted.get(PROMOTED, True))


def _note_published_verdict(attempt: CurrentAttempt, adapter: Adapter) -> None:
    """Note the verdict that the adapter was published with, if no attempt has noted a later one."""
    file = adapter_folder(attempt.run) / FILE
    # Without a verdict, a person promoted what was published before the config had a gate.
    if attempt.gate.get("digest") != adapter.digest and file.is_file():
        note_verdict(attempt, GateResult.from_json(_read_json(file)), adapter, is_promoted=True)


def _judge_again(
    attempt: CurrentAttempt, adapter: Adapter, checkpoint: Path | None, stop: StopSignal
) -> tuple[Scored | NotScored, Reload | None]:
    """Score and judge the fetched adapter, publish the report, and promote it if it passed.

    Return the scores, and the reload if the config wants one.
    """
    run = attempt.run
    contest = begin_contest(run.config, run.data.examples.train)
    with attempt.timed("evaluate_seconds"), heartbeat("scoring"):
        result = score_or_reason(attempt, [], contest, stop)
    attempt.left_out.pop("scores", None)
    if isinstance(result, NotScored):
        attempt.left_out["scores"] = result.detail
    if run.config.evaluation.as_trained:
        attempt.left_out["as_trained"] = "the adapter was judged again, from storage alone"
    with attempt.timed("publish_seconds"), heartbeat("publishing"):
        reload = reload_of(adapter)
        if reload is None or reload.state not in VERIFIED:
            process = plain_process(run)
            reload = reload_adapter(attempt, adapter_folder(run), result, process)
        if isinstance(result, Scored):
            result = judge_reload(result, reload, is_demanded=True)
        publish_scores(attempt, _history(checkpoint), result, later_facts(adapter, reload))
        settle_gate(attempt, contest, result, reload)
    return result, reload


def _write_copy(
    attempt: CurrentAttempt,
    adapter: Adapter,
    scores: Evaluation | NotScored,
    reload: Reload | None,
) -> None:
    """Write the last findings to the fetched adapter, with a manifest anew, if it is delivered."""
    if not undelivered(attempt.published, attempt.left_out, attempt.run.config.publish):
        return
    write_findings(attempt, scores, reload)
    facts = adapter.manifest.extra
    if reload is not None:
        facts = facts | {RELOAD: reload.facts()}
    write_manifest(adapter_folder(attempt.run), facts)


def _history(checkpoint: Path | None) -> History:
    """Return the log of the training up to a checkpoint."""
    if checkpoint is None:
        return []
    state = TrainerState.load_from_json(str(checkpoint / TRAINER_STATE_NAME))
    history: History = state.log_history
    return history


def _published_scores(attempt: CurrentAttempt) -> Evaluation | NotScored:
    file = adapter_folder(attempt.run) / EVALUATION
    if file.is_file():
        return Evaluation.from_json(_read_json(file))
    attempt.left_out.setdefault("scores", "the adapter was published without them")
    return NotScored("it was published without scores", "")


def _read_json(path: Path) -> Mapping[str, Any]:
    try:
        found: Mapping[str, Any] = json.loads(path.read_bytes())
    except ValueError as error:
        raise DamagedError(
            f"{path.name} is no JSON ({error}): evaluate the adapter again"
        ) from error
    return found
