"""Choose the earlier conversations that are learned again beside new ones, against forgetting.

Which ones depends on their content and the seed. What repeats a conversation that is held out to
judge the adapter is left out, so that scores do not flatter, and so is what repeats one to train
on: its reference is newer.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from job.config.data_sections import DataSection
from job.conversations.record import Conversation
from job.conversations.splits import content_digest, find_repeats, share_of
from job.errors import DataError
from job.telemetry import warn


@dataclass(frozen=True)
class Replay:
    """The counts of what is replayed, and the digest of its content.

    `wanted` is the number of rows that the config asks for, of `rows` that there are.
    `in_held_out` and `in_train` are numbers of conversations that were left out as repeats.
    """

    digest: str
    conversations: int
    rows: int
    wanted: int
    in_held_out: int
    in_train: int

    def counts(self) -> dict[str, int]:
        """Return the counts as JSON."""
        return {name: value for name, value in vars(self).items() if name != "digest"}


def choose_replay(
    earlier: Sequence[Conversation],
    train: Sequence[Conversation],
    held_out: Sequence[Conversation],
    section: DataSection,
    seed: int,
) -> tuple[list[Conversation], Replay]:
    """Return the conversations of `earlier` to train on besides `train`, in their order.

    Their rows are the config's share of all rows. Warn if there are fewer; raise DataError if
    there are none.
    """
    in_held_out = {pair.train_id for pair in find_repeats(earlier, held_out)}
    apart = [each for each in earlier if each.id not in in_held_out]
    in_train = {pair.train_id for pair in find_repeats(apart, train)}
    left = [each for each in apart if each.id not in in_train]
    if not left:
        raise DataError(
            f"data.replay: none of its {len(earlier):,} conversations is left: {len(in_held_out)} "
            f"repeat what is held out, {len(in_train)} repeat data.train; name other data, or "
            "remove it"
        )
    new_rows = sum(_rows(each, section) for each in train)
    wanted = max(1, round(new_rows * section.replay_share / (1 - section.replay_share)))
    order = {_content(each): each for each in reversed(left)}
    chosen: set[str] = set()
    rows = 0
    for digest in sorted(order, key=lambda digest: share_of(digest, seed)):
        if rows >= wanted:
            break
        chosen.add(order[digest].id)
        rows += _rows(order[digest], section)
    if rows < wanted:
        warn(
            "there is less to replay than data.replay_share asks for",
            rows=rows,
            wanted=wanted,
            share=round(rows / (rows + new_rows), 3),
        )
    replayed = [each for each in left if each.id in chosen]
    content = hashlib.sha256()
    for each in replayed:
        content.update(repr((_content(each), each.references)).encode())
    counts = (len(replayed), rows, wanted, len(in_held_out), len(in_train))
    return replayed, Replay(content.hexdigest(), *counts)


def _content(conversation: Conversation) -> str:
    """Return what decides if a conversation is chosen: a judged one may have several records."""
    digest = content_digest(conversation)
    return "".join([digest, *(repr(tuple(answer)) for answer in conversation.answers)])


def _rows(conversation: Conversation, section: DataSection) -> int:
    if conversation.answers:
        return 1  # a pair or a thumb
    return 1 if section.references == "first" else len(conversation.references)
