"""Gather the facts of a run for its model card."""

from collections.abc import Sequence

from job.config.sections import as_list
from job.environment import versions
from job.evaluation.card.facts import CardFacts, Split
from job.evaluation.contest import verdict_of
from job.evaluation.reload import Reload
from job.evaluation.result import Evaluation, NotScored
from job.model.control_tokens import recorded_end_ids
from job.model.license import License, base_license
from job.telemetry import warn
from job.training.attempt import CurrentAttempt
from job.training.prepare import Run


def gather_facts(
    attempt: CurrentAttempt,
    reload: Reload | None,
    scores: Evaluation | NotScored,
    reward: Sequence[str] | None = None,
) -> CardFacts:
    """Return the facts for the card of the run's adapter. Reads the license from the base's card.

    `reward` has sentences on what a reward model is worth. Warns if the license is not known.
    """
    run = attempt.run
    return CardFacts(
        run.config,
        run.base.identity(),
        run.data.prompt,
        _splits(run),
        versions(),
        end_ids(run),
        attempt.weights_in_memory,
        find_license(run),
        reload.sentence() if reload else None,
        verdict_of(scores, run.config),
        reward=reward,
        start=run.start.name() if run.start else None,
    )


def end_ids(run: Run) -> list[int]:
    """Return the ids of the tokens that end a summary."""
    return sorted(recorded_end_ids(run.base.path) | {run.tokenizer.eos_token_id})


def find_license(run: Run) -> License | None:
    """Return the license that the config names, or else the one of the base, if it is known."""
    if run.config.publish.license is not None:
        return License(run.config.publish.license)
    model = run.config.model
    found = base_license(model.base, model.revision, run.config.storage)
    if found is None:
        warn(
            "the adapter's card names no license: the base has no card that does",
            base=model.base,
            remedy="set publish.license",
        )
    return found


def _splits(run: Run) -> list[Split]:
    data = run.config.data
    digests = run.data.examples.digests()
    counts = run.counts()
    uris = {
        "train": as_list(data.train),
        "validation": as_list(data.validation or data.train),
    }
    if data.replay:
        uris = {"replay": as_list(data.replay)} | uris  # scores are of the last
    if data.test:
        uris["test"] = as_list(data.test)
    splits = []
    for name, uri in uris.items():
        splits.append(Split(name, uri, counts[name]["conversations"], digests[name]))
    return splits
