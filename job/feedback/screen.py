"""The report on the terminal: one screen, without a word of a conversation or of an agent."""

from collections.abc import Mapping, Sequence
from typing import Any

from job.config.gate_sections import MIN_CONVERSATIONS
from job.printable import number_of

MAX_ROWS = 8  # of a table
MAX_KINDS = 6
MAX_WORDS = 6

Numbers = Mapping[str, Any]


def screen(numbers: Numbers) -> str:
    """Return the report on the numbers of feedback.json."""
    parts = [_summary(numbers), _unmatched(numbers)]
    for title, key in (("adapter", "adapters"), ("night", "nights"), ("agent", "agents")):
        parts.append(_table(group_table(title, numbers[key])))
    parts += [_corrections(numbers), "\n".join(bias_sentences(numbers)), _data(numbers)]
    return "\n\n".join(part for part in parts if part)


def next_step(numbers: Numbers, output: str) -> str:
    """Return which files of the output a training takes now; empty if there is none to train on."""
    data = numbers["data"]
    folder = output.rstrip("/")
    if _is_enough(data["sft"]):
        kind = "sft"
        method = " (or those of pairs/ with method: dpo)"
    elif _is_enough(data["thumbs"]) and _lacking_thumb(numbers) is None:
        kind = "thumbs"
        method = " with method: kto"
    else:
        return ""
    text = f"Next: recap train with data.train: {folder}/{kind}/train.jsonl"
    if data[kind]["validation"]:
        text += f" and data.validation: {folder}/{kind}/validation.jsonl"
    text += method
    if data["pairs"]["test"]:
        text += f", judged by publish.pairs.input: {folder}/pairs/test.jsonl"
    return text


def _is_enough(counts: Mapping[str, int]) -> bool:
    """True if a training has rows to learn from and one to validate, which it may hold out."""
    return counts["train"] > 0 and counts["train"] + counts["validation"] > 1


def _lacking_thumb(numbers: Numbers) -> str | None:
    """Return which thumb a training would lack, up or down; None if it has both or neither."""
    counts = numbers.get("thumbs_to_train")  # a report of an earlier version has none
    if counts is None or (counts["up"] > 0) == (counts["down"] > 0):
        return None
    return "up" if counts["down"] else "down"


def group_table(title: str, groups: Sequence[Numbers]) -> list[tuple[str, ...]]:
    """Return a head and a row for each group. The share of words is that of all corrections."""
    has_summaries = any("summaries" in group for group in groups)
    head = [title, *(["summaries"] if has_summaries else [])]
    head += ["judged", "up", "down", "thumbs up", "edited", "words changed", "conflicts"]
    rows = [tuple(head)]
    for group in groups:
        written = [f"{group['summaries']:,}"] if has_summaries else []
        counts = [f"{group[key]:,}" for key in ("judged", "up", "down")]
        rest = [f"{group['edited']:,}", _percent(group["changed_share"]), f"{group['conflicts']:,}"]
        rows.append((group["name"], *written, *counts, _share(group["up_share"]), *rest))
    return rows


def bias_sentences(numbers: Numbers) -> list[str]:
    """Return who answers and what is answered, a sentence each."""
    bias = numbers["bias"]
    sentences = []
    if bias["judged_share"] is not None:
        agents = (
            number_of(bias["agents"], "agent", "agents") if bias["agents"] else "unnamed agents"
        )
        sentences.append(
            f"{_percent(bias['judged_share'])} of {bias['summaries']:,} summaries were judged, by "
            f"{agents}"
            + (
                f", of whom one gave {_percent(bias['most_active_agent_share'])} of the opinions."
                if bias["agents"] > 1
                else "."
            )
        )
    if bias["unnamed_opinions"]:
        opinions = number_of(bias["unnamed_opinions"], "opinion names", "opinions name")
        sentences.append(f"{opinions} no agent: conflicts among these cannot be seen.")
    for name, unit in (("characters", "of a summary"), ("input_tokens", "of its conversation")):
        judged, everything = bias[name]["judged"], bias[name]["all"]
        if judged and everything:
            what = name.replace("_", " ")
            sentences.append(
                f"Median {what} {unit}: {judged['median']:,.0f} where judged, "
                f"{everything['median']:,.0f} in all."
            )
    if bias["nights_without_verdicts"]:
        nights = number_of(bias["nights_without_verdicts"], "night has", "nights have")
        sentences.append(f"{nights} no verdict.")
    return sentences


