"""`run.json`: a run's identity, its state, and the history of its attempts.

It decides whether a run is new, to be resumed, finished, or somebody else's. It is in the run's
folder and rewritten as a whole each time.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Literal, get_args

from job.config.commands import TrainConfig
from job.config.sections import model_identity, to_plain
from job.config.training_sections import PublishSection
from job.environment import versions
from job.errors import DamagedError, GateError, MissingError, OutputError
from job.identity import changed_names, differences, json_digest
from job.printable import printable
from job.storage.folders import read_manifest
from job.storage.store import Store

FILE = "run.json"
NO_WORD = "ended without a word: it was killed, stood still, or its machine died"
BESIDE = "start beside it with `recap train … --fresh`"
# Of the gate's facts. The pointer may still have to be switched to an adapter that passed.
PROMOTED = "promoted"
WAITS_FOR_RELOAD = "waits_for_reload"  # of the gate's facts: nothing but a reload is missing
State = Literal["running", "preempted", "failed", "finished"]
Delivery = Literal["hub", "merged"]  # a key of the facts in `published`
MERGED_WEIGHTS = "merged weights"  # by this name they are left out
# What may kill the process: a key of an attempt.
Danger = Literal["selecting", "scoring", "reloading", "merging"]

# Keys that change what is logged or stored during a run, but not the adapter.
WITHOUT_EFFECT = {
    "training": {
        "save_every_steps",
        "save_every_epochs",
        "evaluate_every_steps",
        "evaluate_every_epochs",
        "log_every_steps",
        "keep_last",
        "sample_summaries",
        "evaluation_share",  # it skips no evaluation that decides
        "processes",  # a checkpoint's identity has the real number of processes
        "start_from",  # an address; the fingerprint has the digest of the adapter
    },
    # The addresses of the data; the fingerprint has digests of its content.
    "data": {"train", "validation", "test", "replay", "include", "exclude"},
    "generation": {"max_batch_tokens", "max_batch_size", "deterministic"},
}

# The parts of a base, by the key of `Base.identity()` that has their digest.
PARTS_OF_A_BASE = {
    "digest": "config.json or weights",
    "tokenizer_digest": "tokenizer or chat template",
    "generation_digest": "generation_config.json",
}

# These do change the adapter if evaluations choose it, or end the training.
EVALUATIONS = {"evaluate_every_steps", "evaluate_every_epochs"}


@dataclass(frozen=True)
class Attempt:
    """One attempt: its start and end (UTC), first and last optimizer step, and why it ended.

    `scoring` is true while the attempt scores the adapter, and so on. What stays true, the attempt
    did not survive. It is reset if the attempt was stopped.
    """

    started: str
    first_step: int
    ended: str | None = None
    last_step: int | None = None
    reason: str | None = None
    selecting: bool = False
    scoring: bool = False
    reloading: bool = False
    merging: bool = False


@dataclass(frozen=True)
class Journal:
    """The content of run.json."""

    run: str
    state: State
    fingerprint: dict[str, Any]
    config: dict[str, Any]
    attempts: list[Attempt] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)


def fingerprint(
    config: TrainConfig, data_digests: dict[str, str], start: str | None = None
) -> dict[str, Any]:
    """Return all that the adapter depends on, as JSON.

    Runs with the same fingerprint may resume each other. Versions are part of it: other code may
    draw or round differently, and then nobody could say what was trained. `start` is the digest of
    the adapter that the training starts from, which stands for all that is taken from it.
    """
    ignored = dict(WITHOUT_EFFECT)
    training = config.training
    if training.adapter_from != "last_step" or training.patience:
        ignored["training"] = ignored["training"] - EVALUATIONS
    if config.data.replay is None:
        ignored["data"] = ignored["data"] | {"replay_share"}
    if training.adapter_from != "best_metric":
        ignored["training"] = ignored["training"] | {"selection"}

    sections = ["model", "data", "prompt", "lora", "training"]
    if training.adapter_from == "best_metric":
        # The candidates are compared by what they write when they serve.
        sections += ["serve", "generation"]

    plain = to_plain(config) | {"model": model_identity(config.model)}
    parts: dict[str, Any] = {}
    for section in sections:
        ignored_keys = ignored.get(section, set())
        parts[section] = {}
        for key, value in plain[section].items():
            if key not in ignored_keys:
                parts[section][key] = value
    if start is not None:
        del parts["lora"], parts["prompt"], parts["data"]["cleaning"]
        parts["start"] = start
    if config.method != "sft":
        parts["method"] = config.method
    return parts | {"data_digests": data_digests, "versions": versions()}


def read_journal(store: Store) -> Journal | None:
    """Return the run's journal, None if there is no run. Raise DamagedError if it is invalid."""
    try:
        raw = json.loads(store.read(FILE))
        raw["attempts"] = [Attempt(**attempt) for attempt in raw["attempts"]]
        return Journal(**raw)
    except MissingError:
        return None
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise DamagedError(
            f"{store.uri}/{FILE} is not readable ({error}): move the folder away and run again"
        ) from error


