"""The outcome of reloading an adapter in a fresh process, beside what was scored.

A training finds it out (`job.training.verify`), and a gate, a card and a pointer show it.

Its greedy summaries of a few scored conversations are compared with those scored. The texts are
equal where both were computed alike. Another engine, dtype or shape of a batch changes a token here
and there, after which a text goes on otherwise: then it counts how many tokens of the scored
summaries the reloaded model expects, and how the base without the adapter compares.

Of a reward model, its weights in memory are compared by a digest (`job.training.verify`), and its
scores of a few summaries: both were computed alike, so that they differ by rounding alone. In 16
bits, rounding may change them as much as the adapter does. So the base with the head, but without
the adapter, is asked as well: where the scores are the same without the adapter, it was lost.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, get_args

from job.errors import DamagedError, RecapError
from job.evaluation.gate import Check, GateResult, Rule
from job.model.champion import NOT_VERIFIED, RELOAD
from job.model.fetch import Adapter

# Shares of the scored summaries. The tokens are those that the reloaded model expects most. The
# beginning is what its own summaries have of the scored ones until they first differ: for a base
# whose tokens cannot be known from its text, as one with random weights.
# A base, too, expects most tokens of the summary by an adapter that is hardly trained: 97 %.
SURE_TOKENS = 0.99  # enough, whatever the base does: its summaries are almost the same
SURE_BEGINNING = 0.8
MIN_TOKENS = 0.8  # enough if the base without the adapter misses at least twice as many
MIN_BEGINNING = 0.5  # enough if the base has less than half of it

# Of scores, the largest difference by rounding, as a share of the largest score.
MAX_DIFFERENCE_IN_32_BITS = 1e-3
MAX_DIFFERENCE_IN_16_BITS = 0.05
MAX_DIFFERENCE_OF_THE_SAME = 1e-4
# What the adapter changes of the scores, as a share of the largest: less may be rounding.
MIN_EFFECT = 0.01
MIN_SHARE_OF_EFFECT = 0.25  # that a reloaded adapter must have; a lost one has none

RELOADED = "reloaded by plain peft and transformers"  # the name of a gate's check

State = Literal["same", "close", "different", "not loaded", "not compared", "not verified"]
VERIFIED: tuple[State, ...] = ("same", "close", "not compared")  # at least it was loaded
REFUSED: tuple[State, ...] = ("different", "not loaded")  # such an adapter is not published


class ReloadError(RecapError):
    """The adapter cannot be loaded, or answers as another: a fault of recap or a library."""


@dataclass(frozen=True)
class Agreement:
    """The shares of the scored summaries with which a model agrees, as by the limits above."""

    tokens: float
    beginning: float


@dataclass(frozen=True)
class Reload:
    """The outcome of a reload. It stands in run.json, in the manifest and on the card.

    `why` is the reason why nothing was compared, or what differs beside the summaries, in words
    that a public card may have. `difference` is there of a reward model, whose scores were
    compared: the largest, as a share of the largest score.
    """

    state: State
    compared: int = 0
    same: int = 0
    agreement: Agreement | None = None
    agreement_of_base: Agreement | None = None
    versions: Mapping[str, str] | None = None
    why: str | None = None
    difference: float | None = None

    def facts(self) -> dict[str, Any]:
        """Return the facts as JSON types, without those that are not known."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    @staticmethod
    def from_facts(facts: Mapping[str, Any]) -> "Reload":
        """Return the outcome of which `facts` are; raise DamagedError if they are of none."""
        try:
            agreements = {
                name: Agreement(**facts[name])
                for name in ("agreement", "agreement_of_base")
                if name in facts
            }
            found = Reload(**{**facts, **agreements})
            found.sentence()
        except (TypeError, AttributeError, ValueError) as error:
            raise DamagedError(f"these are no facts of a reload ({error})") from error
        if found.state not in get_args(State):
            raise DamagedError(f"a reload has no outcome {found.state!r}")
        return found

    def sentence(self) -> str:
        """Return one sentence for people, without a full stop."""
        if self.state == "not verified":
            return f"not reloaded before it was published: {self.why}"
        if self.state == "not loaded":
            return f"not to be loaded by plain peft and transformers in a fresh process: {self.why}"
        by = " and ".join(f"{name} {number}" for name, number in (self.versions or {}).items())
        text = f"reloaded by plain {by or 'peft and transformers'} in a fresh process"
        if self.state == "not compared":
            return f"{text}; nothing was compared: {self.why}"
        if self.why is not None:
            return f"{text}: {self.why}"
        if self.difference is not None:
            return f"{text}: {self.compared} scores, {self.difference:.2%} apart at most"
        text += f": {self.same} of {self.compared} summaries the same"
        if self.agreement is not None and self.same < self.compared:
            text += f", and {self.agreement.tokens:.1%} of the tokens of those that were scored"
        return text


