import json
import re
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from job.config.commands import TrainConfig
from job.conversations.record import Conversation, Source, Turn
from job.evaluation.bootstrap import Interval
from job.evaluation.card.facts import CardFacts, Split, text_of
from job.evaluation.card.page import model_card
from job.evaluation.card.usage import program, recipe
from job.evaluation.gate import Check, GateResult
from job.evaluation.metrics.all_metrics import METRICS
from job.evaluation.result import Evaluation, Kind, NotScored
from job.model.license import License
from job.model.quantization import FourBitShare, WeightsInMemory
from job.prompt.encode import Encoder
from job.prompt.template import Prompt

INSTRUCTION = Prompt(
    before="### Instruction: Summarize.\n\n### Input:\n",
    after="\n\n### Response:\n",
    control_tokens=False,
    labels={"customer": "user"},
    cleaning=(),
    begin=("<s>",),
)
CHAT = Prompt("<s>[INST] Summarize.\n", " [/INST]", True, {}, cleaning=(), begin=())
HUB = {"uri": "hf://org/base", "revision": "a" * 40, "digest": "d" * 64}
CONFIG = TrainConfig.model_validate(
    {
        "run": "tweetsumm",
        "model": {"base": "org/base"},
        "data": {
            "train": "s3://secret-bucket/data/train.json",
            "validation": "hf://datasets/org/tweets/test.json",
        },
        "output": "s3://secret-bucket/runs",
        "generation": {"max_new_tokens": 4},
    }
)


def facts(**changes: Any) -> CardFacts:
    splits = [
        Split("train", ["s3://secret-bucket/data/train.json"], 900, "e" * 64),
        Split("validation", ["hf://datasets/org/tweets/test.json"], 110, "f" * 64),
    ]
    return replace(
        CardFacts(CONFIG, HUB, INSTRUCTION, splits, {"recap": "0.1.0", "torch": "2.13.0"}, [257]),
        **changes,
    )


def front_matter(card: str) -> dict[str, Any]:
    assert card.startswith("---\n")
    found: dict[str, Any] = yaml.safe_load(card.split("---\n")[1])
    return found


def test_the_hub_reads_base_library_task_and_scores_from_the_front_matter(good: Evaluation) -> None:
    from huggingface_hub import ModelCard, ModelCardData

    of_base = License("llama3.1", None, "LICENSE")
    card = ModelCard(model_card(facts(license=of_base), good), ignore_metadata_errors=False)
    data = card.data
    assert (data.base_model, data.library_name, data.pipeline_tag, data.license) == (
        "org/base",
        "peft",
        "summarization",
        "llama3.1",
    )
    assert data.datasets == ["org/tweets"]
    assert data.model_name == "tweetsumm"
    scores = {result.metric_name: result.metric_value for result in data.eval_results}
    own = good.systems["tuned"].scores
    assert scores == {
        metric.title: round(own[metric.name]["mean"].mean, 4)
        for metric in METRICS
        if metric.name in own
    }
    # What huggingface_hub makes of it, it reads again as the same.
    again = ModelCard(f"---\n{ModelCardData(**data.to_dict()).to_yaml()}\n---\n")
    assert again.data.to_dict() == data.to_dict()


def test_a_license_and_a_language_of_the_config_stand_in_the_front_matter(good):
    config = {**CONFIG.model_dump(), "publish": {"license": "other", "language": ["en", "de"]}}
    found = facts(config=TrainConfig.model_validate(config), license=License("other"))
    front = front_matter(model_card(found, good))
    assert (front["license"], front["language"]) == ("other", ["en", "de"])
    assert "license" not in front_matter(model_card(facts(), good))
    assert "It is not known under which license the base is." in model_card(facts(), good)


@pytest.mark.parametrize("uri", ["s3://bucket/base", "models/base", "/srv/models/base"])
def test_a_base_that_is_not_on_the_hub_is_no_base_model_for_it(uri: str, good: Evaluation) -> None:
    card = model_card(facts(base={"uri": uri, "revision": None, "digest": "d" * 64}), good)
    assert "base_model" not in front_matter(card)
    assert f"`{uri}`" in card


def test_the_card_tells_scores_floors_data_settings_and_versions(good: Evaluation) -> None:
    card = model_card(facts(), replace(good, equal_to_reference=0))
    assert "tuned beats the constant sentence by" in card
    assert "Warning" not in card
    assert f"| train | train.json | 900 | `{'e' * 64}` |" in card
    assert "learning_rate: 0.0002" in card
    assert "recap 0.1.0, torch 2.13.0" in card


def test_the_card_names_no_bucket_of_the_data_and_quotes_no_reference(good: Evaluation) -> None:
    card = model_card(facts(), good)
    assert "secret-bucket" not in card
    assert good.systems["constant sentence"].most_common not in card


def test_an_adapter_that_does_not_beat_a_floor_says_so(collapsed: Evaluation) -> None:
    card = model_card(facts(), collapsed)
    assert "tuned is not shown to beat the constant sentence" in card
    assert "> **Warning:** Not worth using: tuned " in card
    assert "it has collapsed." in card
    assert "helps" not in card, "no summary is quoted in a public place"


