"""The table of odd bases: a plain base with one thing about it that published ones have, too."""

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.bases.base import make_base
from tests.bases.families import family
from tests.bases.vocabularies import CHATML, TEXT

SHORT = 320
WEIGHTS = "model.safetensors"


@dataclass(frozen=True)
class Odd:
    """A base that is odd in one way: `change` makes a plain one so.

    One that recap refuses has the sentence of `plan` in `refused`, and its exit code in `code`.
    """

    name: str
    change: Callable[[Path], None]
    plain: str = "Llama 3.x"
    settings: Mapping[str, Any] = field(default_factory=dict)
    refused: str | None = None
    code: int = 64

    @property
    def style(self) -> str:
        """Return the style of prompt that fits the plain base."""
        return family(self.plain).style


def make_odd_base(entry: Odd, folder: Path) -> None:
    """Write the base."""
    make_base(family(entry.plain), folder)
    entry.change(folder)


def change_json(path: Path, **values: Any) -> None:
    """Set keys of a JSON file; None deletes one."""
    content = json.loads(path.read_text("utf-8")) | values
    kept = {key: value for key, value in content.items() if value is not None}
    path.write_text(json.dumps(kept), encoding="utf-8")


def add_tokens(folder: Path, *tokens: str, **named: str) -> None:
    """Add tokens to the tokenizer, and name some of them; the embedding stays as it is."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    # Fill the rows of the embedding that no token has, so that the next one is beyond it.
    rows = json.loads((folder / "config.json").read_text("utf-8"))["vocab_size"]
    tokenizer.add_tokens([f"<filler-{number}>" for number in range(rows - len(tokenizer))])
    tokenizer.add_special_tokens({"additional_special_tokens": list(tokens)})
    tokenizer.add_special_tokens(dict(named))
    tokenizer.save_pretrained(folder)


def pad_as_end(folder: Path) -> None:
    """Make the end token the pad token, as many chat models have it."""
    change_json(folder / "tokenizer_config.json", pad_token="<|eot_id|>")


def chat_tokens_beyond(folder: Path) -> None:
    """Give the base a chat template whose tokens have no row in the embedding."""
    add_tokens(folder, "<|im_start|>", "<|im_end|>")
    (folder / "chat_template.jinja").write_text(CHATML, encoding="utf-8")


def save_again(folder: Path, **options: Any) -> None:
    """Load the weights, and save them with other options."""
    from transformers import AutoModelForCausalLM

    dtype = options.pop("dtype", "auto")
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)
    (folder / WEIGHTS).unlink()
    model.save_pretrained(folder, **options)


def pickled_weights(folder: Path) -> None:
    """Leave only pytorch_model.bin, as bases of before safetensors have it."""
    import torch
    from safetensors.torch import load_file

    torch.save(load_file(folder / WEIGHTS), folder / "pytorch_model.bin")
    (folder / WEIGHTS).unlink()


def only_tokenizer_model(folder: Path) -> None:
    """Make the tokenizer a vocabulary of sentencepiece, in the only file that it had at first."""
    from sentencepiece import SentencePieceTrainer

    (folder / "tokenizer.json").unlink()
    with (folder / "tokenizer.model").open("wb") as file:
        SentencePieceTrainer.train(
            sentence_iterator=iter(TEXT * 20),
            model_writer=file,
            model_type="bpe",
            vocab_size=350,
            byte_fallback=True,
            hard_vocab_limit=False,
            minloglevel=2,
        )
    change_json(folder / "tokenizer_config.json", tokenizer_class="LlamaTokenizer")


def only_tekken(folder: Path) -> None:
    """Leave a file in which Mistral publishes tokenizers as the only one."""
    (folder / "tokenizer.json").unlink()
    (folder / "tekken.json").write_text("{}")


def named_templates(*names: str) -> Callable[[Path], None]:
    """Return a change that gives the tokenizer several templates by these names."""

    def change(folder: Path) -> None:
        (folder / "chat_template.jinja").unlink()
        templates = [{"name": name, "template": CHATML} for name in names]
        change_json(folder / "tokenizer_config.json", chat_template=templates)

    return change


def template_in_json(folder: Path) -> None:
    """Move the template to the file that processors of multimodal bases had it in."""
    template = (folder / "chat_template.jinja").read_text("utf-8")
    (folder / "chat_template.jinja").unlink()
    (folder / "chat_template.json").write_text(json.dumps({"chat_template": template}))


def copies_beside(folder: Path) -> None:
    """Put the weights in two more files, as Mistral and gpt-oss are published."""
    shutil.copy(folder / WEIGHTS, folder / "consolidated.safetensors")
    (folder / "original").mkdir()
    shutil.copy(folder / WEIGHTS, folder / "original" / WEIGHTS)


def short_context(folder: Path) -> None:
    """Make the base for fewer tokens than the longest rows have."""
    from transformers import AutoConfig, AutoModelForCausalLM

    # GPT-2 has a row of weights for each position.
    config = AutoConfig.from_pretrained(folder)
    setattr(
        config,
        "n_positions" if hasattr(config, "n_positions") else "max_position_embeddings",
        SHORT,
    )
    model = AutoModelForCausalLM.from_pretrained(
        folder, config=config, ignore_mismatched_sizes=True
    )
    model.save_pretrained(folder)


def four_bit(folder: Path) -> None:
    """Quantize the base with bitsandbytes, and save it so."""
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    quantization = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4")
    model = AutoModelForCausalLM.from_pretrained(folder, quantization_config=quantization)
    (folder / WEIGHTS).unlink()
    model.save_pretrained(folder)


ODD = [
    Odd("pad token = end token", pad_as_end),
    Odd("pad token beyond the embedding", lambda f: add_tokens(f, pad_token="<pad>")),
    Odd(
        "chat tokens beyond the embedding",
        chat_tokens_beyond,
        refused="whose embedding was resized with its tokenizer (resize_token_embeddings)",
    ),
    Odd("sharded safetensors", lambda f: save_again(f, max_shard_size="100KB")),
    Odd("float16 files", lambda f: save_again(f, dtype="float16")),
    Odd("bfloat16 files", lambda f: save_again(f, dtype="bfloat16")),
    Odd(
        "only pytorch_model.bin",
        pickled_weights,
        refused="convert other weights with save_pretrained(..., safe_serialization=True)",
        code=66,
    ),
    Odd("weights in other formats beside them", copies_beside),
    Odd("context shorter than training.max_tokens", short_context),
    Odd("learned positions, fewer than training.max_tokens", short_context, plain="GPT-2"),
    Odd("no generation_config.json", lambda f: (f / "generation_config.json").unlink()),
    Odd("only tokenizer.model", only_tokenizer_model, plain="Llama 2"),
    Odd(
        "only tekken.json",
        only_tekken,
        refused="has its tokenizer as tekken.json only, which recap does not read",
    ),
    Odd("chat template in chat_template.json", template_in_json),
    Odd("named chat templates, one of them default", named_templates("default", "tool_use")),
    Odd(
        "named chat templates, none of them default",
        named_templates("rag", "tool_use"),
        refused="has several chat templates (rag, tool_use) and none is named default",
    ),
    Odd(
        "no chat template, with prompt.style: chat",
        lambda f: (f / "chat_template.jinja").unlink(),
        refused="has no chat template: use an instruct model, or prompt.style: instruction",
    ),
    Odd("bnb-4bit", four_bit),
]


def odd_base(name: str) -> Odd:
    """Return the entry of a name."""
    return next(entry for entry in ODD if entry.name == name)
