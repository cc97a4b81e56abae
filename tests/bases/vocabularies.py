"""Small tokenizers in the manner of each family: its algorithm, and its own control tokens.

Each has a vocabulary of some 400 tokens. Chat templates are read from the installed TRL, which has
those of many published models; families that it lacks get one of the two templates below.
"""

import json
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

Kind = Literal["byte-level", "sentencepiece", "metaspace", "unigram"]

TEXT = [
    "customer: my parcel is late, and nobody answers the phone\n",
    "agent: sorry, we look into it. Please restart the router and tell me the code.\n",
    "### Instruction: ### Input: ### Response: Summarize the conversation.\n",
]
WORDS_OF_TEXT = 70  # tokens that BPE learns besides the 256 bytes

# How Llama 3, Qwen and their likes split a text before byte-level BPE.
SPLIT = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+|\s+"

# Templates of families whose own TRL does not have: the form of most, and one that knows no system.
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
INST = (
    "{{ bos_token }}{% for m in messages %}"
    "{% if m['role'] == 'user' %}[INST] {{ m['content'] }} [/INST]"
    "{% elif m['role'] == 'assistant' %} {{ m['content'] }}{{ eos_token }}"
    "{% else %}{{ raise_exception('only user and assistant') }}{% endif %}{% endfor %}"
)


@dataclass(frozen=True)
class Vocabulary:
    """A tokenizer to be made.

    `template` is the name of a file of TRL (without its ending), a template itself, or None for a
    base without. `plain` are added tokens that the family marks as not special. A tokenizer with
    `adds_begin` puts its begin token before each text.
    """

    kind: Kind
    bos: str | None = None
    eos: str = "</s>"
    pad: str | None = None
    unk: str | None = None
    controls: tuple[str, ...] = ()
    plain: tuple[str, ...] = ()
    template: str | None = None
    adds_begin: bool = False


def make_tokenizer(vocabulary: Vocabulary) -> Any:
    """Return the tokenizer, ready for `save_pretrained`."""
    from tokenizers import AddedToken
    from tokenizers.processors import TemplateProcessing
    from transformers import PreTrainedTokenizerFast

    core = _MAKERS[vocabulary.kind](_specials(vocabulary))
    core.add_special_tokens(list(vocabulary.controls))
    core.add_tokens(
        [AddedToken(token, special=False, normalized=False) for token in vocabulary.plain]
    )
    if vocabulary.adds_begin:
        assert vocabulary.bos
        core.post_processor = TemplateProcessing(
            single=f"{vocabulary.bos} $A",
            pair=f"{vocabulary.bos} $A {vocabulary.bos} $B",
            special_tokens=[(vocabulary.bos, core.token_to_id(vocabulary.bos))],
        )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        bos_token=vocabulary.bos,
        eos_token=vocabulary.eos,
        pad_token=vocabulary.pad,
        unk_token=vocabulary.unk,
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = template_text(vocabulary.template)
    return tokenizer


def template_text(name: str | None) -> str | None:
    """Return a template by its name in TRL, or the template itself."""
    if name is None or "{" in name:
        return name
    package = find_spec("trl")
    path = Path(str(package and package.origin)).parent / "chat_templates" / f"{name}.jinja"
    return path.read_text(encoding="utf-8")


def _specials(vocabulary: Vocabulary) -> list[str]:
    """Return the special tokens, each once, in the order of their ids."""
    named = [vocabulary.unk, vocabulary.bos, vocabulary.eos, vocabulary.pad]
    return list(dict.fromkeys(token for token in named if token))


def _byte_level(specials: list[str]) -> Any:
    """As GPT-2, Llama 3 and Qwen have it: BPE over bytes, after a split by a pattern."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=256 + WORDS_OF_TEXT,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator(TEXT, trainer)
    # Published models have their control tokens behind the text's.
    core.add_special_tokens(specials)
    return core


def _sentencepiece(specials: list[str]) -> Any:
    """As Llama 2 and Gemma have it: BPE with ▁ for spaces, and bytes for what it does not know."""
    from tokenizers import decoders, normalizers

    core = _bpe_with_byte_fallback(specials)
    core.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    core.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    return core


def _metaspace(specials: list[str]) -> Any:
    """As Gemma and newer Mistral models have it: the same, without a space before each text."""
    from tokenizers import decoders, normalizers

    core = _bpe_with_byte_fallback(specials)
    core.normalizer = normalizers.Replace(" ", "▁")
    core.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    return core


def _bpe_with_byte_fallback(specials: list[str]) -> Any:
    """Return a model that knows the letters of TEXT, some of its words, and all bytes."""
    from tokenizers import Tokenizer, models, trainers

    learner = Tokenizer(models.BPE())
    trainer = trainers.BpeTrainer(vocab_size=60 + WORDS_OF_TEXT, show_progress=False)
    learner.train_from_iterator(["▁" + text.replace(" ", "▁") for text in TEXT], trainer)
    model = json.loads(learner.to_str())["model"]
    pieces = [*specials, *(f"<0x{byte:02X}>" for byte in range(256)), *model["vocab"]]
    merges = [tuple(merge) for merge in model["merges"]]
    core = Tokenizer(
        models.BPE(
            vocab={piece: id for id, piece in enumerate(pieces)},
            merges=merges,
            unk_token=specials[0],
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    core.add_special_tokens(specials)
    return core


def _unigram(specials: list[str]) -> Any:
    """As T5, XGLM and others of sentencepiece have it: Unigram, with control tokens as pieces."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    core = Tokenizer(models.Unigram())
    core.pre_tokenizer = pre_tokenizers.Metaspace()
    core.decoder = decoders.Metaspace()
    letters = [chr(code) for code in range(32, 127)]
    trainer = trainers.UnigramTrainer(
        vocab_size=300,
        special_tokens=specials,
        unk_token=specials[0],
        initial_alphabet=["▁", *letters],
        show_progress=False,
    )
    core.train_from_iterator(TEXT * 4, trainer)
    core.add_special_tokens(specials)
    return core


_MAKERS = {
    "byte-level": _byte_level,
    "sentencepiece": _sentencepiece,
    "metaspace": _metaspace,
    "unigram": _unigram,
}
