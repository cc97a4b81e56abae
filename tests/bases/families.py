"""The table of families that recap is tried with: one entry each, tiny and with random weights.

To add a family: add an entry to the list of its kind. `make test-bases` tries it, and writes its
row of docs/bases.md.
"""

from collections.abc import Mapping
from typing import Any

from tests.bases.base import SIZES, Family
from tests.bases.vocabularies import CHATML, INST, Vocabulary

VISION = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 28,
    "patch_size": 14,
}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
LOCAL_EXPERTS = {"num_local_experts": 4, "num_experts_per_tok": 2}
MAMBA = {
    "mamba_n_heads": 4,
    "mamba_d_head": 32,
    "mamba_n_groups": 1,
    "mamba_d_state": 16,
    "mamba_d_conv": 4,
    "mamba_expand": 2,
    "mamba_chunk_size": 16,
}
DELTA = {
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 16,
    "linear_value_head_dim": 16,
    "linear_conv_kernel_dim": 4,
}
# Attention first, so that the state of the layer between depends on the whole prompt.
LINEAR_BETWEEN = {
    "num_hidden_layers": 3,
    "layer_types": ["full_attention", "linear_attention", "full_attention"],
}
CONVOLUTION_BETWEEN = {
    "num_hidden_layers": 3,
    "layer_types": ["full_attention", "conv", "full_attention"],
}
ROUTED = {
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 32,
    "first_k_dense_replace": 1,
    "n_group": 1,
    "topk_group": 1,
}
MROPE = {
    "rope_parameters": {
        "rope_type": "default",
        "mrope_section": [2, 3, 3],
        "rope_theta": 10000.0,
    }
}
LATENT = {
    "q_lora_rank": 32,
    "kv_lora_rank": 32,
    "qk_nope_head_dim": 16,
    "qk_rope_head_dim": 16,
    "v_head_dim": 16,
    "num_key_value_heads": 4,
}

# Tokenizers

LLAMA2 = Vocabulary("sentencepiece", bos="<s>", unk="<unk>", template=INST, adds_begin=True)
LLAMA3 = Vocabulary(
    "byte-level",
    bos="<|begin_of_text|>",
    eos="<|eot_id|>",
    controls=(
        "<|start_header_id|>",
        "<|end_header_id|>",
        "<|end_of_text|>",
        "<|eom_id|>",
        "<|python_tag|>",
    ),
    template="llama3_2",
    adds_begin=True,
)
CHATML_CONTROLS = ("<|im_start|>", "<|im_end|>")


def chatml(template: str = CHATML, **changed: Any) -> Vocabulary:
    """Return a tokenizer in the manner of Qwen, whose chat format many others took over."""
    values: dict[str, Any] = {
        "eos": "<|im_end|>",
        "pad": "<|endoftext|>",
        "controls": (
            "<|im_start|>",
            "<|vision_start|>",
            "<|vision_end|>",
            "<|image_pad|>",
            "<|video_pad|>",
        ),
        "plain": ("<tool_call>", "</tool_call>", "<think>", "</think>"),
        "template": template,
    }
    return Vocabulary("byte-level", **(values | changed))


def gemma(template: str | None, **changed: Any) -> Vocabulary:
    """Return a tokenizer in the manner of Gemma."""
    values: dict[str, Any] = {
        "bos": "<bos>",
        "eos": "<eos>",
        "pad": "<pad>",
        "unk": "<unk>",
        "controls": ("<start_of_turn>", "<end_of_turn>", "<start_of_image>", "<image_soft_token>"),
        "plain": ("\n\n", "▁▁"),
        "template": template,
        "adds_begin": True,
    }
    return Vocabulary("metaspace", **(values | changed))


def end_of_text(**changed: Any) -> Vocabulary:
    """Return a tokenizer in the manner of GPT-2: one control token, and no chat template."""
    values: dict[str, Any] = {"bos": "<|endoftext|>", "eos": "<|endoftext|>"}
    return Vocabulary("byte-level", **(values | changed))


