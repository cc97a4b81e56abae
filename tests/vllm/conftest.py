"""A base that vLLM serves on a CPU, an adapter for it, and one vLLM engine for all tests."""

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from job.config.sections import StorageSection
from job.inference.open import FetchedModel, fetch_with_adapter, load
from job.inference.serving import ServingWish
from job.inference.transformers_engine import TransformersEngine
from job.inference.vllm_engine import VllmEngine
from job.inference.vllm_start import start_vllm
from tests.adapters import publish_adapter
from tests.tiny import make_base
from tests.vllm.engines import SECTION, SETTINGS

HEADS = 2  # of 32 numbers each: vLLM's attention on a CPU takes no smaller ones


@pytest.fixture(scope="session")
def vllm_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("vllm-base")
    make_base(folder, HEADS)
    return folder


@pytest.fixture(scope="session")
def adapter(vllm_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random LoRA weights, published as training does it."""
    work = tmp_path_factory.mktemp("vllm-adapter")
    publish_adapter(vllm_base, work, str(work / "published"))
    return work / "published"


@pytest.fixture(scope="session")
def fetched(adapter: Path, tmp_path_factory: pytest.TempPathFactory) -> FetchedModel:
    return fetch_with_adapter(
        str(adapter), SECTION, StorageSection(), tmp_path_factory.mktemp("vllm-cache")
    )


@pytest.fixture(scope="session")
def engine(fetched: FetchedModel) -> VllmEngine:
    """Base and adapter in vLLM, started once: it takes seconds."""
    return start_vllm(fetched, ServingWish(SECTION, SETTINGS))


@pytest.fixture(scope="session")
def reference(fetched: FetchedModel) -> TransformersEngine:
    return TransformersEngine(load(fetched, SECTION), fetched.tokenizer)


@pytest.fixture(scope="session")
def prompts() -> list[list[int]]:
    draw = random.Random(7)
    return [[0] + [draw.randint(60, 310) for _ in range(draw.randint(3, 60))] for _ in range(40)]


@pytest.fixture(scope="session", autouse=True)
def small() -> Iterator[None]:
    """Limit vLLM to a GiB for keys and values and one thread, in child processes too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")
        patch.setenv("OMP_NUM_THREADS", "1")
        yield


@pytest.fixture(autouse=True)
def alone(places: Path) -> None:
    """Every test here has a cache and a work folder of its own."""
