"""Claims about real adapters on one base by transformers: each line is what its adapter writes."""

import pytest

from tests.challengers import COUNT, Nights, publish_both


@pytest.fixture
def nights(base_folder, tmp_path):
    keys = {
        "engine": "transformers",
        "generation": {"max_new_tokens": 12, "deterministic": True},
        "model": {"base": str(base_folder), "dtype": "float32"},
    }
    return Nights(tmp_path, publish_both(base_folder, tmp_path), **keys)


def test_each_line_of_a_canary_is_that_of_its_adapter_alone(nights):
    alone = {name: nights.run(name, name) for name in ("a", "b")}
    assert all(alone["a"][id]["summary"] != alone["b"][id]["summary"] for id in alone["a"])
    lines = nights.with_challenger("canary", "a", {"canary": 0.4})
    by_challenger = {id for id in lines if lines[id]["adapter"] == alone["b"][id]["adapter"]}
    assert 2 < len(by_challenger) < COUNT - 2
    for id, line in lines.items():
        assert line == alone["b" if id in by_challenger else "a"][id]


@pytest.mark.parametrize("adapter", ["a", None])
def test_a_shadow_is_what_the_challenger_writes_alone(nights, adapter):
    alone = nights.run("alone", "b")
    delivered = nights.run("delivered", adapter)
    assert nights.with_challenger("shadow", adapter, {"shadow": 1.0}) == delivered
    assert nights.shadow("shadow") == alone
    assert all(alone[id]["summary"] != delivered[id]["summary"] for id in alone)
