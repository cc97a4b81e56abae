"""The models that a config names for its metrics, fetched before anything is generated."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from job.config.scoring_sections import MetricModelSection, ScoringSection
from job.config.sections import StorageSection
from job.conversations.record import Conversation
from job.errors import naming_key
from job.evaluation.metrics.bertscore import BERTSCORE
from job.evaluation.metrics.faithfulness import FAITHFULNESS, check_classifier, measure_labels
from job.evaluation.metrics.labels import read_labels
from job.evaluation.metrics.models import MetricModel, fetch_metric_model
from job.evaluation.metrics.reward import REWARD, fetch_reward_metric
from job.storage.open import list_inputs
from job.telemetry import event


def fetch_models(
    options: ScoringSection, storage: StorageSection, cache: Path
) -> dict[str, MetricModel]:
    """Bring the models that the config names to disk, and return them by their metric.

    Raise what `fetch_base` raises: MissingError for a model that is not there; ConfigError for a
    classifier whose config shows that it cannot serve.
    """
    models = {
        name: fetch_metric_model(f"evaluation.{name}_model", section, storage, cache)
        for name, section in sections_by_metric(options).items()
    }
    if options.reward_model is not None:
        models[REWARD.name] = fetch_reward_metric(options.reward_model, storage, cache)
    if FAITHFULNESS.name in models:
        check_classifier(models[FAITHFULNESS.name])
    return models


def sections_by_metric(options: ScoringSection) -> dict[str, MetricModelSection]:
    """Return the sections that name a model, by the metric that needs it; not a reward model's."""
    sections: dict[str, MetricModelSection | None] = {
        BERTSCORE.name: options.bertscore_model,
        FAITHFULNESS.name: options.faithfulness_model,
    }
    return {name: section for name, section in sections.items() if section is not None}


def compare_with_labels(
    models: dict[str, MetricModel],
    options: ScoringSection,
    storage: StorageSection,
    conversations: Sequence[Conversation],
    seed: int,
) -> dict[str, MetricModel]:
    """Return the models, the classifier with its agreement with the config's labels.

    Loads the classifier, and frees its memory. Raise DataError for labels that cannot be read.
    """
    uri = options.faithfulness_labels
    assert uri is not None, "no labels to compare with"
    model = models[FAITHFULNESS.name]
    with naming_key("evaluation.faithfulness_labels"):
        files = list_inputs([uri], storage)
    labels = read_labels(files, uri, conversations)
    agreement = measure_labels(labels, model, options.bootstrap_samples, seed)
    event(f"faithfulness: {agreement.sentence()}")
    return models | {FAITHFULNESS.name: replace(model, agreement=agreement)}
