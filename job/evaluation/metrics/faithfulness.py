"""Faithfulness: does the conversation say what the summary says, by a classifier of text pairs.

A classifier for natural language inference, or one trained to find inconsistent summaries, reads a
premise of the conversation beside a sentence of the summary. As SummaC's zero-shot scheme does
(Laban et al., TACL 2022), a sentence has the probability of the premise that supports it best, and
a summary the mean of its sentences. They found single sentences the best premises for texts, while
in a conversation question and answer often make a fact together. So premises are each turn alone,
each three turns in a row, and the whole conversation in as few pieces as the classifier reads.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from job.config.scoring_sections import FaithfulnessModelSection
from job.conversations.record import Conversation, Turn
from job.errors import ConfigError
from job.evaluation.metrics.agreement import UNCALIBRATED, Agreement, measure_agreement
from job.evaluation.metrics.labels import Labelled
from job.evaluation.metrics.metric import Metric, Sample
from job.evaluation.metrics.models import (
    CLASSIFIER,
    LoadedModel,
    MetricModel,
    check_config,
    errors_about,
    in_batches,
    in_blocks,
    loaded_classifier,
    padded,
    pieces,
)
from job.evaluation.metrics.sentences import sentences

WINDOW = 3  # turns in a row
SUMMARIES_AT_ONCE = 64  # bounds the memory for pairs
# Of the tokens that a classifier reads: more of a sentence of a summary would leave a premise no
# room.
SENTENCE_SHARE = 1 / 3

# Names of the class "the premise supports the sentence" in published classifiers.
SUPPORTED = frozenset(
    ["entailment", "entails", "entailed", "entail", "consistent", "supported", "supports",
     "support", "faithful", "factual", "grounded", "aligned"]
)  # fmt: skip


def measure_faithfulness(
    samples: Sequence[Sample], model: MetricModel | None
) -> NDArray[np.float64]:
    """Return each summary's faithfulness, 0 to 1; NaN for one that says nothing.

    Loads the classifier, and frees its memory. Raise ConfigError if it cannot serve.
    """
    assert model is not None, "faithfulness needs a model"
    with loaded_classifier(model) as classifier:
        probability = classify_with(classifier)
        room = Room.of(classifier)

        def score(block: Sequence[Sample]) -> list[float]:
            return score_samples(block, probability, room)

        return in_blocks(samples, SUMMARIES_AT_ONCE, "scoring faithfulness", score)


FAITHFULNESS = Metric(
    name="faithfulness",
    title=f"Faithfulness ({UNCALIBRATED})",
    short_title="Faith.",
    hub_type="faithfulness",
    direction="higher",
    low=0,
    high=1,
    unit="score",
    needs=("conversation", "model"),
    about="Probability, by a classifier, that the conversation supports the summary's sentences.",
    measure=measure_faithfulness,
    libraries=("torch", "transformers"),
)


def check_classifier(model: MetricModel) -> None:
    """Raise ConfigError if the config of the model shows that it cannot serve. Loads no weights."""
    from transformers import AutoModelForSequenceClassification

    with errors_about(model.key):
        config = check_config(model, AutoModelForSequenceClassification, CLASSIFIER)
    supported_label(model, config.id2label)


def measure_labels(
    labels: Sequence[Labelled], model: MetricModel, samples: int, seed: int
) -> Agreement:
    """Score summaries that people labelled, and return the agreement. `samples` are resamples."""
    scores = measure_faithfulness(
        [Sample(each.summary, each.conversation) for each in labels], model
    )
    return measure_agreement(scores.tolist(), [each.is_faithful for each in labels], samples, seed)


@dataclass(frozen=True)
class Room:
    """The tokens that a classifier has for both texts of a pair, and how they are counted."""

    tokens: int
    count: Callable[[str], int]

    @staticmethod
    def of(model: LoadedModel) -> "Room":
        """Return the room of a loaded classifier, less the tokens that its tokenizer adds."""
        added = model.tokenizer.num_special_tokens_to_add(pair=True)
        return Room(model.max_tokens - added, model.count)


Pair = tuple[str, str]  # premise, sentence of the summary
Probability = Callable[[Sequence[Pair]], Sequence[float]]


def score_samples(samples: Sequence[Sample], probability: Probability, room: Room) -> list[float]:
    """Return the score of each summary: the mean over its sentences of their best premise."""
    sentences_of = [summary_sentences(sample.summary, room) for sample in samples]
    premises_of = [
        premises(sample.conversation, room, texts)
        for sample, texts in zip(samples, sentences_of, strict=True)
    ]
    pairs: dict[Pair, float] = {}
    for premise_texts, texts in zip(premises_of, sentences_of, strict=True):
        pairs |= {(premise, text): 0.0 for text in texts for premise in premise_texts}
    pairs = dict(zip(pairs, probability(list(pairs)), strict=True))

    scores = []
    for premise_texts, texts in zip(premises_of, sentences_of, strict=True):
        best = [max(pairs[premise, text] for premise in premise_texts) for text in texts]
        scores.append(float(np.mean(best)) if best else np.nan)
    return scores


def summary_sentences(summary: str, room: Room) -> list[str]:
    """Return the sentences of a summary; one that is too long is cut."""
    most = int(room.tokens * SENTENCE_SHARE)
    found = []
    for sentence in sentences(summary):
        found += pieces(sentence, lambda text: room.count(text) <= most)
    return [sentence for sentence in found if sentence]


def premises(conversation: Conversation, room: Room, texts: Sequence[str]) -> list[str]:
    """Return the premises for these sentences: all that fits beside the longest of them.

    A turn that is too long is cut. Three turns in a row that are too long are left out, since each
    of them is a premise by itself.
    """
    left = room.tokens - max(map(room.count, texts), default=0)

    def fits(text: str) -> bool:
        return room.count(text) <= left

    lines = [f"{turn.role}: {turn.text}" for turn in conversation.turns]
    turns = [line for turn in conversation.turns for line in _lines_of(turn, fits)]
    windows = ["\n".join(lines[at : at + WINDOW]) for at in range(len(lines) - WINDOW + 1)]
    found = [*turns, *filter(fits, windows), *_packed(turns, fits)]
    return list(dict.fromkeys(found))


def _lines_of(turn: Turn, fits: Callable[[str], bool]) -> list[str]:
    """Return the turn behind its speaker's name, in several such lines if it is too long."""

    def fits_behind_name(text: str) -> bool:
        return fits(f"{turn.role}: {text}")

    return [f"{turn.role}: {piece}" for piece in pieces(turn.text, fits_behind_name)]