def check_same_run(journal: Journal, store: Store, identity: dict[str, Any]) -> None:
    """Raise OutputError, with the differences, if the folder belongs to another run."""
    different = differences(journal.fingerprint, identity)
    if different:
        raise OutputError(
            f"{store.uri} holds a run with another config, data or versions "
            f"({'; '.join(different[:6])}): give this one another name (run), or {BESIDE}"
        )


def check_same_base(journal: Journal, store: Store, base: Mapping[str, Any]) -> None:
    """Raise OutputError, naming what changed, if the run began with other files of its base.

    `base` is `Base.identity()`, or the part of it that is known.
    """
    before = journal.facts.get("base", {})
    changed = []
    for key, part in PARTS_OF_A_BASE.items():
        if key in before and key in base and before[key] != base[key]:
            changed.append(part)
    if not changed:
        return

    files = changed_names(before.get("tokenizer_files", {}), base.get("tokenizer_files", {}))
    named = f" ({', '.join(files[:3])})" if files else ""
    remedy = "put the files of then back, or give this run another name (run)"
    if PARTS_OF_A_BASE["digest"] not in changed:
        # A plan compares all but the weights, which it does not read.
        remedy += f", or {BESIDE}"
    raise OutputError(
        f"{store.uri} holds a run that began with another {' and '.join(changed)} of "
        f"{base['uri']}{named}: {remedy}"
    )


def check_same_adapter(store: Store, identity: dict[str, Any]) -> None:
    """Raise OutputError if the folder has the adapter of another run, whose run.json was removed.

    It may serve: some pointer may name it.
    """
    if _adapter_fingerprint(store) not in (None, json_digest(identity)):
        raise OutputError(
            f"{store.uri}/adapter is of a run with another config, data or versions, and may be "
            f"some champion: give this one another name (run), or {BESIDE}; or move that adapter "
            "away if nothing names it"
        )


def names_same_data(journal: Journal, config: TrainConfig) -> bool:
    """Return True if the run read its data from where the config says, whatever is there now."""
    here = to_plain(config)["data"]
    # Journals of recap before these keys existed.
    there = {"include": [], "exclude": []} | journal.config["data"]
    return all(there.get(key) == here[key] for key in WITHOUT_EFFECT["data"])


def fresh_name(run: str, identity: dict[str, Any]) -> str:
    """Return the name of a new run beside another of the same name.

    The same identity gives the same name, so that the new run can be resumed.
    """
    return f"{run}-{json_digest(identity)[:8]}"


def story(journal: Journal) -> list[str]:
    """Return the attempts so far as text, one line each."""
    lines = []
    for number, attempt in enumerate(journal.attempts, start=1):
        steps = f"from step {attempt.first_step}"
        if attempt.last_step is not None:
            steps += f" to {attempt.last_step}"
        reason = attempt.reason or NO_WORD
        lines.append(f"attempt {number}, {attempt.started}, {steps}: {reason}")
    return lines


def is_done(journal: Journal, store: Store, config: TrainConfig) -> bool:
    """Return True if nothing is left to do.

    The run has finished, and all that is to be published was.
    """
    if journal.state != "finished" or not _has_adapter(journal, store):
        return False
    if gate_error(journal, config) is not None:
        # What did not pass is not delivered. Only what waits for a reload may be tried again.
        return not (journal.facts.get("gate") or {}).get(WAITS_FOR_RELOAD)
    facts = journal.facts
    return not undelivered(facts.get("published", {}), facts.get("left_out", {}), config.publish)


