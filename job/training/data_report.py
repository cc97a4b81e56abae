"""Describe the data of a training, and what its rows teach, in lines for its plan and report."""

from collections.abc import Mapping, Sequence

from job.config.commands import TrainConfig
from job.printable import number_of
from job.training.answer_facts import NO_ANSWERS, answers_lines
from job.training.examples import Examples, SplitFacts
from job.training.histogram import histogram, summary
from job.training.row_columns import NAMES
from job.training.rows import RowCounts, Splits


def data_sections(
    config: TrainConfig, examples: Examples, rows: Splits, batches: Sequence[str]
) -> list[tuple[str, list[str]]]:
    """Return the lines of a report about the data, by title. They quote no conversation.

    `batches` are those of `batchings_lines`.
    """
    sides = {
        "Training": (examples.of_train, rows.train),
        "Validation": (examples.of_validation, rows.validation),
    }
    sections = [("Read", counts_lines(examples))]
    for name, (facts, side) in sides.items():
        lines = contents_lines("conversations", facts)
        by_tokens = side.by_tokens()
        lines += rows_lines("rows", side.counted, by_tokens, config)
        sections.append((name, lines))
    sections.append(("Batches", list(batches)))
    return sections


def counts_lines(examples: Examples) -> list[str]:
    """Return how many conversations, references and turns were read, by split, and left out."""
    counts = examples.counts()
    lines = []
    for split in ("train", "validation"):
        of = counts[split]
        lines.append(
            f"{split:10} {of['conversations']:>7,} conversations, {of['references']:,} references, "
            f"{of['turns']:,} turns"
        )
    others = "validation"
    if examples.test:
        lines.append(f"{'test':10} {len(examples.test):>7,} conversations, which score the adapter")
        others = "validation or test"
    has_answers = examples.of_train.answers != NO_ANSWERS
    useless = "with answers that teach nothing" if has_answers else "without reference"
    lines.append(
        f"{counts['without_reference']:,} {useless} left out, "
        f"{counts['overlapping']:,} of train also in {others}, "
        f"{counts['dropped_overlap']:,} dropped from train"
    )
    replay = examples.replay
    if replay:
        lines.append(
            f"{'replay':10} {replay.conversations:>7,} conversations, {replay.rows:,} rows of "
            f"{replay.wanted:,} by data.replay_share; left out: {replay.in_held_out:,} of "
            f"what is held out, {replay.in_train:,} of train"
        )
        if replay.rows < replay.wanted:
            lines.append("warning: there is less to replay than data.replay_share asks for")
    if examples.why_without:
        lines.append(f"{useless}: {examples.why_without}")
    return lines


def contents_lines(name: str, split: SplitFacts) -> list[str]:
    """Return what the conversations of a split contain, for people."""
    contents = split.contents
    roles = ", ".join(f"{role} {share:.0%}" for role, share in contents.shares().items())
    lines = [
        f"{name}: {summary(contents.turns)} turns; of the text, {roles}",
        *histogram(contents.turns),
        *answers_lines(split.answers),
    ]
    for fault, text in (
        (contents.empty, "empty"),
        (contents.short, "too short for a summary"),
        (contents.repeated, "also the reference of another conversation"),
    ):
        if fault.count:
            references = number_of(fault.count, "reference is", "references are")
            lines.append(f"warning: {references} {text}; the first: {fault.first}")
    repeats = split.repeats
    if repeats.exact or repeats.near:
        named = "; ".join(f"{later} repeats {earlier}" for earlier, later in repeats.first)
        lines.append(
            f"warning: {number_of(repeats.exact, 'conversation', 'conversations')} with the words "
            f"of an earlier one, {repeats.near:,} nearly: {named}"
        )
    return lines


def rows_lines(
    name: str, counts: RowCounts, by_tokens: Mapping[int, int], config: TrainConfig
) -> list[str]:
    """Return what the rows of a split cost and teach, for people.

    `by_tokens` has the sequences of the rows by their tokens: two of a pair, else one.
    """
    if not counts.rows:
        return [f"{name}: no rows"]
    lines = [
        f"{name}: {counts.rows:,} rows, {counts.tokens:,} tokens; {summary(by_tokens)} tokens",
        *histogram(by_tokens),
    ]
    if counts.shortened:
        lines.append(
            f"warning: {counts.shortened:,} of these lose {counts.dropped_turns:,} turns of "
            f"{counts.dropped_tokens:,} tokens to fit into training.max_tokens"
        )
    if counts.excluded:
        lines.append(f"warning: {counts.excluded:,} fit no way and are left out")
    learned = sum(tokens * rows for tokens, rows in counts.by_learned_tokens.items())
    lines.append(
        f"learned: {learned:,} tokens ({learned / counts.tokens:.0%}), and the end of each summary"
    )
    new_tokens = config.generation.max_new_tokens
    longer = counts.longer_than(new_tokens)
    if longer:
        one, several = NAMES[config.judged]
        references = number_of(longer, f"{one} is", f"{several} are")
        lines.append(
            f"warning: {references} longer than generation.max_new_tokens ({new_tokens}) with the "
            f"end, up to {max(counts.by_learned_tokens):,} tokens: summaries as long would be cut"
        )
    return lines
