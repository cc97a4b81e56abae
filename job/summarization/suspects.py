"""Prompts that a GPU failed on: what a process leaves for the next, so that one of them costs no other its answer.

A GPU that fails ends every use of it by its process: nothing can be halved there until one prompt fails alone. So the
prompts that were under way are noted beside the chunks, and the next try gives each of them to the engine by itself.
One that fails alone, on a GPU that has just answered a greeting, is noted as the one to blame, and the try after that
goes without it. Knows nothing of conversations.
"""

import json
import uuid
from array import array
from collections.abc import Callable, Iterable, Sequence
from hashlib import blake2b

from job.config.sections import GenerationSection
from job.inference.engine import BrokenEngineError, Engine, Generated
from job.storage.keys import below
from job.storage.store import Store
from job.summarization.answers import Done, Failure, generate_each
from job.telemetry import warn

Asked = tuple[Engine, Sequence[list[int]], GenerationSection]


class Suspects:
    """The prompts that GPUs have failed on in one night, by digest: `to_blame` alone, `suspected` with others."""

    def __init__(
        self, place: tuple[Store, str] | None = None, suspected: Iterable[str] = (), to_blame: Iterable[str] = ()
    ) -> None:
        self._place, self._suspected, self._to_blame = place, frozenset(suspected), frozenset(to_blame)

    def __bool__(self) -> bool:
        return bool(self._suspected or self._to_blame)

    def generate(self, asked: Asked, on_done: Done, greet: Callable[[], None]) -> list[Generated | Failure]:
        """An answer to each prompt, or why there is none; suspected ones after the others, each by itself.

        `greet` raises where the engine cannot even answer a greeting: then no prompt is to blame.
        """
        engine, prompts, settings = asked
        if not self:
            return self._noted(asked, on_done, is_alone=False)
        digests = [_digest(prompt) for prompt in prompts]
        answers: dict[int, Generated | Failure] = {}
        clear = [row for row, digest in enumerate(digests) if digest not in self._suspected | self._to_blame]
        if clear:
            found = self._noted((engine, [prompts[row] for row in clear], settings), on_done, is_alone=False)
            answers |= zip(clear, found, strict=True)
        for row, digest in enumerate(digests):
            if digest in self._to_blame:
                answers[row] = Failure("AcceleratorError", "the GPU fails on it alone")
                on_done(1)
            elif digest in self._suspected:
                greet()
                (answers[row],) = self._noted((engine, [prompts[row]], settings), on_done, is_alone=True)
        return [answers[row] for row in range(len(prompts))]

    def _noted(self, asked: Asked, on_done: Done, is_alone: bool) -> list[Generated | Failure]:
        """What `generate_each` finds; a GPU that fails leaves a note first."""
        try:
            return generate_each(*asked, on_done)
        except BrokenEngineError as error:
            if self._place is not None:
                store, folder = self._place
                digests = [_digest(prompt) for prompt in error.prompts]
                note = {"prompts": digests, "alone": is_alone, "error": str(error)}
                store.write(below(folder, f"suspects-{uuid.uuid4().hex}.json"), json.dumps(note).encode())
                remedy = "the next try goes without it" if is_alone else "the next try takes them one at a time"
                warn("the GPU failed", prompts=len(error.prompts), remedy=remedy)
            raise


def read_suspects(store: Store, folder: str) -> Suspects:
    """What earlier tries of the night have noted in this folder."""
    notes = [
        json.loads(store.read(entry.key))
        for entry in store.list(folder)
        if entry.key.rpartition("/")[2].startswith("suspects-")
    ]
    suspected = (digest for note in notes for digest in note["prompts"])
    to_blame = (digest for note in notes if note["alone"] for digest in note["prompts"])
    return Suspects((store, folder), suspected, to_blame)


def _digest(prompt: Sequence[int]) -> str:
    return blake2b(array("q", prompt).tobytes(), digest_size=16).hexdigest()
