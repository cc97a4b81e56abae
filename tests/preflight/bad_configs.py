"""The bad configs: of trainings by their keys or by a base that cannot work, of nights, of scores.

Each has the words of its message that name the fix.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from job.errors import ExitCode
from tests.tiny import CHAT_TEMPLATE

Keys = Mapping[str, Any]  # dotted paths and their values


@dataclass(frozen=True)
class Bad:
    """A good config with some other `keys`; `fix` is in the message with which it ends."""

    name: str
    keys: Keys
    fix: str


@dataclass(frozen=True)
class BadBase:
    """A good base after `change`, and other `keys` of the config."""

    name: str
    change: Callable[[Path], None]
    fix: str
    keys: Keys = field(default_factory=dict)
    code: ExitCode = ExitCode.CONFIG


def called(path: str) -> str:
    """Return the answer to a name of another program."""
    return f"it is called {path} here"


BAD_CONFIGS = [
    # TRL
    Bad("SFTConfig.max_length", {"training.max_length": 512}, called("training.max_tokens")),
    Bad("max_seq_length", {"training.max_seq_length": 512}, called("training.max_tokens")),
    Bad("dataset_text_field", {"data.dataset_text_field": "text"}, "data.columns for tables"),
    Bad("completion_only_loss", {"training.completion_only_loss": True}, "remove it"),
    Bad("packing_strategy", {"training.packing_strategy": "bfd"}, "on or off: training.packing"),
    # transformers
    Bad("num_train_epochs", {"training.num_train_epochs": 3}, called("training.epochs")),
    Bad("batch size", {"per_device_train_batch_size": 8}, called("training.batch_size")),
    Bad("evaluation_strategy", {"training.evaluation_strategy": "steps"}, "evaluate_every_steps"),
    Bad("lr_scheduler_type", {"training.lr_scheduler_type": "linear"}, "training.scheduler"),
    Bad("warmup_steps", {"training.warmup_steps": 100}, "a share of all steps, from 0 to below 1"),
    Bad("load_best_model_at_end", {"training.load_best_model_at_end": True}, "best_evaluation"),
    Bad("gradient_checkpointing", {"training.gradient_checkpointing": True}, "activation_check"),
    Bad("bf16", {"training.bf16": True}, "model.dtype is bfloat16, float16, float32 or auto"),
    Bad("report_to", {"training.report_to": "wandb"}, "TensorBoard is always written"),
    Bad("push_to_hub", {"publish.push_to_hub": True}, "publish.hub here (org/name)"),
    # peft and bitsandbytes
    Bad("lora_alpha", {"lora.lora_alpha": 16}, called("lora.alpha")),
    Bad("modules_to_save", {"lora.modules_to_save": ["lm_head"]}, "lora.target_modules names them"),
    Bad("use_dora", {"lora.use_dora": True}, "lora.variant here (lora, rslora or dora)"),
    Bad("load_in_8bit", {"model.load_in_8bit": True}, "nf4, nf4-double, or null for none"),
    Bad(
        "double quantization",
        {"model.bnb_4bit_use_double_quant": True},
        "called model.quantization here (nf4-double)",
    ),
    # axolotl
    Bad("sequence_len", {"sequence_len": 4096}, called("training.max_tokens")),
    Bad("micro_batch_size", {"micro_batch_size": 2}, called("training.batch_size")),
    Bad("datasets", {"datasets": [{"path": "d"}]}, called("data.train")),
    Bad("val_set_size", {"val_set_size": 0.1}, called("data.validation_fraction")),
    # LLaMA-Factory
    Bad("cutoff_len", {"cutoff_len": 2048}, called("training.max_tokens")),
    Bad("quantization_bit", {"quantization_bit": 4}, called("model.quantization")),
    Bad("template", {"template": "llama3"}, "it is called prompt.style here (chat)"),
    # Unsloth and the notebook
    Bad("unsloth's checkpointing", {"use_gradient_checkpointing": "unsloth"}, "activation_check"),
    Bad("random_state", {"random_state": 3407}, called("training.seed")),
    Bad("use_4bit", {"use_4bit": True}, called("model.quantization")),
    # Values of others
    Bad("bf16 as a dtype", {"model.dtype": "bf16"}, "did you mean bfloat16?"),
    Bad("4bit", {"model.quantization": "4bit"}, "did you mean nf4-double?"),
    Bad("flash_attn", {"model.attention": "flash_attn"}, "did you mean flash_attention_2?"),
    Bad("8-bit AdamW", {"training.optimizer": "adamw_bnb_8bit"}, "did you mean adamw_8bit?"),
    Bad("all modules", {"lora.target_modules": "all"}, "did you mean all-linear?"),
    Bad("no maximum of steps", {"training.max_steps": -1}, "did you mean null?"),
    # Slips
    Bad("a typing error", {"training.learning_rat": 1e-4}, "did you mean learning_rate?"),
    Bad("a rate in percent", {"training.learning_rate": 5}, "a number above 0 and at most 1"),
    Bad("rows without end", {"training.max_tokens": 2_000_000_000}, "at most 10000000"),
    Bad("epochs without end", {"training.epochs": 1e300}, "at most 1000000"),
    Bad("passes without end", {"training.batch_size": 10**9}, "batch_size"),
    Bad("a file as output", {"output": "runs.jsonl"}, "name a folder, or end it with a slash"),
    Bad("a token", {"publish.hub_token": "x"}, "set HF_TOKEN in the environment"),
    # Combinations that are impossible
    Bad(
        "two units of saving",
        {"training.save_every_steps": 5, "training.save_every_epochs": 1},
        "save_every_steps and save_every_epochs are both set: keep one of them",
    ),
    Bad(
        "an optimizer that fsdp cannot shard",
        {"training.distribution": "fsdp", "training.optimizer": "adamw_8bit"},
        "use adamw_torch or adamw_torch_fused",
    ),
    Bad(
        "code of a base that is not pinned",
        {"model.trust_remote_code": True},
        "pin model.revision to a 40-digit commit",
    ),
    Bad(
        "a champion that is not named",
        {"publish.gate": {"better_than": ["champion"]}},
        "set publish.champion",
    ),
    Bad(
        "a stall that is shorter than an upload",
        {"limits.stall_minutes": 5},
        "raise one or lower the other",
    ),
]


# Of nights and evaluations, beside what their smallest configs have.
BAD_NIGHTS = [
    Bad("a training's section", {"training": {"epochs": 3}}, "a key of `recap train`"),
    Bad("a training's name elsewhere", {"num_train_epochs": 3}, "a key of `recap train`"),
    Bad("an evaluation's key", {"summaries": "s.jsonl"}, "a key of `recap evaluate`"),
    Bad("vLLM's maximum", {"generation.max_tokens": 9}, called("generation.max_new_tokens")),
    Bad("vLLM's GPUs", {"tensor_parallel_size": 2}, called("tensor_parallel")),
    Bad("vLLM's context", {"max_model_len": 4096}, called("generation.max_input_tokens")),
    Bad("vLLM's memory", {"gpu_memory_utilization": 0.9}, "which engine generates is serve.engine"),
    Bad("beams", {"generation.num_beams": 4}, "generation.temperature, top_p and seed"),
    Bad("a list of stops", {"generation.stop": ["###"]}, "the end tokens of the base"),
    Bad("an engine in capitals", {"engine": "vLLM"}, "did you mean vllm?"),
    Bad("an engine that is another's", {"engine": "tgi"}, "wanted auto, transformers or vllm"),
    Bad("a probability in percent", {"generation.top_p": 90}, "above 0 and at most 1"),
    Bad("a kind of file", {"data.format": "parquet"}, "did you mean table?"),
    Bad("columns the wrong way", {"data.columns": {"text": "conversation"}}, "conversation: text?"),
    Bad("another's role", {"data.roles": {"bot": "assistant"}}, "did you mean agent?"),
    Bad("a switch of redaction", {"redaction": True}, "write {} for the defaults"),
    Bad("a home folder", {"input": "~/in.jsonl"}, "write the whole path"),
    Bad("a spreadsheet as output", {"output": "out.xlsx"}, "name"),
    Bad(
        "GPUs that transformers does not share",
        {"engine": "transformers", "tensor_parallel": 2},
        "set engine: vllm, or tensor_parallel: 1",
    ),
    Bad(
        "an adapter merged into 4 bits",
        {"model.quantization": "nf4", "adapter_weights": "merged"},
        "set quantization: null, or adapter_weights: separate",
    ),
]

BAD_EVALUATIONS = [
    Bad("nothing to score", {"adapter": None}, "exactly one of adapter and summaries must be set"),
    Bad("two to score", {"summaries": "s.jsonl"}, "exactly one of adapter and summaries"),
    Bad("another's predictions", {"predictions": "s.jsonl"}, called("summaries")),
    Bad("a list of metrics", {"metrics": ["rouge"]}, "all metrics are always measured"),
    Bad("a night's chunks", {"chunks": {"records": 5}}, "a key of `recap summarize`"),
    Bad("a file as output", {"output": "eval.json"}, "name a folder, or end it with a slash"),
    Bad("all of them", {"evaluation.max_conversations": "all"}, "at least 1 or null"),
    Bad("a training's weights", {"evaluation.as_trained": True}, "is for recap train"),
    Bad("one rival", {"publish.gate": {"better_than": "lead"}}, 'write it as a list: ["lead"]'),
    Bad("a pointer by its folder", {"publish.champion": "runs"}, "a file that ends in .json"),
    Bad(
        "a metric that is none",
        {"publish.gate": {"metric": "rouge9", "better_than": ["lead"]}},
        "rouge",
    ),
]


def change_json(path: Path, **values: Any) -> None:
    """Set keys of a JSON file."""
    content = json.loads(path.read_text("utf-8"))
    path.write_text(json.dumps(content | values), encoding="utf-8")


def config_with(**values: Any) -> Callable[[Path], None]:
    """Return a change that sets keys of config.json."""
    return lambda base: change_json(base / "config.json", **values)


def become(**config: Any) -> Callable[[Path], None]:
    """Return a change that replaces config.json."""
    return lambda base: (base / "config.json").write_text(json.dumps(config), encoding="utf-8")


def several_templates(base: Path) -> None:
    """Give the tokenizer two chat templates, none of them the default one."""
    templates = [{"name": name, "template": CHAT_TEMPLATE} for name in ("rag", "tool_use")]
    change_json(base / "tokenizer_config.json", chat_template=templates)


def only_tekken(base: Path) -> None:
    """Leave the file in which Mistral publishes tokenizers as the only one."""
    (base / "tokenizer.json").unlink()
    (base / "tekken.json").write_text("{}")


def only_vocabulary(base: Path) -> None:
    """Leave a vocabulary without its merges."""
    (base / "tokenizer.json").unlink()
    (base / "vocab.json").write_text("{}")


def broken_template(base: Path) -> None:
    """Give the tokenizer a chat template that fails."""
    (base / "chat_template.jinja").write_text("{{ messages + 1 }}")


def broken_tokenizer(base: Path) -> None:
    """Cut tokenizer.json, as a download that stopped leaves it."""
    file = base / "tokenizer.json"
    file.write_bytes(file.read_bytes()[:200])


def only_gguf(base: Path) -> None:
    """Leave the file of another program in place of the weights."""
    for file in base.glob("*.safetensors*"):
        file.unlink()
    (base / "model.Q4_K_M.gguf").write_bytes(b"GGUF")


def an_adapter(base: Path) -> None:
    """Leave an adapter in place of a base."""
    for file in (*base.glob("*.safetensors*"), base / "config.json"):
        file.unlink()
    (base / "adapter_config.json").write_text('{"peft_type": "LORA", "r": 8}')
    (base / "adapter_model.safetensors").write_bytes(b"x")


def broken_config(base: Path) -> None:
    """Cut config.json."""
    (base / "config.json").write_text('{"model_type": "llama", ')


def change_weights(base: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change the tensors of the base."""
    from safetensors.torch import load_file, save_file

    tensors = load_file(base / "model.safetensors")
    change(tensors)
    save_file(tensors, base / "model.safetensors", {"format": "pt"})


