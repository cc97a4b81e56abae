"""Claims about candidates by vLLM: they are what nights with their seeds write, and one is best."""

import pytest

from tests.challengers import Nights, publish_both, summaries_of
from tests.rewards import publish_reward_model
from tests.vllm.engines import MIN_SAME_SHARE

pytestmark = [pytest.mark.vllm, pytest.mark.filterwarnings("default")]

COUNT = 3
SAMPLING = {"max_new_tokens": 24, "temperature": 1.0}


@pytest.fixture(scope="module")
def uris(vllm_base, tmp_path_factory):
    work = tmp_path_factory.mktemp("candidates")
    judge = f"{work}/judge"
    publish_reward_model(vllm_base, work / "judge-work", judge)
    return publish_both(vllm_base, work) | {"judge": judge}


def test_candidates_of_vllm_are_what_nights_with_their_seeds_write(uris, vllm_base, tmp_path):
    model = {"base": str(vllm_base), "dtype": "float32"}
    nights = Nights(tmp_path, uris, engine="vllm", model=model)
    reward = {"adapter": uris["judge"], "dtype": "float32"}
    generation = {**SAMPLING, "seed": 42, "candidates": COUNT, "reward_model": reward}
    lines = nights.run("best", "a", generation=generation)
    assert nights.engines("best") == ["vllm 0.32.0"]
    drawn = [
        summaries_of(nights.run(f"plain-{n}", "a", generation={**SAMPLING, "seed": 42 + n}))
        for n in range(COUNT)
    ]
    same = [line["summary"] == drawn[line["candidate"] - 1].get(id) for id, line in lines.items()]
    assert sum(same) / len(same) >= MIN_SAME_SHARE
    assert len({line["candidate"] for line in lines.values()}) == COUNT
    assert all(line["reward"] is not None for line in lines.values())
    finished = [line for line in lines.values() if line["finish_reason"] == "length"]
    assert all(line["reward"] == line["highest_reward"] for line in finished)
    assert nights.run("again", "a", generation=generation) == lines
