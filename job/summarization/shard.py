"""The share of the chunks that a worker takes: from `--shard`, or from the scheduler's variables.

Workers need not know of each other: the number of a chunk decides whose it is.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from job.errors import ConfigError

# AWS Batch sets both variables for the children of an array job. An Indexed Job of Kubernetes sets
# its index only.
INDEX_VARIABLES = ("AWS_BATCH_JOB_ARRAY_INDEX", "JOB_COMPLETION_INDEX")
COUNT_VARIABLES = ("RECAP_SHARDS", "AWS_BATCH_JOB_ARRAY_SIZE")


@dataclass(frozen=True)
class Shard:
    """Worker `index` of `count`, counted from 0."""

    index: int = 0
    count: int = 1

    def takes(self, chunk: int) -> bool:
        """Return True if the chunk with this number is this worker's."""
        return chunk % self.count == self.index

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"


WHOLE = Shard()


def find_shard(option: str | None, shards: int | None, environment: Mapping[str, str]) -> Shard:
    """Return the shard of `--shard i/n`, or that of the scheduler's variables.

    `shards` is the config's number of workers. Raise ConfigError if the number of workers is not
    known, or two sources of it differ: chunks of workers that are never started would be nobody's.
    """
    if option is not None:
        return _parse_option(option)
    name = next((name for name in INDEX_VARIABLES if environment.get(name)), None)
    if name is None:
        return WHOLE

    index = _parse_number(name, environment)
    count = _find_count(name, shards, environment)
    if index >= count:
        raise ConfigError(
            f"{name} is {index}, but there are {count} workers, from 0 to {count - 1}: correct "
            "shards"
        )
    return Shard(index, count)


def _parse_option(option: str) -> Shard:
    found = re.fullmatch(r"(\d{1,6})/(\d{1,6})", option)
    if not found or int(found[1]) >= int(found[2]):
        raise ConfigError(f"--shard {option}: wanted i/n with i from 0 to n - 1, for example 0/4")
    return Shard(int(found[1]), int(found[2]))


def _find_count(name: str, shards: int | None, environment: Mapping[str, str]) -> int:
    """Return the number of workers; `name` is the variable that has this worker's index."""
    counts: dict[str, int] = {}
    if shards:
        counts["shards of the config"] = shards
    for variable in COUNT_VARIABLES:
        if environment.get(variable):
            counts[variable] = _parse_number(variable, environment)

    if not counts:
        raise ConfigError(
            f"{name} says that this is worker {environment[name]} of several, but not of how many: "
            f"set shards in the config or {COUNT_VARIABLES[0]} in the environment to the number of "
            "workers (of an Indexed Job: its completions)"
        )
    if len(set(counts.values())) > 1:
        listed = ", ".join(f"{source} is {count}" for source, count in counts.items())
        raise ConfigError(
            f"{listed}: these numbers of workers differ; remove shards from the config, or make "
            "all of them the number of workers that are started"
        )
    return next(iter(counts.values()))


def _parse_number(name: str, environment: Mapping[str, str]) -> int:
    text = environment[name]
    if not re.fullmatch(r"\d{1,6}", text):
        raise ConfigError(f"{name} is '{text}' in the environment, wanted a whole number")
    return int(text)
