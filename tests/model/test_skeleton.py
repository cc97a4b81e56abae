"""Claims about a base without its weights: it has the modules and the counts of the loaded one."""

import json

import pytest

from job.config.sections import ModelSection
from job.errors import ConfigError, DataError
from job.model.fetch import Base
from job.model.load import load_base
from job.model.quantization import four_bit_share
from job.model.skeleton import make_skeleton


@pytest.mark.parametrize(("quantization", "four_bit"), [("nf4-double", 81_920), (None, 0)])
def test_a_skeleton_has_the_modules_of_the_loaded_base(base_folder, quantization, four_bit):
    section = ModelSection(base=str(base_folder), quantization=quantization)
    skeleton = make_skeleton(base_folder, section)
    loaded = load_base(Base(section.base, None, "d", base_folder), section)

    def modules(model):
        return [(name, type(module)) for name, module in model.named_modules()]

    assert modules(skeleton) == modules(loaded)
    assert {parameter.device.type for parameter in skeleton.parameters()} == {"meta"}
    share = four_bit_share(loaded)
    assert four_bit_share(skeleton) == share
    assert (share.four_bit, share.total, share.embeddings) == (four_bit, 123_200, 40_960)


@pytest.mark.parametrize(
    "change",
    [
        {"hidden_size": -64},
        {"hidden_size": "64"},
        {"num_attention_heads": 0},
        {"hidden_act": "nonsense"},
        {"rope_parameters": {"rope_type": "nonsense"}},
        {"text_config": 5},
        {"model_type": None},
        {"quantization_config": 4},
    ],
)
def test_a_foolish_config_is_65(copy, change):
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(DataError, match=r"config\.json"):
        make_skeleton(copy, ModelSection(base=str(copy)))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"hidden_act": "nope"}, "hidden_act: transformers has no 'nope'"),
        ({"rope_parameters": {"rope_type": "nope"}}, "rope_parameters.rope_type: transformers has"),
    ],
)
def test_a_value_that_transformers_does_not_know_is_named_by_its_key(copy, change, named):
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(DataError, match=r"^model\.base: .* by its config\.json") as caught:
        make_skeleton(copy, ModelSection(base=str(copy)))
    assert named in str(caught.value)


@pytest.mark.parametrize(
    "content",
    [
        {"max_new_tokens": -5},
        {"cache_implementation": "foo"},
        {"watermarking_config": {"foo": 1}},
        {"compile_config": 3},
    ],
)
def test_a_foolish_generation_config_is_65_before_weights_are_there(copy, content):
    (copy / "generation_config.json").write_text(json.dumps(content))
    (copy / "model.safetensors").unlink()
    why = rf"^model\.base: the generation_config\.json of {copy} cannot be used \("
    with pytest.raises(DataError, match=why):
        make_skeleton(copy, ModelSection(base=str(copy)))


@pytest.mark.parametrize(
    ("model_type", "why"),
    [
        ("nonsense", r"^model\.base: transformers \S+ does not know the model type 'nonsense' of"),
        ("t5", r"^model\.base: org/base is a t5, which is no language model that continues a text"),
        ("roberta", r"^model\.base: org/base is a roberta whose tokens see those that come after"),
        ("clip", r"^model\.base: org/base is a clip, which is no language model"),
    ],
)
def test_a_base_that_is_no_language_model_is_64(copy, model_type, why):
    config = json.loads((copy / "config.json").read_text()) | {"model_type": model_type}
    (copy / "config.json").write_text(json.dumps(config))
    with pytest.raises(ConfigError, match=why) as caught:
        make_skeleton(copy, ModelSection(base="org/base"))
    assert len(str(caught.value)) < 400