def with_gain_over(evaluation: Evaluation, kind: Kind, low: float, high: float) -> Evaluation:
    """Return the evaluation with another opponent, of this kind."""
    base = "base without adapter"
    systems = evaluation.systems | {"rival": replace(evaluation.systems[base], kind=kind)}
    gain = {"mean": Interval((low + high) / 2, low, high, evaluation.conversations)}
    return replace(
        evaluation,
        systems=systems,
        differences=evaluation.differences | {"rival": {"rougeL": gain, "chrf": gain}},
    )


@pytest.mark.parametrize(
    ("kind", "warning"),
    [
        ("base", "Not worth using: tuned loses to rival by 0.17"),
        ("other", "Keep rival: tuned loses to rival by 0.17"),
    ],
)
def test_the_card_judges_as_the_report_does(good: Evaluation, kind: Kind, warning: str) -> None:
    lost = with_gain_over(good, kind, -0.18, -0.16)
    assert f"> **Warning:** {warning}" in model_card(facts(), lost)
    few = replace(good, conversations=5, differences={})
    assert "> **Warning:** Nobody can tell" in model_card(facts(), few)


def test_the_card_of_a_passed_gate_does_not_contradict_it(good: Evaluation) -> None:
    tied = with_gain_over(good, "floor", -0.01, 0.01)
    check = Check("better than base", "base", "chrf", "better", 0.0, True, "", 0.1, 0.05, 0.2)
    gate = GateResult(True, "tuned", "chrf", 40, "not named", None, [check])
    card = model_card(facts(gate=gate), tied)
    assert "\nWorth using: tuned passed all checks of its gate (1)" in card
    assert "worth using" not in card.replace("Worth using: tuned passed", "")


def test_a_sampling_adapter_is_used_with_sampling() -> None:
    sampling = CONFIG.model_copy(
        update={"generation": CONFIG.generation.model_copy(update={"temperature": 0.5})}
    )
    assert "do_sample=True, temperature=0.5, top_p=1.0" in program(facts(config=sampling))
    assert "eos_token_id=[257], do_sample=False" in program(facts())


@pytest.mark.parametrize(
    ("uri", "revision", "lines"),
    [
        (
            "hf://org/base",
            "a" * 40,
            [
                "from peft import AutoPeftModelForCausalLM",
                'model = AutoPeftModelForCausalLM.from_pretrained(".", dtype="auto", '
                'device_map="auto")',
            ],
        ),
        (
            "/srv/base",
            None,
            [
                "import peft, transformers",
                "model = peft.PeftModel.from_pretrained(transformers.AutoModelForCausalLM."
                'from_pretrained("/srv/base", dtype="auto", device_map="auto"), ".")',
            ],
        ),
        (
            's3://bucket/a "base"',
            None,
            [
                "import subprocess, peft, transformers",
                'subprocess.run(["aws", "s3", "sync", "s3://bucket/a \\"base\\"", '
                '"base-a \\"base\\""], check=True)',
                "model = peft.PeftModel.from_pretrained(transformers.AutoModelForCausalLM."
                'from_pretrained("base-a \\"base\\"", dtype="auto", device_map="auto"), ".")',
            ],
        ),
    ],
)
def test_three_lines_load_an_adapter_wherever_its_base_is(uri, revision, lines, good):
    found = facts(base={"uri": uri, "revision": revision, "digest": "d" * 64})
    assert recipe(found).splitlines() == lines
    assert f"```python\n{recipe(found)}```" in model_card(found, good)


def test_the_card_has_the_share_in_4_bits_and_the_class_of_the_base(good) -> None:
    share = FourBitShare(four_bit=6_000, total=10_000, embeddings=2_000)
    weights = WeightsInMemory("nf4-double", "fp8", "AutoModelForMultimodalLM", share)
    card = model_card(facts(weights=weights), good)
    assert "6,000 of 10,000 parameters were in 4 bits (2,000 are those of embeddings)" in card
    assert "quantization: nf4-double, read from fp8" in card
    assert recipe(facts(weights=weights)) == (
        "import peft, transformers\n"
        "model = peft.PeftModel.from_pretrained(transformers.AutoModelForMultimodalLM."
        f'from_pretrained("org/base", revision="{"a" * 40}", dtype="auto", device_map="auto"), '
        '".")\n'
    )


def test_the_verdict_of_a_gate_and_what_it_demanded_stand_on_the_card(good):
    check = Check("x", "lead-2", "rougeL", "better", 0.0, True, "tuned is better", 0.1, 0.05)
    passed = GateResult(True, "tuned", "rougeL", 40, "none yet", checks=[check])
    card = model_card(facts(gate=passed), good)
    assert (
        "**Gate:** tuned passed the gate: 1 check on 40 conversations.\n\n- tuned is better."
        in card
    )
    failed = replace(passed, passed=False, reason="it has no scores")
    assert "> **Warning:** tuned did not pass the gate: it has no scores." in model_card(
        facts(gate=failed), NotScored("the memory was too small", "")
    )


