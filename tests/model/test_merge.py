"""Claims about adapters that are merged into their base by processes that share a cache."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from job.config.sections import AdapterModelSection, StorageSection
from job.errors import ConfigError
from job.inference.open import FetchedModel, fetch_with_adapter, load, merge
from job.model.merge import merge_where_it_fits
from tests.adapters import publish_adapter
from tests.quantized import make_bitsandbytes

SECTION = AdapterModelSection(dtype="float32")


@pytest.fixture
def fetched(base_folder: Path, tmp_path: Path) -> FetchedModel:
    publish_adapter(base_folder, tmp_path / "work", str(tmp_path / "published"))
    return fetch_with_adapter(
        str(tmp_path / "published"), SECTION, StorageSection(), tmp_path / "fetched"
    )


def test_several_that_merge_at_once_share_one_merge(fetched, tmp_path):
    cache = tmp_path / "cache"
    left_by_a_killed_one = cache / ".merging-of-one-that-was-killed" / "model"
    left_by_a_killed_one.mkdir(parents=True)

    # A lock excludes threads as it does processes.
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(lambda _: merge(fetched, SECTION, cache), range(3)))
    (folder,) = (path for path in cache.iterdir() if path.is_dir())
    assert {model.base.path for model in found} == {folder}
    assert folder.name.startswith("merged-")


@pytest.mark.parametrize(
    ("settings", "tolerance"),
    # 8 bits also round what comes into a layer.
    [({"load_in_4bit": True}, 1e-4), ({"load_in_8bit": True}, 0.5)],
)
def test_a_quantized_gpt2_merges_into_weights_as_gpt2_has_them(copy, tmp_path, settings, tolerance):
    sizes = {"n_embd": 64, "n_layer": 1, "n_head": 4, "n_positions": 64}
    config = GPT2Config(vocab_size=320, initializer_range=0.2, **sizes)
    GPT2LMHeadModel(config).save_pretrained(copy)
    folder = make_bitsandbytes(copy, tmp_path / "quantized", **settings)
    publish_adapter(folder, tmp_path / "work", str(tmp_path / "published"))
    found = fetch_with_adapter(
        str(tmp_path / "published"), SECTION, StorageSection(), tmp_path / "fetched"
    )
    merged, separate = merge(found, SECTION, tmp_path / "cache"), found

    def logits(model: FetchedModel) -> torch.Tensor:
        with torch.no_grad():
            return load(model, SECTION)(input_ids=torch.arange(40, 60)[None]).logits

    torch.testing.assert_close(logits(merged), logits(separate), rtol=0, atol=tolerance)


class Merge:
    """A merge on devices of which some have too little memory."""

    def __init__(self, *fits: bool) -> None:
        self.fits = list(fits)
        self.on_cpu: list[bool] = []

    def __call__(self, on_cpu: bool) -> None:
        self.on_cpu.append(on_cpu)
        if not self.fits.pop(0):
            raise torch.AcceleratorError("CUDA error: out of memory")


def test_a_merge_that_does_not_fit_on_the_gpu_is_made_on_the_cpu(caplog):
    merge = Merge(False, True)
    merge_where_it_fits(merge, has_gpu=True)
    assert merge.on_cpu == [False, True]
    assert "merging on the CPU" in caplog.text
    merge = Merge(True)
    merge_where_it_fits(merge, has_gpu=True)
    assert merge.on_cpu == [False]


@pytest.mark.parametrize("has_gpu", [True, False])
def test_a_merge_that_fits_nowhere_is_a_mistake_in_the_config(has_gpu):
    merge = Merge(False, False)
    with pytest.raises(ConfigError, match="set adapter_weights: separate"):
        merge_where_it_fits(merge, has_gpu)
    assert merge.on_cpu[-1]
