"""Claims about the page of all keys, and about the JSON Schema."""

from pathlib import Path

import jsonschema
import pytest
import yaml

from job.config.commands import CONFIGS
from job.config.load import load_config, resolved_yaml
from job.config.reference import markdown, schema
from job.storage.config_file import read_config

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def page() -> str:
    return markdown()


def test_the_page_in_docs_is_up_to_date(page):
    committed = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    assert committed == page, "run `make docs`"


def test_the_page_names_every_key_once_in_its_section(page):
    for section in ("train", "summarize", "evaluate", "feedback"):
        assert f"## `recap {section}`" in page
    for key in (
        "learning_rate",
        "target_modules",
        "max_reject_fraction",
        "addressing_style",
        "hub",
    ):
        assert page.count(f"| `{key}` |") == 1


def test_every_link_of_the_page_has_its_anchor(page):
    links = {part.split(")")[0] for part in page.split("(#")[1:]}
    assert links == {part.split('"')[0] for part in page.split('<a id="')[1:]}


@pytest.mark.parametrize("command", CONFIGS)
def test_the_schema_is_strict_and_describes_every_key(command):
    whole = schema(command)
    jsonschema.Draft202012Validator.check_schema(whole)
    assert whole["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    for section in [whole, *whole["$defs"].values()]:
        assert section["additionalProperties"] is False
        for key, item in section["properties"].items():
            assert "description" in item or "$ref" in item, key


@pytest.mark.parametrize("name", ["tweetsumm-llama2-7b", "support-chat"])
def test_the_schema_accepts_examples_and_refuses_unknown_keys(name):
    config = load_config("train", read_config(str(ROOT / "examples" / f"{name}.yaml")))
    plain = yaml.safe_load(resolved_yaml(config))
    validator = jsonschema.Draft202012Validator(schema("train"))
    assert list(validator.iter_errors(plain)) == []
    assert not validator.is_valid(plain | {"unknown": 1})