def _packed(turns: Sequence[str], fits: Callable[[str], bool]) -> list[str]:
    """Return the turns in as few texts as fit, in their order."""
    packed: list[str] = []
    for turn in turns:
        longer = f"{packed[-1]}\n{turn}" if packed else turn
        if packed and fits(longer):
            packed[-1] = longer
        else:
            packed.append(turn)
    return packed


def classify_with(classifier: LoadedModel) -> Probability:
    """Return the function that gives a pair its probability of being supported."""
    network = classifier.network
    label = supported_label(classifier.name, network.config.id2label)

    def probability(pairs: Sequence[Pair]) -> Sequence[float]:
        added = classifier.tokenizer.num_special_tokens_to_add(pair=True)
        texts = {text for pair in pairs for text in pair}
        counts = {text: classifier.count(text) for text in texts}
        lengths = [counts[premise] + counts[text] + added for premise, text in pairs]

        def compute(batch: list[int]) -> Sequence[float]:
            return _probabilities(classifier, [pairs[index] for index in batch], label)

        return in_batches(lengths, compute, classifier.name)

    return probability


def _probabilities(classifier: LoadedModel, pairs: Sequence[Pair], label: int) -> Sequence[float]:
    import torch

    inputs = padded(classifier, [pair[0] for pair in pairs], [pair[1] for pair in pairs])
    del inputs["special_tokens_mask"]
    with torch.inference_mode():
        logits = classifier.network(**inputs).logits.float()
    if logits.shape[1] == 1:
        found: list[float] = logits[:, 0].sigmoid().tolist()
    else:
        found = logits.softmax(dim=1)[:, label].tolist()
    return found


def supported_label(model: MetricModel, names: Mapping[Any, str]) -> int:
    """Return the index of the class that means "supported".

    A classifier with a single output has no other. Raise ConfigError if the names of the classes do
    not tell.
    """
    classes = {int(index): str(name) for index, name in names.items()}
    if len(classes) == 1:
        return next(iter(classes))
    assert isinstance(model.section, FaithfulnessModelSection)
    wanted = model.section.label
    if wanted is not None:
        found = [index for index, name in classes.items() if name == wanted]
    else:
        found = [index for index, name in classes.items() if name.strip().lower() in SUPPORTED]
    if len(found) == 1:
        return found[0]
    shown = ", ".join(f"{name}" for name in classes.values())
    raise ConfigError(
        f"{model.key}: cannot tell which class of {model.base.uri} means that a sentence is "
        f"supported: its id2label has {shown}, wanted one of "
        f"{wanted or 'entailment, consistent, supported'}; name it by {model.key}.label"
    )
