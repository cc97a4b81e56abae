"""Encode the rows of a training as it will, and report what they cost and what they teach."""

from array import array
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from job.config.commands import TrainConfig
from job.conversations.record import Conversation
from job.conversations.redaction import make_redactor, redact_message
from job.errors import DataError
from job.model.load import context_tokens
from job.preflight.access import SmallFiles
from job.preflight.checks import EXAMPLE, Check, Found, check_value
from job.preflight.devices import Lengths
from job.preflight.histogram import histogram, summary
from job.preflight.models import Rendered
from job.preflight.steps import describe_steps
from job.printable import number_of, visible
from job.prompt.encode import IGNORED, EncodedExample, Encoder
from job.training.examples import Examples
from job.training.rows import Encoded, RowCounts, RowSettings, count_rows, row_tokens

MAX_SHOWN_CHARACTERS = 600  # of the prompt of an example
Splits = dict[str, "_Split"]


@dataclass
class _Split:
    """The rows of a split as they were encoded: lengths in their order, and the first row."""

    counts: RowCounts = field(default_factory=RowCounts)
    lengths: "array[int]" = field(default_factory=lambda: array("i"))
    first: EncodedExample | None = None

    def add(self, encoded: Encoded) -> None:
        for row in encoded:
            if isinstance(row, EncodedExample):
                self.lengths.append(len(row.input_ids))
                self.first = self.first or row

    def facts(self, new_tokens: int) -> dict[str, Any]:
        counts = self.counts
        return {
            "rows": counts.rows,
            "tokens": counts.tokens,
            "longest_tokens": counts.longest,
            "shortened_rows": counts.shortened,
            "dropped_turns": counts.dropped_turns,
            "dropped_tokens": counts.dropped_tokens,
            "excluded_rows": counts.excluded,
            "rows_by_tokens": dict(sorted(Counter(self.lengths).items())),
            "rows_by_learned_tokens": dict(sorted(counts.by_learned_tokens.items())),
            "references_longer_than_max_new_tokens": counts.longer_than(new_tokens),
        }


def rows_checks(
    config: TrainConfig,
    small: SmallFiles,
    examples: Examples,
    rendered: Rendered,
    nodes: int,
) -> tuple[list[Check], Lengths | None]:
    """Return the checks of rows, steps and batches, and an example with what is learned.

    The rows are encoded as the training will, and refused for what it would refuse them. Return the
    lengths of the training rows, too; None if they are refused.
    """
    context = context_tokens(small.folder)
    max_tokens = row_tokens(config.training.max_tokens, context)
    encoder = Encoder(rendered.prompt, small.tokenizer, max_tokens)
    settings = RowSettings.of(config, encoder, rendered.embeddings, context)
    rows, splits = check_value("rows", lambda: _encode(config, examples, settings))
    if splits is None:
        return [rows], None
    train = splits["train"]
    ranks = (config.training.processes or 1) * nodes
    batches, packed = check_value("batches", lambda: _batches(config, train, ranks))
    rows_of_training = packed or train.counts.rows
    steps, _ = check_value("steps", lambda: describe_steps(config, rows_of_training, nodes))
    assert train.first is not None  # count_rows refuses a split without rows
    example = Check(EXAMPLE, example_text(train.first, encoder, config))
    return [rows, batches, steps, example], _lengths(train.counts, config)


