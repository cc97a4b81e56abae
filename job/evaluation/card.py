"""The model card: README.md of an adapter.

It has what the adapter is, how to use it, what it was trained on and what it scores, floors and bad
news included, with the front matter that the Hugging Face Hub reads. No text of a conversation goes
into it: a card may be public.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from html import escape
from typing import Any

import yaml

from job.config.commands import TrainConfig
from job.config.sections import to_plain
from job.evaluation.bootstrap import Interval
from job.evaluation.floors import CONSTANT, LEAD
from job.evaluation.metrics.all_metrics import HEADLINE, quality_metrics
from job.evaluation.metrics.metric import Metric
from job.evaluation.result import (
    HOW_TO_SCORE,
    Evaluation,
    NotScored,
    comparison_sentence,
    floors,
    mean_score,
    metric_title,
    model_sentences,
    other_systems,
    ranked_systems,
    verdict,
    warnings,
)
from job.model.quantization import WeightsInMemory
from job.printable import visible
from job.prompt.template import Prompt

CAUSAL = "AutoModelForCausalLM"
HUB_DATASETS = "hf://datasets/"
FLOORS = (
    f"The {CONSTANT} is one fixed reference, the one that suits the others best: a model that no "
    "longer reads the conversation\n"
    f"scores about as much. {LEAD} is the first two turns as written. Scores are ROUGE\n"
    "F-measures, the mean over each conversation's references; in brackets stands the 95% interval "
    "of the\n"
    "mean over conversations."
)
LIMITS = (
    "ROUGE counts shared words. It does not see whether a summary is true: read summaries before "
    "you rely on them, and expect\n"
    "worse where conversations are longer, in another language or about other things than those it "
    "was trained on. Summaries\n"
    "can name people, orders or accounts that stand in the conversation. Text in a conversation "
    "can try to steer its summary.\n"
)


@dataclass(frozen=True)
class Split:
    """Conversations that a run used.

    `name` is train or validation, `digest` that of the content.
    """

    name: str
    uris: Sequence[str]
    conversations: int
    digest: str


@dataclass(frozen=True)
class CardFacts:
    """The facts of a card besides the scores.

    `base` is `Base.identity()`: uri, revision (only of a Hub id) and digest. The scores are those
    of the last of `splits`.
    """

    config: TrainConfig
    base: Mapping[str, str | None]
    prompt: Prompt
    splits: Sequence[Split]
    versions: Mapping[str, str]
    weights: WeightsInMemory | None = None  # of the base in training
    reload: str | None = None  # how it was reloaded before it was published, in a sentence


def model_card(facts: CardFacts, evaluation: Evaluation | NotScored) -> str:
    """Return the whole README.md; without scores, it has the reason why."""
    scores = _reason(evaluation) if isinstance(evaluation, NotScored) else _scores(evaluation)
    front = _yaml(_front_matter(facts, evaluation))
    base = f"`{_base_name(facts)}`"
    if facts.base.get("revision"):
        base += f" at revision `{facts.base['revision']}`"
    paragraphs = [
        f"---\n{front}---",
        f"# {facts.config.run}",
        f"A LoRA adapter that makes {base} summarize conversations. It was trained with QLoRA by "
        "recap.",
        "## How good it is",
        scores,
        "## How to use it",
        _usage(facts),
        "## What it was trained on",
        _data(facts),
        "## How it was trained",
        _settings(facts),
        "## Limits",
        f"{LIMITS}The license of the base model applies.",
    ]
    return visible("\n\n".join(paragraphs) + "\n")


def _front_matter(facts: CardFacts, evaluation: Evaluation | NotScored) -> dict[str, Any]:
    front: dict[str, Any] = {}
    if facts.base.get("revision"):  # the Hub refuses a base_model that is no id of its own
        front |= {"base_model": _base_name(facts), "base_model_relation": "adapter"}
    front |= {
        "library_name": "peft",
        "pipeline_tag": "summarization",
        "tags": ["lora", "qlora", "conversations", "recap"],
    }
    uris = [uri for split in facts.splits for uri in split.uris]
    datasets = list(dict.fromkeys(_data_name(uri) for uri in uris if uri.startswith(HUB_DATASETS)))
    if datasets:
        front["datasets"] = datasets
    if isinstance(evaluation, NotScored):
        return front

    scored = facts.splits[-1]
    result = {
        "task": {"type": "summarization"},
        "dataset": {
            "name": ", ".join(_data_name(uri) for uri in scored.uris),
            "type": datasets[0] if datasets else "conversations",
            "split": scored.name,
        },
        "metrics": [
            _front_metric(evaluation, metric, score)
            for metric in quality_metrics(evaluation.models)
            if (score := mean_score(evaluation, evaluation.judged, metric))
        ],
    }
    return front | {"model-index": [{"name": facts.config.run, "results": [result]}]}


def _front_metric(evaluation: Evaluation, metric: Metric, score: Interval) -> dict[str, Any]:
    return {
        "type": metric.hub_type,
        "name": metric_title(evaluation, metric),
        "value": round(score.mean, 4),
        "args": {"tokenizer": evaluation.tokenizer},
    }


def _reason(reason: NotScored) -> str:
    return f"> **Warning:** This adapter has no scores: {_text(reason.why)}. {HOW_TO_SCORE}"


def _scores(evaluation: Evaluation) -> str:
    notes = [f"> **Warning:** {_text(text)}" for text in warnings(evaluation)]
    verdicts = {verdict(evaluation, name) for name in floors(evaluation)}
    if verdicts & {"loses to", "cannot be told apart from"}:
        notes.append("> **Warning:** By these numbers there is no reason to use this adapter.")

    comparisons = [
        f"- {_text(comparison_sentence(evaluation, name))}." for name in other_systems(evaluation)
    ]
    metrics = quality_metrics(evaluation.models)
    heads = " | ".join(metric_title(evaluation, metric) for metric in metrics)
    table = [
        f"| | {heads} | words |",
        "|---" + "|---:" * (len(metrics) + 1) + "|",
        *(_score_row(evaluation, name) for name in ranked_systems(evaluation)),
    ]
    paragraphs = [
        *notes,
        f"On {evaluation.conversations:,} conversations with {evaluation.references:,} reference "
        f"summaries, by {HEADLINE.title}:",
        "\n".join(comparisons),
        "\n".join(table),
        f"References have {evaluation.reference_words.mean:.1f} words on average. {FLOORS} "
        f"Words are cut by the tokenizer `{evaluation.tokenizer}` (of a-z: Porter stems).",
        *(_text(sentence) for sentence in model_sentences(evaluation)),
    ]
    return "\n\n".join(paragraphs)


def _score_row(evaluation: Evaluation, name: str) -> str:
    label = f"**{_text(name)}**" if name == evaluation.judged else _text(name)
    cells = []
    for metric in quality_metrics(evaluation.models):
        score = mean_score(evaluation, name, metric)
        cells.append(f"{score.mean:.3f} [{score.low:.3f}, {score.high:.3f}]" if score else "")
    words = evaluation.systems[name].words.mean
    return f"| {label} | {' | '.join(cells)} | {words:.1f} |"


def _usage(facts: CardFacts) -> str:
    return (
        "With recap, which also handles conversations that are too long, and files of them:\n\n"
        "```yaml\n"
        "run: nightly\n"
        "input: conversations.jsonl\n"
        "adapter: path/to/this/folder\n"
        "output: summaries/\n"
        "```\n\n"
        "```sh\nrecap summarize config.yaml\n```\n\n"
        "Or with transformers and peft. `prompt.json` holds the text around the conversation; "
        "control tokens that a customer typed must stay ordinary text, so the conversation is "
        f"encoded apart from it:\n\n```python\n{usage_code(facts)}```"
    )


def usage_code(facts: CardFacts) -> str:
    """Return a Python program that summarizes a conversation, encoded exactly as recap does."""
    base = str(facts.base["uri"])
    generation = facts.config.generation
    kind = facts.weights.auto_class if facts.weights else CAUSAL
    if base.startswith("s3://") or kind != CAUSAL:
        peft = "PeftModel"
        transformers = f"{kind}, AutoTokenizer"
        where, note = _base_name(facts), ""
        if base.startswith("s3://"):
            where, note = "path/to/base", f"  # a copy of {base}"
        load = (
            f"base = {json.dumps(where)}{note}\n"
            f'model = {kind}.from_pretrained(base, dtype="auto", device_map="auto")\n'
            "model = PeftModel.from_pretrained(model, adapter).eval()\n"
        )
    else:
        peft = "AutoPeftModelForCausalLM"
        transformers = "AutoTokenizer"
        load = (
            "model = AutoPeftModelForCausalLM.from_pretrained("
            'adapter, dtype="auto", device_map="auto").eval()\n'
        )
    sampling = "do_sample=False"
    if generation.temperature:
        sampling = f"do_sample=True, temperature={generation.temperature}, top_p={generation.top_p}"
    encode = _ENCODE_CHAT if facts.prompt.control_tokens else _ENCODE_INSTRUCTION
    return (
        f"import json\n\nimport torch\nfrom peft import {peft}\n"
        "from tokenizers import Tokenizer\n"
        f'from transformers import {transformers}\n\nadapter = "path/to/this/folder"\n'
        'with open(f"{adapter}/prompt.json", encoding="utf-8") as file:\n'
        "    prompt = json.load(file)\n"
        f"tokenizer = AutoTokenizer.from_pretrained(adapter)\n{load}\n{_TURNS}{encode}"
        "ids = torch.tensor([ids], device=model.device)\n"
        "answer = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), "
        f"max_new_tokens={generation.max_new_tokens}, {sampling})\n"
        "print(tokenizer.decode(answer[0, ids.shape[1] :], skip_special_tokens=True).strip())\n"
    )


_TURNS = (
    'turns = [("customer", "My parcel is five days late, where is it?"), '
    '("agent", "Sorry! It arrives tomorrow by noon.")]\n'
    """\
