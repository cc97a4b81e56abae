"""Plan a gate: who will be compared with whom, and whether anybody could pass."""

from collections.abc import Iterable, Iterator, Sequence
from functools import partial

from job.config.commands import EvaluateConfig, TrainConfig
from job.config.gate_mistakes import champion_of, resolved_gate
from job.config.gate_sections import (
    DEFAULT_GUARDS,
    MIN_CONVERSATIONS,
    GateSection,
    PairsSection,
    RegressionSection,
)
from job.conversations.record import Conversation
from job.errors import ConfigError, DataError, MissingError
from job.evaluation.held_out_pairs import check_usable, read_held_out_pairs
from job.evaluation.older_sets import read_older_set
from job.evaluation.promotion import Champion, check_promotable, find_champion
from job.model.champion import is_pointer
from job.preflight.access import probe_pointer
from job.preflight.checks import Check, check


def gate_checks(
    config: TrainConfig | EvaluateConfig,
    adapter: str,
    conversations: int | None,
    choosing: int = 0,
    train: Iterable[Conversation] = (),
) -> list[Check]:
    """Return the checks of gate, champion, older test sets and pairs; none without any of them.

    `adapter` is where the judged one will be, `conversations` how many will be scored, if known,
    `choosing` how many others choose the adapter, and `train` what is trained on, if known.
    """
    checks = []
    gate = resolved_gate(config)
    uri = champion_of(config)
    if gate is not None:
        checks.append(check("gate", lambda: _gate(gate, conversations, choosing)))
    if uri is not None:
        key = "champion" if config.publish.champion is None else "publish.champion"
        checks.append(check("champion", lambda: _champion(config, uri, adapter, gate), key))
    for number, section in enumerate(config.publish.regressions):
        key = f"publish.regressions.{number}.input"
        checks.append(check("older set", partial(_older_set, config, section), key))
    if config.publish.pairs is not None:
        pairs = config.publish.pairs
        found = check("pairs", lambda: _pairs(config, pairs, train), "publish.pairs.input")
        checks.append(found)
    return checks


def _older_set(config: TrainConfig | EvaluateConfig, section: RegressionSection) -> str:
    most = config.evaluation.max_conversations
    found = read_older_set(section, config.data, config.storage, most)
    return f"{section.name}: {_enough(len(found), 'conversations to score')}"


def _pairs(
    config: TrainConfig | EvaluateConfig, section: PairsSection, train: Iterable[Conversation]
) -> str:
    most = config.evaluation.max_conversations
    pairs = read_held_out_pairs(section, config.data, config.storage, most, train)
    check_usable(pairs)
    opponent = "the base" if champion_of(config) is None else "the champion"
    return (
        f"{len(pairs.pairs):,} held-out pairs of {len(pairs.conversations):,} conversations, none "
        f"of them trained on; the win rate over {opponent} must be above {section.min_win_rate:g}"
    )


def _gate(gate: GateSection, conversations: int | None, choosing: int) -> str:
    if conversations is not None:
        _enough(conversations, "conversations would be scored", choosing)
    return "\n".join(gate_lines(gate))


def gate_lines(gate: GateSection) -> Iterator[str]:
    """Yield what a gate demands, in words."""
    yield f"by {gate.metric}: better than {_list(gate.better_than or [])}"
    if gate.no_worse_than:
        yield f"no worse than {_list(gate.no_worse_than)} by more than {gate.margin:g}"
    guards = gate.guards or {}
    if guards:
        amounts = [f"{name} {allowed:g}" for name, allowed in guards.items()]
        yield f"worse by at most: {_list(amounts)}"
    unguarded = [name for name in DEFAULT_GUARDS if name not in guards]
    if unguarded:
        yield f"without a guard on: {_list(unguarded)}"


def _champion(
    config: TrainConfig | EvaluateConfig, uri: str, adapter: str, gate: GateSection | None
) -> str:
    """Return who the champion is; raise an error if nobody could be compared with it."""
    if config.publish.champion is not None:
        check_promotable(uri, adapter)
    champion = find_champion(uri, config.storage)
    if champion.why:
        raise MissingError(champion.why)
    lines = [_who(champion)]
    if config.publish.champion is not None:
        probe_pointer(uri, config.storage)
        lines.append("an adapter that passes becomes the champion")
    if champion.adapter is None and gate is not None:
        others = [*(gate.better_than or []), *(gate.no_worse_than or [])]
        if not set(others) - {"champion"}:
            raise ConfigError(
                f"{uri}: there is no champion yet, and the gate names nobody else, so nobody could "
                "pass: name floors or base in publish.gate.better_than"
            )
    return "\n".join(lines)


def _who(champion: Champion) -> str:
    if champion.adapter is None:
        return f"{champion.uri}  there is none yet: the first that passes"
    digest = champion.adapter.digest[:12]
    if champion.pointer is None or not is_pointer(str(champion.uri)):
        return f"{champion.adapter.uri}  digest {digest}, scored on the same conversations"
    version = champion.pointer.champion.version
    return (
        f"{champion.uri}  version {version}: {champion.adapter.uri}, digest {digest}\n"
        "it is scored on the same conversations, with its own settings"
    )


def _enough(count: int, what: str, choosing: int = 0) -> str:
    if count < MIN_CONVERSATIONS:
        remedy = "give more with references"
        to_spare = count + choosing - MIN_CONVERSATIONS
        if to_spare > 0:
            remedy += (
                f", set training.selection.conversations to {to_spare} or fewer, since {choosing} "
                "choose the adapter and do not score it"
            )
        raise DataError(
            f"publish.gate: {count} {what}, and fewer than {MIN_CONVERSATIONS} never pass: "
            f"{remedy}, or remove the gate"
        )
    return f"{count:,} {what}"


def _list(names: Sequence[str]) -> str:
    return ", ".join(names) or "nobody"
