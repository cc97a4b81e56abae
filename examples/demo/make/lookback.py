"""The pretraining documents of the demo's base: conversations, each followed by questions about it.

No question asks for a summary, and no document has the held-out wording.
"""

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

from examples.demo.make.generator import Story, Turn, stories
from examples.demo.make.wording import invented_word, known_words, load_phrases

ORDINALS = ("first", "second", "third", "fourth")
FOLLOW_UPS = 4
# Shares of conversations, words, names, and documents. Garbled conversations lose words and order
# of request and answer: keywords must be enough. Invented names cannot be learned by heart, so that
# copying is learned. Exercises are documents that practice copying, without a conversation.
GARBLED = 0.5
DROPPED_WORDS = 0.2
INVENTED_NAMES = 0.6
EXERCISES = 0.15

# The names of values in questions, by the slots of phrases.
SLOTS = {
    "brand": "name", "place": "place", "amount": "amount", "price": "price", "date": "date",
    "days": "waiting time", "hours": "number of hours", "time": "time", "team": "team",
    "reading": "reading", "ref": "reference", "item": "item", "account": "account", "room": "room",
    "proof": "proof", "secret": "secret", "agent": "agent", "company": "company",
    "reason": "reason", "action": "action", "step": "step", "detail": "detail",
}  # fmt: skip


@dataclass(frozen=True)
class Segment:
    """A piece of a document; an answer ends with the tokenizer's end of sequence."""

    text: str
    is_answer: bool


def transcript(turns: tuple[Turn, ...]) -> str:
    """Return a `role: text` line per turn, as in the prompt of the fine-tuning."""
    return "\n".join(f"{turn.role}: {turn.text}" for turn in turns)


def documents(seed: int) -> Iterator[tuple[Segment, ...]]:
    """Yield documents without end, the same for the same seed."""
    rng = random.Random(f"look back {seed}")
    for story in stories(1_000_000_000, seed, "train", INVENTED_NAMES):
        while rng.random() < EXERCISES:
            yield _exercise(rng)
        yield _dialogue(story, rng)


def _dialogue(story: Story, rng: random.Random) -> tuple[Segment, ...]:
    if rng.random() < GARBLED:
        story = garble(story, rng)
    pool = _questions(story, rng)
    chosen = [*rng.sample(pool, min(FOLLOW_UPS, len(pool))), _form(story, rng)]
    rng.shuffle(chosen)
    (question, answer), *more = chosen
    return (
        *_first(question, transcript(story.turns), answer),
        *(part for pair in more for part in _next(*pair)),
    )


def garble(story: Story, rng: random.Random) -> Story:
    """Drop words of the request and of the answer, and sometimes swap the halves of each.

    Values stay whole.
    """
    request = _drop_words(story.request, story, rng)
    answer = _drop_words(story.answer, story, rng)
    turns = []
    for turn in story.turns:
        text = turn.text.replace(story.request, request).replace(story.answer, answer)
        turns.append(Turn(turn.role, text))
    return replace(story, request=request, answer=answer, turns=tuple(turns))


def _drop_words(text: str, story: Story, rng: random.Random) -> str:
    values = sorted(
        (value for value in story.values.values() if len(value) > 2), key=len, reverse=True
    )
    whole = "|".join(rf"(?<!\w){re.escape(value)}(?!\w)" for value in values)
    atoms = re.findall(rf"{whole}|\S+", text)
    kept = [atom for atom in atoms if atom in values or rng.random() >= DROPPED_WORDS] or atoms
    cut = rng.randrange(len(kept)) if rng.random() < 0.4 else 0
    return " ".join(kept[cut:] + kept[:cut])


def _first(question: str, text: str, answer: str) -> tuple[Segment, Segment]:
    prompt = f"### Instruction: {question}\n\n### Input:\n{text}\n\n### Response:\n"
    return Segment(prompt, False), Segment(answer, True)


def _next(question: str, answer: str) -> tuple[Segment, Segment]:
    return Segment(f"### Instruction: {question}\n\n### Response:\n", False), Segment(answer, True)


def _questions(story: Story, rng: random.Random) -> list[tuple[str, str]]:
    return [*_about_values(story, rng), *_about_turns(story, rng), *_about_the_whole(story, rng)]


