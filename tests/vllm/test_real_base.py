"""Claims about a real base, SmolLM2-135M-Instruct, with an adapter of a few steps in vLLM."""

from typing import Any

import pytest

from tests.real.runs import BASE, Run, demo_data
from tests.vllm.engines import MIN_SAME_SHARE

pytestmark = [pytest.mark.vllm, pytest.mark.filterwarnings("default")]

FIRST_TOKENS = {"max_new_tokens": 24}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run that has learned enough to answer otherwise than the base."""
    assert BASE.is_dir(), f"{BASE} is missing: `make test-vllm` makes it"
    work = tmp_path_factory.mktemp("real")
    data = demo_data(work, steps=4, validation=4, heldout=20)
    return Run(work / "run", data, None)


def answers(run: Run, name: str, **keys: Any) -> dict[str, str]:
    lines = run.summaries(name, generation=FIRST_TOKENS, **keys)
    assert len(lines) == 20
    return {line["id"]: line["summary"] for line in lines}


@pytest.mark.parametrize("weights", ["separate", "merged"])
def test_vllm_answers_like_transformers_on_a_real_base(trained, weights):
    wanted = answers(trained, "transformers")
    ours = answers(trained, weights, engine="vllm", adapter_weights=weights)
    same = sum(ours[id] == wanted[id] for id in wanted)
    assert same >= MIN_SAME_SHARE * len(wanted)


def test_the_adapter_changes_the_answers_of_a_real_base(trained):
    alone = answers(
        trained,
        "alone",
        adapter=None,
        model={"base": str(BASE), "dtype": "float32"},
        prompt=trained.train_config()["prompt"],
    )
    wanted = answers(trained, "transformers")
    assert sum(alone[id] == wanted[id] for id in wanted) <= 0.2 * len(wanted)
