"""A model that a metric reads texts with: fetched like a base, in memory only while it scores.

Weights are read from safetensors, and no code of a model's repository runs. It computes in float32,
on the GPU if there is one, and nothing of it stays in memory afterwards.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from job.config.scoring_sections import MetricModelSection
from job.config.sections import StorageSection
from job.errors import ConfigError, RecapError, is_out_of_memory
from job.evaluation.metrics.agreement import Agreement
from job.inference.reward import FetchedRewardModel
from job.model import Model, Tokenizer
from job.model.architecture import explained
from job.model.families import max_positions
from job.model.fetch import Base, fetch_base
from job.model.files import CONFIG, files_in_folder, read_json
from job.model.load import device, free_memory, load_tokenizer
from job.telemetry import event, heartbeat, progress

Item = TypeVar("Item")

# Of models whose config and tokenizer name no limit, as T5's relative positions have none.
TOKENS_WITHOUT_A_LIMIT = 512
TOKENS_IN_A_BATCH = 8192  # padding included
CLASSIFIER = "classifier of pairs of texts"  # in messages
ENCODER = "model that reads text"
NO_LIMIT = 10**6  # tokenizers without a limit have a number above this one


@dataclass(frozen=True)
class MetricModel:
    """A fetched model and the section that names it; `key` is that of the config, for messages.

    `agreement` is that of a classifier with people's labels, if they were given. `reward` is a
    reward model with its base, and `trust` what its scores are worth: a sentence, and numbers.
    """

    key: str
    section: MetricModelSection
    base: Base
    agreement: Agreement | None = None
    reward: FetchedRewardModel | None = None
    trust: Mapping[str, Any] | None = None

    def record(self) -> dict[str, Any]:
        """Return what an evaluation records of the model, as JSON types."""
        return {
            **self.section.model_dump(),
            "revision": self.base.revision,
            "digest": self.base.digest,
            "tokenizer_digest": self.base.tokenizer_digest,
            "agreement": None if self.agreement is None else self.agreement.to_json(),
            **({} if self.trust is None else {"trust": self.trust}),
        }


@dataclass(frozen=True)
class LoadedModel:
    """A model in memory, its tokenizer, and the number of tokens that it reads at once."""

    name: MetricModel
    network: Model
    tokenizer: Tokenizer
    max_tokens: int
    device: Any

    def count(self, text: str) -> int:
        """Return the number of tokens of a text, without those that the tokenizer adds."""
        return len(self.tokenizer(text, add_special_tokens=False)["input_ids"])


def fetch_metric_model(
    key: str, section: MetricModelSection, storage: StorageSection, cache: Path
) -> MetricModel:
    """Bring a metric's model to disk and verify it. Raise what `fetch_base` raises."""
    with errors_about(key):
        return MetricModel(
            key, section, fetch_base(section.model, section.revision, storage, cache)
        )


@contextmanager
def loaded_classifier(model: MetricModel) -> Iterator[LoadedModel]:
    """Yield the model as a classifier of texts; afterwards its memory is free.

    Raise ConfigError if it is no classifier.
    """
    from transformers import AutoModelForSequenceClassification

    with _loaded(model, AutoModelForSequenceClassification, CLASSIFIER) as one:
        yield one


@contextmanager
def loaded_encoder(model: MetricModel) -> Iterator[LoadedModel]:
    """Yield the model as an encoder, without a head; afterwards its memory is free."""
    from transformers import AutoModel

    with _loaded(model, AutoModel, ENCODER) as one:
        yield one


def in_blocks(
    items: Sequence[Item],
    size: int,
    description: str,
    score: Callable[[Sequence[Item]], list[float]],
) -> NDArray[np.float64]:
    """Return the scores of summaries, of `size` at a time, which bounds memory; show progress."""
    scores: list[float] = []
    with progress(description, len(items), "summary") as bar:
        for start in range(0, len(items), size):
            block = items[start : start + size]
            scores += score(block)
            bar.advance(len(block))
    return np.array(scores, dtype=np.float64)


def in_batches(
    lengths: Sequence[int],
    compute: Callable[[list[int]], Sequence[Any]],
    model: MetricModel,
) -> list[Any]:
    """Return `compute`'s result for each index, called with indices of similar lengths.

    A batch that does not fit into memory is halved. Raise ConfigError if a single text does not
    fit.
    """
    results: list[Any] = [None] * len(lengths)
    order = sorted(range(len(lengths)), key=lambda index: lengths[index])
    waiting = _batches(order, lengths)[::-1]
    while waiting:
        batch = waiting.pop()
        found = _unless_out_of_memory(compute, batch)
        if found is not None:
            for index, value in zip(batch, found, strict=True):
                results[index] = value
            continue
        if len(batch) == 1:
            raise ConfigError(
                f"{model.key}: {model.base.uri} does not fit into memory with one text of "
                f"{lengths[batch[0]]} tokens: name a smaller model, or use a larger machine"
            )
        free_memory()
        half = len(batch) // 2
        waiting += [batch[half:], batch[:half]]
    return results


def padded(model: LoadedModel, texts: Sequence[str], others: Sequence[str] | None = None) -> Any:
    """Return the inputs of the network for texts, or for pairs of them, none of them truncated.

    `special_tokens_mask` among them marks what the tokenizer added.
    """
    # A tokenizer that does not know that its model tells two texts apart would leave them out, and
    # a classifier then reads the sentence as a part of the premise.
    has_types = getattr(model.network.config, "type_vocab_size", 0) > 1
    inputs = model.tokenizer(
        list(texts),
        list(others) if others is not None else None,
        padding=True,
        return_token_type_ids=True if has_types else None,
        return_special_tokens_mask=True,
        return_tensors="pt",
    )
    width = inputs["input_ids"].shape[1]
    assert width <= model.max_tokens, (width, model.max_tokens)
    return inputs.to(model.device)