def data_sentences(numbers: Numbers) -> list[str]:
    """Return what is held out and what was left out of the data, a sentence each."""
    sentences = []
    weeks = numbers["test_weeks"]
    if weeks:
        sentences.append(f"Test: the verdicts of {', '.join(weeks)}.")
    else:
        sentences.append("No week is held out: there are too few, or split.test_weeks is 0.")
    sentences += missing_data(numbers)
    if not numbers["evaluation_sets"]:
        sentences.append(
            "No evaluation set is named (evaluation_sets, champion): the data may have what a "
            "champion was judged on."
        )
    for leak in numbers["leaks"]:
        sentences.append(
            f"Conversations of the evaluation set {leak['set']} are left out: {leak['exact']:,} "
            f"with the same words, {leak['near']:,} nearly."
        )
    left_out = numbers["left_out"]
    if left_out["conflict"]:
        summaries = number_of(left_out["conflict"], "summary", "summaries")
        sentences.append(f"{summaries} on which agents disagree gave no data.")
    if left_out["in_test"]:
        summaries = number_of(left_out["in_test"], "earlier summary", "earlier summaries")
        sentences.append(f"{summaries} of conversations that the test has gave no data.")
    return sentences


def missing_data(numbers: Numbers) -> list[str]:
    """Return what a training and its gate will lack, a sentence each."""
    data = numbers["data"]
    if not any(sum(counts.values()) for counts in data.values()):
        return ["No data was made: no summary has an edit or a thumb that counts."]
    sentences = []
    if numbers["all"]["edited"] and not data["sft"]["train"]:
        sentences.append("No edit is left to train on.")
    lacking = _lacking_thumb(numbers)
    if lacking is not None:
        sentences.append(
            f"No thumb {lacking} is left to train on: method: kto learns from both, and is no "
            "choice yet."
        )
    enough = [kind for kind, counts in data.items() if _is_enough(counts)]
    if not enough:
        sentences.append("Training needs two conversations: one to learn from and one to validate.")
    count = numbers.get("conversations_of_test_pairs")  # a report of an earlier version has none
    if numbers["test_weeks"] and count is not None and count < MIN_CONVERSATIONS:
        sentences.append(
            f"A gate on pairs needs {MIN_CONVERSATIONS} conversations, and the test has {count}: "
            "wait until the week is over, or raise split.test_weeks."
        )
    return sentences


def _summary(numbers: Numbers) -> str:
    rows = number_of(numbers["rows"], "row", "rows")
    judged = number_of(numbers["judged"], "summary was", "summaries were")
    everything = numbers["all"]
    line = (
        f"{rows} of verdicts, {numbers['joined_rows']:,} joined: {judged} judged; "
        f"{everything['up']:,} up, {everything['down']:,} down, {everything['edited']:,} edited"
    )
    conflicts = numbers["conflicts"]
    if conflicts["judged_by_several"]:
        several = conflicts["judged_by_several"]
        line += f"\nagents disagree on {conflicts['conflicts']:,} of {several:,} judged by several"
    return line


def _unmatched(numbers: Numbers) -> str:
    lines = []
    for each in numbers["unmatched"]:
        lines.append(f"not joined  {each['reason']}: {each['rows']:,}")
        lines.append(f"            {each['examples'][0]}")
    unknown = numbers.get("unknown_times")  # a report of an earlier version has none
    if unknown and unknown["rows"]:
        rows = number_of(unknown["rows"], "joined row has", "joined rows have")
        lines.append(
            f"{rows} no time at `at` that can be read, such as {unknown['examples'][0]}: the order "
            "of the rows decides which is the last"
        )
    return "\n".join(lines)


def _corrections(numbers: Numbers) -> str:
    found = numbers["corrections"]
    if not found["count"]:
        return ""
    words = found["words"]
    lines = [
        f"{number_of(found['count'], 'correction', 'corrections')}: median {words['median']:.0f} "
        f"words changed ({words['p10']:.0f} to {words['p90']:.0f})"
    ]
    for kind in found["kinds"][:MAX_KINDS]:
        share = _percent(kind["count"] / found["count"])
        lines.append(f"  {kind['kind'].replace('_', ' '):20}{kind['count']:>6,}  {share:>4}")
    for name in ("added", "removed"):
        usual = ", ".join(f"{word} ({count})" for word, count in found[name][:MAX_WORDS])
        if usual:
            lines.append(f"  most often {name}: {usual}")
    return "\n".join(lines)


def _data(numbers: Numbers) -> str:
    sides = ("train", "validation", "test")
    rows = [("data", *sides)]
    for kind, counts in numbers["data"].items():
        rows.append((kind, *(f"{counts[side]:,}" for side in sides)))
    return "\n".join([_table(rows), *data_sentences(numbers)])


def _table(rows: Sequence[tuple[str, ...]]) -> str:
    """Return rows with aligned columns: the first to the left, numbers to the right."""
    shown = rows[: MAX_ROWS + 1]
    widths = [max(len(row[column]) for row in shown) for column in range(len(rows[0]))]
    lines = []
    for first, *others in shown:
        cells = [cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True)]
        lines.append("  ".join([first.ljust(widths[0]), *cells]))
    if len(rows) > len(shown):
        lines.append(f"… and {len(rows) - len(shown):,} more in the report")
    return "\n".join(lines)


def _share(interval: Sequence[float] | None) -> str:
    if interval is None:
        return "–"
    mean, low, high = interval
    return f"{_percent(mean)} [{low * 100:.0f}, {high * 100:.0f}]"


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{share:.0%}"