def _about_values(story: Story, rng: random.Random) -> list[tuple[str, str]]:
    text = transcript(story.turns)
    told = [
        (SLOTS[slot], value)
        for slot, value in story.values.items()
        if slot in SLOTS and value in text
    ]
    rng.shuffle(told)
    single = [
        (
            rng.choice((f"What is the {slot}?", f"Name the {slot}.", f"Which {slot} is it?")),
            f"The {slot} is {value}.",
        )
        for slot, value in told[:3]
    ]
    asked = [told[start : start + 2] for start in range(0, min(len(told) - 1, 4), 2)]
    double = [
        (
            f"Name the {one[0]} and the {two[0]}.",
            f"The {one[0]} is {one[1]} and the {two[0]} is {two[1]}.",
        )
        for one, two in asked
    ]
    absent = [slot for key, slot in SLOTS.items() if story.values[key] not in text]
    missing = rng.choice(absent)
    return [*single, *double, (f"What is the {missing}?", f"There is no {missing}.")]


def _about_turns(story: Story, rng: random.Random) -> list[tuple[str, str]]:
    questions = []
    for role in ("customer", "agent"):
        said = [turn.text for turn in story.turns if turn.role == role]
        number = rng.randrange(min(len(said), len(ORDINALS)))
        questions.append(
            (f"Repeat the {role}'s {ORDINALS[number]} turn.", f"The {role} says: {said[number]}")
        )
        questions.append((f"Repeat the last turn of the {role}.", f"The {role} says: {said[-1]}"))
    words = rng.choice(story.turns).text.split()
    if len(words) >= 5:
        cut = rng.randrange(2, len(words) - 1)
        questions.append((f"Go on: {' '.join(words[:cut])}", " ".join(words[cut:])))
    quote = rng.choice(story.turns)
    questions.append((f"Who says: {quote.text}", f"The {quote.role}."))
    return questions


def _form(story: Story, rng: random.Random) -> tuple[str, str]:
    """Return a question for the labels and values of the request, the ending or both."""
    request = [("topic", story.issue), *_values_in(story.request, story)]
    ending = [("end", story.outcome), *_values_in(story.answer, story)]
    name, fields = rng.choice(
        (
            ("request", request),
            ("ending", ending),
            ("conversation", request + ending),
            ("conversation", request + ending),
        )
    )
    match rng.randrange(3):
        case 0:
            return f"Fill in the form of the {name}.", "\n".join(
                f"{key}: {value}" for key, value in fields
            )
        case 1:
            return f"List the facts of the {name}.", "; ".join(value for _, value in fields)
        case _:
            return f"Tell the facts of the {name}.", ", ".join(
                f"the {key} is {value}" for key, value in fields
            )


def _values_in(text: str, story: Story) -> list[tuple[str, str]]:
    found = {value: slot for slot, value in story.values.items() if slot in SLOTS and value in text}
    return [(SLOTS[found[value]], value) for value in sorted(found, key=text.index)]


def _about_the_whole(story: Story, rng: random.Random) -> list[tuple[str, str]]:
    kind = load_phrases().domains[story.domain]["kind"]
    first, last = story.turns[0].role, story.turns[-1].role
    return rng.sample(
        [
            ("What does the customer want? Quote it.", f"The customer says: {story.request}"),
            ("What does the agent do in the end? Quote it.", f"The agent says: {story.answer}"),
            ("What is the topic, in a few words?", f"The topic is {story.issue}."),
            ("How does it end, in one word?", f"The end is {story.outcome}."),
            ("What kind of company is it?", f"It is {kind}."),
            ("Who speaks first?", f"The {first}."),
            ("Who speaks last?", f"The {last}."),
        ],
        4,
    )


def _exercise(rng: random.Random) -> tuple[Segment, ...]:
    words = [_word(rng) for _ in range(rng.randint(4, 10) * 2)]
    if rng.random() < 0.5:
        text = " ".join(words)
        return _first("Repeat the words.", text, f"The words are {text}.")
    pairs = list(zip(words[::2], words[1::2], strict=True))
    (name, value), *more = rng.sample(pairs, min(5, len(pairs)))
    text = "\n".join(f"the {name} is {value}" for name, value in pairs)
    rest = (
        part
        for name, value in more
        for part in _next(f"What is the {name}?", f"The {name} is {value}.")
    )
    return (*_first(f"What is the {name}?", text, f"The {name} is {value}."), *rest)


def _word(rng: random.Random) -> str:
    """Return a word of the phrases, a made-up one, or a number."""
    kind = rng.random()
    if kind < 0.5:
        return rng.choice(known_words("train"))
    return invented_word(rng) if kind < 0.8 else str(rng.randint(1, 9999))