def longer_head(base: Path) -> None:
    """Give the output layer ten more rows than the vocabulary of config.json."""

    def change(tensors: dict[str, Any]) -> None:
        head = tensors["lm_head.weight"]
        tensors["lm_head.weight"] = head.new_zeros(len(head) + 10, head.shape[1])

    change_weights(base, change)


def without_a_tensor(base: Path) -> None:
    """Remove the weights of one layer."""
    change_weights(base, lambda tensors: tensors.pop("model.layers.1.mlp.up_proj.weight"))


def shorter_norm(base: Path) -> None:
    """Give the last norm fewer weights than the layers are wide."""

    def change(tensors: dict[str, Any]) -> None:
        tensors["model.norm.weight"] = tensors["model.norm.weight"][:-1].clone()

    change_weights(base, change)


CHAT = {"prompt.style": "chat"}
T5 = {
    "model_type": "t5",
    "vocab_size": 320,
    "d_model": 32,
    "num_layers": 1,
    "is_encoder_decoder": True,
}
BERT = {"model_type": "bert", "vocab_size": 320, "hidden_size": 32, "num_hidden_layers": 1}
BLOOM = {"model_type": "bloom", "vocab_size": 320, "hidden_size": 32, "n_layer": 1, "n_head": 4}
OWN_CODE = {
    "auto_map": {"AutoConfig": "own.C", "AutoModelForCausalLM": "own.M"},
    "model_type": "own",
}
VIT = {"model_type": "vit", "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
MIXTURE = {
    "model_type": "qwen3_moe",
    "vocab_size": 320,
    "hidden_size": 32,
    "intermediate_size": 64,
    "moe_intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 16,
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "max_position_embeddings": 512,
}
MAMBA = {
    "model_type": "mamba",
    "vocab_size": 320,
    "hidden_size": 32,
    "state_size": 4,
    "num_hidden_layers": 1,
}
NEOX_JAPANESE = {
    "model_type": "gpt_neox_japanese",
    "vocab_size": 320,
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
}
MADE_FROM = "use the base that it was made from"

BAD_BASES = [
    BadBase(
        "quantized in a way that recap does not load",
        config_with(quantization_config={"quant_method": "hqq"}),
        MADE_FROM,
    ),
    BadBase(
        "quantized by MLX",
        config_with(quantization_config={"group_size": 64, "bits": 4}),
        MADE_FROM,
    ),
    BadBase(
        "quantized, to be merged",
        config_with(quantization_config={"quant_method": "awq", "bits": 4}),
        "set publish.merged: false",
        {"publish.merged": True},
    ),
    BadBase("an encoder", become(**BERT), "use a base that was trained to generate text"),
    BadBase("encoder and decoder", become(**T5), "use one that AutoModelForCausalLM loads"),
    BadBase(
        "a type that is not known",
        config_with(model_type="llama9"),
        "use a recap with a newer transformers, or another base",
    ),
    BadBase("code of its own", config_with(**OWN_CODE), "a revision that is pinned"),
    BadBase("no chat template", lambda base: None, "or prompt.style: instruction", CHAT),
    BadBase("two chat templates", several_templates, "none is named default", CHAT),
    BadBase(
        "only tekken.json",
        only_tekken,
        "use a copy of the base with tokenizer.json",
    ),
    BadBase(
        "a vocabulary without merges",
        only_vocabulary,
        "copy the tokenizer's files again",
        code=ExitCode.MISSING,
    ),
    BadBase(
        "tokens beyond the embedding",
        config_with(vocab_size=200),
        "take a base whose embedding was resized with its tokenizer",
    ),
    BadBase(
        "attention that its model lacks",
        become(**BLOOM),
        "auto chooses by itself",
        {"model.attention": "sdpa"},
    ),
    BadBase(
        "no module of that name",
        lambda base: None,
        "name some of those, or all-linear",
        {"lora.target_modules": ["c_attn"]},
    ),
    BadBase(
        "a context without room for a conversation",
        config_with(max_position_embeddings=8),
        "leave no room for a conversation; lower it",
    ),
    BadBase("a model of images", become(**VIT), "use one that AutoModelForCausalLM loads"),
    BadBase(
        "an adapter on experts",
        become(**MIXTURE),
        "the experts of the base are no linear modules; it has k_proj, o_proj, q_proj, v_proj",
        {"lora.target_modules": ["gate_up_proj", "down_proj"]},
    ),
    BadBase(
        "an adapter on the output of a state-space layer",
        become(**MAMBA),
        "it has in_proj, x_proj; name some of those, or all-linear",
        {"lora.target_modules": ["out_proj"]},
    ),
    BadBase(
        "a tokenizer that was cut",
        broken_tokenizer,
        "copy or fetch its files again (tokenizer.json, tokenizer_config.json)",
        code=ExitCode.DATA,
    ),
    BadBase(
        "weights for llama.cpp",
        only_gguf,
        "use the base that they were made from",
        code=ExitCode.MISSING,
    ),
    BadBase("an adapter", an_adapter, "give a folder without it, or name the adapter by the key"),
    BadBase(
        "a config.json that was cut",
        broken_config,
        "copy or fetch it again",
        code=ExitCode.DATA,
    ),
    BadBase(
        "a config.json without a type",
        become(hidden_size=32),
        "has no model_type; copy or fetch the base again",
        code=ExitCode.DATA,
    ),
    BadBase(
        "heads that do not fit the width",
        config_with(num_attention_heads=3),
        "copy or fetch the base again, or use another",
        code=ExitCode.DATA,
    ),
    BadBase(
        "layers that cannot be compiled",
        become(**NEOX_JAPANESE),
        "this base has no layers that can be compiled; remove it",
        {"training.compile": True},
    ),
    BadBase(
        "a context that answers fill",
        config_with(max_position_embeddings=200),
        "400 of the model's 200 tokens leave no room for a conversation; lower it",
        {"generation.max_new_tokens": 400},
    ),
]

# A training meets these when it loads the base, before its first step.
BAD_WEIGHTS = [
    BadBase(
        f"weights with {name}", change, "do not fit its config.json: 1 tensors", code=ExitCode.DATA
    )
    for name, change in [
        ("an output layer of another size", longer_head),
        ("a tensor missing", without_a_tensor),
        ("a norm of another size", shorter_norm),
    ]
]
