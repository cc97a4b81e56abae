"""The outputs that name what jobs read and write, the roles' policies, and the places of pages."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.infra import stack
from tests.infra.roles import BUCKET, Role

ROOT = Path(__file__).parent.parent.parent
ROLES = {"Train": "TrainRole", "Summarize": "SummarizeRole"}
BUCKETS = ("my-bucket", "BUCKET", "$B")  # what pages and examples call the stack's bucket
PAGES = [
    ROOT / "infra" / "aws" / "README.md",
    ROOT / "infra" / "terraform" / "README.md",
    ROOT / "docs" / "operations.md",
]


def prefixes(output: str) -> list[str]:
    return stack.outputs()[output].split()


@pytest.mark.parametrize("job", ROLES)
def test_the_outputs_name_all_that_a_job_reads_and_writes_and_no_more(job):
    role = Role(stack.policy(ROLES[job]))
    for output, action in (("Reads", "s3:GetObject"), ("Writes", "s3:PutObject")):
        named = [f"{BUCKET}/{prefix}*" for prefix in prefixes(f"{job}{output}")]
        assert all(prefix.endswith("/*") for prefix in named)
        assert {where for what, where in role.rights() if what == action} == set(named)


@pytest.mark.parametrize("job", ROLES)
def test_the_outputs_name_the_keys_of_the_other_bucket(job):
    keys = {"InputBucket": "mine", "TrainInput": "labelled/*", "NightInput": "calls/*"}
    output = {"Train": "TrainInput", "Summarize": "NightInput"}[job]
    found = stack.outputs(**keys)
    role = Role(stack.policy(ROLES[job], **keys))
    read = {where for what, where in role.rights() if what == "s3:GetObject"}
    assert f"arn:aws:s3:::{found['InputBucket']}/{found[output]}" in read
    assert not {"InputBucket", output} & stack.outputs().keys()


def places(value: object, bucket: str) -> Iterator[tuple[str, str]]:
    """Yield each key of a config whose value is in the bucket, with its key there."""
    if isinstance(value, dict):
        for name, item in value.items():
            if isinstance(item, str) and item.startswith(f"s3://{bucket}/"):
                yield name, item.removeprefix(f"s3://{bucket}/")
            yield from places(item, bucket)


def configs() -> list[Path]:
    found = []
    for path in sorted((ROOT / "examples").rglob("*.yaml")):
        if path.stem in ("evaluate", "feedback", "watch"):  # no jobs of the stack
            continue
        if list(places(yaml.safe_load(path.read_text(encoding="utf-8")), "my-bucket")):
            found.append(path)
    return found


def is_training(config: dict[str, object]) -> bool:
    return "data" in config


@pytest.mark.parametrize("path", configs(), ids=lambda path: path.stem)
def test_the_stacks_roles_can_read_and_write_every_place_of_an_example(path):
    config = yaml.safe_load(path.read_text(encoding="utf-8"))
    job = "Train" if is_training(config) else "Summarize"
    role = Role(stack.policy(ROLES[job]))
    for name, key in places(config, "my-bucket"):
        action = "s3:PutObject" if name == "output" else "s3:GetObject"
        where = f"{BUCKET}/{key.rstrip('/')}"
        assert role.allows(action, where) or role.allows(action, f"{where}/a"), (name, key)


def test_every_place_of_the_bucket_on_a_page_is_one_that_some_job_knows():
    known = set()
    for job in ROLES:
        known |= {*prefixes(f"{job}Reads"), *prefixes(f"{job}Writes")}
    names = "|".join(re.escape(name) for name in BUCKETS)
    found = set()
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        found |= set(re.findall(rf"s3://(?:{names})/([a-z_]+)", text))
    assert found
    assert {f"{prefix}/" for prefix in found} <= known


def test_every_parameter_on_a_page_is_one_of_a_template():
    templates = (stack.TEMPLATE, stack.WATCH, stack.FOLLOW)
    known = {name for path in templates for name in stack.load(path)["Parameters"]}
    for page in (PAGES[0], PAGES[2]):
        text = page.read_text(encoding="utf-8")
        named = set(re.findall(r"[`' ]([A-Z][a-z]+[A-Za-z]*)=", text))
        assert named
        assert named <= known
