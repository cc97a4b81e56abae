"""Claims about scores of a reward model: the last token, the neighbours, and what is refused."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification

from job.config.sections import AdapterModelSection
from job.conversations.record import Conversation, Source, Turn
from job.errors import ConfigError, DamagedError
from job.inference.open import fetch_with_adapter, load
from job.inference.reward import RewardModel, fetch_reward_model, load_reward_model
from job.inference.transformers_engine import TransformersEngine
from job.model.fetch import read_adapter
from job.model.load import load_base
from job.model.reward import read_reward_model
from job.storage.folders import publish_folder
from job.storage.open import open_store
from tests.rewards import NO_STORAGE, publish_both

SECTION = AdapterModelSection(quantization=None)
PROMPTS = [[5, 6, 7], [8] * 20, [9, 10], [11] * 7]
COMPLETIONS = [[20, 21, 1], [22, 1], [23] * 12 + [1], [1]]


@pytest.fixture(scope="module")
def uris(base_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return publish_both(base_folder, tmp_path_factory.mktemp("work"))


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def model(uris: dict[str, str], cache: Path) -> RewardModel:
    adapter = read_reward_model(uris["reward"], NO_STORAGE, "evaluation.reward")
    return load_reward_model(adapter, SECTION, NO_STORAGE, cache)


def test_a_score_is_of_the_last_token(model: RewardModel):
    ids = torch.tensor([PROMPTS[0] + COMPLETIONS[0]])
    (found,) = model.score(PROMPTS[:1], COMPLETIONS[:1])
    model.model.enable_adapter_layers()
    base = model.model.get_base_model()
    with torch.no_grad():
        hidden = base.model(ids).last_hidden_state[0, -1]
    head = base.score.modules_to_save["reward"].weight[0].detach()
    assert found == pytest.approx(float(hidden @ head), rel=1e-5)
    assert found != 0


def test_plain_transformers_and_peft_give_the_same_score(
    uris: dict[str, str], base_folder: Path, model: RewardModel
):
    base = AutoModelForSequenceClassification.from_pretrained(base_folder, num_labels=1)
    plain = PeftModel.from_pretrained(base, uris["reward"]).eval()
    with torch.no_grad():
        wanted = float(plain(torch.tensor([PROMPTS[0] + COMPLETIONS[0]])).logits)
    assert model.score(PROMPTS[:1], COMPLETIONS[:1]) == [pytest.approx(wanted, rel=1e-4)]


def test_a_score_does_not_depend_on_its_neighbours(model: RewardModel):
    together = model.score(PROMPTS, COMPLETIONS)
    alone = [
        model.score([prompt], [answer])[0]
        for prompt, answer in zip(PROMPTS, COMPLETIONS, strict=True)
    ]
    assert together == pytest.approx(alone, rel=1e-4, abs=1e-6)
    assert len(set(together)) == len(together)


def test_of_one_row_a_batch_no_score_depends_on_others_in_16_bits(
    uris: dict[str, str], cache: Path
):
    section = AdapterModelSection(quantization=None, dtype="bfloat16")
    adapter = read_reward_model(uris["reward"], NO_STORAGE, "key")
    model = load_reward_model(adapter, section, NO_STORAGE, cache)
    prompts = [list(range(5, 6 + n * 7 % 50)) for n in range(150)]
    completions = [[20 + n % 9, 60 + n % 31, 1] for n in range(150)]

    def in_parts(size: int) -> list[float]:
        found = []
        for first in range(0, len(prompts), size):
            rows = slice(first, first + size)
            found += model.score(prompts[rows], completions[rows])
        return found

    batched = in_parts(150), in_parts(12)
    model.max_rows = 1
    assert in_parts(150) == in_parts(12)
    assert batched[0] == pytest.approx(in_parts(150), abs=0.1)


def test_the_end_token_counts_where_it_is_the_pad_token(model: RewardModel):
    end = model.encoder.tokenizer.eos_token_id
    model.encoder.tokenizer.pad_token = model.encoder.tokenizer.eos_token
    with_end, without = model.score([[5, 6], [5, 6]], [[20, end], [20]])
    assert with_end != pytest.approx(without, rel=1e-3)


def test_a_batch_that_does_not_fit_is_halved(model: RewardModel, monkeypatch: pytest.MonkeyPatch):
    wanted = model.score(PROMPTS, COMPLETIONS)
    compute, rows = RewardModel._compute, []

    def short_of_memory(self: RewardModel, batch: list[list[int]]) -> list[float]:
        rows.append(len(batch))
        if len(batch) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return compute(self, batch)

    monkeypatch.setattr(RewardModel, "_compute", short_of_memory)
    assert model.score(PROMPTS, COMPLETIONS) == pytest.approx(wanted, rel=1e-4, abs=1e-6)
    assert [rows[0], max(rows[1:])] == [4, 2]


def test_texts_are_encoded_as_pairs_are(model: RewardModel):
    asked = Conversation("1", (Turn("customer", "My parcel is late."),), Source("any", 1))
    empty = Conversation("2", (Turn("customer", " "),), Source("any", 2))
    found = model.score_texts([asked, empty, asked], ["It is late.", "It is late.", " "])
    prompt = model.encoder.encode(asked).ids
    ids = model.encoder.tokenizer("It is late.", add_special_tokens=False)["input_ids"]
    wanted = model.score([prompt], [[*ids, *model.encoder.end_ids()]])
    assert found == [pytest.approx(wanted[0], rel=1e-5), None, None]


def test_it_shares_the_base_of_an_adapter(uris: dict[str, str], cache: Path, model: RewardModel):
    fetched = fetch_with_adapter(uris["adapter"], SECTION, NO_STORAGE, cache)
    both = load(fetched, SECTION)
    ids = torch.tensor([PROMPTS[0]])
    before = both(ids).logits
    reward_model = read_reward_model(uris["reward"], NO_STORAGE, "key")
    shared = fetch_reward_model(reward_model, SECTION, NO_STORAGE, cache).put_on(both)
    wanted = model.score(PROMPTS, COMPLETIONS)
    assert shared.score(PROMPTS, COMPLETIONS) == pytest.approx(wanted, rel=1e-4, abs=1e-6)
    assert torch.equal(both(ids).logits, before)
    assert TransformersEngine(both, fetched.tokenizer).context_tokens


def test_a_bare_base_generates_as_before_beside_it(uris: dict[str, str], cache: Path):
    adapter = read_reward_model(uris["reward"], NO_STORAGE, "key")
    fetched = fetch_reward_model(adapter, SECTION, NO_STORAGE, cache)
    bare = load_base(fetched.on_disk.base, SECTION).eval()
    ids = torch.tensor([PROMPTS[0]])
    before = bare(ids).logits
    attached = fetched.put_on(bare)
    attached.score(PROMPTS, COMPLETIONS)
    assert torch.equal(bare(ids).logits, before)


def test_a_reward_model_writes_no_summaries(uris: dict[str, str]):
    with pytest.raises(ConfigError, match=r"is a reward model .* scores summaries and writes none"):
        read_adapter(uris["reward"], NO_STORAGE)


def test_another_adapter_scores_none(uris: dict[str, str]):
    with pytest.raises(ConfigError, match=r"evaluation\.reward: .* and no reward model"):
        read_reward_model(uris["adapter"], NO_STORAGE, "evaluation.reward")


def test_a_pointer_is_no_reward_model():
    with pytest.raises(ConfigError, match=r"key: .*champion\.json is a pointer"):
        read_reward_model("s3://bucket/champion.json", NO_STORAGE, "key")


def test_a_head_of_another_shape_is_damaged(uris: dict[str, str], tmp_path: Path, cache: Path):
    whole = Path(uris["reward"])
    folder = tmp_path / "copy"
    folder.mkdir()
    for file in whole.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    weights = load_file(folder / "adapter_model.safetensors")
    weights["base_model.model.score.weight"] = torch.zeros(2, 64)
    save_file(weights, folder / "adapter_model.safetensors")
    extra: dict[str, Any] = json.loads((whole / "manifest.json").read_text())["extra"]
    (folder / "manifest.json").unlink()
    publish_folder(folder, open_store(str(tmp_path / "wide")), "", extra)
    adapter = read_reward_model(str(tmp_path / "wide"), NO_STORAGE, "key")
    with pytest.raises(DamagedError, match="with one row"):
        load_reward_model(adapter, SECTION, NO_STORAGE, cache)