def undelivered(
    published: Mapping[str, str], left_out: Mapping[str, str], wanted: PublishSection
) -> set[Delivery]:
    """Return what the config wants delivered and no attempt has delivered or left out.

    A finished run may be started again with another `wanted`: only this is left to do then.
    """
    left: set[Delivery] = set()
    if wanted.hub is not None and published.get("hub") != wanted.hub:
        left.add("hub")
    if wanted.merged and "merged" not in published and MERGED_WEIGHTS not in left_out:
        left.add("merged")
    return left


def _has_adapter(journal: Journal, store: Store) -> bool:
    """Return True if the adapter of this run is in storage."""
    # Another fingerprint is that of an earlier run here, whose run.json was removed.
    return bool(_adapter_fingerprint(store) == json_digest(journal.fingerprint))


def _adapter_fingerprint(store: Store) -> Any:
    """Return the digest of the fingerprint of the run whose adapter is in storage, None without."""
    try:
        return read_manifest(store, "adapter").extra.get("fingerprint")
    except (MissingError, DamagedError):
        return None


def gate_error(journal: Journal, config: TrainConfig) -> GateError | None:
    """Return the error of a finished run whose adapter did not pass the config's gate.

    None if it passed, or if there is no gate. A verdict is of the gate that the run had: an adapter
    that was not judged for this champion has not passed.
    """
    publish = config.publish
    if publish.gate is None:
        return None
    recorded = journal.facts.get("gate")
    where = f"{config.output.rstrip('/')}/{journal.run}/adapter"
    remedy = (
        f"judge it with `recap evaluate`: adapter: {where}, and the section publish of this config"
    )
    if not recorded:
        return GateError(f"{journal.run} finished without a gate, and its adapter stays: {remedy}")
    if not recorded["passed"]:
        return GateError(recorded["screen"])
    if publish.champion != recorded["pointer"]:
        was = recorded["pointer"] or "none"
        return GateError(
            f"{journal.run} passed its gate while publish.champion was {was}, and did not become "
            f"champion of {publish.champion or 'none'}: {remedy}"
        )
    return None


def begin(
    store: Store,
    config: TrainConfig,
    identity: dict[str, Any],
    first_step: int,
    facts: dict[str, Any],
    started: str | None = None,
) -> Journal:
    """Write that an attempt has begun, at `started` or now, and return the journal.

    Earlier attempts without a reason could not write their end: they get one now.
    """
    before = read_journal(store)
    attempts = []
    if before:
        # A process that was killed cannot write its end. The caller holds the run's lease, so every
        # earlier attempt has ended.
        attempts = [replace(each, reason=each.reason or NO_WORD) for each in before.attempts]
    attempts.append(Attempt(started or now(), first_step))

    journal = Journal(config.run, "running", identity, to_plain(config), attempts, facts)
    _write(store, journal)
    return journal


def save(store: Store, journal: Journal) -> None:
    """Write the journal with the facts that its mappings have by now."""
    _write(store, journal)


def note_danger(store: Store, journal: Journal, danger: Danger, is_on: bool) -> Journal:
    """Write that the attempt begins what may kill it, or has survived it; return the journal."""
    return _change_last_attempt(store, journal, **{danger: is_on})


def crashes(journal: Journal, danger: Danger) -> int:
    """Return how many attempts before the last one did not survive this."""
    # The last attempt is the present one. Its own mark says what it does, not that it died.
    return sum(getattr(attempt, danger) for attempt in journal.attempts[:-1])


def end(store: Store, journal: Journal, state: State, last_step: int, reason: str) -> Journal:
    """Write that the attempt has ended, and return the journal. Secrets in `reason` are masked."""
    # What a stop signal interrupted did not crash: it must not count as if it had.
    last = journal.attempts[-1]
    dangers = {danger: getattr(last, danger) and state == "failed" for danger in get_args(Danger)}
    return _change_last_attempt(
        store,
        replace(journal, state=state),
        ended=now(),
        last_step=last_step,
        reason=printable(reason),
        **dangers,
    )


def _change_last_attempt(store: Store, journal: Journal, **changes: Any) -> Journal:
    # A new object: the caller keeps the old one if the write fails.
    attempts = [*journal.attempts[:-1], replace(journal.attempts[-1], **changes)]
    changed = replace(journal, attempts=attempts)
    _write(store, changed)
    return changed


def _write(store: Store, journal: Journal) -> None:
    text = json.dumps(asdict(journal), indent=2, ensure_ascii=False)
    store.write(FILE, (text + "\n").encode())


def now() -> str:
    """Return the present time in UTC, in ISO 8601 to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")
