"""Claims about pairs in one row: every family that may share prompts computes the same by it."""

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from job.model.modules import name_body
from job.model.shared_prompt import max_shared_tokens
from job.training.own_head import is_fused_head_right, use_own_head
from job.training.shared_prompts import is_sharing_right
from tests.bases.base import Family, architecture_of, make_base
from tests.bases.families import GROUPS
from tests.training.pairs import PAIRS
from tests.training.shared import apart, check_same, in_one_row

pytestmark = [pytest.mark.bases, pytest.mark.filterwarnings("ignore")]
EVERY = [entry for entries in GROUPS.values() for entry in entries if not entry.refused]
LONGEST = 17  # tokens of a pair in one row

# Families whose pairs stay two sequences each.
APART = {
    # ALiBi
    "BLOOM", "MPT",
    # attention to chosen tokens, or in chunks
    "DeepSeek V3.2", "Llama 4", "Llama 4 (text)",
    # layers that read a row in its order
    "Bamba", "Falcon Mamba", "Falcon-H1", "Granite 4 (hybrid, MoE)", "Granite 4 (hybrid, dense)",
    "Jamba", "LFM2", "LFM2 MoE", "LFM2-VL", "Mamba", "Mamba 2", "MiniMax", "Nemotron-H",
    "OLMo Hybrid", "Qwen 3-Next", "Qwen 3.5", "Qwen 3.5 (text)", "Qwen 3.5 MoE (text)",
    "RecurrentGemma", "Zamba 2",
}  # fmt: skip


@pytest.mark.parametrize("entry", EVERY, ids=[entry.name.replace(" ", "-") for entry in EVERY])
def test_pairs_in_one_row_are_computed_as_in_sequences(entry: Family, tmp_path: Path) -> None:
    make_base(entry, tmp_path / "base")
    kind: Any = getattr(transformers, architecture_of(entry))
    model = kind.from_pretrained(tmp_path / "base", dtype=torch.float32).eval()
    name_body(model)
    most = max_shared_tokens(model)
    assert (most < LONGEST) == (entry.name in APART)
    if most < LONGEST:
        return

    wanted = apart(model, PAIRS)
    found = in_one_row(model, PAIRS)
    if not is_fused_head_right(model, 384, torch.float32):
        use_own_head(model)
        found = in_one_row(model, PAIRS)
    check_same(found, wanted)
    assert is_sharing_right(model, model, torch.float32)