@dataclass(frozen=True)
class Compared:
    """The scored summaries with their tokens, and a model's summaries of the same conversations.

    `expected` counts the tokens of each scored summary that the model expects most.
    """

    scored: Sequence[str]
    tokens: Sequence[int]
    summaries: Sequence[str]
    expected: Sequence[int]

    def count_same(self) -> int:
        """Return the number of equal summaries."""
        return sum(map(str.__eq__, self.scored, self.summaries))

    def agreement(self) -> Agreement:
        """Return how the model agrees with the scored summaries. All of an equal one counts."""
        tokens = 0
        beginning = 0.0
        for row, text in enumerate(self.scored):
            is_same = text == self.summaries[row]
            tokens += self.tokens[row] if is_same else self.expected[row]
            beginning += _share_in_common(text, self.summaries[row])
        return Agreement(
            round(tokens / max(1, sum(self.tokens)), 4), round(beginning / len(self.scored), 4)
        )


def _share_in_common(text: str, other: str) -> float:
    """Return the share of a text after which the other first differs."""
    for position, (one, two) in enumerate(zip(text, other, strict=False)):
        if one != two:
            return position / len(text)
    return min(len(other) / len(text), 1.0)


def judge(adapter: Compared, base: Compared, versions: Mapping[str, str]) -> Reload:
    """Judge the reloaded adapter, and its base without it, by the scored summaries."""
    same = adapter.count_same()
    found, of_base = adapter.agreement(), base.agreement()
    if same == len(adapter.scored):
        state: State = "same"
    elif is_close(found, of_base):
        state = "close"
    else:
        state = "different"
    return Reload(state, len(adapter.scored), same, found, of_base, versions)


def judge_scores(
    scored: Sequence[float],
    found: Sequence[float],
    base: Sequence[float],
    dtype: str,
    versions: Mapping[str, str],
) -> Reload:
    """Judge a reloaded reward model by its scores, computed in `dtype`, beside those of recap.

    `base` are the scores by the base and the reloaded head, without the adapter.
    """
    differences = [abs(one - two) for one, two in zip(scored, found, strict=True)]
    largest = max(abs(score) for score in (*scored, *found))
    shares = [each / largest if largest else 0.0 for each in differences]
    most = MAX_DIFFERENCE_IN_32_BITS if dtype == "float32" else MAX_DIFFERENCE_IN_16_BITS
    same = sum(share <= MAX_DIFFERENCE_OF_THE_SAME for share in shares)
    state: State = "same" if same == len(shares) else "close"
    is_far = not all(share <= most for share in shares)  # or one is no number
    if is_far or (state == "close" and _is_lost(scored, found, base, largest)):
        state = "different"
    difference = round(max(shares), 6) if all(map(math.isfinite, shares)) else 1.0
    return Reload(state, len(shares), same, versions=versions, difference=difference)


def _is_lost(
    scored: Sequence[float], found: Sequence[float], base: Sequence[float], largest: float
) -> bool:
    """Return True if the adapter changed the scores of recap, and not those of the fresh process.

    The loss of pairs leaves an offset of all scores free, so a large score says nothing about how
    much the adapter changes.
    """
    ours = [abs(one - two) for one, two in zip(scored, base, strict=True)]
    theirs = [abs(one - two) for one, two in zip(found, base, strict=True)]
    return max(ours) > MIN_EFFECT * largest and sum(theirs) < MIN_SHARE_OF_EFFECT * sum(ours)


def is_close(adapter: Agreement, base: Agreement) -> bool:
    """Return True if these can only be the scored weights, computed in another way.

    Other weights expect other tokens. An adapter that does nothing expects those of the base.
    """
    if adapter.tokens >= SURE_TOKENS or adapter.beginning >= SURE_BEGINNING:
        return True
    if adapter.tokens >= MIN_TOKENS and 1 - adapter.tokens <= (1 - base.tokens) / 2:
        return True
    return adapter.beginning >= MIN_BEGINNING and base.beginning < adapter.beginning / 2


def reload_of(adapter: Adapter) -> Reload | None:
    """Return the reload that a published adapter went through, None if none was asked for."""
    return reload_in(adapter.manifest.extra)


def reload_in(extra: Mapping[str, Any]) -> Reload | None:
    """Return the reload that the facts of a manifest tell of, None if they tell of none."""
    facts = extra.get(RELOAD)
    if facts is None:
        return None
    try:
        return Reload.from_facts(facts)
    except DamagedError as error:
        return Reload(NOT_VERIFIED, why=f"its manifest does not say how that ended: {error}")


def with_reload(verdict: GateResult, reload: Reload, is_demanded: bool) -> GateResult:
    """Return the verdict with one check more: that somebody else than recap loads the adapter.

    Where that is not demanded, an adapter that was not loaded so may pass, and the check says it.
    """
    passed: bool | None = reload.state in VERIFIED
    if not passed and not is_demanded:
        passed = None
    sentence = f"{RELOADED}: {reload.sentence()}"
    rule: Rule = "refused" if reload.state in REFUSED else "reload"
    check = Check(RELOADED, "", verdict.metric, rule, 0.0, passed, sentence)
    checks = [*verdict.checks, check]
    return replace(verdict, passed=verdict.passed and passed is not False, checks=checks)


def waits_for_reload(verdict: GateResult) -> bool:
    """Return True if a gate would have been passed, had the adapter been reloaded.

    Of an adapter that somebody else has loaded as another, or could not load, enough is known.
    """
    return bool(verdict.failures) and all(check.rule == "reload" for check in verdict.failures)