def _lengths(counts: RowCounts, config: TrainConfig) -> Lengths:
    learned = sum(tokens * rows for tokens, rows in counts.by_learned_tokens.items())
    most = max(counts.by_learned_tokens)
    longest = counts.longest
    if config.training.packing:  # rows are joined up to max_tokens
        longest = min(config.training.max_tokens, counts.tokens)
        most = max(most, longest * learned // counts.tokens)
    return Lengths(longest, most, counts.rows, counts.tokens, learned)


def _encode(config: TrainConfig, examples: Examples, settings: RowSettings) -> Found[Splits]:
    sides: list[tuple[str, Iterable[Conversation]]] = [
        ("train", examples.train),
        ("validation", examples.validation),
    ]
    splits: Splits = {}
    lines: list[str] = []
    for name, conversations in sides:
        split = splits[name] = _Split()
        try:
            split.counts = count_rows(conversations, settings, split.add)
        except DataError as error:
            raise DataError("\n".join([*lines, f"{name}: {error}"])) from error
        lines += _lines(name, split, config)
    new_tokens = config.generation.max_new_tokens
    facts = {name: split.facts(new_tokens) for name, split in splits.items()}
    return Found("\n".join(lines), splits, facts=facts)


def _lines(name: str, split: _Split, config: TrainConfig) -> list[str]:
    counts = split.counts
    lines = [
        f"{name:11}{counts.rows:>7,} rows of at most {counts.longest:,} tokens, "
        f"{counts.tokens:,} in all; {summary(Counter(split.lengths))}",
        *histogram(Counter(split.lengths)),
    ]
    if counts.shortened:
        lines.append(
            f"{counts.shortened:,} without some turns: they lose {counts.dropped_turns:,} turns "
            f"of {counts.dropped_tokens:,} tokens"
        )
    if counts.excluded:
        lines.append(f"warning: {counts.excluded:,} fit no way and are left out")
    learned = sum(tokens * rows for tokens, rows in counts.by_learned_tokens.items())
    lines.append(
        f"learned: {learned:,} tokens ({learned / counts.tokens:.0%}), and the end of each summary"
    )
    longer = counts.longer_than(config.generation.max_new_tokens)
    if longer:
        references = number_of(longer, "reference is", "references are")
        lines.append(
            f"warning: {references} longer than generation.max_new_tokens "
            f"({config.generation.max_new_tokens}) with the end, up to "
            f"{max(counts.by_learned_tokens):,} tokens: summaries as long would be cut"
        )
    return lines


def _batches(config: TrainConfig, train: _Split, ranks: int) -> Found[int]:
    """Return the costs of each batching; the value is the number of rows of the one chosen."""
    # Loads torch, which a plan of a training that starts right after it does not need.
    from job.training.batchings import batchings_of, chosen_way

    section = config.training
    chosen = chosen_way(section)
    lines = []
    facts = {}
    rows = 0
    for batching in batchings_of(train.lengths, section, ranks):
        facts[batching.way] = batching.facts() | {"is_chosen": batching.way == chosen}
        is_chosen = ""
        if batching.way == chosen:
            rows = batching.rows
            is_chosen = "  (this config)"
        lines.append(
            f"{batching.way:13}{batching.efficiency:>7.1%} of the tokens are no padding; "
            f"{batching.steps:,} steps an epoch, {batching.passes:,} passes{is_chosen}"
        )
    return Found("\n".join(lines), rows, facts=facts)


def example_text(row: EncodedExample, encoder: Encoder, config: TrainConfig) -> str:
    """Return a training row as text, with ⟪ ⟫ around what is learned.

    The middle of a long prompt is left out. What the config redacts is redacted.
    """
    redactor = make_redactor(config.serve.redaction)
    parts = []
    for ids, is_learned in _runs(row):
        text = encoder.tokenizer.decode(ids)
        text = visible(redact_message(text, redactor), one_line=True)
        if is_learned:
            text = f"⟪{text}⟫"
        elif len(text) > MAX_SHOWN_CHARACTERS:
            half = MAX_SHOWN_CHARACTERS // 2
            text = f"{text[:half]} … {text[-half:]}"
        parts.append(text)
    return "".join(parts)


def _runs(row: EncodedExample) -> list[tuple[list[int], bool]]:
    """Return the tokens in runs that are learned, or not."""
    runs: list[tuple[list[int], bool]] = []
    for id, label in zip(row.input_ids, row.labels, strict=True):
        is_learned = label != IGNORED
        if not runs or runs[-1][1] != is_learned:
            runs.append(([], is_learned))
        runs[-1][0].append(id)
    return runs