TEKKEN = Vocabulary(
    "byte-level",
    bos="<s>",
    pad="<pad>",
    unk="<unk>",
    controls=("[INST]", "[/INST]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]", "[IMG]"),
    template=INST,
    adds_begin=True,
)
PHI3 = Vocabulary(
    "sentencepiece",
    bos="<s>",
    eos="<|endoftext|>",
    pad="<|endoftext|>",
    unk="<unk>",
    controls=("<|system|>", "<|user|>", "<|assistant|>", "<|end|>"),
    template="phi3",
)
DEEPSEEK = Vocabulary(
    "byte-level",
    bos="<｜begin▁of▁sentence｜>",
    eos="<｜end▁of▁sentence｜>",
    pad="<｜end▁of▁sentence｜>",
    controls=("<｜User｜>", "<｜Assistant｜>"),
    plain=("<think>", "</think>"),
    template="deepseekv3",
    adds_begin=True,
)
GLM = Vocabulary(
    "byte-level",
    eos="<|endoftext|>",
    pad="<|endoftext|>",
    controls=("[gMASK]", "<sop>", "<|system|>", "<|user|>", "<|assistant|>", "<|observation|>"),
    plain=("<think>", "</think>", "/nothink"),
    template="glm4moe",
)
COHERE = Vocabulary(
    "byte-level",
    bos="<BOS_TOKEN>",
    eos="<|END_OF_TURN_TOKEN|>",
    pad="<PAD>",
    unk="<UNK>",
    controls=(
        "<|START_OF_TURN_TOKEN|>",
        "<|USER_TOKEN|>",
        "<|CHATBOT_TOKEN|>",
        "<|SYSTEM_TOKEN|>",
        "<|START_RESPONSE|>",
        "<|END_RESPONSE|>",
    ),
    template="cohere2",
    adds_begin=True,
)
HARMONY = Vocabulary(
    "byte-level",
    bos="<|startoftext|>",
    eos="<|return|>",
    pad="<|endoftext|>",
    controls=("<|start|>", "<|end|>", "<|message|>", "<|channel|>", "<|call|>", "<|constrain|>"),
    template="gptoss",
)
LFM2 = chatml("lfm2", bos="<|startoftext|>", pad="<|pad|>", adds_begin=True)
BLOOM = Vocabulary("byte-level", bos="<s>", pad="<pad>", unk="<unk>")
UNIGRAM = Vocabulary(
    "unigram", bos="<s>", pad="<pad>", unk="<unk>", controls=CHATML_CONTROLS, template=CHATML
)


def with_text(text: Mapping[str, Any] = {}, vision: Mapping[str, Any] = {}, **outer: Any) -> Any:
    """Return the config of a multimodal base."""
    return {"text_config": SIZES | text, "vision_config": VISION | vision, **outer}


# The table

DENSE = [
    Family("Llama 2", "llama", LLAMA2),
    Family("Llama 3.x", "llama", LLAMA3),
    Family("Qwen 2.5", "qwen2", chatml("qwen2_5")),
    Family("Qwen 3", "qwen3", chatml("qwen3")),
    Family("Mistral", "mistral", LLAMA2, {"sliding_window": 32}),
    Family("Ministral 3 (text)", "ministral3", TEKKEN),
    Family("Gemma", "gemma", gemma("gemma")),
    Family("Gemma 2", "gemma2", gemma("gemma"), {"sliding_window": 32}),
    Family("Gemma 3 (text)", "gemma3_text", gemma("gemma3"), {"sliding_window": 32}),
    Family("Phi-2", "phi", end_of_text()),
    Family("Phi-3", "phi3", PHI3),
    Family("SmolLM3", "smollm3", chatml(pad="<|im_end|>", bos="<|begin_of_text|>")),
    Family("Granite 3", "granite", chatml(), {"logits_scaling": 4.0}),
    Family("OLMo", "olmo", end_of_text(pad="<|padding|>")),
    Family("OLMo 2", "olmo2", chatml()),
    Family("OLMo 3", "olmo3", chatml(), {"sliding_window": 32}),
    Family("GPT-NeoX", "gpt_neox", end_of_text(pad="<|padding|>", plain=("    ", "\n\n"))),
    Family("GPT-2", "gpt2", end_of_text(unk="<|endoftext|>")),
    Family(
        "OPT",
        "opt",
        Vocabulary("byte-level", bos="</s>", pad="<pad>", adds_begin=True),
        {"ffn_dim": 128, "word_embed_proj_dim": 64},
    ),
    Family("Falcon", "falcon", end_of_text(), {"new_decoder_architecture": True}),
    Family("BLOOM", "bloom", BLOOM),
    Family("MPT", "mpt", end_of_text(), seed=5),
    Family("GPT-J", "gptj", end_of_text(), {"rotary_dim": 16}),
    Family("GLM-4", "glm4", GLM),
    Family("Cohere (Command R)", "cohere", COHERE, max_tokens=2048),
    Family("Cohere 2 (Command A)", "cohere2", COHERE, {"sliding_window": 32}, max_tokens=2048),
    Family("Seed-OSS", "seed_oss", chatml()),
    Family("ERNIE 4.5", "ernie4_5", LLAMA2),
    Family("EXAONE 4", "exaone4", chatml(), {"sliding_window": 32}),
    Family("HunYuan (dense)", "hunyuan_v1_dense", chatml()),
    Family("StableLM", "stablelm", chatml()),
    Family("StarCoder 2", "starcoder2", end_of_text(), {"sliding_window": 32}),
    Family("Apertus", "apertus", LLAMA2),
    Family("Arcee (AFM)", "arcee", LLAMA3),
    Family("Helium", "helium", LLAMA2),
    Family("Nemotron", "nemotron", LLAMA3),
    Family("GLM", "glm", GLM),
    Family("MiniCPM 3", "minicpm3", chatml(), LATENT),
    Family(
        "GPT-Neo",
        "gpt_neo",
        end_of_text(),
        {"attention_types": [[["global", "local"], 1]], "num_layers": 2, "window_size": 32},
    ),
    Family("GPTBigCode", "gpt_bigcode", end_of_text()),
    Family("CodeGen", "codegen", end_of_text(), {"rotary_dim": 16}),
    Family(
        "XGLM (Unigram)",
        "xglm",
        UNIGRAM,
        {"d_model": 64, "ffn_dim": 128, "num_layers": 2, "attention_heads": 4},
        seed=6,
    ),
]

