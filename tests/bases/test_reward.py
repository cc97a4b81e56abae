"""Claims about reward models of each family: plain transformers and peft score as recap does."""

from typing import Any

import pytest
import torch
from peft import get_peft_model

from job.config.sections import AdapterModelSection
from job.config.training_sections import LoraSection
from job.errors import ConfigError
from job.evaluation.reload import judge_scores
from job.model.adapter import save_adapter
from job.model.architecture import model_config
from job.model.fetch import fetch_base
from job.model.load import load_base, load_tokenizer
from job.model.reward import add_head, check_scorable, reward_config, scores_at_end
from job.training import plain_load
from tests.bases.base import make_base
from tests.bases.families import GROUPS

pytestmark = [pytest.mark.bases, pytest.mark.filterwarnings("ignore")]

EVERY = [entry for entries in GROUPS.values() for entry in entries if not entry.refused]
PROMPTS = [[7, 60, 61, 99, 120, 33], [90, 14, 66], [201, 180, 7, 8, 9, 10, 11]]
ANSWERS = [[40, 41, 42], [43, 44, 45, 46], [47]]
STORAGE: Any = None
# Of which transformers alone holds other weights in 4 bits: experts, heads, narrow layers.
OTHERS_IN_4_BITS = (
    "Falcon",
    "DeepSeek V2",
    "DeepSeek V3 / R1",
    "HunYuan MoE",
    "Jamba",
    "MiniMax",
    "Mixtral",
    "PhiMoE",
    "Qwen 2 MoE",
    "Qwen 3 MoE",
    "Qwen 3-Next",
    "Qwen 3.5 (text)",
    "gpt-oss",
)
# Of which transformers has no classification model, or one that lacks modules: refused.
NOT_SCORABLE = (
    "Granite 3",
    "Cohere (Command R)",
    "Cohere 2 (Command A)",
    "ERNIE 4.5",
    "Apertus",
    "CodeGen",
    "XGLM (Unigram)",
    "Granite MoE",
    "OLMoE",
    "GLM-4.5 (MoE)",
    "ERNIE 4.5 MoE",
    "GLM-4.7 Flash",
    "DeepSeek V3.2",
    "MiniMax M2",
    "EXAONE MoE",
    "Qwen 3.5 MoE (text)",
    "LFM2",
    "LFM2 MoE",
    "Granite 4 (hybrid, dense)",
    "Granite 4 (hybrid, MoE)",
    "Bamba",
    "Falcon-H1",
    "Nemotron-H",
    "OLMo Hybrid",
    "Falcon Mamba",
    "Mamba",
    "Mamba 2",
    "RecurrentGemma",
    "Qwen 2.5-VL",
    "Qwen 3-VL",
    "Qwen 3.5",
    "Qwen 3-VL MoE",
    "GLM-4.1V",
    "Llama 4",
    "SmolVLM",
    "LLaVA",
    "InternVL 3",
    "LFM2-VL",
    "Mistral Small 3.x",
    "Ministral 3",
    "Gemma 3n (text)",
    "Gemma 4 (text)",
    "Gemma 4 (MoE)",
    "Gemma 4",
    "Llama 4 (text)",
)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("entry", EVERY, ids=[entry.name.replace(" ", "-") for entry in EVERY])
def test_plain_libraries_score_as_recap_does(entry, tmp_path):
    make_base(entry, tmp_path / "base")
    base = fetch_base(str(tmp_path / "base"), None, STORAGE, tmp_path / "cache")
    settings = {"quantization": "nf4-double"} | dict(entry.settings.get("model", {}))
    section = AdapterModelSection.model_validate(settings)
    model = load_base(base, section)
    weights = model.weights_in_memory
    add_head(model)
    lora = LoraSection.model_validate({"r": 4, "alpha": 8} | dict(entry.settings.get("lora", {})))
    tuned = get_peft_model(model, reward_config(lora, model)).eval()
    whole = model_config(base.path, base.uri, section)
    try:
        check_scorable(whole, base.uri, tuned.base_model.targeted_module_names)
    except ConfigError as error:
        if entry.name not in NOT_SCORABLE:
            raise
        pytest.skip(str(error))
    assert entry.name not in NOT_SCORABLE, "it is scorable by now"
    torch.manual_seed(5)
    with torch.no_grad():
        for parameter in tuned.parameters():
            if parameter.requires_grad:
                parameter.normal_(std=0.2)
        rows = [prompt + answer for prompt, answer in zip(PROMPTS, ANSWERS, strict=True)]
        scores = [float(scores_at_end(model, torch.tensor([row]))[0]) for row in rows]
    save_adapter(tuned, load_tokenizer(base.path), base, tmp_path / "adapter")
    request = {
        "base": str(base.path),
        "adapter": str(tmp_path / "adapter"),
        "auto_class": plain_load.SCORES,
        "quantization": weights.quantization,
        "dtype": "float32",
        "ends": [1],
        "prompts": PROMPTS,
        "prompt_texts": [],
        "texts": ANSWERS,
        "max_new_tokens": 1,
    }
    answer = plain_load.answer(request)
    assert answer["adapter"] == plain_load.digest_of_adapter(tuned, torch.float32)
    found, of_base = answer["answers"], answer["answers_of_base"]
    if found["four_bit"] == weights.share.four_bit:
        judged = judge_scores(scores, found["scores"], of_base["scores"], "float32", {})
        assert judged.state in ("same", "close"), (scores, found)
    else:  # a run publishes it, and does not compare
        assert entry.name in OTHERS_IN_4_BITS
