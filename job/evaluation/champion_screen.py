"""A pointer as one screen for the terminal: the champion, what let it in, and those before it."""

from collections.abc import Iterator, Mapping
from typing import Any

from job.config.sections import StorageSection
from job.errors import DamagedError, RecapError
from job.inference.serving import Serving
from job.inference.taken import SERVING
from job.model.champion import GATE, PAIRS, RELOAD, Pointer, Promotion
from job.model.fetch import read_champion
from job.printable import number_of

MAX_EARLIER_SHOWN = 5
MAX_GAINS_SHOWN = 6
DIGEST_DIGITS = 12  # enough for adapter_digest


def champion_screen(pointer: Pointer, storage: StorageSection) -> str:
    """Return the screen. Reads the champion's manifest, and warns if it is no longer the same."""
    champion = pointer.champion
    rows = [
        ("adapter", champion.adapter),
        ("digest", champion.digest),
        ("since", f"{_time(champion)}, version {champion.version}{_restored(champion)}"),
        ("by", champion.by),
        ("reason", champion.reason),
        *_gate_rows(champion),
        *_reload_rows(champion),
        *_evaluation_rows(champion.evaluation),
        ("now", _state(pointer, storage)),
    ]
    lines = [f"The champion of {pointer.uri}", ""]
    lines += [f"  {name:12}{text}" for name, text in rows if text]
    lines += ["", *_history(pointer)]
    return "\n".join(lines)


def _state(pointer: Pointer, storage: StorageSection) -> str:
    try:
        read_champion(pointer, storage)
    except RecapError as error:
        return f"WARNING: nights that follow this pointer will fail: {error}"
    return "the adapter is there, with this digest"


def _gate_rows(champion: Promotion) -> Iterator[tuple[str, str]]:
    gate = champion.evaluation.get(GATE)
    if not isinstance(gate, dict):
        return
    verdict = str(gate.get("verdict", ""))
    if champion.has_failed_its_gate:
        yield GATE, f"WARNING: set by hand: {verdict}"
    elif verdict != champion.reason:
        yield GATE, verdict


def _reload_rows(champion: Promotion) -> Iterator[tuple[str, str]]:
    """Yield what is known of loading the adapter without recap, if the pointer has it."""
    reload = champion.evaluation.get(RELOAD)
    if isinstance(reload, dict):  # earlier versions recorded none
        mark = "WARNING: " if champion.is_not_reloaded else ""
        yield RELOAD, f"{mark}{reload.get('sentence', '')}"


def _evaluation_rows(evaluation: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield what is known of the evaluation; whoever wrote the pointer may have left out any."""
    if not evaluation:
        yield "evaluation", "none is recorded"
        return
    yield "evaluation", str(evaluation.get("source", ""))
    if "score" in evaluation:
        yield "", _score(evaluation)
    gains = evaluation.get("gains")
    if isinstance(gains, dict):
        shown = list(gains.items())[:MAX_GAINS_SHOWN]
        for position, (name, gain) in enumerate(shown):
            yield "" if position else "gain over", f"{name}: {_numbers(gain, '+.3f')}"
    yield from _pairs_rows(evaluation.get(PAIRS))
    serving = evaluation.get(SERVING)
    if serving is not None:
        try:
            yield "serving", Serving.from_json(serving).text()
        except DamagedError as error:
            yield "serving", f"WARNING: {error}"


def _pairs_rows(pairs: Any) -> Iterator[tuple[str, str]]:
    """Yield the win rate on held-out pairs, if one was measured."""
    if isinstance(pairs, dict) and pairs.get("win_rate") is not None:
        rate = _numbers(pairs["win_rate"], ".3f")
        number = pairs.get("conversations", "?")
        text = f"{rate} over {pairs.get('opponent', '?')}, on edits of {number} conversations"
        yield "win rate", text


def _score(evaluation: Mapping[str, Any]) -> str:
    metric = evaluation.get("metric", "score")
    score = _numbers(evaluation.get("score"), ".3f")
    number = evaluation.get("conversations", "?")
    return f"{metric} {score} on {number} conversation{'' if number == 1 else 's'}"


def _numbers(found: Any, form: str) -> str:
    """Return mean, low and high as text."""
    is_interval = isinstance(found, list) and len(found) == 3
    if not is_interval or not all(isinstance(each, int | float) for each in found):
        return "unknown"
    mean, low, high = (format(each, form) for each in found)
    return f"{mean} [{low}, {high}]"


def _history(pointer: Pointer) -> Iterator[str]:
    if not pointer.history:
        yield "It is the first: a rollback has nothing to bring back."
        return
    yield "Before it:"
    before = pointer.before()
    for earlier in pointer.history[:MAX_EARLIER_SHOWN]:
        mark = "  <- a rollback brings it back" if earlier is before else ""
        yield (
            f"  {earlier.version:>4}  {_time(earlier)}  {earlier.digest[:DIGEST_DIGITS]}"
            f"{_restored(earlier)}{mark}"
        )
        yield f"        {earlier.adapter}"
        reason = f": {earlier.reason}" if earlier.reason else ""
        yield f"        by {earlier.by}{reason}"
    left = len(pointer.history) - MAX_EARLIER_SHOWN
    if left > 0:
        yield f"  and {number_of(left, 'earlier one', 'earlier ones')}"


def _restored(promotion: Promotion) -> str:
    return f", rolled back to version {promotion.restores}" if promotion.restores else ""


def _time(promotion: Promotion) -> str:
    return f"{promotion.at[:10]} {promotion.at[11:19]} UTC"
