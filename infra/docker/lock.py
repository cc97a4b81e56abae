"""Write the locks of the image: one file for each layer, with a version and a hash of each package.

pip's dry run reports the file that it would install for this interpreter and platform, and its
SHA-256. It need not download wheels that publish their metadata. Versions are those of
requirements.lock. Run it on linux/amd64 with the image's version of Python.
"""

import argparse
import hashlib
import json
import re
import subprocess
import sys
import tempfile
import tomllib
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlparse

ROOT = Path(__file__).parents[2]
LOCKS = Path(__file__).parent / "locks"

# Each is built for one torch, and text needs none of them.
OF_CUDA = {"torchvision", "torchaudio", "torchcodec"}

# What vLLM requires and this image cannot use: 45 % of its layer, which every new machine would
# pull. vLLM imports each only where it is chosen, and chooses something else where it is missing.
NEEDS_CUDA_COMPILER = "compiles C++ where it runs, and the image has no C++ compiler"
LEFT_OUT = {
    "flashinfer-python": NEEDS_CUDA_COMPILER,
    "cuda-tile": "only FlashInfer's",
    "cuda-python": "only FlashInfer's",
    "cuda-core": "only FlashInfer's, by nccl4py",
    "nccl-extensions": "only FlashInfer's",
    "nccl4py": "only FlashInfer's",
    "nvidia-cudnn-frontend": "FlashInfer's; vLLM itself imports it in benchmarks only",
    "tilelang": NEEDS_CUDA_COMPILER,
    "ml-dtypes": "only TileLang's",
    "z3-solver": "only TileLang's",
    "nvidia-cuda-nvcc": "NVCC starts with the C++ compiler that the image does not have",
    "nvidia-nvvm": "only NVCC's",
    "nvidia-cutlass-dsl-libs-cu12": "for CUDA 12; CUTLASS takes the one for 13, which is there",
    "tokenspeed-mla": "one of several kernels for DeepSeek on B200, with a Triton of its own",
    "tokenspeed-triton": "only TokenSpeed's",
    "pynvvideocodec": "decodes videos",
}

HEADER = "# {what}\n# For linux/amd64 and Python {python}. '{command}' writes this file.\n"


@dataclass(frozen=True)
class Pinned:
    """One package: its resolved version, and the hash of its file."""

    name: str
    version: str
    sha256: str

    def line(self) -> str:
        """Return the line of the lock, for pip's hash-checking mode."""
        return f"{self.name}=={self.version} --hash=sha256:{self.sha256}"


Packages = dict[str, Pinned]


def main() -> None:
    """Write the locks; with --torch-here, only those of a build with this machine's torch."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--torch-here", action="store_true")
    if parser.parse_args().torch_here:
        torch = resolve(["torch"], constraints(cuda=False))
        write(
            "torch-here",
            "torch as this machine's pip finds it, for a build without CUDA",
            torch,
            "make image-check",
        )
        summarize = (LOCKS / "summarize.txt").read_text(encoding="utf-8").splitlines(keepends=True)
        kept = "".join(line for line in summarize if line.partition("==")[0] not in OF_CUDA)
        (LOCKS / "summarize-here.txt").write_text(kept, encoding="utf-8")
        return
    pins = constraints(cuda=True)

    # The most demanding set decides the versions of all.
    everything = resolve([f"{ROOT}[vllm]"], pins)
    pins += "".join(
        f"{package.name}=={package.version}\n"
        for package in everything.values()
        if package.name != "torch"
    )

    build = resolve(build_requirements(), pins)
    torch = resolve(["torch"], pins)
    train = without_lower_layers(resolve([str(ROOT)], pins), torch)
    summarize = without_left_out(without_lower_layers(everything, torch | train))
    s3 = without_lower_layers(resolve([f"{ROOT}[demo]"], pins), torch | train)

    write(
        "build", "What builds recap, and the dependencies that are published as source only.", build
    )
    write("torch", "torch and all that it needs, CUDA's user space among it.", torch)
    write("train", "What recap needs beside torch.", train)
    write("summarize", "What vLLM needs beside that.", summarize)
    write(
        "s3",
        "What the S3 server for trying it on one machine needs beside torch.txt and train.txt.",
        s3,
    )


def constraints(cuda: bool) -> str:
    """Return the versions of requirements.lock, as constraints.

    With `cuda`, torch is pinned by `===`: exactly the release, and no build with a local version.
    """
    locked = (ROOT / "requirements.lock").read_text(encoding="utf-8")

    # Constraints may not have extras.
    pins = re.sub(r"\[[^]]*\]", "", locked)
    return pins.replace("\ntorch==", "\ntorch===") if cuda else pins


def build_requirements() -> list[str]:
    """Return recap's build backend, and setuptools and wheel, which build other packages."""
    with (ROOT / "pyproject.toml").open("rb") as file:
        backend: list[str] = tomllib.load(file)["build-system"]["requires"]
    return [*backend, "setuptools", "wheel"]


