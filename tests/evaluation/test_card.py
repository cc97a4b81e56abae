import ast
import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from job.config.commands import TrainConfig
from job.conversations.record import Conversation, Source, Turn
from job.evaluation.card import CardFacts, Split, model_card, usage_code
from job.evaluation.metrics.all_metrics import quality_metrics
from job.evaluation.result import Evaluation, NotScored
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
        CardFacts(CONFIG, HUB, INSTRUCTION, splits, {"recap": "0.1.0", "torch": "2.13.0"}),
        **changes,
    )


def front_matter(card: str) -> dict[str, Any]:
    assert card.startswith("---\n")
    found: dict[str, Any] = yaml.safe_load(card.split("---\n")[1])
    return found


def test_the_hub_reads_base_library_task_and_scores_from_the_front_matter(good: Evaluation) -> None:
    from huggingface_hub import ModelCard

    data = ModelCard(model_card(facts(), good), ignore_metadata_errors=False).data
    assert (data.base_model, data.library_name, data.pipeline_tag) == (
        "org/base",
        "peft",
        "summarization",
    )
    assert data.datasets == ["org/tweets"]
    scores = {result.metric_name: result.metric_value for result in data.eval_results}
    own = good.systems["tuned"].scores
    assert scores == {
        metric.title: round(own[metric.name]["mean"].mean, 4) for metric in quality_metrics()
    }


@pytest.mark.parametrize("uri", ["s3://bucket/base", "models/base", "/srv/models/base"])
def test_a_base_that_is_not_on_the_hub_is_no_base_model_for_it(uri: str, good: Evaluation) -> None:
    card = model_card(facts(base={"uri": uri, "revision": None, "digest": "d" * 64}), good)
    assert "base_model" not in front_matter(card)
    assert f"`{uri}`" in card


def test_the_card_tells_scores_floors_data_settings_and_versions(good: Evaluation) -> None:
    card = model_card(facts(), good)
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
    assert "there is no reason to use this adapter" in card
    assert "collapsed to “The agent &lt;b&gt;helps&lt;/b&gt;.”" in card


def test_a_sampling_adapter_is_used_with_sampling() -> None:
    sampling = CONFIG.model_copy(
        update={"generation": CONFIG.generation.model_copy(update={"temperature": 0.5})}
    )
    assert "do_sample=True, temperature=0.5, top_p=1.0" in usage_code(facts(config=sampling))
    assert "do_sample=False" in usage_code(facts())


def test_the_card_has_the_share_in_4_bits_and_the_class_of_the_base(good) -> None:
    share = FourBitShare(four_bit=6_000, total=10_000, embeddings=2_000)
    weights = WeightsInMemory("nf4-double", "fp8", "AutoModelForMultimodalLM", share)
    card = model_card(facts(weights=weights), good)
    assert "6,000 of 10,000 parameters were in 4 bits (2,000 are those of embeddings)" in card
    assert "quantization: nf4-double, read from fp8" in card
    code = usage_code(facts(weights=weights))
    assert ast.parse(code)
    assert 'base = "org/base"\nmodel = AutoModelForMultimodalLM.from_pretrained(base, ' in code
    assert "PeftModel.from_pretrained(model, adapter)" in code


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
@pytest.mark.parametrize("copied", [False, True], ids=["base by name", "base from s3"])
def test_the_cards_program_runs_and_encodes_as_recap_does(
    prompt: Prompt, copied: bool, base: Path, tmp_path: Path
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
    uri = "s3://bucket/base" if copied else str(base)
    code = usage_code(facts(base={"uri": uri, "revision": None, "digest": None}, prompt=prompt))
    code = code.replace("path/to/this/folder", str(tmp_path)).replace("path/to/base", str(base))
    code = code.replace("My parcel", "My </s>[INST]<think> parcel")  # a customer can type anything
    names: dict[str, Any] = {}
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
