"""What a config names on this machine, and how a config of this machine gets to where the job runs.

Knows nothing of targets.
"""

import ipaddress
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

from job.config.commands import SummarizeConfig, TrainConfig
from job.config.sections import StorageSection, as_list, names_one_file
from job.errors import AlreadyExistsError, ConfigError, RecapError
from job.identity import sha256_of
from job.model.fetch import read_adapter
from job.model.files import HUB_ID
from job.storage.keys import scheme_of, split_file
from job.storage.open import open_store

CONFIGS = "_configs"  # names that start with _ are no input of anything
DIGEST_DIGITS = 16


def local_reads(config: TrainConfig | SummarizeConfig) -> list[tuple[str, str]]:
    """Key and path of everything that the job reads from this machine; ConfigError for a place of no known kind.

    An adapter is asked for the base that it records, where the config names none.
    """
    return [(key, uri) for key, uri in _reads(config) if scheme_of(uri) == "file"]


def local_output(config: TrainConfig | SummarizeConfig) -> str | None:
    """The folder of this machine that the job writes to; None where the output is elsewhere."""
    if scheme_of(config.output) != "file":
        return None
    if isinstance(config, SummarizeConfig) and names_one_file(config.output):
        return split_file(config.output)[0]
    return config.output


def check_reachable(config: TrainConfig | SummarizeConfig, where: str) -> None:
    """ConfigError with every place of the config that only this machine has."""
    places = local_reads(config)
    if local_output(config) is not None:
        places.append(("output", config.output))
    if _is_this_machine(config.storage.endpoint_url):
        places.append(("storage.endpoint_url", str(config.storage.endpoint_url)))
    if places:
        width = max(len(key) for key, _ in places)
        listed = "\n".join(f"  {key:{width}}  {uri}" for key, uri in places)
        raise ConfigError(
            f"a job on {where} cannot reach what is on this machine:\n\n{listed}\n\ncopy it to s3:// and name it there "
            "(`aws s3 cp --recursive`), or run the job on this machine: recap submit docker"
        )


def place_for(content: bytes, config: TrainConfig | SummarizeConfig) -> str:
    """Where a config goes that lies on this machine: beside the output, under a name that says what is in it.

    ConfigError where the output is not on S3.
    """
    if scheme_of(config.output) != "s3":
        raise ConfigError(
            "a config from standard input goes to where the job runs beside an output on s3://, and this output is "
            f"{config.output}: save the config as a file and name that"
        )
    one_file = isinstance(config, SummarizeConfig) and names_one_file(config.output)
    folder = split_file(config.output)[0] if one_file else config.output.rstrip("/")
    digest = sha256_of(content)[:DIGEST_DIGITS]
    return f"{folder}/{CONFIGS}/{config.run}-{digest}.yaml"


def send(content: bytes, uri: str, storage: StorageSection) -> None:
    """Put the config there, once: what has this name is this content. Errors are those of `Store.write`."""
    folder, name = split_file(uri)
    with suppress(AlreadyExistsError):  # submitted before
        open_store(folder, storage).write(name, content, if_absent=True)


def _reads(config: TrainConfig | SummarizeConfig) -> Iterator[tuple[str, str]]:
    if config.model.base is not None and not _is_hub_id(config.model.base):
        yield "model.base", config.model.base
    if isinstance(config, TrainConfig):
        lists = {"data.train": config.data.train, "data.validation": config.data.validation}
    else:
        lists = {"input": config.input, "skip_done": config.skip_done}
        if config.adapter is not None and not _is_hub_id(config.adapter):
            yield "adapter", config.adapter
        if config.adapter is not None and config.model.base is None:
            yield from _recorded_base(config.adapter, config.storage)
    for key, uris in lists.items():
        yield from ((key, uri) for uri in as_list(uris or []))


def _recorded_base(adapter: str, storage: StorageSection) -> Iterator[tuple[str, str]]:
    """The base that the adapter's manifest names; nothing where it cannot be read here, which is the plan's to tell."""
    with suppress(RecapError):
        base = str(read_adapter(adapter, storage).base["uri"])
        if not _is_hub_id(base):
            yield "the adapter's base", base


def _is_hub_id(name: str) -> bool:
    return bool(HUB_ID.fullmatch(name)) and not Path(name).is_dir()


def _is_this_machine(url: str | None) -> bool:
    host = urlsplit(url or "").hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