text = "\\n".join(f"{prompt['labels'].get(role, role)}: {said}" for role, said in turns)

core = json.loads(tokenizer.backend_tokenizer.to_str())
"""
    'for token in core["added_tokens"]:  # also those that a chat model marks as not special, such '
    "as <think>\n"
    """\
    token["special"] |= not token["content"].replace("▁", " ").isspace()
core = Tokenizer.from_str(json.dumps(core | {"truncation": None, "padding": None}))
core.encode_special_tokens = True


def plain(text):
    return core.encode(text, add_special_tokens=False).ids


"""
)
_ENCODE_INSTRUCTION = """\
start = tokenizer.convert_tokens_to_ids(prompt["begin"])
ids = start + plain(prompt["before"] + text + prompt["after"])
"""
_ENCODE_CHAT = """\
before = tokenizer(prompt["before"], add_special_tokens=False)["input_ids"]
after = tokenizer(prompt["after"], add_special_tokens=False)["input_ids"]
ids = before + plain(text) + after
"""


def _data(facts: CardFacts) -> str:
    rows = ["| split | data | conversations | SHA-256 of the content |", "|---|---|---:|---|"]
    for split in facts.splits:
        names = _text(", ".join(_data_name(uri) for uri in split.uris))
        rows.append(f"| {split.name} | {names} | {split.conversations:,} | `{split.digest}` |")
    return "\n".join(rows)


def _settings(facts: CardFacts) -> str:
    config = facts.config
    sections = {
        "model": config.model,
        "lora": config.lora,
        "training": config.training,
        "prompt": config.prompt,
    }
    shown = {name: to_plain(section) for name, section in sections.items()}
    # The card has both above, as they were resolved.
    del shown["model"]["base"], shown["model"]["revision"]
    prompt = json.dumps(asdict(facts.prompt), ensure_ascii=False, indent=2)
    versions = ", ".join(f"{name} {number}" for name, number in facts.versions.items())
    weights = f" In memory, {facts.weights.sentence()}." if facts.weights else ""
    reload = f" The adapter was {_text(facts.reload)}." if facts.reload else ""
    return (
        f"The base's weights have the digest `{facts.base.get('digest')}`.{weights}{reload}\n\n"
        f"```yaml\n{_yaml(shown)}```\n\n"
        f"`prompt.json`:\n\n```json\n{prompt}\n```\n\nVersions: {versions}."
    )


def _yaml(content: Mapping[str, Any]) -> str:
    text: str = yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=1000)
    return text


def _base_name(facts: CardFacts) -> str:
    return str(facts.base["uri"]).removeprefix("hf://")


def _data_name(uri: str) -> str:
    """Return a Hub dataset's id, or the last part of a path.

    The card may be public, and names of buckets need not be.
    """
    if uri.startswith(HUB_DATASETS):
        return "/".join(uri.removeprefix(HUB_DATASETS).split("/")[:2])
    return uri.rstrip("/").rsplit("/", 1)[-1]


def _text(text: str) -> str:
    """Return text for Markdown, in which neither a table nor HTML begins."""
    return escape(visible(text, one_line=True), quote=False).replace("|", "\\|").replace("`", "'")