HOSTILE = "</code><script>alert(1)</script>`![x](http://e.vil)|\x1b[31m\u202e\n# title\n```\n---\n"


def test_hostile_names_do_nothing_in_a_card(good):
    """Whatever can be interpolated: names of files, systems, labels, a system prompt, a base."""
    config = CONFIG.model_dump() | {
        "prompt": {"system": HOSTILE, "labels": {"customer": HOSTILE}},
        "data": {"train": f"s3://b/{HOSTILE.replace('/', '')}"},
    }
    systems = {HOSTILE if name == "tuned" else name: s for name, s in good.systems.items()}
    found = facts(
        config=TrainConfig.model_validate(config),
        base={"uri": f"models/{HOSTILE}", "revision": None, "digest": "d" * 64},
        prompt=replace(INSTRUCTION, before=HOSTILE, labels={"customer": HOSTILE}),
        splits=[Split("train", [HOSTILE.replace("/", "")], 1, "e" * 64)],
        reload=HOSTILE,
    )
    card = model_card(found, replace(good, systems=systems, judged=HOSTILE))
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", card)
    outside = without_code(card.split("---\n", 2)[2])
    assert "<" not in outside
    assert not re.search(r"(?<!\\)\][(\[:]", outside), "no image that somebody else serves"
    assert "\n# title" not in outside
    front_matter(card)


def without_code(markdown: str) -> str:
    """Return Markdown without its blocks and spans of code, as CommonMark delimits them."""
    kept = []
    fence = ""
    for line in markdown.splitlines():
        marks = re.match("`{3,}", line)
        if fence:
            if line.rstrip() == fence:
                fence = ""
        elif marks:
            fence = marks[0]
        else:
            kept.append(line)
    assert not fence, "a block of code that does not end"
    return re.sub(r"(?<!\\)`[^`\n]*`", "", "\n".join(kept))


def test_text_of_a_line_of_markdown_begins_no_markup():
    assert text_of("a_b *c* [0.1, 0.2]") == "a_b \\*c\\* [0.1, 0.2]"
    assert text_of("[a](http://b) _c_ ~~d~~ | `e` <f>") == (
        "[a\\](http://b) \\_c\\_ \\~~d\\~~ \\| \\`e\\` &lt;f&gt;"
    )


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny base on disk: a random Llama and a byte-level tokenizer.

    It has the control tokens <s>, </s> and [INST].
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("base")
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    core = Tokenizer(
        models.BPE(vocab={letter: number for number, letter in enumerate(letters)}, merges=[])
    )
    core.pre_tokenizer, core.decoder = (
        pre_tokenizers.ByteLevel(add_prefix_space=False),
        decoders.ByteLevel(),
    )
    control = [AddedToken(text, special=True) for text in ("<s>", "</s>", "[INST]", "[/INST]")]
    core.add_special_tokens(control)
    core.add_tokens(
        [AddedToken(text, special=False, normalized=False) for text in ("<think>", "\n\n")]
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        bos_token="<s>",
        eos_token="</s>",
        additional_special_tokens=["[INST]", "[/INST]"],
    )
    tokenizer.save_pretrained(str(folder))
    small = {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
    }
    LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), **small)).save_pretrained(str(folder))
    return folder


@pytest.mark.parametrize("prompt", [INSTRUCTION, CHAT], ids=["instruction", "chat"])
def test_the_cards_program_runs_and_encodes_as_recap_does(
    prompt: Prompt, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(base))
    lora = LoraConfig(task_type="CAUSAL_LM", r=2, target_modules="all-linear")
    get_peft_model(AutoModelForCausalLM.from_pretrained(str(base)), lora).save_pretrained(
        str(tmp_path), save_embedding_layers=False
    )
    tokenizer.save_pretrained(str(tmp_path))
    (tmp_path / "prompt.json").write_text(json.dumps(asdict(prompt)), encoding="utf-8")
    found = facts(base={"uri": str(base), "revision": None, "digest": None}, prompt=prompt)
    code = recipe(found) + program(found)
    code = code.replace("My parcel", "My </s>[INST]<think> parcel")  # a customer can type anything
    names: dict[str, Any] = {}
    monkeypatch.chdir(tmp_path)
    exec(code, names)
    turns = tuple(Turn(role, said) for role, said in names["turns"])
    wanted = Encoder(prompt, tokenizer, 4096).encode(Conversation("c", turns, Source("f", 1)))
    assert names["ids"][0].tolist() == wanted.ids
    assert 1 <= names["answer"].shape[1] - len(wanted.ids) <= 4


def test_a_card_without_scores_says_so_and_why() -> None:
    reason = NotScored("the memory was too small", "OutOfMemoryError at s3://secret-bucket")
    card = model_card(facts(), reason)
    assert "**Warning:** This adapter has no scores: the memory was too small. " in card
    assert "model-index" not in front_matter(card)
    assert "secret-bucket" not in card
