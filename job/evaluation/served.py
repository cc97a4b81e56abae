"""Systems that are generated for scores: the judged adapter, its base alone, and the champion.

Each is summarized from disk, through the engine and with the settings that it serves with. A
training, after its memory is free, and `recap evaluate` both call this.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from job.config.sections import StorageSection
from job.conversations.cleaning import clean
from job.conversations.record import Conversation
from job.evaluation.result import Kind
from job.evaluation.systems import BASE, CHAMPION, TUNED, System
from job.inference.from_disk import Candidate, Place, Summarized, summarize_candidates
from job.inference.open import FetchedModel, fetch_with_adapter
from job.inference.serving import AS_TRAINED, Serving, ServingWish
from job.inference.taken import judged_serving, wish_as_judged
from job.model.fetch import Adapter
from job.model.quantization import WeightsInMemory

KINDS: Mapping[str, Kind] = {TUNED: "judged", BASE: "base", CHAMPION: "champion"}


@dataclass(frozen=True)
class Served:
    """The systems to score, the judged one first, and the settings of that one.

    `weights` are those of its base in memory, which is known of transformers only.
    """

    systems: list[System]
    serving: Serving | None = None  # of given summaries, nobody knows it
    weights: WeightsInMemory | None = None


def serve_judged(judged: Candidate, with_base: bool, origin: str, place: Place) -> Served:
    """Summarize with the judged adapter, and with its base alone if wanted.

    Both share one loaded base unless the adapter is merged into it. Raise what
    `summarize_candidates` raises.
    """
    candidates = [replace(judged, name=TUNED)]
    if with_base:
        alone = replace(judged.model, adapter=None, adapter_digest=None)
        candidates.append(replace(judged, name=BASE, model=alone))
    found = summarize_candidates(candidates, place)
    systems = [system_of(TUNED, found[TUNED], origin)]
    if with_base:
        systems.append(system_of(BASE, found[BASE], judged.model.base.uri))
    return Served(systems, found[TUNED].serving, found[TUNED].weights)


def champion_candidate(
    adapter: Adapter,
    like: Candidate,
    raw: Sequence[Conversation],
    storage: StorageSection,
    cache: Path,
) -> Candidate:
    """Fetch the champion, to summarize the conversations of `like`.

    It is served by its own serving.json, or as `like` is if it carries none, and reads what is in
    `raw` after its own cleaning, as in a night. Raise what `fetch_with_adapter` raises.
    """
    wish = _wish_of(adapter, like)
    model = fetch_with_adapter(adapter.uri, wish.section, storage, cache)
    conversations = cleaned_for(model, wish, like.conversations, raw)
    return Candidate(CHAMPION, model, wish, conversations)


def cleaned_for(
    model: FetchedModel,
    wish: ServingWish,
    conversations: Sequence[Conversation],
    raw: Sequence[Conversation],
) -> list[Conversation]:
    """Return the conversations as a model reads them: what is in `raw`, after its own cleaning."""
    by_source = {conversation.source: conversation for conversation in raw}
    steps = wish.reading.steps(model.prompt.cleaning)
    return [clean(by_source[conversation.source], steps) for conversation in conversations]


def _wish_of(adapter: Adapter, like: Candidate) -> ServingWish:
    """Return the champion's own serving settings, on the base that it was trained on."""
    section = like.wish.section
    if adapter.base.get("digest") != like.model.base.digest:
        # Where the config loads a base from, and whose code may run, is meant for the judged one's.
        elsewhere = {"base": None, "revision": None, "trust_remote_code": False}
        section = section.model_copy(update=elsewhere)
    wish = replace(like.wish, section=section, reading=AS_TRAINED)
    judged = judged_serving(adapter)
    return wish if judged is None else wish_as_judged(wish, judged.serving)


def system_of(name: str, found: Summarized, origin: str) -> System:
    """Return the summaries of a candidate as a system of an evaluation."""
    return System(
        name,
        KINDS[name],
        found.summaries.texts,
        found.summaries.finish_reasons,
        origin,
        found.serving.to_json(),
        found.summaries.read,
    )
