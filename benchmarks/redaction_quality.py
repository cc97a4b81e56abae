"""Recall and precision of redaction by kind and by region, as docs/redaction.md has them.

`make docs` (or `python -m benchmarks.redaction_quality`) measures and writes them between the two
marks of the page. The corpus comes from a seed, so the numbers are the same everywhere.
"""

import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.redaction_corpus import EVERYDAY, REGIONS, bare, phone_numbers, styles_of, values_of
from job.config.redaction import RedactionSection
from job.conversations.finders.found import Finder
from job.conversations.sensitive import find, make_finders

PAGE = Path(__file__).parent.parent / "docs" / "redaction.md"
MARKS = "<!-- measured by benchmarks/redaction_quality.py -->", "<!-- end of what was measured -->"
SENTENCES = ("It is {}.", "{}", "Here: {} (I think)", "Bitte notieren: {}, danke", "so {} it is")
ROUNDS = 5  # of everyday and bare numbers for each region
VALUES = 60  # of each kind but phones
BESIDE = "beside"
STYLES = ("national", "international", "by hand", BESIDE)


@dataclass
class Score:
    """Counts by style: values written, values found, and finds in text that has none."""

    found: Counter[str] = field(default_factory=Counter)
    written: Counter[str] = field(default_factory=Counter)
    false: int = 0
    taken_bare: int = 0
    bare: int = 0

    def count(self, style: str, is_found: bool) -> None:
        """Count one value more."""
        self.written[style] += 1
        self.found[style] += is_found

    def recall(self, style: str) -> str:
        """Return the share of values that were found whole."""
        return f"{100 * self.found[style] / self.written[style]:.1f} %"

    @property
    def precision(self) -> str:
        """Return the share of values among what was found in values and everyday numbers."""
        found = self.found.total()
        return f"{100 * found / (found + self.false):.1f} %"

    @property
    def taken(self) -> str:
        """Return the share of bare numbers that were taken for a value."""
        return f"{100 * self.taken_bare / self.bare:.0f} %"


def phones_of(region: str) -> Score:
    """Write and search phone numbers of a region and everyday numbers, alone and side by side."""
    chance = random.Random(f"phones {region}")
    finders = make_finders(RedactionSection(phone_region=region))
    score = Score()
    _count_taken({"phone": score}, ROUNDS, chance, finders)
    everyday = [text for make in EVERYDAY.values() for text in make(chance)]
    for number in phone_numbers(region, chance):
        for style, written in styles_of(number, chance):
            score.count(style, _is_found("phone", chance.choice(SENTENCES), written, finders))
            before, after = chance.sample(everyday, 2)
            beside = f"{before} {{}}", f"{{}} {after}", f"{before}, {{}}, {after}"
            sentence = chance.choice(beside)
            score.count(BESIDE, _is_found("phone", sentence, written, finders))
    return score


def others() -> Mapping[str, Score]:
    """Write and search values of the other kinds, and look for them in everyday numbers."""
    chance = random.Random("others")
    finders = make_finders(RedactionSection())
    scores: dict[str, Score] = defaultdict(Score)
    for _ in range(VALUES):
        for kind, written in values_of(chance):
            sentence = chance.choice(SENTENCES)
            scores[kind].count("", _is_found(kind, sentence, written, finders))
    _count_taken(scores, 2 * ROUNDS, chance, finders)
    return scores


def _kinds_in(
    texts: Iterable[str], chance: random.Random, finders: tuple[Finder, ...]
) -> Iterator[set[str]]:
    """Yield the kinds that are found in each of some texts, in a sentence."""
    for text in texts:
        sentence = chance.choice(SENTENCES).replace("{}", text)
        yield {item.kind for item in find(sentence, finders)}


def _count_taken(
    scores: Mapping[str, Score], rounds: int, chance: random.Random, finders: tuple[Finder, ...]
) -> None:
    """Count by kind what is found in everyday numbers and in bare ones."""
    for _ in range(rounds):
        everyday = [text for make in EVERYDAY.values() for text in make(chance)]
        for kinds in _kinds_in(everyday, chance, finders):
            for kind, score in scores.items():
                score.false += kind in kinds
        for kinds in _kinds_in(bare(chance), chance, finders):
            for kind, score in scores.items():
                score.bare += 1
                score.taken_bare += kind in kinds


def _is_found(kind: str, sentence: str, written: str, finders: tuple[Finder, ...]) -> bool:
    """Return True if all letters and digits of a value in a sentence are replaced as its kind."""
    start = sentence.index("{}")
    text = sentence.replace("{}", written, 1)
    wanted = set()
    for place in range(start, start + len(written)):
        # `tel:` and `ext.` may stay.
        if text[place].isdigit() or (kind != "phone" and text[place].isalnum()):
            wanted.add(place)
    covered: set[int] = set()
    for item in find(text, finders):
        if item.kind == kind:
            covered.update(range(item.start, item.end))
    return wanted <= covered


def tables() -> Iterator[str]:
    """Yield the lines of both tables."""
    yield "| kind | values | found | precision | bare numbers taken for one |"
    yield "|---|---|---|---|---|"
    for kind, score in others().items():
        values = f"{score.written.total()} | {score.recall('')}"
        yield f"| `{kind}` | {values} | {score.precision} | {score.taken} |"
    yield ""
    columns = " | ".join(STYLES)
    yield f"| phones of | values | {columns} | precision | bare numbers taken for one |"
    yield "|---|---|---|---|---|---|---|---|"
    for region in REGIONS:
        score = phones_of(region)
        recalls = " | ".join(score.recall(style) for style in STYLES)
        values = f"{score.written.total()} | {recalls}"
        yield f"| {region} | {values} | {score.precision} | {score.taken} |"


def page_with(text: str, measured: str) -> str:
    """Return a page with what was measured between its marks."""
    before, _, rest = text.partition(MARKS[0])
    _, _, after = rest.partition(MARKS[1])
    return f"{before}{MARKS[0]}\n{measured}\n{MARKS[1]}{after}"


def main() -> None:
    """Measure, and write the tables into the page."""
    text = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(page_with(text, "\n".join(tables())), encoding="utf-8")


if __name__ == "__main__":
    main()
