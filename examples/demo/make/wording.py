"""The phrases and values of the demo's conversations, as `phrases.yaml` has them."""

import random
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import yaml

Wording = Literal["train", "heldout"]

CHOICE = re.compile(r"\(([^()]*)\)")


@dataclass(frozen=True)
class Phrases:
    """The content of `phrases.yaml`, key by key."""

    values: dict[str, dict[str, list[str]]]
    talk: dict[str, dict[str, list[str]]]
    outcomes: dict[str, dict[str, Any]]
    domains: dict[str, dict[str, Any]]
    tried: dict[str, list[str]]
    shared: dict[str, list[str]]
    syllables: dict[str, list[str]]


@cache
def load_phrases() -> Phrases:
    """Read `phrases.yaml`, once per process."""
    raw = yaml.safe_load(Path(__file__).with_name("phrases.yaml").read_text(encoding="utf-8"))
    return Phrases(**raw)


def fill(phrase: str, values: dict[str, str], rng: random.Random) -> str:
    """Return the phrase with one of each `(a|b)`, and the values in its `{slots}`.

    It is one line, and starts with a capital letter unless the phrase starts with a value.
    """
    picked = CHOICE.sub(lambda match: rng.choice(match[1].split("|")), phrase)
    text = " ".join(picked.format(**values).split())
    return text[0].upper() + text[1:]


@cache
def known_words(wording: Wording) -> tuple[str, ...]:
    """Return the words that occur in a wording's phrases, in alphabetical order."""
    phrases = load_phrases()
    found = [
        *phrases.tried[wording],
        *(phrase for talk in phrases.talk[wording].values() for phrase in talk),
    ]
    issues = [issue for domain in phrases.domains.values() for issue in domain["issues"].values()]
    found += [phrase for part in [*issues, *phrases.outcomes.values()] for phrase in part[wording]]
    words: set[str] = set()
    for phrase in found:
        words.update(re.findall(r"(?<!\{)\b[A-Za-z]+\b(?!\})", phrase))
    return tuple(sorted(words))


def invented_word(rng: random.Random) -> str:
    """Return a made-up pronounceable word of one to three syllables, such as `Trealoden`."""
    parts = load_phrases().syllables
    syllables = [
        rng.choice(parts["onset"]) + rng.choice(parts["vowel"])
        for _ in range(rng.choice((1, 1, 2, 2, 3)))
    ]
    return ("".join(syllables) + rng.choice(parts["coda"])).capitalize()


def draw_values(
    domain: str, issue: str, wording: Wording, rng: random.Random, invented: float = 0.0
) -> dict[str, str]:
    """Draw a value for every slot of one conversation.

    `invented` is the share of names (companies, agents, brands, places) that are made-up words
    instead of listed ones.
    """
    phrases = load_phrases()
    names = {
        slot: invented_word(rng) if slot != "team" and rng.random() < invented else rng.choice(pool)
        for slot, pool in phrases.values[wording].items()
    }
    shared = {slot: rng.choice(pool) for slot, pool in phrases.shared.items()}
    topic = phrases.domains[domain]["issues"][issue]
    detail = rng.choice(phrases.domains[domain]["details"])
    step = rng.choice(topic.get("step", ["wait"]))
    return names | shared | _numbers(rng, shared["month"]) | {"detail": detail, "step": step}


def _numbers(rng: random.Random, month: str) -> dict[str, str]:
    return {
        "amount": f"{rng.randint(5, 400)} euros",
        "price": f"{rng.randint(5, 400)} euros",
        "date": f"{rng.randint(1, 28)} {month}",
        "days": f"{rng.randint(2, 14)} days",
        "hours": f"{rng.randint(2, 12)} hours",
        "time": f"{rng.randint(8, 18)}:{rng.choice(('00', '15', '30', '45'))}",
        "years": str(rng.randint(2, 20)),
        "reading": str(rng.randint(1000, 9999)),
        "ref": "".join(rng.choice("ABCDEFGHKLMNPRSTUVWX") for _ in range(2))
        + str(rng.randint(100, 9999)),
    }
