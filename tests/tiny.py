"""Make tokenizers of bytes, and a base of random weights that answers at once.

The base has real files, a real tokenizer, and answers of many lengths.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

TEXT = [
    "customer: my parcel is late\nagent: sorry, we look into it\n",
    "### Instruction: ### Input: ### Response:",
]
BOS, EOS, PAD = "<s>", "</s>", "<pad>"
ENDING_IDS = range(40, 56)  # more end tokens, so that random answers end, each at another length

CHAT_TEMPLATE = (
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}</s>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
CHAT_TOKENS = ["<|system|>", "<|user|>", "<|assistant|>"]


def make_byte_tokenizer() -> Any:
    """Return a tokenizer of bytes with the control tokens of CHAT_TEMPLATE."""
    from transformers import PreTrainedTokenizerFast

    core = _core_of_bytes(300, [BOS, EOS, *CHAT_TOKENS], [])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, bos_token=BOS, eos_token=EOS)
    tokenizer.add_special_tokens({"additional_special_tokens": CHAT_TOKENS})
    return tokenizer


def make_base(folder: Path, heads: int = 4) -> None:
    """Write config, weights and tokenizer of a Llama of some 70,000 parameters."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=_core_of_bytes(320, [BOS, EOS, PAD], TEXT * 4),
        bos_token=BOS,
        eos_token=EOS,
        pad_token=PAD,
        clean_up_tokenization_spaces=False,
    )
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=heads,
        max_position_embeddings=512,
        initializer_range=0.2,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=[tokenizer.eos_token_id, *ENDING_IDS],
        pad_token_id=tokenizer.pad_token_id,
    )
    torch.manual_seed(3)
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _core_of_bytes(vocabulary: int, controls: Sequence[str], texts: Sequence[str]) -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=list(controls),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator(texts, trainer)
    # As Llama's: every text begins with the begin token.
    begin = [(BOS, core.token_to_id(BOS))]
    core.post_processor = processors.TemplateProcessing(single=f"{BOS} $A", special_tokens=begin)
    return core
