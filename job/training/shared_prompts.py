"""Compute both summaries of a pair in one row, whose prompt they share, where a base allows it.

Conversations are long and summaries short: two whole sequences are nearly twice the work. A base is
asked by its config, so that a plan knows, too, and tried before the first step.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence

from job.errors import ConfigError, is_out_of_memory
from job.model import Model
from job.model.shared_prompt import SharedRows
from job.prompt.encode import IGNORED
from job.training.batches import Row, Tensors
from job.training.own_head import trying
from job.training.ranks import anywhere

# Of the row that tries a base.
PROMPT, FIRST, SECOND = 6, 5, 4  # tokens


def shared_tensors(rows: Sequence[Row], pad_id: int) -> Tensors:
    """Return pairs as one row each, with labels of both answers, padded to the longest of them."""
    ids, labels, positions = [], [], []
    for row in rows:
        prompt, chosen, rejected = row["prompt_ids"], row["chosen_ids"], row["rejected_ids"]
        end = len(prompt) - 1
        ids.append([*prompt, *chosen, prompt[-1], *rejected])
        labels.append([*[IGNORED] * len(prompt), *chosen, IGNORED, *rejected])
        first = range(len(prompt) + len(chosen))
        positions.append([*first, *range(end, end + 1 + len(rejected))])
    prompts = torch.tensor([len(row["prompt_ids"]) for row in rows])
    chosen = torch.tensor([len(row["chosen_ids"]) for row in rows])
    padded_labels = _padded(labels, IGNORED)
    return {
        "input_ids": _padded(ids, pad_id),
        "labels": padded_labels,
        "completion_mask": (padded_labels != IGNORED).long(),
        "position_ids": _padded(positions, 0),
        "ends_of_prompts": prompts - 1,
        "starts": prompts + chosen,
    }


def shared_log_probabilities(model: Model, batch: Tensors, dtype: torch.dtype) -> torch.Tensor:
    """Return the log-probabilities of both answers of each row: (rows, 2)."""
    rows = _rows_of(batch)
    output = model(**_inputs(rows, dtype), labels=batch["labels"], fused_lm_head=True)
    is_second = rows.is_second()
    first = output.log_probs.masked_fill(is_second, 0).sum(dim=1)
    second = output.log_probs.masked_fill(~is_second, 0).sum(dim=1)
    return torch.stack([first, second], dim=1)


def row_to_measure(tokens: int, device: torch.device, dtype: torch.dtype) -> dict[str, Any]:
    """Return the inputs of a row of so many tokens, besides ids and labels.

    Its prompt is one token, so that no position is beyond those of a real row.
    """
    start = (tokens + 1) // 2
    places = torch.arange(tokens, device=device)
    rows = SharedRows(
        ids=places[None],
        positions=torch.where(places < start, places, places - start)[None],
        ends_of_prompts=torch.tensor([0], device=device),
        starts=torch.tensor([start], device=device),
    )
    inputs = _inputs(rows, dtype)
    del inputs["input_ids"]
    return inputs


def check_sharing(model: Model, base: Model, dtype: torch.dtype) -> None:
    """Raise ConfigError if answers do not get the logits that they have in sequences of their own.

    Collective: if one rank finds that, all raise. See `is_sharing_right`.
    """
    if anywhere(not is_sharing_right(model, base, dtype)):
        raise ConfigError(
            "training.dpo.share_prompts: this base computes the summaries of a pair otherwise in "
            "one row than in two sequences: set it to false, which needs more memory and time"
        )


def is_sharing_right(model: Model, base: Model, dtype: torch.dtype) -> bool:
    """Return True if both answers of a row get the logits that they have in sequences of their own.

    They differ by rounding alone if they are nearer to that, by ratios, than to what leaks into the
    second answer without mask and positions. How much is rounded is measured on the first answer,
    which no later token changes.

    `model` is the base with what is around it, `dtype` that of the computation. Collective if it is
    wrapped or sharded. Changes no random state.
    """
    device = next(model.parameters()).device
    prompt, first, second = _ordinary_tokens(base.get_input_embeddings().num_embeddings)
    pair = {"prompt_ids": prompt, "chosen_ids": first, "rejected_ids": second}
    batch = {name: value.to(device) for name, value in shared_tensors([pair], 0).items()}
    rows = _rows_of(batch)
    try:
        with trying(model):

            def logits_of(**named: Any) -> torch.Tensor:
                logits: torch.Tensor = model(**named | {"use_cache": False}).logits[0].float()
                return logits

            of_first = logits_of(input_ids=torch.tensor([prompt + first], device=device))
            of_second = logits_of(input_ids=torch.tensor([prompt + second], device=device))
            shared = logits_of(**_inputs(rows, dtype))
            unmasked = logits_of(input_ids=rows.ids)
    except (AttributeError, RuntimeError, IndexError, TypeError, ValueError) as error:
        if is_out_of_memory(error):
            raise
        return False
    start = PROMPT + FIRST
    answer = of_second[PROMPT - 1 :]
    rounded = max(_change(unmasked[:start], of_first), torch.finfo(dtype).eps)
    leaked = _change(unmasked[start:], answer)
    changes = _change(shared[:start], of_first), _change(shared[start:], answer)
    return max(changes) <= math.sqrt(rounded * leaked)


def _ordinary_tokens(embeddings: int) -> tuple[list[int], list[int], list[int]]:
    """Return ids of a prompt and of two answers, from all of a vocabulary.

    The first ids of most vocabularies are control tokens, of which a model knows nothing.
    """
    count = PROMPT + FIRST + SECOND
    ids = [embeddings * (1 + number) // (1 + count) for number in range(count)]
    return ids[:PROMPT], ids[PROMPT : PROMPT + FIRST], ids[PROMPT + FIRST :]


def _change(found: torch.Tensor, wanted: torch.Tensor) -> float:
    """Return the mean difference as a fraction of the mean."""
    return float((found - wanted).abs().mean() / wanted.abs().mean())


def _rows_of(batch: Tensors) -> SharedRows:
    return SharedRows(
        ids=batch["input_ids"],
        positions=batch["position_ids"],
        ends_of_prompts=batch["ends_of_prompts"],
        starts=batch["starts"],
    )


def _inputs(rows: SharedRows, dtype: torch.dtype) -> dict[str, Any]:
    return {
        "input_ids": rows.ids,
        "position_ids": rows.positions,
        "attention_mask": rows.mask(dtype),
        "use_cache": False,
    }


def _padded(rows: Sequence[Sequence[int]], value: int) -> torch.Tensor:
    tensors = [torch.tensor(row) for row in rows]
    return pad_sequence(tensors, batch_first=True, padding_value=value)