MIXTURES = [
    Family("Qwen 3 MoE", "qwen3_moe", chatml("qwen3"), EXPERTS),
    Family(
        "Qwen 2 MoE",
        "qwen2_moe",
        chatml("qwen2_5"),
        EXPERTS | {"shared_expert_intermediate_size": 32},
    ),
    Family("Mixtral", "mixtral", LLAMA2, LOCAL_EXPERTS),
    Family("PhiMoE", "phimoe", PHI3, LOCAL_EXPERTS),
    Family("Granite MoE", "granitemoe", chatml(), LOCAL_EXPERTS),
    Family("OLMoE", "olmoe", end_of_text(pad="<|padding|>"), EXPERTS),
    Family(
        "GLM-4.5 (MoE)",
        "glm4_moe",
        GLM,
        ROUTED,
    ),
    Family(
        "DeepSeek V2",
        "deepseek_v2",
        DEEPSEEK,
        LATENT | ROUTED,
    ),
    Family(
        "DeepSeek V3 / R1",
        "deepseek_v3",
        DEEPSEEK,
        LATENT | ROUTED | {"n_group": 2},
    ),
    Family("gpt-oss", "gpt_oss", HARMONY, LOCAL_EXPERTS | {"sliding_window": 32}),
    Family(
        "ERNIE 4.5 MoE",
        "ernie4_5_moe",
        LLAMA2,
        {"moe_num_experts": 4, "moe_k": 2, "moe_intermediate_size": 32, "moe_layer_start_index": 1},
    ),
    Family("HunYuan MoE", "hunyuan_v1_moe", chatml(), {"num_experts": 4, "moe_topk": 2}),
    Family(
        "MiniMax",
        "minimax",
        LLAMA2,
        LOCAL_EXPERTS
        | {
            **LINEAR_BETWEEN,
            "block_size": 16,
        },
    ),
    Family("GLM-4.7 Flash", "glm4_moe_lite", GLM, LATENT | ROUTED),
    Family(
        "DeepSeek V3.2",
        "deepseek_v32",
        DEEPSEEK,
        LATENT | ROUTED | {"index_n_heads": 2, "index_head_dim": 32, "index_topk": 128},
        note="in a batch, prompts longer than `index_topk` may get other answers than alone",
    ),
    Family("MiniMax M2", "minimax_m2", chatml(), LOCAL_EXPERTS),
    Family(
        "EXAONE MoE",
        "exaone_moe",
        chatml(),
        EXPERTS | {"sliding_window": 32, "first_k_dense_replace": 1},
    ),
]

