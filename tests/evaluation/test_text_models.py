"""Claims about faithfulness and BERTScore with real models, tiny ones that are trained here."""

import gc
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from job.config.commands import EvaluateConfig
from job.config.scoring_sections import (
    BertscoreModelSection,
    FaithfulnessModelSection,
    ScoringSection,
)
from job.config.sections import StorageSection
from job.conversations.record import Conversation, Turn
from job.errors import ConfigError, MissingError
from job.evaluation.metrics import models as text_models
from job.evaluation.metrics.bertscore import measure_bertscore
from job.evaluation.metrics.faithfulness import measure_faithfulness
from job.evaluation.metrics.metric import Sample
from job.evaluation.metrics.models import MetricModel, fetch_metric_model, loaded_encoder
from job.evaluation.metrics.named_models import fetch_models
from job.evaluation.result import Evaluation, model_sentences
from job.evaluation.run import run_evaluation
from job.evaluation.table import score_table
from job.model.fetch import Base
from tests.evaluation.conftest import ENDS, ITEMS, make_conversations
from tests.evaluation.text_models import MAX_TOKENS, save_classifier, train_classifier

pytestmark = pytest.mark.quality

NLI = ("contradiction", "neutral", "entailment")
KEY = "evaluation.faithfulness_model"


@pytest.fixture(autouse=True)
def alone(places: Path, one_thread: None) -> None:
    """Every test here has a cache and a work folder of its own."""


@pytest.fixture(scope="module")
def trained(one_thread: None) -> Any:
    return train_classifier()


