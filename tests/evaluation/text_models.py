"""Tiny models for metrics that need one, trained here in seconds.

A BERT of two layers learns whether all words of a sentence are in its premise. It knows the words
of `make_conversations`, and does not see words that say nothing.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.evaluation.conftest import ENDS, ITEMS, TROUBLES, make_conversations

SILENT = ("the", "says", "that", "a", "so")
CONTROLS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
MAX_TOKENS = 96
WIDTH = 64
STEPS = 500
ROWS = 32


def make_word_tokenizer() -> Any:
    """Return a tokenizer of whole words that puts pairs of texts together as BERT's does."""
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    texts = [turn.text for talk in make_conversations(1) for turn in talk.turns]
    texts += [*ITEMS, *TROUBLES, *ENDS, "customer agent"]
    words = sorted({word for text in texts for word in re.findall("[a-z]+", text.lower())})
    known = [*CONTROLS, *(word for word in words if word not in SILENT)]
    core = Tokenizer(
        models.WordLevel({word: index for index, word in enumerate(known)}, unk_token="[UNK]")
    )
    silent = rf"\b({'|'.join(SILENT)})\b|[^a-z ]"
    core.normalizer = normalizers.Sequence(
        [normalizers.Lowercase(), normalizers.Replace(Regex(silent), " ")]
    )
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    core.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        model_max_length=MAX_TOKENS,
    )


def train_classifier() -> Any:
    """Return a classifier of pairs with the classes 0: some word is missing, 1: none is."""
    import torch
    from transformers import BertForSequenceClassification

    torch.manual_seed(0)
    tokenizer = make_word_tokenizer()
    model = BertForSequenceClassification(_config(len(tokenizer)))
    _look_for_equal_words(model)
    by_word = torch.nn.Linear(WIDTH, 2)  # a task on the way: which of the words are missing
    parameters = [*model.parameters(), *by_word.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=2e-3, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=STEPS)
    chance = torch.Generator().manual_seed(0)
    cross_entropy = torch.nn.functional.cross_entropy
    for _ in range(STEPS):
        rows, is_there = _rows(len(tokenizer), chance)
        found = model(**rows, labels=is_there.all(1).long(), output_hidden_states=True)
        of_words = by_word(found.hidden_states[1][:, -1 - is_there.shape[1] : -1])
        loss = found.loss + cross_entropy(of_words.flatten(0, 1), is_there.long().flatten())
        loss.backward()
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    return model.eval()


def save_classifier(model: Any, folder: Path, names: Sequence[str]) -> Path:
    """Write the classifier with the classes `names`, the last of which is "supported".

    With three, the first is never chosen. With one, the score is that of a single output.
    """
    import torch
    from transformers import BertForSequenceClassification

    config = _config(model.config.vocab_size, names)
    saved = BertForSequenceClassification(config)
    saved.bert.load_state_dict(model.bert.state_dict())
    weight, bias = model.classifier.weight.detach(), model.classifier.bias.detach()
    if len(names) == 1:
        weight, bias = weight[1:] - weight[:1], bias[1:] - bias[:1]
    elif len(names) == 3:
        weight = torch.cat([torch.zeros(1, WIDTH), weight])
        bias = torch.cat([torch.tensor([-100.0]), bias])
    saved.classifier.load_state_dict({"weight": weight, "bias": bias})
    saved.save_pretrained(folder)
    make_word_tokenizer().save_pretrained(folder)
    return folder


def _config(words: int, names: Sequence[str] = ("missing", "there")) -> Any:
    from transformers import BertConfig

    return BertConfig(
        vocab_size=words,
        hidden_size=WIDTH,
        num_hidden_layers=2,
        num_attention_heads=1,
        intermediate_size=128,
        max_position_embeddings=MAX_TOKENS,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        initializer_range=0.05,
        id2label=dict(enumerate(names)),
    )


def _look_for_equal_words(model: Any) -> None:
    """Begin with attention between equal words, which training alone takes long to find."""
    import torch

    with torch.no_grad():
        model.bert.embeddings.word_embeddings.weight.normal_(0, 1)
        model.bert.embeddings.position_embeddings.weight.zero_()
        attention = model.bert.encoder.layer[0].attention.self
        attention.query.weight.copy_(torch.eye(WIDTH))
        attention.key.weight.copy_(torch.eye(WIDTH))


def _rows(words: int, chance: Any) -> tuple[dict[str, Any], Any]:
    """Return inputs of random words, and which words of each sentence are in its premise."""
    import torch

    def draw(low: int, high: int, *shape: int) -> Any:
        return torch.randint(low, high, shape, generator=chance)

    size, length = int(draw(6, 60, 1)), int(draw(2, 10, 1))
    known = words - len(CONTROLS)
    shuffled = torch.rand(ROWS, known, generator=chance).argsort(dim=1) + len(CONTROLS)
    premise = shuffled.gather(1, draw(0, known // 2, ROWS, size))
    inside = premise.gather(1, draw(0, size, ROWS, length))
    outside = shuffled.gather(1, draw(known // 2, known, ROWS, length))
    is_there = torch.rand(ROWS, length, generator=chance) > 0.4
    is_there |= torch.rand(ROWS, 1, generator=chance) > 0.5
    sentence = torch.where(is_there, inside, outside)
    begin, end = torch.full((ROWS, 1), 2), torch.full((ROWS, 1), 3)
    ids = torch.cat([begin, premise, end, sentence, end], dim=1)
    types = (torch.arange(ids.shape[1]) >= size + 2).long().expand_as(ids)
    return {"input_ids": ids, "token_type_ids": types}, is_there