HYBRIDS = [
    Family(
        "Qwen 3-Next",
        "qwen3_next",
        chatml("qwen3"),
        EXPERTS
        | DELTA
        | {
            "shared_expert_intermediate_size": 32,
            **LINEAR_BETWEEN,
        },
    ),
    Family(
        "Qwen 3.5 (text)",
        "qwen3_5_text",
        chatml("qwen3_5_nothink"),
        DELTA | LINEAR_BETWEEN,
    ),
    Family(
        "Qwen 3.5 MoE (text)",
        "qwen3_5_moe_text",
        chatml("qwen3_6"),
        EXPERTS
        | DELTA
        | {
            "shared_expert_intermediate_size": 32,
            **LINEAR_BETWEEN,
        },
    ),
    Family(
        "LFM2",
        "lfm2",
        LFM2,
        {
            **CONVOLUTION_BETWEEN,
            "block_ff_dim": 128,
        },
    ),
    Family(
        "LFM2 MoE",
        "lfm2_moe",
        LFM2,
        EXPERTS
        | {
            **CONVOLUTION_BETWEEN,
            "num_dense_layers": 1,
        },
    ),
    Family(
        "Granite 4 (hybrid, dense)",
        "granitemoehybrid",
        chatml(),
        MAMBA
        | {
            "num_local_experts": 0,
            "shared_intermediate_size": 64,
            "layer_types": ["attention", "mamba"],
        },
    ),
    Family(
        "Granite 4 (hybrid, MoE)",
        "granitemoehybrid",
        chatml(),
        MAMBA
        | LOCAL_EXPERTS
        | {"shared_intermediate_size": 64, "layer_types": ["attention", "mamba"]},
    ),
    Family("Bamba", "bamba", LLAMA3, MAMBA | {"attn_layer_indices": [1]}),
    Family("Falcon-H1", "falcon_h1", chatml(), MAMBA | {"mamba_d_ssm": 128}),
    Family(
        "Nemotron-H",
        "nemotron_h",
        chatml("nemotron_3_nano"),
        {
            "layers_block_type": ["mamba", "attention", "mlp"],
            "num_hidden_layers": 3,
            "mamba_num_heads": 4,
            "mamba_head_dim": 32,
            "n_groups": 1,
            "ssm_state_size": 16,
            "chunk_size": 16,
        },
    ),
    Family(
        "OLMo Hybrid",
        "olmo_hybrid",
        chatml(),
        DELTA | LINEAR_BETWEEN,
    ),
    Family("Falcon Mamba", "falcon_mamba", end_of_text(), {"state_size": 8}),
    Family("Mamba", "mamba", end_of_text(), {"state_size": 8}),
    Family(
        "Mamba 2",
        "mamba2",
        end_of_text(),
        {"num_heads": 8, "head_dim": 16, "state_size": 16, "n_groups": 1, "chunk_size": 16},
    ),
    Family(
        "Jamba",
        "jamba",
        LLAMA2,
        {
            "num_hidden_layers": 2,
            "attn_layer_period": 2,
            "attn_layer_offset": 1,
            "expert_layer_period": 2,
            "expert_layer_offset": 1,
            "num_experts": 4,
            "use_mamba_kernels": False,
            "mamba_d_state": 8,
        },
    ),
    Family(
        "RecurrentGemma",
        "recurrent_gemma",
        gemma(None),
        {"block_types": ["recurrent", "attention"], "lru_width": 64, "attention_window_size": 32},
    ),
    Family(
        "Zamba 2",
        "zamba2",
        LLAMA2,
        {
            "layers_block_type": ["mamba", "hybrid"],
            "mamba_d_state": 16,
            "n_mamba_heads": 4,
            "mamba_ngroups": 1,
            "chunk_size": 16,
            "num_mem_blocks": 1,
            "use_mem_rope": True,
            "use_mamba_kernels": False,
        },
    ),
]

