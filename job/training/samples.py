"""Summaries of a few validation conversations at each evaluation, as text for TensorBoard.

TensorBoard reads texts as Markdown: whatever a conversation has of it is shown as it was typed.
"""

import re
import time
from collections.abc import Callable, Sequence
from typing import Any

from transformers import TrainerCallback

from job.conversations.record import Conversation
from job.printable import visible
from job.telemetry import warn

# Begins a link, an image, HTML, emphasis, code, a heading, a table, a list or a fence.
MARKDOWN = re.compile(r"[\\`*_{}\[\]<>&#~=|+-]")


class SampleSummaries(TrainerCallback):  # type: ignore[misc]
    """Write summaries of a few validation conversations as text, at each evaluation."""

    def __init__(
        self,
        conversations: list[Conversation],
        summarize: Callable[[list[Conversation]], list[str]],
        write_text: Callable[[str, str, int], None],
        is_skipped: Callable[[], bool],
        ends_run: Callable[[Exception], bool],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._conversations = conversations
        self._summarize = summarize
        self._write_text = write_text
        self._is_skipped = is_skipped
        self._ends_run = ends_run
        self._clock = clock
        self.summary_seconds: float | None = None  # of one summary, at the last evaluation

    def on_evaluate(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Summarize and write, unless this is to be skipped. A failure is logged and ends nothing.

        Raises the errors for which `ends_run` returns True.
        """
        if not self._conversations or self._is_skipped():
            return
        try:
            self._write(state.global_step)
        except Exception as error:
            if self._ends_run(error):
                raise
            why = f"{type(error).__name__}: {error}"
            warn("no sample summaries at this evaluation", step=state.global_step, why=why)

    def _write(self, step: int) -> None:
        start = self._clock()
        summaries = self._summarize(self._conversations)
        self.summary_seconds = (self._clock() - start) / len(summaries)
        for conversation, summary in zip(self._conversations, summaries, strict=True):
            spoken = _paragraphs([(turn.role, turn.text) for turn in conversation.turns])
            references = [("reference", text) for text in conversation.references[:1]]
            written = _paragraphs([("summary", summary), *references])
            name = visible(conversation.id, one_line=True)
            self._write_text(f"samples/{name}", f"{spoken}\n\n---\n\n{written}", step)


def literal(text: str) -> str:
    """Return the text as Markdown that shows it as it is. TensorBoard would fetch its images."""
    return MARKDOWN.sub(lambda found: f"&#{ord(found[0])};", visible(text))


def _paragraphs(texts: Sequence[tuple[str, str]]) -> str:
    return "\n\n".join(f"**{literal(name)}**: {literal(text)}" for name, text in texts)
