"""The demo's customer-support conversations, with reference summaries.

The wordings `train` and `heldout` have disjoint phrases and names. The same seed makes the same
bytes. As a script, writes the four files of `examples/demo`.
"""

import argparse
import json
import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from examples.demo.make.wording import Phrases, Wording, draw_values, fill, load_phrases

SEED = 20
TRAIN, VALIDATION, HELDOUT, UNLABELLED = 2400, 60, 120, 40
TWO_REFERENCES = 0.8  # the share of conversations with two reference summaries


@dataclass(frozen=True)
class Turn:
    """One line of a conversation; `role` is `customer` or `agent`."""

    role: str
    text: str


@dataclass(frozen=True)
class Story:
    """A conversation with the choices that the generator made for it."""

    id: str
    domain: str
    issue: str
    outcome: str
    values: dict[str, str]
    request: str
    answer: str
    turns: tuple[Turn, ...]
    summaries: tuple[str, ...]


def generate(count: int, seed: int, wording: Wording) -> Iterator[dict[str, Any]]:
    """Yield `count` different records in recap's own format, with one or two summaries each."""
    for story in stories(count, seed, wording):
        yield {
            "id": story.id,
            "turns": [{"role": turn.role, "text": turn.text} for turn in story.turns],
            "summaries": list(story.summaries),
            "metadata": {"domain": story.domain},
        }


def stories(count: int, seed: int, wording: Wording, invented: float = 0.0) -> Iterator[Story]:
    """Yield `count` stories, no conversation twice.

    `invented` is the share of names that are made-up words.
    """
    rng = random.Random(f"{wording} {seed}")
    seen: set[tuple[Turn, ...]] = set()
    while len(seen) < count:
        story = _story(f"{wording}-{seed}-{len(seen):05d}", wording, rng, invented)
        if story.turns not in seen:
            seen.add(story.turns)
            yield story


def _story(name: str, wording: Wording, rng: random.Random, invented: float) -> Story:
    phrases = load_phrases()
    domain = rng.choice(sorted(phrases.domains))
    issue = rng.choice(sorted(phrases.domains[domain]["issues"]))
    topic = phrases.domains[domain]["issues"][issue]
    outcome = rng.choice(topic["outcomes"])
    ending = phrases.outcomes[outcome]
    values = draw_values(domain, issue, wording, rng, invented)
    request = fill(rng.choice(topic[wording]), values, rng)
    answer = fill(rng.choice(ending[wording]), values, rng)
    talk = _Talk(phrases, wording, values, rng)
    turns = (*_opening(talk, request), *_questions(talk), *_ending(talk, answer, ending))
    styles = rng.sample((0, 1), 2 if rng.random() < TWO_REFERENCES else 1)
    summaries = tuple(
        fill(f"{topic['summary'][i]} {ending['summary'][i]}", values, rng) for i in sorted(styles)
    )
    return Story(name, domain, issue, outcome, values, request, answer, _merge(turns), summaries)


@dataclass(frozen=True)
class _Talk:
    phrases: Phrases
    wording: Wording
    values: dict[str, str]
    rng: random.Random

    def say(self, kind: str) -> str:
        return fill(self.rng.choice(self.phrases.talk[self.wording][kind]), self.values, self.rng)

    def chance(self, probability: float) -> bool:
        return self.rng.random() < probability


def _opening(talk: _Talk, request: str) -> Iterator[Turn]:
    if talk.chance(0.3):
        yield Turn("agent", talk.say("agent_hello"))
    elif talk.chance(0.3):
        yield Turn("customer", talk.say("customer_hello"))
        yield Turn("agent", talk.say("agent_reply_hello"))
    before = f"{talk.say('feeling')} " if talk.chance(0.15) else ""
    after = f" {talk.say('feeling')}" if talk.chance(0.35) else ""
    yield Turn("customer", f"{before}{request}{after}")


def _questions(talk: _Talk) -> Iterator[Turn]:
    sorry = f"{talk.say('sorry')} " if talk.chance(0.6) else ""
    yield Turn("agent", sorry + talk.say("ask"))
    yield Turn("customer", talk.say("answer"))
    if talk.chance(0.35):
        yield Turn("agent", talk.say("ask_more"))
        yield Turn("customer", talk.say("answer_more"))
    elif talk.chance(0.3):
        yield Turn("customer", talk.say("chat"))
        yield Turn("agent", talk.say("chat_reply"))
        yield Turn("customer", talk.say("neutral"))


def _ending(talk: _Talk, answer: str, ending: dict[str, Any]) -> Iterator[Turn]:
    yield Turn("agent", (f"{talk.say('sorry')} " if talk.chance(0.2) else "") + answer)
    if ending["mood"] == "none":
        return
    if ending.get("customer_tries"):
        yield Turn(
            "customer",
            fill(talk.rng.choice(talk.phrases.tried[talk.wording]), talk.values, talk.rng),
        )
    if talk.chance(0.8) or ending["mood"] == "unhappy":
        yield Turn("customer", talk.say(ending["mood"]))
    if talk.chance(0.5):
        yield Turn("agent", talk.say("agent_bye"))
        if talk.chance(0.5):
            yield Turn("customer", talk.say("customer_bye"))


def _merge(turns: Iterable[Turn]) -> tuple[Turn, ...]:
    """Join neighbouring turns of one speaker."""
    merged: list[Turn] = []
    for turn in turns:
        if merged and merged[-1].role == turn.role:
            merged[-1] = Turn(turn.role, f"{merged[-1].text} {turn.text}")
        else:
            merged.append(turn)
    return tuple(merged)


def write_examples(folder: Path, seed: int) -> None:
    """Write the files `train`, `validation`, `heldout` and `conversations` as `.jsonl`.

    Conversations have no summaries.
    """
    known = generate(TRAIN + VALIDATION + UNLABELLED, seed, "train")
    _write(folder / "train.jsonl", islice(known, TRAIN))
    _write(folder / "validation.jsonl", islice(known, VALIDATION))
    unlabelled = list(known)
    for row in unlabelled:
        del row["summaries"]
    _write(folder / "conversations.jsonl", unlabelled)
    _write(folder / "heldout.jsonl", generate(HELDOUT, seed, "heldout"))


def _write(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows),
        encoding="utf-8",
        newline="\n",
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Write the demo's conversations.")
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("examples/demo"),
        help="folder for the four .jsonl files",
    )
    parser.add_argument("--seed", type=int, default=SEED)
    arguments = parser.parse_args()
    write_examples(arguments.output, arguments.seed)
