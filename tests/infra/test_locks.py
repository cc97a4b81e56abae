"""The locks are whole: the image installs nothing that they leave out."""

import re
import tomllib
from collections.abc import Sequence
from importlib.metadata import distribution

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.infra.images import ROOT, lock

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
RUNTIME = PROJECT["dependencies"]
EXTRAS = PROJECT["optional-dependencies"]


def needed(requirements: Sequence[str]) -> set[str]:
    """Return the packages that these requirements need here, by what is installed."""
    todo = [Requirement(each) for each in requirements]
    done = set()
    while todo:
        requirement = todo.pop()
        name = canonicalize_name(requirement.name)
        found = (name, frozenset(requirement.extras))
        if found in done or name == "pip":  # which a lock never has
            continue
        done.add(found)
        for text in distribution(name).requires or []:
            below = Requirement(text)
            extras = requirement.extras or {""}
            if below.marker is None or any(below.marker.evaluate({"extra": e}) for e in extras):
                todo.append(below)
    return {name for name, _ in done}


def test_requirements_lock_has_all_that_recap_its_demo_and_its_tests_need():
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    locked = {re.split(r"[\[=]", line)[0] for line in lines if line[0] != "#"}
    assert needed([*RUNTIME, *EXTRAS["demo"], *EXTRAS["dev"]]) <= locked


def test_the_layers_of_the_image_have_all_that_recap_needs():
    layers = set(lock("torch")) | set(lock("train"))
    assert needed(RUNTIME) <= layers
    assert needed(EXTRAS["demo"]) <= layers | set(lock("s3"))