MULTIMODAL = [
    Family(
        "Qwen 2.5-VL",
        "qwen2_5_vl",
        chatml("qwen2_5_vl"),
        with_text(
            MROPE,
            {"depth": 1, "num_heads": 2, "out_hidden_size": 64, "fullatt_block_indexes": [0]},
        ),
    ),
    Family(
        "Qwen 3-VL",
        "qwen3_vl",
        chatml("qwen3_vl"),
        with_text(
            MROPE,
            {"depth": 1, "num_heads": 2, "out_hidden_size": 64, "deepstack_visual_indexes": [0]},
        ),
    ),
    Family(
        "Qwen 3.5",
        "qwen3_5",
        chatml("qwen3_5_think"),
        with_text(
            DELTA | LINEAR_BETWEEN,
            {"depth": 1, "num_heads": 2, "out_hidden_size": 64},
        ),
    ),
    Family(
        "Qwen 3-VL MoE",
        "qwen3_vl_moe",
        chatml("qwen3_vl"),
        with_text(
            EXPERTS | MROPE,
            {"depth": 1, "num_heads": 2, "out_hidden_size": 64, "deepstack_visual_indexes": [0]},
        ),
    ),
    Family(
        "GLM-4.1V",
        "glm4v",
        GLM,
        with_text(MROPE, {"depth": 1, "num_heads": 2, "out_hidden_size": 64}),
    ),
    Family(
        "Llama 4",
        "llama4",
        LLAMA3,
        with_text(
            LOCAL_EXPERTS | {"intermediate_size_mlp": 64, "num_experts_per_tok": 1},
            {"vision_output_dim": 32, "projector_input_dim": 32, "projector_output_dim": 32},
        ),
    ),
    Family(
        "SmolVLM",
        "smolvlm",
        chatml("smolvlm", pad="<|im_end|>"),
        with_text({"model_type": "llama"}),
    ),
    Family(
        "LLaVA",
        "llava",
        LLAMA2,
        with_text({"model_type": "llama"}, {"model_type": "clip_vision_model"}),
    ),
    Family(
        "InternVL 3",
        "internvl",
        chatml("qwen2_5"),
        with_text({"model_type": "qwen2"}, {"image_size": [28, 28], "patch_size": [14, 14]}),
    ),
    Family(
        "LFM2-VL",
        "lfm2_vl",
        LFM2,
        with_text(
            {
                "model_type": "lfm2",
                "block_ff_dim": 128,
                **CONVOLUTION_BETWEEN,
            },
            {"model_type": "siglip2_vision_model"},
        ),
    ),
    Family(
        "Mistral Small 3.x",
        "mistral3",
        TEKKEN,
        with_text({"model_type": "mistral"}, {"model_type": "pixtral"}, spatial_merge_size=1),
    ),
    Family(
        "Ministral 3",
        "mistral3",
        TEKKEN,
        with_text({"model_type": "ministral3"}, {"model_type": "pixtral"}, spatial_merge_size=1),
    ),
    Family(
        "Gemma 3",
        "gemma3",
        gemma("gemma3"),
        with_text({"sliding_window": 32}, mm_tokens_per_image=4),
    ),
    Family(
        "Gemma 3n (text)",
        "gemma3n_text",
        gemma("gemma3"),
        {
            "sliding_window": 32,
            "num_hidden_layers": 4,
            "num_kv_shared_layers": 0,
            "laurel_rank": 8,
            "hidden_size_per_layer_input": 16,
            "vocab_size_per_layer_input": 448,
        },
    ),
    Family(
        "Gemma 4 (text)",
        "gemma4_text",
        gemma("gemma4"),
        {
            "hidden_size_per_layer_input": 16,
            "vocab_size_per_layer_input": 448,
            "global_head_dim": 16,
            "sliding_window": 32,
        },
    ),
    Family(
        "Gemma 4 (MoE)",
        "gemma4_text",
        gemma("gemma4"),
        {
            "hidden_size_per_layer_input": 0,
            "global_head_dim": 16,
            "sliding_window": 32,
            "enable_moe_block": True,
            "num_experts": 4,
            "top_k_experts": 2,
            "moe_intermediate_size": 32,
        },
    ),
    Family(
        "Gemma 4",
        "gemma4",
        gemma("gemma4"),
        with_text(
            {"hidden_size_per_layer_input": 0, "global_head_dim": 16, "sliding_window": 32},
            {"num_key_value_heads": 2, "head_dim": 16},
        ),
    ),
    Family(
        "Llama 4 (text)",
        "llama4_text",
        LLAMA3,
        LOCAL_EXPERTS | {"intermediate_size_mlp": 64, "num_experts_per_tok": 1},
    ),
]


NO_LANGUAGE_MODEL = (
    "which is no language model that continues a text: use one that AutoModelForCausalLM loads, "
    "or a multimodal model around one"
)
REFUSED = [
    Family(
        "T5",
        "t5",
        UNIGRAM,
        {"d_model": 64, "d_kv": 16, "d_ff": 128},
        refused=NO_LANGUAGE_MODEL,
    ),
    Family("ModernBERT", "modernbert", chatml(), refused=NO_LANGUAGE_MODEL),
    Family(
        "BERT",
        "bert",
        chatml(),
        refused="whose tokens see those that come after them, as encoders do",
    ),
]

GROUPS = {
    "Dense": DENSE,
    "Mixtures of experts": MIXTURES,
    "Hybrid and state-space": HYBRIDS,
    "Multimodal": MULTIMODAL,
    "Refused": REFUSED,
}
FAMILIES = [entry for entries in GROUPS.values() for entry in entries]


def family(name: str) -> Family:
    """Return the entry of a name."""
    return next(entry for entry in FAMILIES if entry.name == name)