def pieces(text: str, fits: Callable[[str], bool]) -> list[str]:
    """Cut a text that does not fit, again and again, at the space next to its middle.

    A text without spaces is cut in the middle.
    """
    if fits(text) or len(text) < 2:
        return [text]
    middle = len(text) // 2
    spaces = [text.rfind(" ", 1, middle), text.find(" ", middle, len(text) - 1)]
    at = min(
        (place for place in spaces if place > 0),
        key=lambda place: abs(place - middle),
        default=middle,
    )
    halves = (text[:at].strip(), text[at:].strip())
    return [piece for half in halves if half for piece in pieces(half, fits)]


@contextmanager
def errors_about(key: str) -> Iterator[None]:
    """Raise errors about model.base within the block as errors about another key."""
    try:
        yield
    except RecapError as error:
        message = str(error)
        for name, own in (("model.base", key), ("model.revision", f"{key}.revision")):
            message = message.replace(name, own)
        raise type(error)(message) from error


@contextmanager
def _loaded(model: MetricModel, auto_class: Any, kind: str) -> Iterator[LoadedModel]:
    event("loading a metric's model", key=model.key, model=model.base.uri)
    with errors_about(model.key), heartbeat("loading"):
        check_config(model, auto_class, kind)
        network = _load_network(model, auto_class, kind)
        tokenizer = load_tokenizer(model.base.path, uri=model.base.uri)
    if network.config.pad_token_id is None:
        network.config.pad_token_id = tokenizer.pad_token_id
    loaded = LoadedModel(model, network, tokenizer, _max_tokens(network, tokenizer), network.device)
    try:
        yield loaded
    finally:
        # A caller may still hold `loaded`: without this, so would the memory.
        network.to("meta")
        del network, loaded
        free_memory()


def check_config(model: MetricModel, auto_class: Any, kind: str) -> Any:
    """Return the model's config; raise ConfigError if transformers has no such class for it."""
    from transformers import AutoConfig
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

    base = model.base
    content = read_json(files_in_folder(base.path, base.uri), CONFIG)
    model_type = content.get("model_type")
    if "auto_map" in content and model_type not in CONFIG_MAPPING_NAMES:
        raise ConfigError(
            f"{model.key}: {base.uri} brings code of its own, which a metric never runs: name a "
            f"{kind} that transformers knows by itself"
        )
    with explained(base.path, base.uri):
        config = AutoConfig.from_pretrained(str(base.path), trust_remote_code=False)
    if type(config) not in auto_class._model_mapping:
        raise ConfigError(
            f"{model.key}: {base.uri} is a {config.model_type}, and transformers has no {kind} of "
            "that type; name another model"
        )
    return config


def _load_network(model: MetricModel, auto_class: Any, kind: str) -> Model:
    import torch

    base = model.base
    try:
        with explained(base.path, base.uri):
            network, loaded = auto_class.from_pretrained(
                str(base.path),
                dtype=torch.float32,
                use_safetensors=True,
                trust_remote_code=False,
                ignore_mismatched_sizes=True,
                output_loading_info=True,
            )
            _check_whole(model, loaded, kind)
            return network.to(device()).eval()
    except Exception as error:
        if is_out_of_memory(error):
            raise ConfigError(
                f"{model.key}: {base.uri} does not fit into memory in float32: name a smaller "
                "model, or use a larger machine"
            ) from error
        raise


def _check_whole(model: MetricModel, loaded: Mapping[str, Any], kind: str) -> None:
    """Raise ConfigError if tensors are missing: transformers fills them with random numbers."""
    mismatched = [key for key, *_ in loaded["mismatched_keys"]]
    # The pooler of an encoder reads one token for a task of its own: no metric uses it.
    unfit = sorted(
        key for key in {*loaded["missing_keys"], *mismatched} if not key.startswith("pooler.")
    )
    if unfit:
        raise ConfigError(
            f"{model.key}: {model.base.uri} is no {kind}: its weights lack {', '.join(unfit[:3])}"
            "; name a model that was trained as one"
        )


def _max_tokens(network: Model, tokenizer: Tokenizer) -> int:
    """Return how many tokens the model reads at once."""
    limits = [max_positions(network.config), tokenizer.model_max_length]
    known = [limit for limit in limits if limit is not None and limit < NO_LIMIT]
    limit = min(known, default=TOKENS_WITHOUT_A_LIMIT)
    for name, part in network.named_modules():
        # RoBERTa counts positions from behind that of padding, which its config does not tell.
        if name.endswith("position_embeddings") and getattr(part, "padding_idx", None) is not None:
            limit = min(limit, part.num_embeddings - part.padding_idx - 1)
    return int(limit)


def _batches(order: Sequence[int], lengths: Sequence[int]) -> list[list[int]]:
    """Return the indices in batches of at most TOKENS_IN_A_BATCH with padding."""
    batches: list[list[int]] = []
    for index in order:
        if batches and (len(batches[-1]) + 1) * lengths[index] <= TOKENS_IN_A_BATCH:
            batches[-1].append(index)
        else:
            batches.append([index])
    return batches


def _unless_out_of_memory(
    compute: Callable[[list[int]], Sequence[Any]], batch: list[int]
) -> Sequence[Any] | None:
    """Return the result, or None if memory ran out."""
    try:
        return compute(batch)
    except Exception as error:
        if not is_out_of_memory(error):
            raise
    return None
