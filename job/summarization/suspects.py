"""What a process leaves for the next while records are generated for, so that none of them ends every try of a night.

A batch that fails is halved until one prompt fails alone. But a GPU that fails ends every use of it by its process, and
a process that the system kills says nothing more. So a note lies beside the chunks for each that is under way; it goes
when the chunk is committed or the process is told to stop, and stays where anything else ends it. A chunk whose note
stayed is taken with care: in small batches, with a note of the records of each; records of a note that stayed come
alone, each after a greeting that the engine answers; and one that processes ended on alone, twice, gets no answer.
Knows where records stand, and nothing of what they say.
"""

import json
import re
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from job.config.sections import GenerationSection
from job.conversations.record import Source
from job.errors import MissingError, RecapError, unwritable
from job.inference.each import Done, Failure, generate_each
from job.inference.engine import Engine, Generated
from job.storage.keys import below
from job.storage.store import Store
from job.summarization.answers import check_model, see_it_work

CAREFUL_BATCH = 32  # prompts
ENDS = 2  # of processes, alone on a record: a single one may be the machine's
TO_BLAME = Failure("Broken", f"the process, or its GPU, failed on it alone, {ENDS} times")
NOTE = re.compile(r"(begun-(?P<chunk>\d+)|records)-[0-9a-f]{32}\.json")
Asked = tuple[Engine, Sequence[list[int]], GenerationSection]


@dataclass
class Suspects:
    """What earlier tries of a night have left notes of, and how this one goes on.

    `begun` counts the notes that stayed of each chunk; `ended` says of the records that were under way in a small batch
    how many processes ended on one alone. `has_answered`: the model did, in this process or an earlier one. Without a
    `place` there are no notes.
    """

    place: tuple[Store, str] | None = None
    begun: Counter[int] = field(default_factory=Counter)
    ended: dict[str, int] = field(default_factory=dict)
    has_answered: bool = False
    is_careful: bool = (
        False  # what is under way is known to a note, so nothing may be read ahead into the engine
    )
    _to_remove: list[str] = field(default_factory=list)

    def generate(
        self, asked: Asked, sources: Sequence[Source], on_done: Done, greet: Callable[[], None]
    ) -> list[Generated | Failure]:
        """An answer to each prompt, or why there is none; `sources` are where the record of each prompt stands.

        Where some get none, the model must answer a greeting (`greet`), or it is not they who are to blame:
        ConfigError, or RetryError if it has answered before.
        """
        if not self.is_careful:
            return self._generate(asked, on_done, greet)
        if not self.has_answered:  # what fails from here on is no mistake in the config
            see_it_work(greet, has_answered=False)
            self._answered()
        engine, prompts, settings = asked
        records = [str(source) for source in sources]
        answers: dict[int, Generated | Failure] = {}
        clear = [row for row, record in enumerate(records) if record not in self.ended]
        for start in range(0, len(clear), CAREFUL_BATCH):
            rows = clear[start : start + CAREFUL_BATCH]
            with self._noted([records[row] for row in rows]):
                found = self._generate(
                    (engine, [prompts[row] for row in rows], settings), on_done, greet
                )
            answers |= zip(rows, found, strict=True)
        # Last those that processes ended on: a GPU that fails at random is not to find the same record again.
        suspected = [row for row, record in enumerate(records) if record in self.ended]
        for row in sorted(suspected, key=lambda row: self.ended[records[row]]):
            if self.ended[records[row]] >= ENDS:
                answers[row] = TO_BLAME
                on_done(1)
                continue
            see_it_work(greet, has_answered=True)
            with self._noted([records[row]], alone=self.ended[records[row]] + 1):
                (answers[row],) = self._generate((engine, [prompts[row]], settings), on_done, greet)
        return [answers[row] for row in range(len(prompts))]

    def begin(self, chunk: int) -> str:
        """Leave a note that the chunk is under way; its name, for `take_away`."""
        return self._leave(f"begun-{chunk:06d}-{uuid.uuid4().hex}.json", {})

    def take_away(self, name: str) -> None:
        """Remove a note; where the store fails, with the next one."""
        if self.place is None:
            return
        self._to_remove.append(name)
        with suppress(RecapError):
            while self._to_remove:
                self.place[0].delete(below(self.place[1], self._to_remove[-1]))
                self._to_remove.pop()

    def _generate(
        self, asked: Asked, on_done: Done, greet: Callable[[], None]
    ) -> list[Generated | Failure]:
        answers = generate_each(*asked, on_done, self._answered)
        check_model(answers, greet, self.has_answered)
        self._answered()
        return answers

    def _answered(self) -> None:
        self.has_answered = True

    @contextmanager
    def _noted(self, records: Sequence[str], alone: int = 0) -> Iterator[None]:
        """Within the block there is a note of the records; `alone` is how many ends on one are known where it stays."""
        name = f"records-{uuid.uuid4().hex}.json"
        try:
            self._leave(name, {"records": list(records), "alone": alone})
            yield
            self.take_away(name)
        except BaseException as end:
            if not isinstance(end, Exception) or unwritable(
                end
            ):  # told to stop, or the disk is full: about no record
                self.take_away(name)
            raise

    def _leave(self, name: str, note: Any) -> str:
        if self.place is not None:
            self.place[0].write(below(self.place[1], name), json.dumps(note).encode())
        return name


def read_suspects(store: Store, folder: str, names: Iterable[str]) -> Suspects:
    """What earlier tries of the night have left notes of in this folder, which holds these names."""
    found = Suspects((store, folder))
    for name in names:
        match = NOTE.fullmatch(name)
        if match and match["chunk"]:
            found.begun[int(match["chunk"])] += 1
        elif match:
            with suppress(MissingError):  # taken away meanwhile: its worker lives
                note = json.loads(store.read(below(folder, name)))
                found.ended |= {
                    record: max(note["alone"], found.ended.get(record, 0))
                    for record in note["records"]
                }
    return found
