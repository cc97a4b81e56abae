"""Plan the models that metrics read texts with, and the labels of people. Reads no weights."""

from collections.abc import Sequence

from job.config.scoring_sections import MetricModelSection, ScoringSection
from job.config.sections import StorageSection
from job.conversations.record import Conversation
from job.evaluation.metrics.bertscore import check_encoder
from job.evaluation.metrics.faithfulness import check_classifier
from job.evaluation.metrics.labels import read_labels
from job.evaluation.metrics.models import MetricModel, errors_about
from job.evaluation.metrics.named_models import sections_by_metric
from job.model.fetch import Base
from job.preflight.access import describe_base, small_files
from job.preflight.checks import Check, check
from job.storage.open import list_inputs


def metric_model_checks(
    options: ScoringSection, storage: StorageSection, conversations: Sequence[Conversation]
) -> list[Check]:
    """Return a check of each model that a metric needs, and one of the labels, if there are any."""
    checks = []
    for metric, section in sections_by_metric(options).items():
        key = f"evaluation.{metric}_model"

        def describe(key: str = key, section: MetricModelSection = section) -> str:
            return describe_metric_model(key, section, storage)

        checks.append(check(metric, describe, key))
    uri = options.faithfulness_labels
    if uri is not None:

        def read() -> str:
            labels = read_labels(list_inputs([uri], storage), uri, conversations)
            faithful = sum(label.is_faithful for label in labels)
            return f"{len(labels):,} labels, {faithful:,} faithful"

        checks.append(check("labels", read, "evaluation.faithfulness_labels"))
    return checks


def describe_metric_model(key: str, section: MetricModelSection, storage: StorageSection) -> str:
    """Return the files of the model that the config names by `key`, for people.

    Raise what its job raises for a model that is missing or cannot serve.
    """
    uri, revision = section.model, section.revision
    with errors_about(key), small_files(uri, revision, storage) as small:
        line = describe_base(uri, revision, storage)
        model = MetricModel(key, section, Base(uri, None, "", small.folder))
        if key.endswith("faithfulness_model"):
            check_classifier(model)
        else:
            check_encoder(model)
    return line
