"""Deliver a published adapter: to the Hub, and as merged weights.

It comes after the gate, since whoever names the repository serves what is there. An adapter that
did not pass stays under its run alone.
"""

from contextlib import nullcontext
from pathlib import Path

from job.evaluation.reload import Reload
from job.evaluation.result import Evaluation, NotScored
from job.model.fetch import Adapter
from job.storage.lease import GuardedStore
from job.storage.publish_hub import publish_to_hub
from job.telemetry import event, warn
from job.training import journal
from job.training.attempt import CurrentAttempt
from job.training.merged import publish_merged
from job.training.prepare import Run
from job.training.publish import or_without


def deliver(
    attempt: CurrentAttempt,
    folder: Path,
    adapter: Adapter,
    scores: Evaluation | NotScored,
    reload: Reload | None,
) -> None:
    """Push the published adapter, whose files are in a folder, and publish its merged weights.

    Does only what the config wants and no attempt has done, and nothing if the adapter did not pass
    its gate. Notes in `attempt` what was published and what was left out.
    """
    run = attempt.run
    wanted = run.config.publish
    left = journal.undelivered(attempt.published, attempt.left_out, wanted)
    if not left:
        return
    if wanted.gate is not None and not attempt.gate.get("passed"):
        warn("neither pushed nor merged: the adapter did not pass its gate")
        return

    if attempt.entry is not None:
        journal.save(run.store, attempt.entry)  # the next attempt goes on from here
    if wanted.hub is not None and "hub" in left:
        push(run, folder, wanted.hub)
        attempt.published["hub"] = wanted.hub
    if "merged" in left:
        with or_without(journal.MERGED_WEIGHTS, attempt), attempt.timed("merge_seconds"):
            publish_merged(attempt, folder, adapter.digest, reload, scores)


def push(run: Run, adapter: Path, repository: str) -> None:
    """Commit the adapter to a Hub repository while holding the run's lease.

    A process that loses the lease meanwhile is ended at once.
    """
    with run.store.change() if isinstance(run.store, GuardedStore) else nullcontext():
        url = publish_to_hub(
            adapter,
            repository,
            private=run.config.publish.private,
            message=f"recap run {run.config.run}",
        )
    event("pushed", url=url)
