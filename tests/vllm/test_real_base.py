"""Claims about a real base, SmolLM2-135M-Instruct, with an adapter of a few steps in vLLM."""

from typing import Any

import pytest

from tests.real.runs import BASE, Run, demo_data

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.filterwarnings("default"),
    pytest.mark.timeout(1200),  # the first test waits for the training, too
]

CONVERSATIONS = 12  # a minute for each engine and way, on one thread
FIRST_TOKENS = {"max_new_tokens": 24}
MAX_OTHERS = 1  # two tokens whose likelihoods differ in the last bits may change places


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run that has learned enough to answer otherwise than the base."""
    assert BASE.is_dir(), f"{BASE} is missing: `make test-vllm` makes it"
    work = tmp_path_factory.mktemp("real")
    data = demo_data(work, steps=4, validation=2, heldout=CONVERSATIONS)
    return Run(work / "run", data, None)


def answers(run: Run, name: str, **keys: Any) -> dict[str, str]:
    lines = run.summaries(name, generation=FIRST_TOKENS, **keys)
    assert len(lines) == CONVERSATIONS
    return {line["id"]: line["summary"] for line in lines}


@pytest.mark.parametrize("weights", ["separate", "merged"])
def test_vllm_answers_like_transformers_on_a_real_base(trained, weights):
    wanted = answers(trained, "transformers")
    ours = answers(trained, weights, engine="vllm", adapter_weights=weights)
    assert sum(ours[id] != wanted[id] for id in wanted) <= MAX_OTHERS


def test_the_adapter_changes_the_answers_of_a_real_base(trained):
    alone = answers(
        trained,
        "alone",
        adapter=None,
        model={"base": str(BASE), "dtype": "float32"},
        prompt=trained.train_config()["prompt"],
    )
    wanted = answers(trained, "transformers")
    assert sum(alone[id] == wanted[id] for id in wanted) < len(wanted) / 2
