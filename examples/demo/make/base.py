"""The demo's small base model: a byte-level BPE tokenizer and a Llama, both trained from scratch.

It reads the documents of `lookback.py`: conversations and questions about them, never a summary and
never the held-out wording. Writes a model folder (safetensors in bfloat16, fast tokenizer) of less
than 8 MB.
"""

import argparse
import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from examples.demo.make.induction import start_with_induction
from examples.demo.make.lookback import documents

BOS, EOS, PAD = "<s>", "</s>", "<pad>"
LOG_EVERY_STEPS = 50


@dataclass(frozen=True)
class Recipe:
    """The settings of a base, which it depends on besides its documents."""

    seed: int = 7
    steps: int = 3600
    batch_rows: int = 4
    row_tokens: int = 512
    learning_rate: float = 1.5e-3
    # Lower, because a large one pulls rare tokens together, and then none can be copied.
    embedding_learning_rate: float = 3e-4
    warmup_steps: int = 50
    text_weight: float = 0.1  # of a conversation's tokens in the loss; an answer's weigh 1
    vocabulary: int = 2048
    tokenizer_documents: int = 6000
    hidden: int = 192
    layers: int = 4
    heads: int = 3
    intermediate: int = 512
    compile: bool = False  # faster where there is a C compiler


def make_base(output: Path, recipe: Recipe) -> float:
    """Train tokenizer and model, write them to the folder, and return the last loss.

    That is the mean of the final log window.
    """
    torch.manual_seed(recipe.seed)
    tokenizer = train_tokenizer(recipe)
    model = LlamaForCausalLM(llama_config(recipe, tokenizer))
    start_with_induction(model)
    tokens = recipe.steps * recipe.batch_rows * recipe.row_tokens
    print(f"{model.num_parameters():,} parameters, {tokens:,} tokens")
    loss = train(model, tokenizer, recipe)
    model.to(device="cpu", dtype=torch.bfloat16).save_pretrained(output)
    tokenizer.save_pretrained(output)
    return loss


def train_tokenizer(recipe: Recipe) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE on the first documents.

    It has no unknown characters, and every digit is a token.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=recipe.vocabulary,
        special_tokens=[BOS, EOS, PAD],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    texts = islice(documents(recipe.seed), recipe.tokenizer_documents)
    tokenizer.train_from_iterator(
        ("".join(part.text for part in document) for document in texts), trainer
    )
    # Every document of the training begins with it, and so does every text of whoever uses it.
    begin = [(BOS, tokenizer.token_to_id(BOS))]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A {BOS} $B", special_tokens=begin
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BOS,
        eos_token=EOS,
        pad_token=PAD,
        model_max_length=1024,
        clean_up_tokenization_spaces=False,
    )


def llama_config(recipe: Recipe, tokenizer: PreTrainedTokenizerFast) -> LlamaConfig:
    """Return the model's config: tied embeddings, widths that are multiples of 64.

    A block of 4-bit nf4 has 64 weights.
    """
    return LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=recipe.hidden,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads,
        num_key_value_heads=recipe.heads,
        intermediate_size=recipe.intermediate,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        rope_parameters={"rope_type": "default", "rope_theta": 100_000.0},
        initializer_range=0.04,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def train(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, recipe: Recipe) -> float:
    """Train in place on packed rows, and print progress.

    Returns the answers' mean loss in the last log window.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model.to(device).train()
    forward = torch.compile(model) if recipe.compile else model
    embedding = model.model.embed_tokens.weight
    others = [each for each in model.parameters() if each is not embedding]
    groups = [{"params": others}, {"params": [embedding], "lr": recipe.embedding_learning_rate}]
    optimizer = torch.optim.AdamW(
        groups, lr=recipe.learning_rate, betas=(0.9, 0.98), weight_decay=0.0
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate_at(step, recipe))
    started = time.monotonic()
    window: list[torch.Tensor] = []
    mean = math.nan
    of_all_steps = islice(batches(tokenizer, recipe), recipe.steps)
    for step, (tokens, weights) in enumerate(of_all_steps, start=1):
        with torch.autocast(device, dtype=torch.bfloat16):
            output = forward(input_ids=tokens.to(device), use_cache=False)
            logits = output.logits  # (rows, tokens, vocabulary)
        loss, answer_loss = losses(logits, tokens.to(device), weights.to(device))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        window.append(answer_loss)
        if step % LOG_EVERY_STEPS == 0 or step == recipe.steps:
            mean = float(torch.stack(window).mean())
            window.clear()
            left = (time.monotonic() - started) / step * (recipe.steps - step)
            print(
                f"step {step}/{recipe.steps}  answer loss {mean:.3f}  ETA {left / 60:.1f} min",
                flush=True,
            )
    return mean


def losses(
    logits: torch.Tensor, tokens: torch.Tensor, weights: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the weighted next-token loss, and the answers' own loss for the log."""
    flat = logits[:, :-1].flatten(0, 1).float()  # (rows * (tokens - 1), vocabulary)
    each = torch.nn.functional.cross_entropy(flat, tokens[:, 1:].flatten(), reduction="none")
    weight = weights[:, 1:].flatten()
    return (each * weight).sum() / weight.sum(), each.detach()[weight == 1].mean()


def rate_at(step: int, recipe: Recipe) -> float:
    """Return the learning rate's factor: a linear warm-up, then a cosine down to 2%."""
    if step < recipe.warmup_steps:
        return (step + 1) / recipe.warmup_steps
    done = (step - recipe.warmup_steps) / max(1, recipe.steps - recipe.warmup_steps)
    return 0.02 + 0.98 * (1 + math.cos(math.pi * done)) / 2


def batches(
    tokenizer: PreTrainedTokenizerFast, recipe: Recipe
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield (token ids, loss weights), each of shape (rows, tokens), without padding."""
    rows = packed_rows(tokenizer, recipe)
    while True:
        tokens, weights = zip(*islice(rows, recipe.batch_rows), strict=True)
        yield torch.tensor(tokens), torch.tensor(weights)


def packed_rows(
    tokenizer: PreTrainedTokenizerFast, recipe: Recipe
) -> Iterator[tuple[list[int], list[float]]]:
    """Yield rows of whole documents, the last one of each cut at the row's end.

    So no answer is ever without its conversation.
    """
    tokens: list[int] = []
    weights: list[float] = []
    for document in documents(recipe.seed):
        tokens.append(tokenizer.bos_token_id)
        weights.append(0.0)
        for part in document:
            ids = tokenizer.encode(part.text, add_special_tokens=False)
            if part.is_answer:
                ids.append(tokenizer.eos_token_id)
            weight = 1.0 if part.is_answer else recipe.text_weight
            tokens.extend(ids)
            weights.extend([weight] * len(ids))
        if len(tokens) >= recipe.row_tokens:
            yield tokens[: recipe.row_tokens], weights[: recipe.row_tokens]
            tokens, weights = [], []


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Train the demo's base model from scratch.")
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("examples/demo/base"),
        help="folder for model and tokenizer",
    )
    parser.add_argument("--seed", type=int, default=Recipe.seed)
    parser.add_argument("--steps", type=int, default=Recipe.steps)
    parser.add_argument(
        "--compile", action="store_true", help="compile the model first (needs a C compiler)"
    )
    arguments = parser.parse_args()
    chosen = Recipe(seed=arguments.seed, steps=arguments.steps, compile=arguments.compile)
    began = time.monotonic()
    final = make_base(arguments.output, chosen)
    minutes = (time.monotonic() - began) / 60
    print(f"{asdict(chosen)}\nanswer loss {final:.3f} after {minutes:.1f} minutes")
