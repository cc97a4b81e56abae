"""The conversations of validation that choose an adapter, and those that score it.

A score of the conversations that chose an adapter flatters it: the best of several is partly luck.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from job.config.commands import TrainConfig
from job.config.gate_mistakes import needs_base
from job.conversations.record import Conversation
from job.errors import DataError
from job.evaluation.evaluate import choose_conversations

MIN_OF_EITHER = 10  # conversations that choose, and that score


@dataclass(frozen=True)
class Validation:
    """The validation conversations that choose the adapter, and those that score it.

    `is_held_out` is True if no conversation does both.
    """

    choosing: list[Conversation]
    scoring: list[Conversation]
    is_held_out: bool


def split_validation(config: TrainConfig, conversations: Sequence[Conversation]) -> Validation:
    """Return the conversations for the selection and for the scores: seeded samples, in order.

    At most half of them choose, and the others score. Too few to share do both. A reward model has
    no summaries to score. Raise DataError if none could be scored.
    """
    if not config.writes_summaries:
        return Validation([], [], is_held_out=True)
    most = config.evaluation.max_conversations
    if config.training.adapter_from != "best_metric":
        return Validation([], choose_conversations(conversations, most), is_held_out=True)

    usable = choose_conversations(conversations, None)
    count = config.training.selection.conversations
    if len(usable) < 2 * MIN_OF_EITHER:
        choosing = choose_conversations(usable, count)
        return Validation(choosing, choose_conversations(usable, most), is_held_out=False)

    choosing = choose_conversations(usable, min(count, len(usable) // 2))
    chosen = {conversation.id for conversation in choosing}
    others = [conversation for conversation in usable if conversation.id not in chosen]
    return Validation(choosing, choose_conversations(others, most), is_held_out=True)


def is_chosen_by_its_pairs(config: TrainConfig) -> bool:
    """Return True if the loss on the pairs that judge a reward model chooses its checkpoint."""
    training = config.training
    chooses = training.adapter_from == "best_evaluation" or training.patience is not None
    return chooses and config.data.test is None


def summaries_to_make(config: TrainConfig, conversations: Sequence[Conversation]) -> int:
    """Return how many summaries are generated after the last step, to choose and to score.

    0 if nothing can be scored. The champion's are counted whether or not there is one yet, and
    those of older test sets are not.
    """
    try:
        validation = split_validation(config, conversations)
    except DataError:
        return 0
    publish = config.publish
    systems = 1 + needs_base(config) + config.evaluation.as_trained + (publish.champion is not None)
    choosing = len(validation.choosing) * config.training.selection.candidates
    return systems * len(validation.scoring) + choosing
