"""The share of the chunks that a machine does: from `--shard`, or from the scheduler's variables.

Machines need not know of each other: the number of a chunk decides whose it is. The workers of one
machine take the chunks of its shard one after the other.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from job.errors import ConfigError

# AWS Batch sets both variables for the children of an array job. An Indexed Job of Kubernetes sets
# its index only.
INDEX_VARIABLES = ("AWS_BATCH_JOB_ARRAY_INDEX", "JOB_COMPLETION_INDEX")
COUNT_VARIABLES = ("RECAP_SHARDS", "AWS_BATCH_JOB_ARRAY_SIZE")


# Set by recap in each worker of several on one machine: the folder of their claims.
CLAIMS_VARIABLE = "RECAP_CLAIMS"


class Claims:
    """The chunks that the workers of one machine have taken, each a file in a folder of theirs.

    Nobody gives a chunk back: that of a worker that died is done by the next attempt, which begins
    with an empty folder. Two workers on one chunk would both be killed by a record that kills.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._own: set[int] = set()

    def take(self, chunk: int) -> bool:
        """Take the chunk for this worker; return False if another worker has it."""
        try:
            # Atomic: of several processes, one creates the file.
            (self.folder / str(chunk)).touch(exist_ok=False)
        except FileExistsError:
            return False
        self._own.add(chunk)
        return True

    @property
    def given_up(self) -> bool:
        """True once a worker has found that the model cannot be loaded on this machine."""
        return (self.folder / "given-up").exists()

    def give_up(self) -> None:
        """Let the other workers know that the model cannot be loaded on this machine."""
        (self.folder / "given-up").touch()

    def has_another(self, chunk: int) -> bool:
        """Return True if another worker has taken the chunk."""
        return chunk not in self._own and (self.folder / str(chunk)).exists()


@dataclass(frozen=True)
class Shard:
    """Shard `index` of `count`, counted from 0. Without `claims`, one worker does all of it."""

    index: int = 0
    count: int = 1
    claims: Claims | None = None

    def has(self, chunk: int) -> bool:
        """Return True if the chunk with this number is in the shard."""
        return chunk % self.count == self.index

    def take(self, chunk: int) -> bool:
        """Take a chunk of the shard for this worker; return False if another worker has it."""
        return self.claims is None or self.claims.take(chunk)

    def leaves(self, chunk: int) -> bool:
        """Return True if the chunk is another machine's, or another worker has taken it."""
        return not self.has(chunk) or (self.claims is not None and self.claims.has_another(chunk))

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"


WHOLE = Shard()


def find_shard(option: str | None, shards: int | None, environment: Mapping[str, str]) -> Shard:
    """Return the shard of `--shard i/n`, or that of the scheduler's variables.

    `shards` is the config's number of machines. Raise ConfigError if the number of machines is not
    known, or two sources of it differ: the chunks of one that never starts would be nobody's.
    """
    claims = None
    if environment.get(CLAIMS_VARIABLE):
        claims = Claims(Path(environment[CLAIMS_VARIABLE]))
    if option is not None:
        return replace(_parse_option(option), claims=claims)
    name = next((name for name in INDEX_VARIABLES if environment.get(name)), None)
    if name is None:
        return replace(WHOLE, claims=claims)

    index = _parse_number(name, environment)
    count = _find_count(name, shards, environment)
    if index >= count:
        raise ConfigError(
            f"{name} is {index}, but there are {count} shards, from 0 to {count - 1}: correct "
            "shards"
        )
    return Shard(index, count, claims)


def _parse_option(option: str) -> Shard:
    found = re.fullmatch(r"(\d{1,6})/(\d{1,6})", option)
    if not found or int(found[1]) >= int(found[2]):
        raise ConfigError(f"--shard {option}: wanted i/n with i from 0 to n - 1, for example 0/4")
    return Shard(int(found[1]), int(found[2]))


def _find_count(name: str, shards: int | None, environment: Mapping[str, str]) -> int:
    """Return the number of shards; `name` is the variable that has this one's index."""
    counts: dict[str, int] = {}
    if shards:
        counts["shards of the config"] = shards
    for variable in COUNT_VARIABLES:
        if environment.get(variable):
            counts[variable] = _parse_number(variable, environment)

    if not counts:
        raise ConfigError(
            f"{name} says that this is shard {environment[name]} of several, but not of how many: "
            f"set shards in the config or {COUNT_VARIABLES[0]} in the environment to the number of "
            "shards (of an Indexed Job: its completions)"
        )
    if len(set(counts.values())) > 1:
        listed = ", ".join(f"{source} is {count}" for source, count in counts.items())
        raise ConfigError(
            f"{listed}: these numbers of shards differ; remove shards from the config, or make "
            "all of them the number of machines that are started"
        )
    return next(iter(counts.values()))


def _parse_number(name: str, environment: Mapping[str, str]) -> int:
    text = environment[name]
    if not re.fullmatch(r"\d{1,6}", text):
        raise ConfigError(f"{name} is '{text}' in the environment, wanted a whole number")
    return int(text)
