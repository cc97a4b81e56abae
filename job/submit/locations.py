"""The places that a config names, and the upload of a config for a job."""

import ipaddress
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

from job.config.commands import EvaluateConfig, ModelConfig, SummarizeConfig, TrainConfig
from job.config.scoring_sections import ScoringSection
from job.config.sections import RewardModelSection, StorageSection, as_list, names_one_file
from job.errors import AlreadyExistsError, ConfigError, RecapError
from job.identity import sha256_of
from job.model.champion import find_pointer
from job.model.fetch import read_adapter
from job.model.files import HUB_ID
from job.model.reward import read_reward_model
from job.storage.keys import scheme_of, split_file
from job.storage.open import open_store
from job.submit.submission import DIGEST_DIGITS, Place

CONFIGS = "_configs"  # names that begin with _ are no input of anything


def models_read(config: ModelConfig) -> list[Place]:
    """Return the base, the adapters with theirs, and the models of metrics that the job reads.

    If the config names an adapter and no base, the base that the adapter records is looked up.
    """
    found = []
    if config.model.base is not None:
        found.append(Place("model.base", config.model.base))
    if isinstance(config, TrainConfig):
        if config.training.start_from is not None:
            found += _adapter("training.start_from", config.training.start_from, config)
    elif config.adapter is not None:
        found += _adapter("adapter", config.adapter, config)
    if isinstance(config, SummarizeConfig) and config.challenger is not None:
        found += _adapter("challenger.adapter", config.challenger.adapter, config)
    if isinstance(config, SummarizeConfig):
        section = config.generation.reward_model
        found += _reward_model("generation.reward_model", section, config.storage)
    if isinstance(config, EvaluateConfig) and config.champion is not None:
        found += _adapter("champion", config.champion, config)
    if not isinstance(config, SummarizeConfig):
        found += [*_champion(config), *_metric_models(config.evaluation, config.storage)]
    elif config.faithfulness_model is not None:
        found.append(Place("faithfulness_model.model", config.faithfulness_model.model))
    return found


def places_read(config: ModelConfig, models: Sequence[Place] | None = None) -> list[Place]:
    """Return every path and URI that the job reads, but no Hub ids.

    `models` are those of `models_read`, which takes requests.
    """
    found = models_read(config) if models is None else models
    found = [each for each in found if not _is_hub_id(each.uri)]
    for key, uris in _data(config).items():
        found += [Place(key, uri) for uri in as_list(uris or [])]
    return found


def hub_models(models: Sequence[Place]) -> list[Place]:
    """Return those of the models that are on the Hub, by their ids."""
    found = [each for each in models if _is_hub_id(each.uri.removeprefix("hf://"))]
    return [Place(each.key, each.uri.removeprefix("hf://")) for each in found]


def places_written(config: ModelConfig) -> list[Place]:
    """Return the folder that the job writes to, and that of the pointer that it may switch."""
    written = [Place("output", _output_folder(config))]
    if not isinstance(config, SummarizeConfig) and config.publish.champion is not None:
        folder, _ = split_file(config.publish.champion)
        is_here = scheme_of(config.publish.champion) == "file"
        uri = folder if is_here else config.publish.champion
        written.append(Place("publish.champion", uri))
    return written


def check_reachable(config: ModelConfig, reads: Sequence[Place], cluster: str) -> None:
    """Raise ConfigError with everything that the config names and only this machine has."""
    local = [each for each in (*reads, *places_written(config)) if each.is_local]
    if _is_this_machine(config.storage.endpoint_url):
        local.append(Place("storage.endpoint_url", str(config.storage.endpoint_url)))
    if not local:
        return

    width = max(len(each.key) for each in local)
    listed = "\n".join(f"  {each.key:{width}}  {each.uri}" for each in local)
    raise ConfigError(
        f"a job on {cluster} cannot reach what is on this machine:\n\n{listed}\n\ncopy it to s3:// "
        "and name it there (`aws s3 cp --recursive`), or run the job on this machine: "
        "recap submit docker"
    )


