"""Encode the rows of a training as it will, and report what they cost and what they teach."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from job.config.commands import TrainConfig
from job.conversations.redaction import make_redactor, redact_message
from job.errors import RecapError
from job.model.load import context_tokens
from job.model.operations import TokenRows
from job.preflight.access import SmallFiles
from job.preflight.checks import EXAMPLE, Check, Found, check_value
from job.preflight.devices import Lengths
from job.preflight.duration import Steps
from job.preflight.models import Rendered
from job.preflight.steps import describe_steps
from job.printable import visible
from job.prompt.encode import IGNORED, Encoder
from job.training.data_report import rows_lines
from job.training.examples import Examples
from job.training.rows import RowCounts, Rows, RowSettings, Splits, row_tokens
from job.training.stored_rows import check_splits, encode_once, rows_identity

Marks = tuple[str, str]
Row = Mapping[str, Any]  # with the columns of the method

MAX_SHOWN_CHARACTERS = 600  # of the prompt of an example
LEARNED = ("⟪", "⟫")  # around what becomes more likely
UNMARKED = ("", "")
AVOIDED = ("⟨", "⟩")  # around an answer that becomes less likely


def rows_checks(
    config: TrainConfig,
    small: SmallFiles,
    examples: Examples,
    rendered: Rendered,
    nodes: int,
) -> tuple[list[Check], Lengths | None]:
    """Return the checks of rows, steps and batches, and an example with what is learned.

    The training finds the same rows in the cache, and refuses them for the same reasons. Return the
    lengths of the training rows, too; None if they are refused.
    """
    context = context_tokens(small.folder)
    max_tokens = row_tokens(config.training.max_tokens, context)
    encoder = Encoder(rendered.prompt, small.tokenizer, max_tokens)
    settings = RowSettings.of(config, encoder, rendered.embeddings, context)
    identity = rows_identity(config, examples, small.folder, settings)
    with TemporaryDirectory() as work:

        def encode() -> Found[Splits]:
            splits = encode_once(examples, settings, identity, Path(work))
            return _describe(config, splits, settings)

        rows, splits = check_value("rows", encode)
        if splits is None or rows.error:
            return [rows], None
        shares_prompts = _shares_prompts(config, splits, rendered.base.max_shared_tokens)
        batches = _batches_checks(config, splits.train, nodes, shares_prompts)
        example = Check(EXAMPLE, example_text(splits.train.dataset[0], encoder, config))
        checks = [rows, batches.batches, batches.steps, example]
        if batches.steps.error:
            return checks, None
        facts = batches.steps.facts
        of_run = Steps(facts["steps"], facts["steps_per_epoch"])
        if shares_prompts:
            lengths = _lengths_of_pairs(splits, of_run)
        else:
            lengths = _lengths(splits, of_run, config)
        return checks, replace(lengths, identity=identity)


def _shares_prompts(config: TrainConfig, splits: Splits, most: int) -> bool:
    """Return True if both summaries of a pair are in one row, as the training has them."""
    if config.method != "dpo" or not config.training.dpo.share_prompts:
        return False
    both = (splits.train, splits.validation)
    return all(max(rows.lengths(shares_prompts=True)) <= most for rows in both)


def _lengths_of_pairs(splits: Splits, steps: Steps) -> Lengths:
    """Return the lengths of rows of which each has both summaries of a pair."""
    tokens = {}
    for name, rows in (("train", splits.train), ("validation", splits.validation)):
        by_length = Counter(rows.lengths(shares_prompts=True))
        tokens[name] = TokenRows(by_length, sum(rows.learned()), answers=2)
    longest = max(tokens["train"].by_length)
    most = max(map(sum, zip(*splits.train.learned_by_answer(), strict=True)))
    return Lengths(longest, most, tokens, steps, shares_prompts=True)


def _lengths(splits: Splits, steps: Steps, config: TrainConfig) -> Lengths:
    tokens = {"train": _tokens(splits.train), "validation": _tokens(splits.validation)}
    learned = tokens["train"].learned
    counts = splits.train.counted
    most = max(splits.train.learned())
    longest = counts.longest
    if config.training.packing:  # rows are joined up to max_tokens
        longest = min(config.training.max_tokens, counts.tokens)
        most = max(most, longest * learned // counts.tokens)
    return Lengths(longest, most, tokens, steps)


def _tokens(rows: Rows) -> TokenRows:
    return TokenRows(rows.by_tokens(), sum(rows.learned()))


def _describe(config: TrainConfig, splits: Splits, settings: RowSettings) -> Found[Splits]:
    named = {"train": splits.train, "validation": splits.validation}
    new_tokens = config.generation.max_new_tokens
    lines: list[str] = []
    facts = {}
    for name, rows in named.items():
        tokens = rows.by_tokens()
        lines += rows_lines(name, rows.counted, tokens, config)
        facts[name] = rows_facts(rows.counted, tokens, new_tokens)
    error = None
    try:
        check_splits(splits, settings)
    except RecapError as found:
        error = found
    return Found("\n".join(lines), splits, facts=facts, error=error)


def rows_facts(counts: RowCounts, tokens: Mapping[int, int], new_tokens: int) -> dict[str, Any]:
    """Return the counts of a split's rows as JSON types. `tokens` has the rows by their tokens."""
    return counts.facts() | {
        "rows_by_tokens": dict(sorted(tokens.items())),
        "rows_by_learned_tokens": dict(sorted(counts.by_learned_tokens.items())),
        "references_longer_than_max_new_tokens": counts.longer_than(new_tokens),
        "learns_its_end": counts.endless is None,
    }


