"""The prompt of a run: rendered once when the run begins, and kept with it in storage.

run.json has the digest of prompt.json. It is written first: a run that died between the two has
done no step yet, and renders the prompt again.
"""

from job.errors import DamagedError, MissingError
from job.prompt.template import FILE, Prompt, parse_prompt, prompt_digest, prompt_text
from job.storage.store import Store
from job.training import checkpoints, journal

FACT = "prompt"  # of run.json's facts
REMEDY = "put the file of then back, or give the run another name (run)"


def read_run_prompt(store: Store) -> Prompt | None:
    """Return the prompt that a run began with; None if no step was done with one.

    Raise DamagedError if prompt.json is not the one that the run began with, MissingError if it is
    gone, but a checkpoint that was trained with it is there.
    """
    found = journal.read_journal(store)
    recorded = found.facts.get(FACT) if found else None
    if recorded is None:
        return None
    try:
        prompt = parse_prompt(store.read(FILE), store.uri, REMEDY)
    except MissingError as error:
        if checkpoints.newest_step(store) is None:
            return None
        # Rendered again, it may be another: a chat template may write the date.
        raise MissingError(
            f"{store.uri}: {FILE} is missing, and the run's checkpoints were trained with it: "
            f"{REMEDY}"
        ) from error
    if prompt_digest(prompt) != recorded:
        raise DamagedError(
            f"{store.uri}: {FILE} is not the prompt that this run began with: {REMEDY}"
        )
    return prompt


def write_run_prompt(store: Store, prompt: Prompt) -> None:
    """Keep the prompt with the run, whose run.json must have its digest by now."""
    store.write(FILE, prompt_text(prompt).encode())