@pytest.fixture(scope="module")
def nli(trained: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_classifier(trained, tmp_path_factory.mktemp("nli"), NLI)


def classifier(folder: Path, label: str | None = None) -> MetricModel:
    section = FaithfulnessModelSection(model=str(folder), label=label)
    return fetch_metric_model(KEY, section, StorageSection(), folder / "cache")


def encoder(folder: Path, layer: int | None = None) -> MetricModel:
    section = BertscoreModelSection(model=str(folder), layer=layer)
    return fetch_metric_model(
        "evaluation.bertscore_model", section, StorageSection(), folder / "cache"
    )


def right(conversation: Conversation) -> str:
    return conversation.references[0]


def wrong(conversation: Conversation) -> str:
    """The reference with another item and another end."""
    changed = []
    for sentence, kind in zip(conversation.references[0].split(". "), (ITEMS, ENDS), strict=True):
        said = next(each for each in kind if each in sentence)
        others = [each for each in kind if each not in (said, "refund")]
        changed.append(sentence.replace(said, others[0]))
    return ". ".join(changed)


def scores(summary: Callable[[Conversation], str], model: MetricModel, count: int = 12) -> Any:
    samples = [Sample(summary(each), each) for each in make_conversations(count)]
    return measure_faithfulness(samples, model)


def test_references_are_faithful_and_changed_ones_are_not(nli):
    assert scores(right, classifier(nli)).min() > 0.9
    assert scores(wrong, classifier(nli)).max() < 0.1


def test_a_single_output_scores_as_two_classes_do(trained, tmp_path):
    one = classifier(save_classifier(trained, tmp_path / "one", ["LABEL_0"]))
    two = classifier(save_classifier(trained, tmp_path / "two", ["inconsistent", "consistent"]))
    for summary in (right, wrong):
        assert scores(summary, one) == pytest.approx(scores(summary, two), abs=1e-5)


def test_the_supported_class_can_be_named(trained, tmp_path):
    folder = save_classifier(trained, tmp_path / "unnamed", ["LABEL_0", "LABEL_1"])
    with pytest.raises(ConfigError, match=r"its id2label has LABEL_0, LABEL_1.*model\.label"):
        scores(right, classifier(folder))
    assert scores(right, classifier(folder, "LABEL_1")).min() > 0.9


def test_a_conversation_longer_than_the_context_is_read_to_its_end(nli):
    filler = Turn("agent", "Sorry to hear that! Let me look into it. " * 5)
    talk = make_conversations(1)[0]
    long = talk._replace(turns=(filler,) * 8 + talk.turns + (filler,) * 8)
    one_turn = talk._replace(turns=(Turn("customer", " ".join(t.text for t in long.turns)),))
    samples = [Sample(right(talk), each) for each in (long, one_turn)]
    found = measure_faithfulness(samples, classifier(nli))
    assert found[0] > 0.9
    assert found[1] == pytest.approx(0.5, abs=0.1)  # no agent has said anything


def test_batches_that_exceed_memory_are_halved(nli, monkeypatch):
    expected = scores(right, classifier(nli))
    padded = text_models.padded
    sizes: list[int] = []

    def small(model: Any, texts: list[str], others: Any = None) -> Any:
        sizes.append(len(texts))
        if len(texts) > 4:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2 GiB")
        return padded(model, texts, others)

    monkeypatch.setattr("job.evaluation.metrics.faithfulness.padded", small)
    assert scores(right, classifier(nli)) == pytest.approx(expected, abs=1e-5)
    assert max(sizes) > 4


def test_a_pair_that_exceeds_memory_is_an_error_with_a_remedy(nli, monkeypatch):
    def never(*_: Any) -> Any:
        raise MemoryError

    monkeypatch.setattr("job.evaluation.metrics.faithfulness.padded", never)
    with pytest.raises(ConfigError, match=r"does not fit into memory with one text.*smaller model"):
        scores(right, classifier(nli))


def test_nothing_of_the_model_stays_in_memory(nli):
    import torch

    def tensors() -> int:
        gc.collect()
        return sum(type(each) is torch.nn.Parameter for each in gc.get_objects())

    scores(right, classifier(nli))
    before = tensors()
    scores(right, classifier(nli))
    assert tensors() == before


def test_a_model_without_a_head_is_no_classifier(trained, tmp_path):
    trained.bert.save_pretrained(tmp_path)
    shutil.copytree(save_classifier(trained, tmp_path / "full", NLI), tmp_path / "other")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(tmp_path / "full" / name, tmp_path / name)
    with pytest.raises(ConfigError, match=r"is no classifier of pairs.*lack classifier\.bias"):
        scores(right, classifier(tmp_path))


def test_a_base_that_generates_is_no_classifier(base_folder):
    with pytest.raises(
        ConfigError, match=r"is no classifier of pairs of texts.*lack score\.weight"
    ):
        scores(right, classifier(base_folder))


def test_code_of_a_model_is_never_run(nli, tmp_path):
    folder = shutil.copytree(nli, tmp_path / "own-code")
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "Own", "auto_map": {"AutoConfig": "own.Config"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    with pytest.raises(ConfigError, match="brings code of its own, which a metric never runs"):
        scores(right, classifier(folder))
    assert not (tmp_path / "ran").exists()


def test_a_missing_model_is_an_error_about_its_key(tmp_path):
    with pytest.raises(MissingError, match=rf"^{KEY}: '.*nowhere' is no folder here"):
        classifier(tmp_path / "nowhere")


def test_a_model_in_s3_is_fetched_and_its_digest_recorded(nli, s3, tmp_path):
    for file in nli.glob("*.*"):
        s3.client().upload_file(str(file), s3.bucket, f"judge/{file.name}")
    section = FaithfulnessModelSection(model=f"{s3.uri}/judge")
    model = fetch_metric_model(KEY, section, StorageSection(), tmp_path / "cache")
    assert scores(right, model).min() > 0.9
    assert model.record()["digest"] == classifier(nli).record()["digest"]


def test_bertscore_of_a_text_with_itself_is_one(nli):
    talk = make_conversations(1)[0]
    same, other = talk.references[0], "flight password router"
    samples = [Sample(text, talk, (same,)) for text in (same, other, "")]
    found = measure_bertscore(samples, encoder(nli))
    assert found[0] == pytest.approx(1)
    assert found[1] < 0.9999
    assert found[2] == 0


def test_bertscore_reads_texts_longer_than_the_context(nli):
    talk = make_conversations(1)[0]
    long = "parcel invoice router refund " * MAX_TOKENS
    found = measure_bertscore([Sample(long, talk, (long + "flight",))], encoder(nli))
    assert 0.9 < found[0] <= 1


def test_a_layer_that_is_not_there_is_an_error(nli):
    sample = Sample("parcel", make_conversations(1)[0], ("parcel",))
    assert measure_bertscore([sample], encoder(nli, layer=1))[0] == pytest.approx(1)
    with pytest.raises(ConfigError, match=r"bertscore_model\.layer: .* has 2 layers, got 3"):
        measure_bertscore([sample], encoder(nli, layer=3))


def test_positions_of_roberta_begin_behind_that_of_padding(nli, tmp_path):
    from transformers import RobertaConfig, RobertaModel

    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 1}
    config = RobertaConfig(
        vocab_size=60, num_hidden_layers=1, max_position_embeddings=50, pad_token_id=1, **sizes
    )
    RobertaModel(config).save_pretrained(tmp_path)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(nli / name, tmp_path / name)
    with loaded_encoder(encoder(tmp_path)) as loaded:
        assert loaded.max_tokens == 48


def test_a_class_that_cannot_be_told_is_found_without_loading_weights(trained, tmp_path):
    folder = save_classifier(trained, tmp_path / "unnamed", ["LABEL_0", "LABEL_1"])
    options = ScoringSection(faithfulness_model=FaithfulnessModelSection(model=str(folder)))
    with pytest.raises(ConfigError, match="its id2label has LABEL_0, LABEL_1"):
        fetch_models(options, StorageSection(), tmp_path)


@pytest.fixture
def evaluated(nli, tmp_path) -> Callable[..., Evaluation]:
    """`recap evaluate` of summaries of which every second is wrong; more keys can be given."""
    talks = make_conversations(12)
    records = [
        {
            "id": talk.id,
            "turns": [{"role": turn.role, "text": turn.text} for turn in talk.turns],
            "summaries": talk.references,
        }
        for talk in talks
    ]
    given = [
        {"id": talk.id, "summary": wrong(talk) if row % 2 else right(talk)}
        for row, talk in enumerate(talks)
    ]
    for name, lines in (("in", records), ("given", given)):
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (tmp_path / f"{name}.jsonl").write_text(text, encoding="utf-8")

    def evaluate(**keys: Any) -> Evaluation:
        content = {
            "run": "judge",
            "input": str(tmp_path / "in.jsonl"),
            "summaries": str(tmp_path / "given.jsonl"),
            "output": str(tmp_path / "out"),
            "evaluation": {
                "bootstrap_samples": 100,
                "faithfulness_model": {"model": str(nli)},
                "bertscore_model": {"model": str(nli)},
                **keys,
            },
        }
        return run_evaluation(EvaluateConfig.model_validate(content)).evaluation

    return evaluate


def test_recap_evaluate_scores_faithfulness_and_bertscore(evaluated, tmp_path):
    evaluation = evaluated()
    of = evaluation.systems
    assert of["given file"].scores["faithfulness"]["mean"].mean == pytest.approx(0.5, abs=0.1)
    assert of["human"].scores["faithfulness"]["mean"].mean > 0.9
    assert set(of["human"].scores["bertscore"]) == {"first", "mean", "best"}
    assert evaluation.differences["human"]["faithfulness"]["mean"].high < 0

    written = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert written["models"]["faithfulness"]["digest"]
    assert Evaluation.from_json(written).models == evaluation.models


def test_without_labels_faithfulness_is_uncalibrated_everywhere(evaluated, tmp_path):
    evaluation = evaluated()
    assert "Faithfulness (uncalibrated)" in score_table(evaluation)
    assert "Faithfulness (uncalibrated)" in (tmp_path / "out" / "report.html").read_text()
    (sentence,) = [text for text in model_sentences(evaluation) if "Faith" in text]
    assert "no labels of people" in sentence


def test_labels_of_people_calibrate_faithfulness(evaluated, tmp_path):
    lines = [
        {"id": talk.id, "summary": text(talk), "label": text is right}
        for talk in make_conversations(12)
        for text in (right, wrong)
    ]
    labels = tmp_path / "labels.jsonl"
    labels.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    evaluation = evaluated(faithfulness_labels=str(labels))
    agreement = evaluation.models["faithfulness"]["agreement"]
    assert (agreement["labels"], agreement["faithful"]) == (24, 12)
    assert agreement["auroc"]["mean"] > 0.95
    page = (tmp_path / "out" / "report.html").read_text()
    assert "Faithfulness (AUROC 1.00)" in page
    assert "uncalibrated" not in page


def test_a_hub_model_is_recorded_by_its_commit():
    base = Base("org/judge", "c0ffee", "d" * 64, Path("snapshot"))
    section = FaithfulnessModelSection(model="org/judge", revision="main")
    assert MetricModel(KEY, section, base).record()["revision"] == "c0ffee"
