"""Claims about the files of `make sbom`, whose tool is in an environment of `make check-infra`."""

import json
import os
import subprocess

import pytest

from tests.infra.images import INFRA, ROOT, lock

TOOLS = ROOT / "build" / "cyclonedx" / "bin"
VALIDATES = """
import sys
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
problem = JsonStrictValidator(SchemaVersion.V1_6).validate_str(sys.stdin.read())
sys.exit(problem and str(problem))
"""
LAYERS = {"train": ("torch", "train"), "summarize": ("torch", "train", "summarize")}

pytestmark = pytest.mark.sbom


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sbom")
    outside = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    subprocess.run(
        ["make", "sbom", f"SBOM={folder}"], cwd=ROOT, env=outside, check=True, capture_output=True
    )
    return {
        target: (folder / f"{target}.cdx.json").read_text(encoding="utf-8") for target in LAYERS
    }


@pytest.mark.parametrize("target", LAYERS)
def test_it_is_what_cyclonedx_takes(written, target):
    command = [TOOLS / "python", "-c", VALIDATES]
    told = subprocess.run(
        command, input=written[target], capture_output=True, text=True, check=False
    )
    assert (told.returncode, told.stderr.strip()) == (0, "")


@pytest.mark.parametrize("target", LAYERS)
def test_it_names_every_package_of_the_images_layers_with_version_and_hash(written, target):
    found = {}
    for package in json.loads(written[target])["components"]:
        (file,) = (each for each in package["externalReferences"] if each["type"] == "distribution")
        hashes = [
            f"{each['alg'].replace('-', '').lower()}:{each['content']}" for each in file["hashes"]
        ]
        found[package["name"]] = (package["version"], hashes)
    lines = "".join(
        (INFRA / "locks" / f"{layer}.txt").read_text(encoding="utf-8") for layer in LAYERS[target]
    )
    locked = {name: version for layer in LAYERS[target] for name, version in lock(layer).items()}
    assert {name: version for name, (version, _) in found.items()} == locked
    assert {"torch", "transformers"} | (
        {"vllm"} if target == "summarize" else set()
    ) <= found.keys()
    for name, (version, hashes) in found.items():
        (sha256,) = hashes
        assert f"\n{name}=={version} --hash={sha256}\n" in lines
