"""Promotion: the champion that an adapter is judged against, and the switch if it passed.

The pointer that was read before the comparison is the one that the switch expects. If somebody
switches it in between, nothing is changed, and the next attempt is judged against the new champion.
"""

from dataclasses import dataclass

from job.config.sections import StorageSection
from job.errors import OutputError, RecapError, RetryError
from job.evaluation.champion import absolute_uri, key_numbers, key_reload
from job.evaluation.gate import ChampionState, recorded
from job.evaluation.metrics.all_metrics import HEADLINE, metric_named
from job.evaluation.reload import Reload
from job.evaluation.result import Evaluation
from job.model.champion import (
    RELOAD,
    Pointer,
    Promotion,
    check_nameable,
    find_pointer,
    is_pointer,
    now,
    switch,
)
from job.model.fetch import Adapter, read_adapter
from job.printable import visible
from job.telemetry import event


@dataclass(frozen=True)
class Champion:
    """The champion at the moment at which the comparison begins.

    `adapter` is what is compared with; None if there is none yet, or if it cannot be read, for the
    reason `why`. `pointer` is None if there is none yet. `is_served_otherwise` is True if a config
    sets other serving settings for the judged adapter than the champion has: then even the same
    adapter is compared with the champion, and nights follow the settings that passed.
    """

    uri: str | None = None
    pointer: Pointer | None = None
    adapter: Adapter | None = None
    why: str = ""
    is_served_otherwise: bool = False

    def state(self, judged: str | None = None) -> ChampionState:
        """Return how an adapter with the digest `judged` stands to the champion."""
        if self.uri is None:
            return "not named"
        if self.pointer is None and self.adapter is None and not self.why:
            return "none yet"
        is_itself = self.adapter is not None and self.adapter.digest == judged
        return "itself" if is_itself and not self.is_served_otherwise else "compared"

    @property
    def digest(self) -> str | None:
        """The digest of the champion; None without one."""
        return None if self.adapter is None else self.adapter.digest


def find_champion(uri: str | None, storage: StorageSection) -> Champion:
    """Return the champion that a pointer names now, or the adapter at `uri` if that is no pointer.

    An adapter that is gone or damaged is a reason, not an error, and so is a pointer that cannot be
    read: nobody can be compared, and so nobody passes. Raise RetryError of the store.
    """
    if uri is None:
        return Champion()
    pointer = None
    try:
        if is_pointer(uri):
            pointer = find_pointer(uri, storage)
            if pointer is None:
                return Champion(uri)
        adapter = read_adapter(uri, storage)
        # It has read the pointer again: what it found is what the switch must expect.
        return Champion(uri, adapter.pointer, adapter)
    except RetryError:
        raise
    except RecapError as error:
        return Champion(uri, pointer, why=str(error))


def check_promotable(pointer: str, adapter: str) -> None:
    """Raise ConfigError if the pointer could never name an adapter at this location."""
    check_nameable(pointer, absolute_uri(adapter))


def was_promoted(pointer: Pointer | None, adapter: Adapter) -> bool:
    """Return True if the adapter is the champion, or has been."""
    if pointer is None:
        return False
    known = (pointer.champion, *pointer.history)
    return any(each.digest == adapter.digest for each in known)


@dataclass(frozen=True)
class Judged:
    """A published adapter, the evaluation with its verdict, where that is, and who judged.

    `reload` is what is known of loading it without recap.
    """

    adapter: Adapter
    evaluation: Evaluation
    source: str
    by: str
    reload: Reload | None


def promote(champion: Champion, judged: Judged, storage: StorageSection) -> Pointer | None:
    """Make an adapter that passed its gate the champion, and return the pointer.

    Return None, and change nothing, without a pointer, or if the adapter is the champion already.
    Raise RetryError if somebody has switched the pointer since the comparison began: run again, and
    the adapter is judged against the new champion.
    """
    adapter = judged.adapter
    verdict = recorded(judged.evaluation)
    assert verdict is not None, "nothing becomes champion without a gate"
    assert verdict.passed, "only what passed its gate becomes the champion"
    if champion.uri is None or not is_pointer(champion.uri):
        return None
    if champion.state(adapter.digest) == "itself":
        event("the adapter is the champion already", pointer=champion.uri)
        return None
    metric = metric_named(verdict.metric) or HEADLINE
    promotion = Promotion(
        absolute_uri(adapter.uri),
        adapter.digest,
        now(),
        by=visible(judged.by, one_line=True),
        reason=verdict.verdict(),
        evaluation={
            **key_numbers(judged.evaluation, judged.source, metric),
            RELOAD: key_reload(judged.reload),
        },
    )
    try:
        made = switch(champion.uri, storage, promotion, champion.pointer)
    except OutputError as error:
        if find_pointer(champion.uri, storage) == champion.pointer:
            raise  # it could not be written
        raise RetryError(
            f"{error}. Run the same again: it compares the adapter with the new champion"
        ) from error
    event("the adapter is the champion", pointer=champion.uri, version=made.champion.version)
    return made
