"""Which share of the chunks a worker takes: from `--shard`, or from what the scheduler says of it.

Workers need not know of each other: a chunk's number says whose it is. Knows nothing of what a chunk is.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from job.errors import ConfigError

# AWS Batch sets both on the children of an array job; an Indexed Job of Kubernetes sets its index only.
INDEXES = ("AWS_BATCH_JOB_ARRAY_INDEX", "JOB_COMPLETION_INDEX")
COUNTS = ("RECAP_SHARDS", "AWS_BATCH_JOB_ARRAY_SIZE")


@dataclass(frozen=True)
class Shard:
    """Worker `index`, from 0 on, of `count`."""

    index: int = 0
    count: int = 1

    def takes(self, chunk: int) -> bool:
        """Whether the chunk of this number is this worker's."""
        return chunk % self.count == self.index

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"


WHOLE = Shard()


def find_shard(option: str | None, shards: int | None, environment: Mapping[str, str]) -> Shard:
    """The shard of `--shard i/n`, else of the scheduler's index and how many workers it or the config says there are.

    ConfigError if that is unclear, or said twice and differently: chunks of workers that never come would be nobody's.
    """
    if option is not None:
        found = re.fullmatch(r"(\d{1,6})/(\d{1,6})", option)
        if not found or int(found[1]) >= int(found[2]):
            raise ConfigError(
                f"--shard {option}: wanted i/n with i from 0 to n - 1, for example 0/4"
            )
        return Shard(int(found[1]), int(found[2]))
    name = next((name for name in INDEXES if environment.get(name)), None)
    if name is None:
        return WHOLE
    said = {"shards of the config": shards} if shards else {}
    said |= {key: _number(key, environment) for key in COUNTS if environment.get(key)}
    if not said:
        raise ConfigError(
            f"{name} says that this is worker {environment[name]} of several, but not of how many: set shards in the "
            f"config or {COUNTS[0]} in the environment to the number of workers (of an Indexed Job: its completions)"
        )
    count, index = next(iter(said.values())), _number(name, environment)
    if len(set(said.values())) > 1:
        told = ", ".join(f"{key} is {number}" for key, number in said.items())
        raise ConfigError(
            f"{told}: they say differently how many workers share the input; remove shards from the config, or make "
            "all of them the number of workers that are started"
        )
    if index >= count:
        raise ConfigError(
            f"{name} is {index}, but there are {count} workers, from 0 to {count - 1}: correct shards"
        )
    return Shard(index, count)


def _number(name: str, environment: Mapping[str, str]) -> int:
    text = environment[name]
    if not re.fullmatch(r"\d{1,6}", text):
        raise ConfigError(f"{name} is '{text}' in the environment, wanted a whole number")
    return int(text)
