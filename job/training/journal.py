"""`run.json`: what a run is, how far it is, and the story of its attempts.

Purpose: decides whether a run is new, to be continued, done, or somebody else's; kept in the run's folder, written
whole each time. Knows nothing of models or checkpoints.
"""

import hashlib
import json
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Literal

from job.config.commands import TrainConfig
from job.config.sections import to_plain
from job.differences import differences
from job.errors import DamagedError, MissingError, OutputError
from job.launch.environment import versions
from job.printable import printable
from job.storage.folders import read_manifest
from job.storage.store import Store

FILE = "run.json"
NO_WORD = "ended without a word: it was killed, stood still, or its machine died"
State = Literal["running", "preempted", "failed", "finished"]
# Keys that change what is told or kept on the way, but not the adapter that comes out.
WITHOUT_EFFECT = {
    "training": {
        "save_every_steps",
        "save_every_epochs",
        "evaluate_every_steps",
        "evaluate_every_epochs",
        "log_every_steps",
        "keep_last",
        "sample_summaries",
        "processes",  # how many there really are is part of a checkpoint's identity
    },
    "data": {"train", "validation", "include", "exclude"},  # where the data lies; the digests tell what it says
}
EVALUATIONS = {"evaluate_every_steps", "evaluate_every_epochs"}  # with effect where they choose the adapter or the end


@dataclass(frozen=True)
class Attempt:
    """One try: when it began and ended (UTC), its first and last optimizer step, and why it ended."""

    started: str
    first_step: int
    ended: str | None = None
    last_step: int | None = None
    reason: str | None = None


@dataclass(frozen=True)
class Journal:
    """The content of run.json."""

    run: str
    state: State
    fingerprint: dict[str, Any]
    config: dict[str, Any]
    attempts: list[Attempt] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)


def fingerprint(config: TrainConfig, data_digests: dict[str, str]) -> dict[str, Any]:
    """All that the adapter depends on: two runs with the same fingerprint may continue each other.

    Versions are part of it: other code may draw or round differently, and then nobody could say what was trained.
    """
    plain = to_plain(config)
    evaluations_count = config.training.adapter_from == "best_evaluation" or config.training.patience
    without_effect = WITHOUT_EFFECT | {
        "training": WITHOUT_EFFECT["training"] - (EVALUATIONS if evaluations_count else set())
    }
    parts = {
        section: {key: value for key, value in plain[section].items() if key not in without_effect.get(section, set())}
        for section in ("model", "data", "prompt", "lora", "training")
    }
    return parts | {"data_digests": data_digests, "versions": versions()}


def digest(identity: dict[str, Any]) -> str:
    """A fingerprint as 64 hexadecimal digits."""
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


def read_journal(store: Store) -> Journal | None:
    """The run's journal, or None where there is no run yet."""
    try:
        raw = json.loads(store.read(FILE))
        return Journal(**raw | {"attempts": [Attempt(**attempt) for attempt in raw["attempts"]]})
    except MissingError:
        return None
    except (ValueError, TypeError, KeyError) as error:
        raise DamagedError(
            f"{store.uri}/{FILE} is not readable ({error}): move the folder away and run again"
        ) from error


def check_same_run(journal: Journal, store: Store, identity: dict[str, Any]) -> None:
    """OutputError, with what differs, when the folder holds another run."""
    different = differences(journal.fingerprint, identity)
    if different:
        raise OutputError(
            f"{store.uri} holds a run with another config, data or versions ({'; '.join(different[:6])}): "
            "give this one another name (run), or start beside it with --fresh"
        )


def names_same_data(journal: Journal, config: TrainConfig) -> bool:
    """Return True if the run read its data from where the config says, whatever is there now."""
    here = to_plain(config)["data"]
    there = {"include": [], "exclude": []} | journal.config["data"]
    return all(there.get(key) == here[key] for key in WITHOUT_EFFECT["data"])


def fresh_name(run: str, identity: dict[str, Any]) -> str:
    """The name of a run beside another of the same name: the same for the same fingerprint, so that it can resume."""
    return f"{run}-{digest(identity)[:8]}"


def story(journal: Journal) -> list[str]:
    """The attempts so far, a line each."""
    lines = []
    for number, attempt in enumerate(journal.attempts, start=1):
        steps = f"from step {attempt.first_step}"
        steps += "" if attempt.last_step is None else f" to {attempt.last_step}"
        lines.append(f"attempt {number}, {attempt.started}, {steps}: {attempt.reason or NO_WORD}")
    return lines


def is_done(journal: Journal, store: Store, hub: str | None) -> bool:
    """Whether nothing is left to do: the run ended, its adapter is there, and on the Hub if that is wanted."""
    if journal.state != "finished" or (hub is not None and journal.facts.get("published", {}).get("hub") != hub):
        return False
    try:
        return read_manifest(store, "adapter").extra.get("fingerprint") == digest(journal.fingerprint)
    except (MissingError, DamagedError):
        return False


def begin(
    store: Store,
    config: TrainConfig,
    identity: dict[str, Any],
    first_step: int,
    facts: dict[str, Any],
    started: str | None = None,
) -> Journal:
    """Write down that an attempt has begun (now, or as `started` says), and of the last one, if it could not, that it
    ended.
    """
    before = read_journal(store)
    attempts = [replace(each, reason=each.reason or NO_WORD) for each in before.attempts] if before else []
    journal = Journal(
        config.run, "running", identity, to_plain(config), [*attempts, Attempt(started or now(), first_step)], facts
    )
    _write(store, journal)
    return journal


def end(store: Store, journal: Journal, state: State, last_step: int, reason: str) -> Journal:
    """Write down how the attempt ended."""
    last = journal.attempts[-1]
    attempt = replace(last, ended=now(), last_step=last_step, reason=printable(reason))
    ended = replace(journal, state=state, attempts=[*journal.attempts[:-1], attempt])
    _write(store, ended)
    return ended


def _write(store: Store, journal: Journal) -> None:
    store.write(FILE, (json.dumps(asdict(journal), indent=2, ensure_ascii=False) + "\n").encode())


def now() -> str:
    """The time (UTC) as a journal has it."""
    return datetime.now(UTC).isoformat(timespec="seconds")
