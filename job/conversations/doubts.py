"""The count of transcripts with lines whose speaker is not sure, and one warning about them."""

from job.conversations.record import Conversation, Reject
from job.telemetry import warn

SHOWN_EXAMPLES = 3


class Doubts:
    """Counts the doubts of conversations. Its examples quote lines only with `shows_text`."""

    def __init__(self, shows_text: bool = True) -> None:
        self._shows_text = shows_text
        self.conversations = 0
        self.lines = 0
        self.examples: list[str] = []

    def add(self, outcome: Conversation | Reject) -> None:
        """Count the doubts of one more record."""
        if isinstance(outcome, Reject) or not outcome.doubts:
            return
        self.conversations += 1
        self.lines += len(outcome.doubts)
        if len(self.examples) < SHOWN_EXAMPLES:
            quote = f": {outcome.doubts[0]}" if self._shows_text else ""
            self.examples.append(f"{outcome.source}{quote}")

    def warn(self) -> None:
        """Log one warning with the counts and the first examples, if there was any doubt."""
        if self.conversations:
            warn(
                "lines that may be another speaker's were read as part of the turn above them "
                "(docs/formats.md: who said what in a transcript)",
                conversations=self.conversations,
                lines=self.lines,
                examples=self.examples,
            )
