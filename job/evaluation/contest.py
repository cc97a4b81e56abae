"""The contest of an adapter with the champion: both summarize the same conversations, then a gate.

The champion is the one that its pointer names when the contest begins, and it summarizes with the
settings that it serves with.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from job.config.commands import EvaluateConfig, TrainConfig
from job.config.gate_mistakes import champion_of, resolved_gate
from job.config.gate_sections import GateSection
from job.conversations.cleaning import clean, clean_all
from job.conversations.record import Conversation
from job.errors import DataError, RecapError, RetryError
from job.evaluation.champion import lost_by_check
from job.evaluation.evaluate import NO_MODELS, evaluate
from job.evaluation.gate import GateResult, OlderSet, judge, not_scored, recorded
from job.evaluation.held_out_pairs import HeldOutPairs, find_held_out_pairs
from job.evaluation.metrics.models import MetricModel
from job.evaluation.older_sets import OlderInput, read_older_sets
from job.evaluation.promotion import Champion, find_champion
from job.evaluation.reload import Reload, with_reload
from job.evaluation.result import Evaluation, NotScored
from job.evaluation.served import champion_candidate, cleaned_for, system_of
from job.evaluation.systems import BASE, CHAMPION, TUNED, Scored, System
from job.evaluation.win_rate import PairsResult, agreement_name, compare_on_pairs, with_pairs
from job.inference.from_disk import Candidate, Place, Results, summarize_candidates
from job.inference.open import fetch_with_adapter
from job.inference.taken import fill, serving_of
from job.model.fetch import Adapter
from job.telemetry import event, warn

# In the names of candidates. No name of an older set has an apostrophe.
EDITS = "agents' edits"


@dataclass(frozen=True)
class Contest:
    """Who is compared with whom. `gate` is None if it is a comparison without a verdict."""

    config: TrainConfig | EvaluateConfig
    gate: GateSection | None = None
    champion: Champion = field(default_factory=Champion)
    older: Sequence[OlderInput] = ()
    pairs: HeldOutPairs | None = None  # None if the config names none
    models: Mapping[str, MetricModel] = field(default_factory=dict)  # by metric


@dataclass(frozen=True)
class Rivals:
    """Summaries of the champion, and of both on older test sets and held-out pairs, scored.

    `champion` has no system if there is no champion to compare with, or if it failed. `pairs` is
    None if the config names none.
    """

    champion: list[System] = field(default_factory=list)
    older: list[OlderSet] = field(default_factory=list)
    pairs: PairsResult | None = None


def begin_contest(
    config: TrainConfig | EvaluateConfig,
    train: Iterable[Conversation],
    models: Mapping[str, MetricModel] = NO_MODELS,
) -> Contest:
    """Read the pointer of the champion, the older test sets, and the held-out pairs.

    `train` is what the judged adapter was trained on, as far as it is known: it must have no
    conversation of the pairs. `models` are those of metrics, by metric. Raise RetryError of the
    store.
    """
    champion = find_champion(champion_of(config), config.storage)
    most = config.evaluation.max_conversations
    older: Sequence[OlderInput] = ()
    if config.publish.regressions:
        regressions = config.publish.regressions
        older = read_older_sets(regressions, config.data, config.storage, most)
    pairs = None
    if config.publish.pairs is not None:
        section = config.publish.pairs
        pairs = find_held_out_pairs(section, config.data, config.storage, most, train)
    return Contest(config, resolved_gate(config), champion, older, pairs, models)


def summarize_rivals(
    contest: Contest,
    judged: Candidate | None,
    conversations: Sequence[Conversation],
    raw: Sequence[Conversation],
    place: Place,
) -> Rivals:
    """Summarize the same conversations with the champion, and older test sets and pairs with both.

    Where there is no champion, the base is the opponent on the pairs. `raw` has the conversations
    before any cleaning: the champion has a cleaning of its own. `judged` is None if a file of
    summaries is judged, which has none of older test sets or pairs. A champion that cannot be
    loaded is a reason why nobody passes, and no error: the judged one keeps its scores. Raise
    RetryError if a GPU or the store fails.
    """
    champion = contest.champion
    why = "the champion could not be read" if champion.why else ""
    if why:
        warn(why, why=champion.why)
    digest = judged.model.adapter_digest if judged else None
    state = champion.state(digest)
    adapter = champion.adapter if state == "compared" else None
    opponent = CHAMPION if state in ("compared", "itself") else BASE
    if adapter is None and (why or opponent == CHAMPION or contest.pairs is None):
        return _without_rival(contest, opponent, why)
    try:
        if judged is None:
            judged = _alone(contest, conversations, raw, place)
        return _summarize(contest, adapter, judged, raw, place)
    except RetryError:
        raise
    except RecapError as error:
        warn(f"the {opponent} could not be scored", why=str(error))
        why = f"the {opponent} could not be scored ({type(error).__name__})"
        return _without_rival(contest, opponent, why)


def judge_contest(
    contest: Contest, scored: Scored, rivals: Rivals, digest: str | None = None
) -> Scored:
    """Judge the scored adapter, of this digest if it was published; note the verdict with it.

    Without a gate, the scores stay as they are.
    """
    if contest.gate is None:
        return scored
    evaluation = scored.evaluation
    state = contest.champion.state(digest)
    champion = contest.champion
    lost = lost_by_check(champion.pointer, contest.gate.metric)
    verdict = judge(contest.gate, evaluation, rivals.older, state, champion.digest, lost)
    pairs = rivals.pairs
    section = contest.config.publish.pairs
    if pairs is not None and section is not None:
        used = lost.get(agreement_name(pairs.opponent), 0.0)
        verdict = with_pairs(verdict, section, pairs, used)
        evaluation = replace(evaluation, pairs=pairs.to_json())
    return replace(scored, evaluation=replace(evaluation, gate=verdict.to_json()))


def judge_reload(scored: Scored, reload: Reload | None, is_demanded: bool) -> Scored:
    """Note with the verdict on an adapter, if there is one, what is known of loading it elsewhere.

    Where a reload is demanded, an adapter that was not reloaded does not pass.
    """
    verdict = recorded(scored.evaluation)
    if verdict is None or reload is None:
        return scored
    judged = with_reload(verdict, reload, is_demanded)
    return replace(scored, evaluation=replace(scored.evaluation, gate=judged.to_json()))


def verdict_of(
    result: Scored | Evaluation | NotScored, config: TrainConfig | EvaluateConfig
) -> GateResult | None:
    """Return the verdict on an adapter; None without a gate. Without scores it did not pass."""
    if isinstance(result, Scored):
        return recorded(result.evaluation)
    if isinstance(result, Evaluation):
        return recorded(result)
    gate = resolved_gate(config)
    return None if gate is None else not_scored(TUNED, gate, result.why)


def _without_rival(contest: Contest, opponent: str, why: str) -> Rivals:
    """Return older sets and pairs that nothing was compared on, for the reason `why`."""
    older = [OlderSet(each.name, None, why) for each in contest.older]
    found = contest.pairs
    if found is None:
        return Rivals(older=older)
    pairs = PairsResult(opponent, len(found.pairs), len(found.conversations), why=why)
    return Rivals(older=older, pairs=pairs)


def _summarize(
    contest: Contest,
    adapter: Adapter | None,
    judged: Candidate,
    raw: Sequence[Conversation],
    place: Place,
) -> Rivals:
    """Summarize with the champion, or with the base alone if `adapter` is None."""
    storage = contest.config.storage
    candidates = []
    if adapter is not None:
        candidates.append(champion_candidate(adapter, judged, raw, storage, place.cache))
    cleaned = {}
    for older in contest.older if adapter is not None else ():
        if older.conversations:
            steps = judged.wish.reading.steps(judged.model.prompt.cleaning)
            cleaned[older.name] = clean_all(older.conversations, steps)
            own = replace(judged, conversations=cleaned[older.name])
            both = _both(own, adapter, older.name, older.conversations, contest, place)
            candidates += both
    pairs = contest.pairs
    if pairs is not None and not (pairs.why or pairs.leaks):
        steps = judged.wish.reading.steps(judged.model.prompt.cleaning)
        own = replace(judged, conversations=[clean(each, steps) for each in pairs.conversations])
        candidates += _both(own, adapter, EDITS, pairs.conversations, contest, place)

    found = summarize_candidates(candidates, place)
    sets = []
    for older in contest.older:
        if older.name not in cleaned:
            sets.append(OlderSet(older.name, None, older.why))
            continue
        systems = [
            system_of(name, found[_on(older.name, name)], older.name) for name in (TUNED, CHAMPION)
        ]
        sets.append(_score(contest, older.name, systems, cleaned[older.name]))
    opponent = BASE if adapter is None else CHAMPION
    compared = None if pairs is None else _compare(contest, pairs, opponent, found)
    if adapter is None:
        return Rivals([], sets, compared)
    return Rivals([system_of(CHAMPION, found[CHAMPION], adapter.uri)], sets, compared)


def _both(
    own: Candidate,
    adapter: Adapter | None,
    where: str,
    raw: Sequence[Conversation],
    contest: Contest,
    place: Place,
) -> list[Candidate]:
    """Return the judged one and its opponent on other conversations, which `raw` has uncleaned."""
    own = replace(own, name=_on(where, TUNED))
    if adapter is None:
        alone = replace(own.model, adapter=None, adapter_digest=None)
        return [own, replace(own, name=_on(where, BASE), model=alone)]
    theirs = champion_candidate(adapter, own, raw, contest.config.storage, place.cache)
    return [own, replace(theirs, name=_on(where, CHAMPION))]


def _compare(contest: Contest, pairs: HeldOutPairs, opponent: str, found: Results) -> PairsResult:
    """Return who is nearer to the edits of the pairs, or why they are of no use."""
    if pairs.why or pairs.leaks:
        why = pairs.why_unusable()
        return PairsResult(opponent, len(pairs.pairs), len(pairs.conversations), why=why)
    own, theirs = (found[_on(EDITS, name)].summaries.texts for name in (TUNED, opponent))
    samples = contest.config.evaluation.bootstrap_samples
    result = compare_on_pairs(pairs, own, theirs, opponent, samples)
    event(
        "held-out pairs",
        opponent=opponent,
        pairs=result.pairs,
        wins=result.wins,
        ties=result.ties,
        losses=result.losses,
    )
    return result


def _alone(
    contest: Contest,
    conversations: Sequence[Conversation],
    raw: Sequence[Conversation],
    place: Place,
) -> Candidate:
    """Return the champion as a night with this config would serve it."""
    config = contest.config
    assert isinstance(config, EvaluateConfig)
    assert contest.champion.adapter is not None
    uri = contest.champion.adapter.uri
    named = config.model_copy(update={"adapter": uri, "summaries": None})
    filled = fill(named, serving_of(contest.champion.pointer))
    model = fetch_with_adapter(uri, filled.config.model, config.storage, place.cache)
    wish = filled.wish()
    return Candidate(CHAMPION, model, wish, cleaned_for(model, wish, conversations, raw))


def _score(
    contest: Contest,
    name: str,
    systems: Sequence[System],
    conversations: Sequence[Conversation],
) -> OlderSet:
    options = contest.config.evaluation
    try:
        scored = evaluate(systems, conversations, options, None, contest.models)
        return OlderSet(name, scored.evaluation)
    except DataError as error:
        warn(f"the older set {name} could not be scored", why=str(error))
        return OlderSet(name, None, "it has no reference with a word to compare")


def _on(older: str, system: str) -> str:
    """Return the name of a candidate on an older test set."""
    return f"{system} on {older}"