def resolve(requirements: list[str], pins: str) -> Packages:
    """Return by normalized name what pip would install into an empty environment, without recap."""
    with tempfile.TemporaryDirectory() as folder:
        constraint, report = Path(folder, "constraints.txt"), Path(folder, "report.json")
        constraint.write_text(pins, encoding="utf-8")
        command = [sys.executable, "-m", "pip", "install"]
        command += ["--quiet", "--dry-run", "--ignore-installed"]
        command += ["--constraint", str(constraint), "--report", str(report), *requirements]
        if subprocess.run(command, stdout=subprocess.DEVNULL).returncode:
            sys.exit(
                f"pip cannot resolve {' '.join(requirements)} within requirements.lock: see above"
            )
        found = json.loads(report.read_text(encoding="utf-8"))["install"]
    pinned = [
        pin(entry["metadata"], entry["download_info"])
        for entry in found
        if "dir_info" not in entry["download_info"]
    ]
    return {package.name: package for package in pinned}


def pin(metadata: dict[str, str], origin: dict[str, object]) -> Pinned:
    """Return an entry of pip's report. An index has a file's hash; a folder of wheels does not."""
    name = re.sub(r"[-_.]+", "-", metadata["name"]).lower()
    archive = origin.get("archive_info")
    hashes = archive.get("hashes", {}) if isinstance(archive, dict) else {}
    sha256 = hashes.get("sha256") or file_hash(name, str(origin["url"]))
    return Pinned(name, metadata["version"], sha256)


def file_hash(name: str, url: str) -> str:
    """Return the SHA-256 of a file on this machine."""
    place = urlparse(url)
    if place.scheme != "file":
        sys.exit(
            f"{name}: the index gives no SHA-256 for {Path(place.path).name}: use one that does"
        )
    with Path(unquote(place.path)).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def without_lower_layers(packages: Packages, below: Packages) -> Packages:
    """Return the packages that no lower layer has. End if one has another version below."""
    moved = [name for name in packages.keys() & below.keys() if packages[name] != below[name]]
    if moved:
        sys.exit(
            f"{', '.join(sorted(moved))}: resolved to one version for a layer and to another for "
            "one above it"
        )
    return {name: package for name, package in packages.items() if name not in below}


def without_left_out(packages: Packages) -> Packages:
    """Return the packages that the image can use. End if LEFT_OUT names one that is not there."""
    stale = sorted(LEFT_OUT.keys() - packages.keys())
    if stale:
        sys.exit(f"{', '.join(stale)}: nothing asks for it any more: remove it from LEFT_OUT")
    return {name: package for name, package in packages.items() if name not in LEFT_OUT}


def write(name: str, what: str, packages: Packages, command: str = "make image-locks") -> None:
    """Write one lock, sorted."""
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    lines = [packages[package].line() for package in sorted(packages)]
    header = HEADER.format(what=what, python=python, command=command)
    (LOCKS / f"{name}.txt").write_text(header + "\n".join(lines) + "\n", encoding="utf-8")
    print(f"{name}.txt: {len(lines)} packages")


if __name__ == "__main__":
    main()
