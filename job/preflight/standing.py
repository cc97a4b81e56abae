"""Return the state of a run: new, resumable, finished or foreign."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from job.config.commands import TrainConfig
from job.errors import GateError, OutputError, RecapError
from job.identity import differences
from job.model.fetch import small_identity
from job.preflight.access import SmallFiles
from job.prompt.template import Prompt
from job.storage.open import open_store
from job.storage.store import Store
from job.training import checkpoints, journal
from job.training.examples import Examples, files_now
from job.training.run_prompt import read_run_prompt
from job.training.start import StartPin, recorded_pin

ATTEMPTS_SHOWN = 5


@dataclass(frozen=True)
class Standing:
    """The name of the run, its state as text, whether it is done, and its attempts, a line each.

    `prompt` is the one that the run began with; None if it has to be rendered. Whether a run has
    begun is not known (`is_known`) if its data cannot be read. `gate` is the error of a run that is
    done, if its adapter did not pass its gate.
    """

    run: str
    state: str
    done: bool = False
    story: Sequence[str] = ()
    prompt: Prompt | None = None
    is_known: bool = True
    gate: GateError | None = None


def find_standing(
    config: TrainConfig,
    examples: Examples,
    fresh: bool,
    small: SmallFiles,
    pin: StartPin | None = None,
) -> Standing:
    """Read the journal of the run, and the prompt that it began with.

    `pin` is the adapter that a new run would start from; one that has begun records its own. If
    `fresh`, and the folder belongs to another config, data, versions or files of the base, read
    that of the run beside it. Raise OutputError if the folder belongs to another run and `fresh` is
    False; DamagedError or MissingError if the run cannot go on with its prompt.
    """
    digests = examples.digests()
    run = _fresh_run(config, digests, small, pin) if fresh else config.run
    store = run_store(config, run)
    found = journal.read_journal(store)
    wanted = _fingerprint(config, digests, found, pin)
    if found is not None:
        _check_same(found, store, wanted, config, small)
    journal.check_same_adapter(store, wanted)
    if found is None:
        return Standing(run, f"{run}: new")

    story = journal.story(found)
    newest = checkpoints.newest_step(store)
    step = "none" if newest is None else newest
    state = "\n".join([f"{run}: {found.state}, last checkpoint {step}", *story[-ATTEMPTS_SHOWN:]])
    done = journal.is_done(found, store, config)
    prompt = None if done else read_run_prompt(store)
    gate = journal.gate_error(found, config) if done else None
    return Standing(run, state, done, story, prompt, gate=gate)


def _fresh_run(
    config: TrainConfig, digests: dict[str, str], small: SmallFiles, pin: StartPin | None
) -> str:
    """Return the first name of the run and of those beside it whose folder is no other run's."""
    # By the name of a pointer, not by the champion of now: the run that began is found again.
    named = journal.fingerprint(config, digests, config.training.start_from)
    for run in (config.run, journal.fresh_name(config.run, named)):
        store = run_store(config, run)
        found = journal.read_journal(store)
        wanted = _fingerprint(config, digests, found, pin)
        try:
            journal.check_same_adapter(store, wanted)
            if found is not None:
                _check_same(found, store, wanted, config, small)
        except OutputError:
            continue
        return run
    # The run beside it began with other files of the base, which are no part of its fingerprint.
    base = small_identity(config.model.base, small.folder)
    return journal.fresh_name(config.run, named | {"base": base})


def _fingerprint(
    config: TrainConfig,
    digests: dict[str, str],
    found: journal.Journal | None,
    pin: StartPin | None,
) -> dict[str, Any]:
    """Return the fingerprint of the run in a folder, with the adapter that it began with."""
    start = recorded_pin(config, found) or pin
    return journal.fingerprint(config, digests, start.digest if start else None)


def _check_same(
    found: journal.Journal,
    store: Store,
    wanted: dict[str, Any],
    config: TrainConfig,
    small: SmallFiles,
) -> None:
    """Raise OutputError if the folder belongs to another run, or the base has changed since."""
    journal.check_same_run(found, store, wanted)
    if journal.is_done(found, store, config):
        return
    try:
        folder = small.folder
    except RecapError:
        return  # the check of the base reports it
    # Of the weights, the training knows: it reads them anyway.
    journal.check_same_base(found, store, small_identity(config.model.base, folder))


def find_standing_without_data(config: TrainConfig) -> Standing:
    """Read the journal of a run whose data cannot be read now.

    The run counts as done if it finished with data from the same URIs.
    """
    found = _finished_journal(config)
    if found is None:
        return Standing(config.run, f"{config.run}: not known without the data", is_known=False)
    state = f"{config.run}: finished, with the data of then"
    return Standing(config.run, state, done=True, gate=journal.gate_error(found, config))


def find_finished_standing(config: TrainConfig) -> Standing | None:
    """Return the standing of a finished run whose data has not changed since; read no data.

    Return None if there is no such run, or if that cannot be found out.
    """
    try:
        found = _finished_journal(config)
        if found is None or found.facts.get("files") != files_now(config):
            return None
    except RecapError:
        return None
    state = f"{config.run}: finished, and no file of its data has changed"
    gate = journal.gate_error(found, config)
    return Standing(config.run, state, done=True, story=journal.story(found), gate=gate)


def _finished_journal(config: TrainConfig) -> journal.Journal | None:
    """Return the journal if a run of this config finished with data from the same URIs."""
    store = run_store(config, config.run)
    found = journal.read_journal(store)
    if found is None or not journal.names_same_data(found, config):
        return None
    wanted = _fingerprint(config, found.fingerprint["data_digests"], found, None)
    if differences(found.fingerprint, wanted):
        return None
    return found if journal.is_done(found, store, config) else None


def run_store(config: TrainConfig, run: str) -> Store:
    """Return the store of a run's folder."""
    return open_store(f"{config.output.rstrip('/')}/{run}", config.storage)
