"""Claims about two LoRAs on one vLLM engine: each line is what its adapter writes alone."""

import pytest

from tests.challengers import Nights, publish_both, summaries_of
from tests.vllm.engines import MIN_SAME_SHARE

pytestmark = [pytest.mark.vllm, pytest.mark.filterwarnings("default")]


@pytest.fixture(scope="module")
def adapters(vllm_base, tmp_path_factory):
    return publish_both(vllm_base, tmp_path_factory.mktemp("challengers"))


def nights_of(tmp_path, adapters, vllm_base, engine):
    model = {"base": str(vllm_base), "dtype": "float32"}
    (tmp_path / engine).mkdir()
    keys = {"engine": engine, "generation": {"max_new_tokens": 24}, "model": model}
    return Nights(tmp_path / engine, adapters, **keys)


def same_share(ours, theirs):
    assert ours.keys() == theirs.keys()
    return sum(ours[id] == theirs[id] for id in ours) / len(ours)


def test_both_loras_answer_as_themselves_in_one_vllm(adapters, vllm_base, tmp_path):
    plain = nights_of(tmp_path, adapters, vllm_base, "transformers")
    alone = {name: summaries_of(plain.run(name, name)) for name in ("a", "b")}
    ours = nights_of(tmp_path, adapters, vllm_base, "vllm")
    delivered = summaries_of(ours.with_challenger("shadow", "a", {"shadow": 1.0}))
    assert same_share(delivered, alone["a"]) >= MIN_SAME_SHARE
    assert same_share(summaries_of(ours.shadow("shadow")), alone["b"]) >= MIN_SAME_SHARE
    assert ours.engines("shadow") == ["vllm 0.32.0"]


def test_a_canary_on_vllm_names_the_adapter_that_wrote_each_line(adapters, vllm_base, tmp_path):
    plain = nights_of(tmp_path, adapters, vllm_base, "transformers")
    wanted = plain.with_challenger("canary", "a", {"canary": 0.4})
    ours = nights_of(tmp_path, adapters, vllm_base, "vllm")
    found = ours.with_challenger("canary", "a", {"canary": 0.4})
    assert {id: line["adapter"] for id, line in found.items()} == {
        id: line["adapter"] for id, line in wanted.items()
    }
    assert len({line["adapter"] for line in found.values()}) == 2
    assert same_share(summaries_of(found), summaries_of(wanted)) >= MIN_SAME_SHARE