def config_uri(content: bytes, config: ModelConfig) -> str:
    """Return the URI for a config of this machine: beside the output, with a digest in its name.

    Raise ConfigError if the output is not on S3.
    """
    if scheme_of(config.output) != "s3":
        raise ConfigError(
            "a config from standard input is uploaded beside the output, and this output is not on "
            f"s3:// ({config.output}): save the config as a file and name that"
        )
    folder = _output_folder(config).rstrip("/")
    digest = sha256_of(content)[:DIGEST_DIGITS]
    return f"{folder}/{CONFIGS}/{config.run}-{digest}.yaml"


def upload_config(content: bytes, uri: str, storage: StorageSection) -> None:
    """Write the config, unless it is there: the digest in its name says that it is the same.

    Raises what `Store.write` raises.
    """
    folder, name = split_file(uri)
    with suppress(AlreadyExistsError):
        open_store(folder, storage).write(name, content, if_absent=True)


def _data(config: ModelConfig) -> dict[str, str | list[str] | None]:
    """Return the files of records that the job reads, by their keys."""
    if isinstance(config, SummarizeConfig):
        return {"input": config.input, "skip_done": config.skip_done}

    found: dict[str, str | list[str] | None]
    if isinstance(config, TrainConfig):
        data = config.data
        found = {"data.train": data.train, "data.validation": data.validation}
        found["data.replay"] = data.replay
    else:
        found = {"input": config.input, "train": config.train, "summaries": config.summaries}
    for number, regression in enumerate(config.publish.regressions):
        found[f"publish.regressions.{number}.input"] = regression.input
    if config.publish.pairs is not None:
        found["publish.pairs.input"] = config.publish.pairs.input
    for name, uri in config.evaluation.others.items():
        found[f"evaluation.others.{name}"] = uri
    if config.evaluation.reward_model is not None:
        found["evaluation.reward_model.pairs"] = config.evaluation.reward_model.pairs
    found["evaluation.faithfulness_labels"] = config.evaluation.faithfulness_labels
    return found


def _metric_models(options: ScoringSection, storage: StorageSection) -> list[Place]:
    models = {
        "evaluation.bertscore_model.model": options.bertscore_model,
        "evaluation.faithfulness_model.model": options.faithfulness_model,
    }
    found = [Place(key, each.model) for key, each in models.items() if each is not None]
    return found + _reward_model("evaluation.reward_model", options.reward_model, storage)


def _reward_model(
    key: str, section: RewardModelSection | None, storage: StorageSection
) -> list[Place]:
    """Return the reward model, if the config names one, and its base, which its manifest may name.

    A reward model that cannot be read is reported by the plan.
    """
    if section is None:
        return []
    found = [Place(f"{key}.adapter", section.adapter)]
    if section.base is not None:
        return [*found, Place(f"{key}.base", section.base)]
    with suppress(RecapError):
        adapter = read_reward_model(section.adapter, storage, f"{key}.adapter")
        found.append(Place("the reward model's base", str(adapter.base["uri"])))
    return found


def _output_folder(config: ModelConfig) -> str:
    if isinstance(config, SummarizeConfig) and names_one_file(config.output):
        return split_file(config.output)[0]
    return config.output


def _adapter(key: str, named: str, config: ModelConfig) -> list[Place]:
    """Return the adapter, that which it names if it is a pointer, and its base.

    An adapter that cannot be read is reported by the plan.
    """
    found = [Place(key, named)]
    try:
        adapter = read_adapter(named, config.storage)
    except RecapError:
        return found
    if adapter.pointer is not None:
        found.append(Place("the champion", adapter.uri))
    if config.model.base is None:
        found.append(Place("the adapter's base", str(adapter.base["uri"])))
    return found


def _champion(config: TrainConfig | EvaluateConfig) -> list[Place]:
    """Return the adapter that the pointer names, or nothing if there is none or it is not read."""
    if config.publish.champion is None:
        return []
    try:
        pointer = find_pointer(config.publish.champion, config.storage)
    except RecapError:
        return []
    return [] if pointer is None else [Place("the champion", pointer.champion.adapter)]


def _is_hub_id(name: str) -> bool:
    return bool(HUB_ID.fullmatch(name)) and not Path(name).is_dir()


def _is_this_machine(url: str | None) -> bool:
    host = urlsplit(url or "").hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
