"""BERTScore: how near the tokens of a summary and of a reference are in a model that read both.

Each token of one text is matched with the nearest of the other by the cosine of their vectors
(Zhang et al., ICLR 2020). The score is the F-measure of both directions. No weights by rarity of
words (idf), and no rescaling with a baseline. The numbers are those of the package bert-score with
the same model and layer, except for texts longer than the model's context: that package truncates
them, while here each piece of them is read.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from job.config.scoring_sections import BertscoreModelSection
from job.errors import ConfigError
from job.evaluation.metrics.metric import Metric, Sample
from job.evaluation.metrics.models import (
    ENCODER,
    LoadedModel,
    MetricModel,
    check_config,
    errors_about,
    in_batches,
    in_blocks,
    loaded_encoder,
    padded,
    pieces,
)

PAIRS_AT_ONCE = 256  # bounds the memory for vectors


def measure_bertscore(samples: Sequence[Sample], model: MetricModel | None) -> NDArray[np.float64]:
    """Return the F-measure of each summary and its reference; 0 if one of them is empty.

    Loads the model, and frees its memory. Raise ConfigError if it cannot serve.
    """
    assert model is not None, "BERTScore needs a model"
    pairs = [(sample.summary, sample.references[0]) for sample in samples]
    with loaded_encoder(model) as encoder:
        layer = _layer(encoder.name, encoder.network.config)

        def score(block: Sequence[tuple[str, str]]) -> list[float]:
            texts = list(dict.fromkeys(text for pair in block for text in pair))
            tokens = dict(zip(texts, read_tokens(texts, encoder, layer), strict=True))
            return [f_measure(tokens[left], tokens[right]) for left, right in block]

        return in_blocks(pairs, PAIRS_AT_ONCE, "scoring BERTScore", score)


BERTSCORE = Metric(
    name="bertscore",
    title="BERTScore",
    short_title="BERTScore",
    hub_type="bertscore",
    direction="higher",
    low=-1,
    high=1,
    unit="score",
    needs=("reference", "model"),
    about="F-measure of the tokens of summary and reference that are near in a model's vectors.",
    measure=measure_bertscore,
    libraries=("torch", "transformers"),
)


@dataclass(frozen=True)
class Tokens:
    """The tokens of a text: unit vectors of shape (tokens, width), and which of them count.

    Those that the tokenizer adds do not count. Others may be matched with them, as in bert-score.
    """

    vectors: NDArray[np.float32]
    counts: NDArray[np.bool_]


def f_measure(summary: Tokens, reference: Tokens) -> float:
    """Return the F-measure of two texts."""
    if not summary.counts.any() or not reference.counts.any():
        return 0.0
    nearness = summary.vectors @ reference.vectors.T  # (summary's tokens, reference's tokens)
    precision = float(nearness.max(axis=1)[summary.counts].mean())
    recall = float(nearness.max(axis=0)[reference.counts].mean())
    total = precision + recall
    return 2 * precision * recall / total if total > 0 else 0.0


def read_tokens(texts: Sequence[str], encoder: LoadedModel, layer: int) -> list[Tokens]:
    """Return the tokens of each text after a layer. A text that is too long is read in pieces."""
    added = encoder.tokenizer.num_special_tokens_to_add()
    most = encoder.max_tokens - added
    parts: list[str] = []
    owners: list[int] = []
    for index, text in enumerate(texts):
        found = pieces(text.strip(), lambda piece: encoder.count(piece) <= most)
        parts += found
        owners += [index] * len(found)
    lengths = [encoder.count(part) + added for part in parts]

    def compute(batch: list[int]) -> Sequence[Tokens]:
        return _read(encoder, [parts[index] for index in batch], layer)

    read: list[list[Tokens]] = [[] for _ in texts]
    for owner, tokens in zip(owners, in_batches(lengths, compute, encoder.name), strict=True):
        read[owner].append(tokens)
    return [_joined(tokens) for tokens in read]


def _joined(parts: Sequence[Tokens]) -> Tokens:
    return Tokens(
        np.concatenate([part.vectors for part in parts]),
        np.concatenate([part.counts for part in parts]),
    )


def _read(encoder: LoadedModel, texts: Sequence[str], layer: int) -> Sequence[Tokens]:
    import torch

    inputs = padded(encoder, texts)
    added = inputs.pop("special_tokens_mask").bool().cpu().numpy()
    with torch.inference_mode():
        states = encoder.network(**inputs, output_hidden_states=True).hidden_states[layer]
        vectors = torch.nn.functional.normalize(states.float(), dim=-1).cpu().numpy()
    real = inputs["attention_mask"].bool().cpu().numpy()
    rows = zip(vectors, real, added, strict=True)
    return [Tokens(vector[mask], ~of_tokenizer[mask]) for vector, mask, of_tokenizer in rows]


def check_encoder(model: MetricModel) -> None:
    """Raise ConfigError if the config of the model shows that it cannot serve. Loads no weights."""
    from transformers import AutoModel

    with errors_about(model.key):
        config = check_config(model, AutoModel, ENCODER)
    _layer(model, config)


def _layer(model: MetricModel, config: Any) -> int:
    """Return the layer whose vectors are compared. Raise ConfigError if the model has not it."""
    count = int(config.num_hidden_layers)
    assert isinstance(model.section, BertscoreModelSection)
    wanted = model.section.layer
    if wanted is None:
        return count
    if wanted > count:
        raise ConfigError(
            f"{model.key}.layer: {model.base.uri} has {count} layers, got {wanted}; lower it"
        )
    return int(wanted)
