"""What an evaluation reads: conversations to score, training references, given summaries. `recap plan` asks the same.

EvaluateConfig in, conversations and texts out. Knows nothing of models or scores.
"""

from collections.abc import Sequence

from job.config.commands import EvaluateConfig
from job.config.sections import as_list
from job.conversations.read import read_strictly
from job.conversations.record import Conversation
from job.conversations.references import why_missing
from job.evaluation.evaluate import choose_conversations
from job.evaluation.summaries import read_summaries
from job.storage.open import list_inputs
from job.storage.selection import Selection
from job.telemetry import warn


def read_input(config: EvaluateConfig) -> tuple[list[Conversation], list[Conversation]]:
    """Every conversation of the input, and those of them to score; DataError where there is none of either."""
    files = list_inputs(as_list(config.input), config.storage, Selection.of(config.data))
    everything = read_strictly(files, config.data)
    chosen = choose_conversations(everything, config.evaluation.max_conversations)
    missing = [conversation for conversation in everything if not conversation.references]
    if missing:
        warn(
            "conversations without a reference summary are not scored",
            conversations=len(missing),
            of=len(everything),
            first=str(missing[0].source),
            why=why_missing(missing),
        )
    return everything, chosen


def read_train_references(config: EvaluateConfig) -> list[str] | None:
    """The references of the training conversations; None where none are named."""
    if config.train is None:
        return None
    files = list_inputs(as_list(config.train), config.storage, Selection.of(config.data))
    train = read_strictly(files, config.data)
    return [text for conversation in train for text in conversation.references]


def read_given(config: EvaluateConfig, everything: Sequence[Conversation]) -> dict[str, str]:
    """Given summaries by id. They must fit all conversations, also where only some of them are scored."""
    assert config.summaries is not None
    files = list_inputs([config.summaries], config.storage, own_outputs=True)
    # In the output of `recap summarize`, rejects and manifest lie beside the parts.
    parts = [file for file in files if file.key.startswith("parts/")]
    return read_summaries(parts or files, config.summaries, everything)
