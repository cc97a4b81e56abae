"""The front matter of a model card, by which the Hugging Face Hub finds, links and ranks it."""

from typing import Any

from job.evaluation.bootstrap import Interval
from job.evaluation.card.facts import HUB_DATASETS, CardFacts, data_name
from job.evaluation.metrics.all_metrics import available_metrics, quality_metrics
from job.evaluation.metrics.metric import Metric
from job.evaluation.result import Evaluation, NotScored, mean_score, metric_title

TASK = "summarization"
TAGS = ["lora", "qlora", "conversations", "recap"]


def front_matter(facts: CardFacts, evaluation: Evaluation | NotScored) -> dict[str, Any]:
    """Return the front matter of an adapter's card, or of that of merged weights."""
    front: dict[str, Any] = {}
    relation, library = ("finetune", "transformers") if facts.merged else ("adapter", "peft")
    if facts.is_base_on_hub:  # the Hub refuses a base_model that is no id of its own
        front |= {"base_model": facts.base_name, "base_model_relation": relation}
    front["library_name"] = library
    if facts.license is not None:
        front |= facts.license.front_matter()
    if facts.config.publish.language:
        front["language"] = list(facts.config.publish.language)
    front |= {"pipeline_tag": TASK, "tags": TAGS}
    uris = [uri for split in facts.splits for uri in split.uris]
    datasets = list(dict.fromkeys(data_name(uri) for uri in uris if uri.startswith(HUB_DATASETS)))
    if datasets:
        front["datasets"] = datasets
    if isinstance(evaluation, NotScored):
        return front

    measured = [
        (metric, score)
        for metric in available_metrics(evaluation.models)
        if (score := mean_score(evaluation, evaluation.judged, metric))
    ]
    of_hub = [metric.hub_type for metric in quality_metrics(evaluation.models)]
    front["metrics"] = list(dict.fromkeys(of_hub))
    scored = facts.splits[-1]
    result = {
        "task": {"type": TASK},
        "dataset": {
            "name": ", ".join(map(data_name, scored.uris)),
            "type": next(iter(datasets), "conversations"),
            "split": scored.name,
        },
        "metrics": [_front_metric(evaluation, metric, score) for metric, score in measured],
    }
    return front | {"model-index": [{"name": facts.config.run, "results": [result]}]}


def _front_metric(evaluation: Evaluation, metric: Metric, score: Interval) -> dict[str, Any]:
    return {
        "type": metric.hub_type,
        "name": metric_title(evaluation, metric),
        "value": round(score.mean, 4),
        "args": {
            "interval_95": [round(score.low, 4), round(score.high, 4)],
            "conversations": score.conversations,
            "tokenizer": evaluation.tokenizer,
        },
    }