@dataclass(frozen=True)
class _Batches:
    """The checks of the batches of the rows, and of the steps of the way that is chosen."""

    batches: Check
    steps: Check


def _batches_checks(config: TrainConfig, train: Rows, nodes: int, shares_prompts: bool) -> _Batches:
    ranks = (config.training.processes or 1) * nodes
    batches, packed = check_value("batches", lambda: _batches(config, train, ranks, shares_prompts))
    rows_of_training = packed or train.counted.rows
    steps, _ = check_value("steps", lambda: describe_steps(config, rows_of_training, nodes))
    return _Batches(batches, steps)


def _batches(config: TrainConfig, train: Rows, ranks: int, shares_prompts: bool) -> Found[int]:
    """Return the costs of each batching; the value is the number of rows of the one chosen."""
    # Loads torch, which a plan of a training that starts right after it does not need.
    from job.training.batchings import batchings_lines, batchings_of, chosen_way

    section = config.training
    chosen = chosen_way(section)
    batchings = batchings_of(train, section, ranks, config.method, shares_prompts)
    (rows,) = [each.rows for each in batchings if each.way == chosen]
    facts = {each.way: each.facts() | {"is_chosen": each.way == chosen} for each in batchings}
    return Found("\n".join(batchings_lines(batchings, chosen)), rows, facts=facts)


def example_text(row: Row, encoder: Encoder, config: TrainConfig) -> str:
    """Return a training row as text, with ⟪ ⟫ around what is learned, and ⟨ ⟩ around what is not.

    The latter are answers that are to become less likely. The middle of a long prompt is left out.
    What the config redacts is redacted.
    """
    redactor = make_redactor(config.serve.redaction)
    parts = []
    for ids, (before, after) in _runs(row):
        text = encoder.tokenizer.decode(ids)
        text = visible(redact_message(text, redactor))
        if not before and len(text) > MAX_SHOWN_CHARACTERS:
            half = MAX_SHOWN_CHARACTERS // 2
            text = f"{text[:half]} … {text[-half:]}"
        parts.append(f"{before}{text}{after}")
    return "".join(parts)


def _runs(row: Row) -> list[tuple[list[int], Marks]]:
    """Return the tokens in runs, each with the marks around it: of the learned, or of no others."""
    if "chosen_ids" in row:
        return [
            (row["prompt_ids"], UNMARKED),
            (row["chosen_ids"], LEARNED),
            (row["rejected_ids"], AVOIDED),
        ]
    if "completion_ids" in row:
        marks = LEARNED if row["label"] else AVOIDED
        return [(row["prompt_ids"], UNMARKED), (row["completion_ids"], marks)]
    runs: list[tuple[list[int], Marks]] = []
    for id, label in zip(row["input_ids"], row["labels"], strict=True):
        marks = LEARNED if label != IGNORED else UNMARKED
        if not runs or runs[-1][1] != marks:
            runs.append(([], marks))
        runs[-1][0].append(id)
    return runs
