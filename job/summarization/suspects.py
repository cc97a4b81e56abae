"""Prompts that may end a process: what one leaves for the next, so that one of them costs no other its answer.

A GPU that fails ends every use of it by its process, and a process that the system kills says nothing more: there,
nothing can be halved until one prompt fails alone. So notes lie beside the chunks: of each chunk that is under way, and
of the prompts that were when a GPU failed. A chunk whose note stayed is taken in small batches, with a note of each
while it lasts; prompts of a note that stayed are taken by themselves, each after a greeting that the engine answers;
and one that a process ended on alone, twice, gets no answer. Knows nothing of conversations.
"""

import json
import re
import uuid
from array import array
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

from job.config.sections import GenerationSection
from job.errors import RecapError
from job.inference.engine import BrokenEngineError, Engine, Generated
from job.storage.keys import below
from job.storage.store import Store
from job.summarization.answers import Done, Failure, generate_each
from job.telemetry import warn

CAREFUL_BATCH = 32  # prompts
DEATHS = 2  # alone on a prompt: a single one may be the machine's
NOTE = re.compile(r"(?P<kind>begun-(?P<chunk>\d+)|prompts)-[0-9a-f]{32}\.json")
TO_BLAME = Failure("Broken", f"the process, or its GPU, failed on it alone, {DEATHS} times")
Asked = tuple[Engine, Sequence[list[int]], GenerationSection]


@dataclass
class Suspects:
    """What earlier tries of a night have left notes of, and the notes of this one; `is_careful` says to leave more.

    `begun` counts the notes that stayed of each chunk, `suspected` are digests of prompts, and `died` counts how often
    a process ended on one of them alone. Without a place there are no notes.
    """

    place: tuple[Store, str] | None = None
    begun: Counter[int] = field(default_factory=Counter)
    suspected: set[str] = field(default_factory=set)
    died: Counter[str] = field(default_factory=Counter)
    is_careful: bool = False

    def __bool__(self) -> bool:
        """Whether prompts must not come to the engine before they are asked for."""
        return self.is_careful or bool(self.suspected)

    def generate(self, asked: Asked, on_done: Done, greet: Callable[[], None]) -> list[Generated | Failure]:
        """An answer to each prompt, or why there is none; suspected ones after the others, each by itself.

        `greet` raises where the engine cannot even answer a greeting: then no prompt is to blame.
        """
        engine, prompts, settings = asked
        if not self:
            return self._generate(asked, on_done)
        digests = [_digest(prompt) for prompt in prompts]
        clear = [row for row, digest in enumerate(digests) if digest not in self.suspected]
        alone = [row for row, digest in enumerate(digests) if digest in self.suspected]
        answers: dict[int, Generated | Failure] = {}
        size = CAREFUL_BATCH if self.is_careful else max(len(clear), 1)
        for rows in (clear[start : start + size] for start in range(0, len(clear), size)):
            found = self._generate((engine, [prompts[row] for row in rows], settings), on_done, self.is_careful)
            answers |= zip(rows, found, strict=True)
        # Last those that died before: a GPU that fails at random is not to find the same one again.
        for row in sorted(alone, key=lambda row: self.died[digests[row]]):
            if self.died[digests[row]] >= DEATHS:
                answers[row] = TO_BLAME
                on_done(1)
            else:
                greet()
                (answers[row],) = self._generate((engine, [prompts[row]], settings), on_done, True, is_alone=True)
        return [answers[row] for row in range(len(prompts))]

    def begin(self, chunk: int) -> str | None:
        """Leave a note that the chunk is under way; its key, for `take_away`."""
        return self._leave(f"begun-{chunk:06d}", {})

    def take_away(self, key: str | None) -> None:
        """Remove a note. One that stays only makes the next try more careful."""
        if self.place is not None and key is not None:
            with suppress(RecapError):
                self.place[0].delete(key)

    def _generate(
        self, asked: Asked, on_done: Done, is_noted: bool = False, is_alone: bool = False
    ) -> list[Generated | Failure]:
        """What `generate_each` finds; a process that dies meanwhile leaves a note where it `is_noted`."""
        key = self._note(asked[1], is_alone) if is_noted else None
        try:
            return generate_each(*asked, on_done)
        except BrokenEngineError as error:
            self._note(error.prompts, is_alone)
            warn("the GPU failed: the next try takes what was under way one at a time", prompts=len(error.prompts))
            raise
        finally:
            self.take_away(key)

    def _note(self, prompts: Sequence[list[int]], is_alone: bool) -> str | None:
        return self._leave("prompts", {"prompts": [_digest(prompt) for prompt in prompts], "alone": is_alone})

    def _leave(self, kind: str, note: Any) -> str | None:
        if self.place is None:
            return None
        store, folder = self.place
        key = below(folder, f"{kind}-{uuid.uuid4().hex}.json")
        store.write(key, json.dumps(note).encode())
        return key


def read_suspects(store: Store, folder: str) -> Suspects:
    """What earlier tries of the night have left notes of in this folder."""
    found = Suspects((store, folder))
    for entry in store.list(folder):
        match = NOTE.fullmatch(entry.key.rpartition("/")[2])
        if match and match["chunk"]:
            found.begun[int(match["chunk"])] += 1
        elif match:
            note = json.loads(store.read(entry.key))
            found.suspected.update(note["prompts"])
            found.died.update(note["prompts"] if note["alone"] else ())
    return found


def _digest(prompt: Sequence[int]) -> str:
    return blake2b(array("q", prompt).tobytes(), digest_size=16).hexdigest()
